//! What strategies earn for each joule, over many epochs of the real rules. One of eight validators plays a strategy, the others are
//! honest; what anything costs in energy is assumed here, in proportions that `docs/benchmarks.md` measures.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use std::collections::BTreeMap;

use aria_chain::attestation::{Attestation, Opening, SignedAttestation, Statement, Verdict, VerifiedAttestation};
use aria_chain::ids::{Digest, NodeId};
use aria_chain::record::Stage;
use aria_chain::sobriety::{Hardware, SobrietyAttestation};
use aria_chain::transaction::{Action, VerifiedTransaction};
use aria_chain::units::{Epoch, Height, Microjoules, NanoAria};
use aria_runtime::rules::audit::takes_openings;
use aria_runtime::rules::settle::Settlement;
use aria_runtime::state::{Audit, Phase};
use scenario::{LAYERS, REQUESTER, Scenario, key};

const NODES: u8 = 8;
/// Who plays the strategy, the first of several.
const PLAYER: u8 = 1;
/// What a client pays for an answer: enough for every reward, in nano-ARIA.
const FEE: u64 = 8_000_000;
/// Rounds in which every node answers one request.
const ROUNDS: u64 = 48;
/// Blocks of an epoch: four rounds.
const EPOCH: u64 = 20;
/// Energy of a token on the machines of all, in microjoules. The baseline is 150 mJ, so an honest answer earns 1.25 base rates.
const TOKEN_UJ: u64 = 120_000;
const TOKENS: u64 = 51;
/// An audit takes so much of an answer's energy: the most that was measured.
const AUDIT_PERCENT: u64 = 27;
/// One of so many audits is followed by a look at another auditor's root.
const CHECK_ONE_IN: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    Honest,
    /// Attests "valid" unseen, under a root out of thin air.
    Lazy,
    /// Says nothing of records that it is drawn for.
    Silent,
    /// Says that it got no payload.
    Excuses,
    /// Commits to what another auditor committed to, and cannot open it.
    Copies,
    /// Answers by a model that takes a third of the energy.
    WrongModel,
    /// Claims a quarter of the energy that it takes.
    EnergyLiar,
    /// Claims three quarters of it, which nobody notices.
    SlightEnergyLiar,
    /// Answers, and gives no auditor what it takes to look.
    Withholder,
    /// Asks itself as often as it is asked, and pays so much for it.
    AsksItself(u64),
    /// Three of eight who ask each other so, and audit each other.
    Cartel(u64),
}

impl Strategy {
    fn players(self) -> u8 {
        if matches!(self, Strategy::Cartel(_)) { 3 } else { 1 }
    }
}

/// The network, and what its players spent.
struct World {
    chain: Scenario,
    strategy: Strategy,
    spent_uj: u64,
    /// What its answers are worth, if they are found right.
    promised: u64,
    /// A source of chance that is the same in every run.
    seed: u64,
}

impl World {
    fn new(strategy: Strategy) -> World {
        let mut text = scenario::DEVNET
            .replace("epoch_blocks = 100", &format!("epoch_blocks = {EPOCH}"))
            .replace("audit_blocks = 64", "audit_blocks = 4")
            .replace("challenge_blocks = 16", "challenge_blocks = 1")
            .replace("bond_nano = 1_000_000_000_000", "bond_nano = 5_000_000_000");
        for n in 2..=NODES {
            let id = key(n).node_id();
            text.push_str(&format!(
                "\n[[validators]]\nkey = \"{id}\"\npower = 1\n[[accounts]]\nkey = \"{id}\"\nbalance_nano = 1_000_000_000\nbond_nano = 5_000_000_000\n"
            ));
        }
        text.push_str(&Scenario::requester());
        World { chain: Scenario::new(&text), strategy, spent_uj: 0, promised: 0, seed: 1 }
    }

    fn plays(&self, n: u8, strategy: Strategy) -> bool {
        n == PLAYER && self.strategy == strategy
    }

    fn spend(&mut self, n: u8, percent: u64) {
        if n <= self.strategy.players() {
            self.spent_uj += TOKEN_UJ * TOKENS * percent / 100;
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33).is_multiple_of(one_in)
    }

    /// Money of the players, bonds included.
    fn wealth(&self) -> i128 {
        let account = |n: u8| self.chain.reader().account(&key(n).node_id()).unwrap().unwrap();
        let players = (1..=self.strategy.players()).map(account);
        players.map(|account| i128::from(account.balance.get()) + i128::from(account.bond.get())).sum()
    }

    /// A block with what is due: attestations of all, and these orders.
    fn block(&mut self, answers: bool, orders: Vec<VerifiedTransaction>) {
        let mut proofs = Vec::new();
        if answers {
            proofs.extend((1..=NODES).map(|n| self.answer(n, REQUESTER, FEE)));
            if let Strategy::AsksItself(fee) | Strategy::Cartel(fee) = self.strategy {
                proofs.extend((1..=self.strategy.players()).map(|n| self.answer(n, n, fee)));
            }
        }
        self.chain.attestations = (1..=NODES).flat_map(|n| self.duties(n)).collect();
        self.chain.transactions = orders;
        let is_empty = proofs.is_empty() && self.chain.attestations.is_empty() && self.chain.transactions.is_empty();
        let time = if is_empty { self.chain.after_ms(60_000) } else { self.chain.soon() };
        let (_, executed) = self.chain.advance(time, proofs);
        // The player's answer is the first.
        if let Some(Settlement::Awaiting(earned)) = executed.settlements.first() {
            self.promised += earned.reward.get();
        }
    }

    fn answer(&mut self, n: u8, requester: u8, fee: u64) -> aria_chain::proof::VerifiedProof {
        self.spend(n, if self.plays(n, Strategy::WrongModel) { 33 } else { 100 });
        let claimed = match self.strategy {
            Strategy::EnergyLiar if n == PLAYER => TOKEN_UJ / 4,
            Strategy::SlightEnergyLiar if n == PLAYER => TOKEN_UJ * 3 / 4,
            _ => TOKEN_UJ,
        };
        self.chain.proof(|claim| {
            claim.record.stages = vec![Stage { node_id: key(n).node_id(), layer_start: 0, layer_end: LAYERS }];
            claim.record.energy_uj = Microjoules::new(claimed * TOKENS);
            claim.stage_keys = vec![n];
            claim.requester_key = requester;
            claim.request.max_fee = NanoAria::new(fee);
        })
    }

    /// What is true of a record, or of the root that is in doubt.
    fn truth(&self, audit: &Audit) -> Verdict {
        let is_players = audit.stages.iter().any(|stage| stage.node_id == key(PLAYER).node_id());
        match self.strategy {
            // Only roots of the lazy one are ever doubted.
            _ if audit.phase == Phase::Doubted => Verdict::Invalid,
            Strategy::WrongModel if is_players => Verdict::Invalid,
            Strategy::Withholder if is_players => Verdict::Missing,
            _ => Verdict::Valid,
        }
    }

    /// What a node says now, by height of the records.
    fn duties(&mut self, n: u8) -> Vec<VerifiedAttestation> {
        let (me, next) = (key(n).node_id(), self.chain.tip.height.next().unwrap());
        let (mut commits, mut opens) = (BTreeMap::<Height, Vec<_>>::new(), BTreeMap::<Height, Vec<_>>::new());
        for ((at, index), audit) in self.chain.reader().audits(999).unwrap() {
            let Some(own) = audit.members.iter().find(|member| member.node == me) else { continue };
            if self.plays(n, Strategy::Silent) && audit.phase != Phase::Doubted {
                continue;
            }
            let opening = self.opening(n, &audit);
            let is_open = takes_openings(&audit, at, next, self.chain.genesis.params());
            let copied =
                audit.members.iter().find_map(|member| member.commitment).filter(|_| self.plays(n, Strategy::Copies));
            if own.commitment.is_none() {
                let bound = opening.commitment(self.chain.genesis.chain_id(), &me, &audit.record);
                if !self.plays(n, Strategy::Copies) {
                    self.spend(n, self.effort(n));
                    commits.entry(at).or_default().push((index, bound));
                } else if let Some(copied) = copied {
                    commits.entry(at).or_default().push((index, copied));
                }
            } else if own.verdict.is_none() && is_open && !self.plays(n, Strategy::Copies) {
                opens.entry(at).or_default().push((index, opening));
            }
        }
        let commits = commits.into_iter().map(|(at, items)| (at, Statement::Commit(items)));
        let opens = opens.into_iter().map(|(at, items)| (at, Statement::Open(items)));
        commits.chain(opens).map(|(at, statement)| self.says(n, at, statement)).collect()
    }

    /// Part of an answer's energy that an audit takes, with the look at another's root now and then.
    fn effort(&self, n: u8) -> u64 {
        let guesses = [Strategy::Lazy, Strategy::Excuses].into_iter().any(|strategy| self.plays(n, strategy));
        if guesses { 0 } else { AUDIT_PERCENT + AUDIT_PERCENT.div_ceil(CHECK_ONE_IN) }
    }

    fn opening(&self, n: u8, audit: &Audit) -> Opening {
        let first = key(n).audit_secret(self.chain.genesis.chain_id(), &audit.record);
        let secret = if audit.phase == Phase::Doubted { [first[0]; 32] } else { first };
        let verdict = match self.truth(audit) {
            _ if self.plays(n, Strategy::Excuses) => Verdict::Missing,
            _ if self.plays(n, Strategy::Lazy) => Verdict::Valid,
            truth => truth,
        };
        Opening { secret, verdict, root: Digest::new([n; 32]) }
    }

    fn says(&self, n: u8, at: Height, statement: Statement) -> VerifiedAttestation {
        let chain_id = self.chain.genesis.chain_id();
        let attestation = Attestation { chain_id: chain_id.clone(), auditor: key(n).node_id(), height: at, statement };
        let signature = key(n).sign_attestation(chain_id, &attestation.id());
        SignedAttestation { attestation, signature }.verify(chain_id).unwrap()
    }

    /// Honest auditors look at each other's roots by chance; one doubt for each record at most.
    fn doubts(&mut self) -> Vec<VerifiedTransaction> {
        let player = key(PLAYER).node_id();
        if self.strategy != Strategy::Lazy {
            return Vec::new();
        }
        let tip = self.chain.tip.height.get();
        let mut orders = Vec::new();
        for (at, index) in
            (tip.saturating_sub(8)..=tip).flat_map(|at| (0..u32::from(NODES)).map(move |index| (at, index)))
        {
            let at = Height::new(at);
            let Some(opened) = self.chain.reader().opened(at, index).unwrap() else { continue };
            let is_open = self.chain.reader().audit(at, index).unwrap().is_none();
            if !is_open || !opened.roots.iter().any(|root| root.node == player) {
                continue;
            }
            let others: Vec<NodeId> =
                opened.roots.iter().map(|root| root.node).filter(|node| *node != player).collect();
            let finders: Vec<u8> = (2..=NODES).filter(|n| others.contains(&key(*n).node_id())).collect();
            // Each looks now and then, and then at one of the others.
            let one_in = CHECK_ONE_IN * u64::try_from(others.len()).unwrap();
            let finder = finders.into_iter().find(|_| self.chance(one_in));
            let is_busy = |finder: &u8| orders.iter().any(|(other, _)| other == finder);
            if let Some(finder) = finder.filter(|finder| !is_busy(finder)) {
                let action = Action::Doubt { height: at, index, auditor: player };
                orders.push((finder, self.chain.order(finder, action, |_| {})));
            }
        }
        orders.into_iter().map(|(_, order)| order).collect()
    }

    /// Everybody attests the epoch before.
    fn sobriety(&self) -> Vec<VerifiedTransaction> {
        let next = self.chain.tip.height.next().unwrap().get();
        if !next.is_multiple_of(EPOCH) {
            return Vec::new();
        }
        let epoch = Epoch::new(next / EPOCH - 1);
        let attest = |n: u8| {
            let known = self.chain.reader().sobriety(epoch, &key(n).node_id()).unwrap().measured;
            let hardware = Hardware::new("the same").unwrap();
            let (energy_uj, tokens) = (known.energy_uj, known.tokens);
            let told = SobrietyAttestation { epoch, hardware, energy_uj, tokens, inferences: 4, is_measured: true };
            self.chain.order(n, Action::Sobriety(told), |_| {})
        };
        (1..=NODES).map(attest).collect()
    }
}

/// Nano-ARIA for a joule over the whole run, and what its answers were worth in it.
fn play(strategy: Strategy) -> (f64, u64) {
    let mut world = World::new(strategy);
    let before = world.wealth();
    for _ in 0..ROUNDS {
        for step in 0..5 {
            let mut orders = world.sobriety();
            if orders.is_empty() && step == 0 {
                orders = world.doubts();
            }
            world.block(step == 0, orders);
        }
    }
    // Whatever is still open ends.
    for _ in 0..20 {
        world.block(false, Vec::new());
    }
    let held = world.chain.held();
    assert_eq!(held, world.chain.reader().supply().unwrap().total().unwrap().get(), "{strategy:?}");
    #[expect(clippy::cast_precision_loss, reason = "amounts of a short run")]
    let (gained, joules) = ((world.wealth() - before) as f64, world.spent_uj as f64 / 1e6);
    (gained / joules, world.promised)
}

#[test]
fn honesty_earns_most_for_a_joule() {
    let (honest, promised) = play(Strategy::Honest);
    assert!(honest > 0.0);
    println!("{:<18} {honest:>14.0} nano-ARIA a joule", "Honest");
    let others = [
        Strategy::Lazy,
        Strategy::Silent,
        Strategy::Excuses,
        Strategy::Copies,
        Strategy::WrongModel,
        Strategy::EnergyLiar,
        Strategy::Withholder,
        Strategy::AsksItself(0),
        Strategy::AsksItself(FEE),
        Strategy::Cartel(0),
        Strategy::Cartel(1_000_000),
        Strategy::Cartel(FEE),
    ];
    for strategy in others {
        let (earned, _) = play(strategy);
        println!("{:<18} {earned:>14.0} nano-ARIA a joule", format!("{strategy:?}"));
        assert!(earned < honest, "{strategy:?} earns {earned}, honesty {honest}");
    }
    // What nobody notices brings nothing: who is drawn for whose audits is chance, what answers are worth is not.
    assert_eq!(play(Strategy::SlightEnergyLiar).1, promised);
    assert!(play(Strategy::EnergyLiar).1 < promised);
}
