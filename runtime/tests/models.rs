//! Models that transactions register: who decides, what it costs, when records of them earn, and what a lie comes to.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use std::collections::BTreeSet;

use aria_chain::evidence::{Evidence, Said};
use aria_chain::ids::{BlockHash, ModelId};
use aria_chain::limits::MODEL_PROPOSALS_MAX;
use aria_chain::model::{ModelName, Shape, proposal_id};
use aria_chain::transaction::Action;
use aria_chain::units::{Epoch, Height, NanoAria};
use aria_runtime::propose::check_orderable;
use aria_runtime::rules::model::{ModelFault, confirmed_power};
use aria_runtime::rules::settle::{Settlement, Unsettled};
use aria_runtime::rules::transaction::{OrderError, TransactionFault};
use aria_runtime::state::Model;
use proptest::prelude::*;
use scenario::{LAYERS, Scenario, height, key};

const ARIA: u64 = 1_000_000_000;
/// Fee that every account offers here: the least.
const FEE: u64 = 100_000;
/// What a registration burns besides.
const MODEL_FEE: u64 = 10_000 * FEE;

/// A model that genesis does not know, and its true shape.
const MODEL: ModelId = ModelId::new([42; 32]);
const SHAPE: Shape = Shape { layers: LAYERS, dim: 512, ffn: 1_024, heads: 8, kv_heads: 4, head_dim: 64, vocab: 8_192 };
/// What somebody says who wants to be credited with more work than it does.
const INFLATED: Shape = Shape { dim: 8_192, ..SHAPE };

/// Keys 1 to `voters` vote with equal power; key 7 has money and no vote.
fn chain_of(voters: u8, replace: &[(&str, &str)]) -> Scenario {
    let mut text = scenario::DEVNET.to_owned();
    for (old, new) in replace {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, new);
    }
    let validator = |n| format!("\n[[validators]]\nkey = \"{}\"\npower = 1\n{}", key(n).node_id(), account(n, 1_000));
    text.extend((2..=voters).map(validator));
    Scenario::new(&(text + "\n" + &account(7, 0)))
}

fn account(n: u8, bond: u64) -> String {
    let (id, balance, bond) = (key(n).node_id(), 1_000 * ARIA, bond * ARIA);
    format!("[[accounts]]\nkey = \"{id}\"\nbalance_nano = {balance}\nbond_nano = {bond}\n")
}

fn named(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

fn register(model: ModelId, name: &str, shape: Shape) -> Action {
    Action::RegisterModel { model, name: named(name), shape }
}

fn confirm(model: ModelId, name: &str, shape: Shape) -> Action {
    Action::ConfirmModel { model, proposal: proposal_id(&model, &named(name), &shape) }
}

/// Puts orders into the next block, one of each of these keys.
fn seal(chain: &mut Scenario, orders: &[(u8, Action)]) {
    chain.transactions = orders.iter().map(|(n, action)| chain.order(*n, action.clone(), |_| {})).collect();
    chain.advance(chain.soon(), Vec::new());
    chain.transactions.clear();
}

/// An order is refused with this fault, by who proposes, who asks and who executes.
#[track_caller]
fn refused(chain: &mut Scenario, n: u8, action: Action, fault: impl Into<TransactionFault>) {
    let order = chain.order(n, action, |_| {});
    chain.refuses(&order, &fault.into());
}

fn confirmed(chain: &Scenario, name: &str, shape: Shape) -> Option<usize> {
    let proposal = proposal_id(&MODEL, &named(name), &shape);
    let found = chain.reader().model_proposal(&MODEL, &proposal).unwrap();
    found.map(|found| found.confirmed_by.len())
}

fn registered(chain: &Scenario) -> Option<Model> {
    chain.reader().model(&MODEL).unwrap()
}

/// How a record of the model would settle in the next block, which has it.
fn answered(chain: &mut Scenario) -> Settlement {
    let proof = chain.proof(|claim| claim.request.model_id = MODEL);
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);
    executed.settlements[0]
}

fn burned(chain: &Scenario) -> u64 {
    let supply = chain.reader().supply().unwrap();
    assert_eq!(chain.held(), supply.genesis.get() + supply.issued.get() - supply.burned.get());
    supply.burned.get()
}

#[test]
fn a_model_earns_once_more_than_two_thirds_confirmed_its_shape() {
    let mut chain = chain_of(4, &[]);
    let unpaid = Settlement::Included(Unsettled::ModelNotRegistered);
    assert_eq!(answered(&mut chain), unpaid);
    seal(&mut chain, &[(7, register(MODEL, "new", SHAPE))]);
    let left = chain.reader().account(&key(7).node_id()).unwrap().unwrap();
    assert_eq!(left.balance.get(), 1_000 * ARIA - FEE - MODEL_FEE);
    assert_eq!(burned(&chain), FEE / 2 + MODEL_FEE, "the price is burned whole, the fee by half");
    assert_eq!(chain.reader().epoch_totals(Epoch::ZERO).unwrap().fees.get(), FEE + MODEL_FEE);
    assert_eq!((confirmed(&chain, "new", SHAPE), answered(&mut chain)), (Some(0), unpaid));

    seal(&mut chain, &[(1, confirm(MODEL, "new", SHAPE)), (2, confirm(MODEL, "new", SHAPE))]);
    let ((model, _), proposal) = chain.reader().model_proposals(9).unwrap().remove(0);
    let voters = chain.voters().set;
    assert_eq!((model, confirmed_power(&proposal, &voters)), (MODEL, voters.total_power() / 2));
    assert_eq!((registered(&chain), answered(&mut chain)), (None, unpaid), "half is not enough");

    seal(&mut chain, &[(3, confirm(MODEL, "new", SHAPE))]);
    assert_eq!(registered(&chain), Some(Model { name: "new".into(), shape: SHAPE }));
    assert_eq!(chain.reader().model_of_name("new"), Ok(Some(MODEL)));
    assert_eq!(chain.reader().model_proposals(9).unwrap(), []);
    // Who agrees too late pays its fee and changes nothing, and its account goes on with the next number.
    let before = chain.reader().models(9).unwrap();
    seal(&mut chain, &[(4, confirm(MODEL, "new", SHAPE))]);
    assert_eq!((chain.reader().models(9).unwrap(), chain.reader().model_proposals(9).unwrap()), (before, vec![]));
    assert_eq!(chain.reader().account(&key(4).node_id()).unwrap().unwrap().nonce, 1);
    let Settlement::Awaiting(earned) = answered(&mut chain) else { panic!("it earns") };
    // 51 generated tokens and 20 of the prompt.
    assert_eq!(earned.work.get(), 71 * SHAPE.ops_per_token().unwrap());
    assert_eq!(burned(&chain), FEE / 2 * 5 + MODEL_FEE);
}

#[test]
fn a_voter_that_is_alone_decides_alone() {
    let mut chain = chain_of(1, &[]);
    seal(&mut chain, &[(1, register(MODEL, "own", SHAPE))]);
    assert_eq!(registered(&chain), None, "to propose is not to confirm");
    seal(&mut chain, &[(1, confirm(MODEL, "own", SHAPE))]);
    assert!(registered(&chain).is_some());
    assert!(matches!(answered(&mut chain), Settlement::SelfAudited { .. }));
}

#[test]
fn a_false_shape_is_not_registered_and_stands_in_nobodys_way() {
    let mut chain = chain_of(4, &[]);
    assert!(INFLATED.ops_per_token().unwrap() > 10 * SHAPE.ops_per_token().unwrap());
    seal(&mut chain, &[(7, register(MODEL, "new", INFLATED))]);
    seal(&mut chain, &[(1, confirm(MODEL, "new", INFLATED))]);
    let unpaid = Settlement::Included(Unsettled::ModelNotRegistered);
    assert_eq!((registered(&chain), answered(&mut chain)), (None, unpaid));
    // Same digest and same name: what is true beside what is not.
    seal(&mut chain, &[(2, register(MODEL, "new", SHAPE))]);
    seal(&mut chain, &[2, 3, 4].map(|n| (n, confirm(MODEL, "new", SHAPE))));
    assert_eq!(registered(&chain).map(|model| model.shape), Some(SHAPE));
    assert_eq!(confirmed(&chain, "new", INFLATED), None, "the lie is gone");
    let fault = ModelFault::Registered { model: MODEL, name: "new".into() };
    refused(&mut chain, 4, confirm(MODEL, "new", INFLATED), fault.clone());
    refused(&mut chain, 7, register(MODEL, "other", INFLATED), fault);
}

#[test]
fn every_rule_about_models_has_its_fault() {
    let mut chain = chain_of(4, &[]);
    let (lone, known) = (ModelId::new([43; 32]), chain.model());
    let proposal = proposal_id(&MODEL, &named("new"), &SHAPE);
    let nothing = ModelFault::NotProposed { model: MODEL, proposal };
    refused(&mut chain, 1, confirm(MODEL, "new", SHAPE), nothing);
    let fault = ModelFault::Registered { model: known, name: "aria-tiny".into() };
    refused(&mut chain, 7, register(known, "new", SHAPE), fault);
    let fault = ModelFault::NameTaken { name: "aria-tiny".into(), model: known };
    refused(&mut chain, 7, register(MODEL, "aria-tiny", SHAPE), fault);
    // Who cannot pay the price is told so before anything else is looked at.
    let balance = NanoAria::new(ARIA);
    let spend = Action::Transfer { to: key(1).node_id(), amount: NanoAria::new(999 * ARIA - FEE) };
    seal(&mut chain, &[(7, spend)]);
    let fault = TransactionFault::BalanceTooLow { balance, needed: NanoAria::new(FEE + MODEL_FEE) };
    refused(&mut chain, 7, register(known, "aria-tiny", SHAPE), fault);

    seal(&mut chain, &[(1, register(MODEL, "new", SHAPE)), (2, register(lone, "new", SHAPE))]);
    let ends = Height::new(chain.tip.height.get() + chain.genesis.params().unbond_blocks);
    refused(&mut chain, 3, register(MODEL, "new", SHAPE), ModelFault::Proposed { model: MODEL, proposal, ends });
    refused(&mut chain, 7, confirm(MODEL, "new", SHAPE), ModelFault::NotVoter { node: key(7).node_id() });
    seal(&mut chain, &[(1, confirm(MODEL, "new", SHAPE))]);
    let twice = ModelFault::Confirmed { node: key(1).node_id(), proposal };
    refused(&mut chain, 1, confirm(MODEL, "new", SHAPE), twice);
    seal(&mut chain, &[2, 3].map(|n| (n, confirm(MODEL, "new", SHAPE))));
    // Two wanted one name; it is that of the first to be confirmed.
    let taken = ModelFault::NameTaken { name: "new".into(), model: MODEL };
    refused(&mut chain, 1, confirm(lone, "new", SHAPE), taken.clone());
    refused(&mut chain, 2, register(lone, "new", INFLATED), taken);
}

#[test]
fn a_proposal_ends_and_may_be_made_again() {
    let mut chain = chain_of(
        4,
        &[
            ("unbond_blocks = 1_000", "unbond_blocks = 10"),
            ("epoch_blocks = 100", "epoch_blocks = 4"),
            ("audit_blocks = 64", "audit_blocks = 1"),
            ("challenge_blocks = 16", "challenge_blocks = 1"),
        ],
    );
    seal(&mut chain, &[(7, register(MODEL, "new", SHAPE))]);
    seal(&mut chain, &[1, 2].map(|n| (n, confirm(MODEL, "new", SHAPE))));
    while chain.tip.height < height(10) {
        chain.beat();
    }
    assert_eq!(confirmed(&chain, "new", SHAPE), Some(2));
    // Block 11 may still have it; the next one may not.
    let last = chain.order(3, confirm(MODEL, "new", SHAPE), |_| {});
    assert_eq!(check_orderable(&chain.tip, chain.soon(), &[last], &chain.state, &chain.genesis), Ok(()));
    chain.beat();
    let nothing = ModelFault::NotProposed { model: MODEL, proposal: proposal_id(&MODEL, &named("new"), &SHAPE) };
    refused(&mut chain, 3, confirm(MODEL, "new", SHAPE), nothing);
    chain.beat();
    assert_eq!((chain.tip.height, confirmed(&chain, "new", SHAPE)), (height(12), None), "an epoch began");
    seal(&mut chain, &[(7, register(MODEL, "new", SHAPE))]);
    assert_eq!(confirmed(&chain, "new", SHAPE), Some(0), "who confirmed the one before did not confirm this one");
}

#[test]
fn proposals_are_few_and_make_room_when_they_end() {
    let mut chain = chain_of(
        1,
        &[
            ("unbond_blocks = 1_000", "unbond_blocks = 200"),
            ("audit_blocks = 64", "audit_blocks = 16"),
            ("challenge_blocks = 16", "challenge_blocks = 4"),
        ],
    );
    let propose = |chain: &Scenario, n: usize| {
        let model = ModelId::new([u8::try_from(n % 256).unwrap(), 1].repeat(16).try_into().unwrap());
        chain.order(1, register(model, &format!("m{n}"), SHAPE), |order| order.nonce = u64::try_from(n).unwrap())
    };
    for first in (0..MODEL_PROPOSALS_MAX).step_by(128) {
        chain.transactions = (first..first + 128).map(|n| propose(&chain, n)).collect();
        chain.advance(chain.soon(), Vec::new());
    }
    chain.transactions.clear();
    refused(&mut chain, 1, register(MODEL, "new", SHAPE), ModelFault::TooManyProposals);
    while chain.tip.height < height(201) {
        chain.beat();
    }
    // The first half has ended, and the block that takes another forgets it.
    seal(&mut chain, &[(1, register(MODEL, "new", SHAPE))]);
    assert_eq!(chain.reader().model_proposals(1_000).unwrap().len(), MODEL_PROPOSALS_MAX / 2 + 1);
}

/// Key `n` precommits to two blocks of one round.
fn equivocation(chain: &Scenario, n: u8) -> Evidence {
    let (key, id, at, round) = (key(n), chain.genesis.chain_id(), chain.tip.height, chain.round);
    let vote = |byte: u8| {
        let block = BlockHash::new([byte; 32]);
        (Said::Precommit(Some(block)), key.sign_precommit(id, at, round, &block))
    };
    Evidence::new(key.node_id(), at, round, vote(1), vote(2))
}

/// Key `n` is accused, and blocks follow until it votes no more.
fn exclude(chain: &mut Scenario, n: u8) {
    chain.evidence = vec![equivocation(chain, n)];
    chain.advance(chain.soon(), Vec::new());
    chain.evidence.clear();
    while chain.voters().set.power_of(&key(n).node_id()) > 0 {
        assert_eq!(registered(chain), None);
        chain.beat();
    }
}

#[test]
fn only_who_votes_now_counts() {
    let mut chain = chain_of(5, &[("epoch_blocks = 100", "epoch_blocks = 8")]);
    seal(&mut chain, &[(7, register(MODEL, "new", SHAPE))]);
    seal(&mut chain, &[(7, register(MODEL, "other", SHAPE))]);
    // Three of five are less than two thirds, three of four are more.
    seal(&mut chain, &[1, 2, 3].map(|n| (n, confirm(MODEL, "new", SHAPE))));
    seal(&mut chain, &[(5, confirm(MODEL, "other", SHAPE))]);
    assert_eq!(registered(&chain), None);
    // When the others vote without the fifth, the three are enough, and nobody has to say anything.
    exclude(&mut chain, 5);
    chain.beat();
    assert_eq!(registered(&chain).map(|model| model.name), Some("new".into()));
    assert_eq!((confirmed(&chain, "other", SHAPE), chain.reader().model_of_name("other")), (None, Ok(None)));
}

#[test]
fn who_votes_no_more_is_struck_from_the_list() {
    let mut chain = chain_of(5, &[("epoch_blocks = 100", "epoch_blocks = 8")]);
    seal(&mut chain, &[(7, register(MODEL, "new", SHAPE))]);
    seal(&mut chain, &[(5, confirm(MODEL, "new", SHAPE))]);
    exclude(&mut chain, 5);
    seal(&mut chain, &[(1, confirm(MODEL, "new", SHAPE))]);
    let proposal = proposal_id(&MODEL, &named("new"), &SHAPE);
    let entry = chain.reader().model_proposal(&MODEL, &proposal).unwrap().unwrap();
    assert_eq!(entry.confirmed_by, [key(1).node_id()], "the entry never holds more than those who vote");
    let gone = chain.order(5, confirm(MODEL, "new", SHAPE), |_| {});
    let fault = OrderError::Fault(ModelFault::NotVoter { node: key(5).node_id() }.into());
    assert_eq!(check_orderable(&chain.tip, chain.soon(), &[gone], &chain.state, &chain.genesis), Err(fault));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// One of four voters lies as it likes, the others confirm what is true, all in any order and again and again: what is
    /// registered has the true shape, and at least three stood behind it.
    #[test]
    fn no_quarter_of_the_power_registers_a_false_shape(
        steps in prop::collection::vec((1_u8..5, any::<[bool; 4]>()), 1..80),
    ) {
        let mut chain = chain_of(4, &[
            ("unbond_blocks = 1_000", "unbond_blocks = 10"),
            ("epoch_blocks = 100", "epoch_blocks = 4"),
            ("audit_blocks = 64", "audit_blocks = 1"),
("challenge_blocks = 16", "challenge_blocks = 1"),
        ]);
        let mut voices = BTreeSet::new();
        for (n, [is_proposal, is_false, is_second_name, closes]) in steps {
            let shape = if is_false && (n == 1 || is_proposal) { INFLATED } else { SHAPE };
            let name = if is_second_name { "two" } else { "one" };
            let action = if is_proposal { register(MODEL, name, shape) } else { confirm(MODEL, name, shape) };
            let order = chain.order(n, action, |_| {});
            chain.transactions.push(order);
            if closes {
                let proposal = chain.propose(chain.soon(), Vec::new()).unwrap();
                chain.transactions.clear();
                let Some((block, executed)) = proposal.block else { continue };
                for order in block.transactions() {
                    if let Action::ConfirmModel { proposal, .. } = order.transaction().action {
                        voices.insert((proposal, order.transaction().sender));
                    }
                }
                chain.state.apply(&executed.changes.entries);
                chain.tip = block.header().clone();
                prop_assert_eq!(executed.changes.state_root, chain.state.full_root());
            }
        }
        burned(&chain);
        if let Some(model) = registered(&chain) {
            prop_assert_eq!(model.shape, SHAPE);
            let proposal = proposal_id(&MODEL, &named(&model.name), &SHAPE);
            prop_assert!(voices.iter().filter(|(said, _)| *said == proposal).count() >= 3);
            prop_assert_eq!(chain.reader().model_proposals(9).unwrap(), vec![]);
        }
    }
}
