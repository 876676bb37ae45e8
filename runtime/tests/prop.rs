//! Properties over random histories: money is conserved, nothing is credited twice, the same history gives the same
//! state, and the incremental root is the full one.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use aria_chain::proof::VerifiedProof;
use aria_chain::record::{BackendClass, EnergySource, Stage};
use aria_chain::units::{Epoch, Microjoules, Millis};
use aria_runtime::fixed::Fixed;
use aria_runtime::reward::{Effort, efficiency, quality, reward};
use aria_runtime::rules::settle::Settlement;
use aria_runtime::work::stage_share;
use proptest::prelude::*;
use scenario::{LAYERS, Scenario, key};

/// One record of a random history.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Where the layers are cut between two nodes; 0 leaves all to the second.
    cut: u16,
    tokens: u32,
    prompt: u32,
    energy_uj: u64,
    latency_ms: u64,
    is_measured: bool,
    is_canonical: bool,
    /// Send an earlier proof again instead.
    repeats: bool,
    /// Close the block after this record.
    closes: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let claims = (0..=LAYERS, 0_u32..500, 1_u32..500, 0_u64..100_000_000, 0_u64..10_000);
    (claims, any::<[bool; 2]>(), prop::bool::weighted(0.2), prop::bool::weighted(0.4)).prop_map(
        |((cut, tokens, prompt, energy_uj, latency_ms), [is_measured, is_canonical], repeats, closes)| Step {
            cut,
            tokens,
            prompt,
            energy_uj,
            latency_ms,
            is_measured,
            is_canonical,
            repeats,
            closes,
        },
    )
}

fn chain() -> Scenario {
    Scenario::with(&format!("[[accounts]]\nkey = \"{}\"\nbalance_nano = 77\n", key(2).node_id()))
}

fn proof_of(step: Step, chain: &mut Scenario) -> VerifiedProof {
    chain.proof(|claim| {
        let stage = |n: u8, layer_start, layer_end| Stage { node_id: key(n).node_id(), layer_start, layer_end };
        let whole = [(1, stage(1, 0, step.cut)), (2, stage(2, step.cut, LAYERS))];
        let stages = whole.into_iter().filter(|(_, stage)| stage.layer_start < stage.layer_end);
        (claim.stage_keys, claim.record.stages) = stages.unzip();
        claim.record.tokens_generated = step.tokens;
        claim.record.prompt_tokens = step.prompt;
        claim.record.energy_uj = Microjoules::new(step.energy_uj);
        claim.record.latency_ms = Millis::new(step.latency_ms);
        claim.record.first_token_ms = Millis::new(step.latency_ms / 2);
        if !step.is_measured {
            claim.record.energy_source = EnergySource::Estimated;
        }
        if !step.is_canonical {
            claim.record.backend = BackendClass::External;
            claim.record.transcript_root = aria_chain::ids::Digest::ZERO;
        }
    })
}

/// What a history was paid and credited, by its settlements.
#[derive(Default)]
struct Ledger {
    rewards: u64,
    work: u64,
    included: u64,
}

/// Plays a history; a repeated proof must be skipped. Checks the root after every block.
fn play(steps: &[Step]) -> (Scenario, Ledger) {
    let (mut chain, mut ledger) = (chain(), Ledger::default());
    let (mut waiting, mut sent): (Vec<VerifiedProof>, Vec<VerifiedProof>) = (Vec::new(), Vec::new());
    let mut repeats = 0;
    for step in steps {
        match sent.last() {
            Some(earlier) if step.repeats => {
                waiting.push(earlier.clone());
                repeats += 1;
            }
            _ => {
                let proof = proof_of(*step, &mut chain);
                sent.push(proof.clone());
                waiting.push(proof);
            }
        }
        if step.closes {
            let proposal = chain.propose(chain.soon(), std::mem::take(&mut waiting)).unwrap();
            assert_eq!(proposal.skipped.len(), std::mem::take(&mut repeats));
            let Some((block, executed)) = proposal.block else {
                continue;
            };
            let again = chain.execute(chain.draft(chain.soon()), block.proofs().to_vec()).unwrap();
            assert_eq!(again, executed);
            for settlement in &executed.settlements {
                ledger.included += 1;
                if let Settlement::SelfAudited(earned) = settlement {
                    ledger.work += earned.work.get();
                    ledger.rewards += earned.reward.get();
                }
            }
            chain.state.apply(&executed.changes.entries);
            chain.tip = block.header().clone();
            assert_eq!(executed.changes.state_root, chain.state.full_root());
        }
    }
    (chain, ledger)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn money_is_conserved_and_nothing_is_credited_twice(steps in prop::collection::vec(step(), 1..24)) {
        let (chain, ledger) = play(&steps);
        let supply = chain.reader().supply().unwrap();
        prop_assert_eq!(supply.issued.get(), ledger.rewards);
        prop_assert_eq!(chain.held(), supply.genesis.get() + supply.issued.get());
        let accounts = chain.reader().accounts(10).unwrap();
        let paid: u64 = accounts.iter().map(|(_, account)| account.rewards_total.get()).sum();
        prop_assert_eq!(paid, ledger.rewards);

        let done = chain.reader().work_of_epoch(Epoch::ZERO, 10).unwrap();
        let work: u64 = done.iter().map(|(_, work)| work.served.get()).sum();
        prop_assert_eq!(work, ledger.work);
        let totals = chain.reader().epoch_totals(Epoch::ZERO).unwrap();
        prop_assert_eq!(totals.work.get(), ledger.work);
        prop_assert_eq!(totals.rewards.get(), ledger.rewards);
        prop_assert_eq!(totals.records, ledger.included);
        prop_assert_eq!(totals.blocks, chain.tip.height.get());
    }

    #[test]
    fn the_same_history_gives_the_same_chain(steps in prop::collection::vec(step(), 1..12)) {
        let ((one, _), (two, _)) = (play(&steps), play(&steps));
        prop_assert_eq!(one.tip.hash(), two.tip.hash());
        prop_assert_eq!(one.state, two.state);
    }

    #[test]
    fn shares_of_any_plan_add_up(whole: u64, mut cuts in prop::collection::vec(0_u16..200, 0..8), layers in 200_u16..400) {
        cuts.extend([0, layers]);
        cuts.sort_unstable();
        let shares = cuts.windows(2).map(|cut| u128::from(stage_share(whole, cut[0], cut[1], layers)));
        prop_assert_eq!(shares.sum::<u128>(), u128::from(whole));
    }

    #[test]
    fn rewards_stay_within_their_bounds(
        tokens: u64, first_token_ms: u64, latency_ms: u64, energy_uj: u64, is_measured: bool, ops: u64,
    ) {
        let params = chain().genesis.params().clone();
        let effort = Effort { tokens, first_token_ms, latency_ms, energy_uj, is_measured, is_vouched: true, ops };
        prop_assert!(quality(&effort, &params) <= Fixed::ONE);
        let factor = efficiency(&effort, &params);
        let most = if is_measured { 2_000_000 } else { 1_000_000 };
        prop_assert!(factor >= Fixed::from_ppm(500_000) && factor <= Fixed::from_ppm(most));
        prop_assert!(reward(&effort, &params).get() <= 2_000_000);
    }

    #[test]
    fn slower_or_hungrier_never_earns_more(
        tokens in 1_u64..5_000, latency_ms in 0_u64..20_000, energy_uj in 1_u64..1_000_000_000, more in 0_u64..10_000,
    ) {
        let params = chain().genesis.params().clone();
        let effort = Effort { tokens, first_token_ms: 0, latency_ms, energy_uj, is_measured: true, is_vouched: true, ops: 0 };
        let slower = Effort { latency_ms: latency_ms + more, ..effort };
        let hungrier = Effort { energy_uj: energy_uj + more, ..effort };
        prop_assert!(reward(&slower, &params) <= reward(&effort, &params));
        prop_assert!(reward(&hungrier, &params) <= reward(&effort, &params));
    }
}
