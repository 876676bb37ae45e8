//! What accounts order: each rule, what moves, and that nothing is lost or made on the way.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use aria_chain::block::ProposedBlock;
use aria_chain::consent::Consent;
use aria_chain::ids::ModelId;
use aria_chain::model::{ModelName, Shape, proposal_id};
use aria_chain::transaction::{Action, Transaction, VerifiedTransaction};
use aria_chain::units::{Height, NanoAria};
use aria_runtime::execute::{BlockFault, ExecuteError, execute};
use aria_runtime::rules::transaction::TransactionFault;
use aria_runtime::state::{Account, StatedConsent};
use proptest::prelude::*;
use scenario::{Scenario, height, key};

/// Fee that every account offers here: the least.
const FEE: u64 = 100_000;
const ARIA: u64 = 1_000_000_000;

fn nano(amount: u64) -> NanoAria {
    NanoAria::new(amount)
}

fn transfer(to: u8, amount: u64) -> Action {
    Action::Transfer { to: key(to).node_id(), amount: nano(amount) }
}

fn account(chain: &Scenario, n: u8) -> Account {
    chain.reader().account(&key(n).node_id()).unwrap().unwrap_or_default()
}

/// A chain in which key 1 is the only validator and key 2 has ten ARIA.
fn chain() -> Scenario {
    Scenario::with(&format!("[[accounts]]\nkey = \"{}\"\nbalance_nano = {}\n", key(2).node_id(), 10 * ARIA))
}

/// Puts orders into the next block.
fn seal(chain: &mut Scenario, orders: Vec<VerifiedTransaction>) {
    chain.transactions = orders;
    chain.advance(chain.soon(), Vec::new());
    chain.transactions.clear();
}

#[test]
fn money_moves_and_half_of_the_fee_burns() {
    let mut chain = chain();
    let (before, proposer) = (chain.held(), account(&chain, 1));
    let order = chain.order(2, transfer(3, 4 * ARIA), |_| {});
    seal(&mut chain, vec![order]);
    assert_eq!(account(&chain, 2), Account { balance: nano(6 * ARIA - FEE), nonce: 1, ..Account::default() });
    assert_eq!(account(&chain, 3), Account { balance: nano(4 * ARIA), ..Account::default() });
    assert_eq!(account(&chain, 1).balance.get(), proposer.balance.get() + FEE / 2);
    assert_eq!((chain.reader().supply().unwrap().burned, chain.held()), (nano(FEE / 2), before - FEE / 2));
    let totals = chain.reader().epoch_totals(aria_chain::units::Epoch::ZERO).unwrap();
    assert_eq!((totals.transactions, totals.fees), (1, nano(FEE)));
}

#[test]
fn a_gift_to_oneself_costs_the_fee() {
    let mut chain = chain();
    let order = chain.order(2, transfer(2, 9 * ARIA), |_| {});
    seal(&mut chain, vec![order]);
    assert_eq!(account(&chain, 2), Account { balance: nano(10 * ARIA - FEE), nonce: 1, ..Account::default() });
}

/// What a test is about.
type Change<'c> = &'c dyn Fn(&mut Transaction);

#[test]
fn every_rule_has_its_fault() {
    let mut chain = chain();
    chain.beat();
    let order = |chain: &Scenario, change: Change<'_>| chain.order(2, transfer(3, ARIA), change);
    let (expiry, now, max) = (height(1), height(2), 20_000);
    let far = Height::new(20_003);
    let (balance, needed) = (nano(10 * ARIA), nano(10 * ARIA + FEE));
    let too_much = TransactionFault::BalanceTooLow { balance, needed };
    let cases: [(Change<'_>, TransactionFault); 8] = [
        (&|order| order.expiry = expiry, TransactionFault::Expired { expiry, height: now }),
        (&|order| order.expiry = far, TransactionFault::ExpiryTooFar { expiry: far, height: now, max }),
        (&|order| order.fee = nano(FEE - 1), TransactionFault::FeeTooLow { fee: nano(FEE - 1), min: FEE }),
        (&|order| order.nonce = 1, TransactionFault::NonceAhead { got: 1, next: 0 }),
        (&|order| order.action = transfer(3, 10 * ARIA), too_much.clone()),
        (&|order| order.action = Action::Bond { amount: balance }, too_much),
        (
            &|order| order.action = Action::Unbond { amount: nano(1) },
            TransactionFault::BondTooLow { bond: NanoAria::ZERO, amount: nano(1) },
        ),
        (&|order| order.action = transfer(3, u64::MAX), TransactionFault::Overflow { quantity: "NanoAria" }),
    ];
    for (change, fault) in cases {
        let order = order(&chain, change);
        chain.refuses(&order, &fault);
    }
    // Who has nothing can pay nothing.
    let poor = chain.order(7, transfer(3, 1), |_| {});
    let fault = TransactionFault::BalanceTooLow { balance: NanoAria::ZERO, needed: nano(FEE + 1) };
    chain.refuses(&poor, &fault);
}

#[test]
fn an_order_counts_once_and_in_its_turn() {
    let mut chain = chain();
    let [first, second] = [0, 1].map(|nonce| chain.order(2, transfer(3, ARIA), |order| order.nonce = nonce));
    seal(&mut chain, vec![first.clone(), second]);
    assert_eq!(account(&chain, 3).balance, nano(2 * ARIA));
    chain.refuses(&first, &TransactionFault::NonceUsed { got: 0, next: 2 });
}

#[test]
fn a_bond_gives_a_candidate_and_comes_back_late() {
    let mut chain = chain();
    let order = chain.order(2, Action::Bond { amount: nano(5 * ARIA) }, |_| {});
    assert!(chain.reader().candidate(&key(2).node_id()).unwrap().is_none());
    seal(&mut chain, vec![order]);
    assert!(chain.reader().candidate(&key(2).node_id()).unwrap().is_some());
    assert_eq!((account(&chain, 2).bond, account(&chain, 2).backing()), (nano(5 * ARIA), nano(5 * ARIA)));

    let order = chain.order(2, Action::Unbond { amount: nano(3 * ARIA) }, |_| {});
    seal(&mut chain, vec![order]);
    let freed = account(&chain, 2);
    assert_eq!(
        (freed.bond, freed.backing(), freed.balance),
        (nano(5 * ARIA), nano(2 * ARIA), nano(5 * ARIA - 2 * FEE))
    );
    let more = chain.order(2, Action::Unbond { amount: nano(2 * ARIA + 1) }, |_| {});
    let fault = TransactionFault::BondTooLow { bond: nano(2 * ARIA), amount: nano(2 * ARIA + 1) };
    chain.refuses(&more, &fault);

    let due = chain.tip.height.get() + chain.genesis.params().unbond_blocks;
    while chain.tip.height.get() + 1 < due {
        chain.beat();
    }
    assert_eq!(account(&chain, 2), freed, "not a block too early");
    chain.beat();
    let paid = account(&chain, 2);
    assert_eq!((paid.bond, paid.unbonding, paid.balance), (nano(2 * ARIA), NanoAria::ZERO, nano(8 * ARIA - 2 * FEE)));
}

#[test]
fn a_consent_is_stated_replaced_and_taken_back() {
    let mut chain = chain();
    let node = key(2).node_id();
    let stated = |chain: &Scenario| chain.reader().consent(&node).unwrap();
    let contract = |cpu_percent| Some(Consent { cpu_percent, ..Consent::default() });
    let order = |chain: &Scenario, contract| chain.order(2, Action::Consent { contract }, |_| {});
    assert_eq!(stated(&chain), None);
    let nothing = order(&chain, None);
    chain.refuses(&nothing, &TransactionFault::NoConsent);

    let first = order(&chain, contract(25));
    seal(&mut chain, vec![first.clone()]);
    let height = chain.tip.height;
    assert_eq!(stated(&chain), Some(StatedConsent { contract: contract(25), revision: 1, height }));
    assert_eq!(account(&chain, 2), Account { balance: nano(10 * ARIA - FEE), nonce: 1, ..Account::default() });
    chain.refuses(&first, &TransactionFault::NonceUsed { got: 0, next: 1 });
    let again = order(&chain, contract(25));
    chain.refuses(&again, &TransactionFault::ConsentUnchanged { revision: 1 });

    // Two in one block count in their order.
    let [second, third] = [(1, contract(50)), (2, None)]
        .map(|(nonce, contract)| chain.order(2, Action::Consent { contract }, |order| order.nonce = nonce));
    seal(&mut chain, vec![second, third]);
    let height = chain.tip.height;
    assert_eq!(stated(&chain), Some(StatedConsent { contract: None, revision: 3, height }));
    let twice = order(&chain, None);
    chain.refuses(&twice, &TransactionFault::NoConsent);
    let back = order(&chain, contract(50));
    seal(&mut chain, vec![back]);
    assert_eq!(stated(&chain).map(|stated| stated.revision), Some(4), "a revision never returns");

    // It costs its fee, and it is the sender's alone.
    let poor = chain.order(7, Action::Consent { contract: contract(25) }, |_| {});
    let fault = TransactionFault::BalanceTooLow { balance: NanoAria::ZERO, needed: nano(FEE) };
    chain.refuses(&poor, &fault);
    assert_eq!(chain.reader().consent(&key(1).node_id()), Ok(None));
}

/// One order of a random history.
#[derive(Clone, Copy, Debug)]
struct Step {
    from: u8,
    to: u8,
    kind: u8,
    amount: u64,
    fee: u64,
    closes: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let amounts = prop_oneof![0_u64..20 * ARIA, 1_u64..5, Just(u64::MAX)];
    (1_u8..6, 1_u8..6, 0_u8..7, amounts, 0_u64..3 * FEE, any::<bool>())
        .prop_map(|(from, to, kind, amount, fee, closes)| Step { from, to, kind, amount: amount.max(1), fee, closes })
}

const SHAPE: Shape = Shape { layers: 6, dim: 512, ffn: 1_024, heads: 8, kv_heads: 4, head_dim: 64, vocab: 8_192 };

/// A model that genesis does not know. All of these want one name, which only one can get.
fn model(n: u8) -> ModelId {
    ModelId::new([n; 32])
}

fn name() -> ModelName {
    ModelName::new("new").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is ordered, by whoever and in whatever order: what all accounts hold is what genesis gave and rewards issued, less
    /// what was burned; and the state is the same for who proposes and who executes.
    #[test]
    fn the_supply_is_conserved_to_the_last_unit(steps in prop::collection::vec(step(), 1..60)) {
        let mut chain = Scenario::new(&scenario::DEVNET
            .replace("epoch_blocks = 100", "epoch_blocks = 3")
            .replace("audit_blocks = 64", "audit_blocks = 1")
            .replace("challenge_blocks = 16", "challenge_blocks = 1")
            .replace("unbond_blocks = 1_000", "unbond_blocks = 7"));
        for Step { from, to, kind, amount, fee, closes } in steps {
            let amount = nano(amount);
            let action = match kind {
                0 => transfer(to, amount.get()),
                1 => Action::Bond { amount },
                2 => Action::Unbond { amount },
                3 => Action::Consent { contract: None },
                4 => Action::Consent { contract: Some(Consent { cpu_percent: to, ..Consent::default() }) },
                5 => Action::RegisterModel { model: model(to), name: name(), shape: SHAPE },
                _ => Action::ConfirmModel { model: model(to), proposal: proposal_id(&model(to), &name(), &SHAPE) },
            };
            let order = chain.order(from, action, |order| order.fee = nano(fee));
            chain.transactions.push(order);
            if closes {
                let proofs = vec![chain.proof(|_| {})];
                let proposal = chain.propose(chain.soon(), proofs).unwrap();
                let (block, executed) = proposal.block.unwrap();
                let digits = chain.genesis.params().stamp_zero_digits;
                let chain_id = chain.genesis.chain_id().clone();
                let again = ProposedBlock::check(block.header().clone(), block.body(), &chain_id, digits).unwrap();
                let again = execute(&again, &chain.tip, &chain.state, &chain.genesis);
                prop_assert_eq!(again.as_ref(), Ok(&executed));
                chain.state.apply(&executed.changes.entries);
                chain.tip = block.header().clone();
                chain.transactions.clear();
                prop_assert_eq!(executed.changes.state_root, chain.state.full_root());
                let supply = chain.reader().supply().unwrap();
                prop_assert_eq!(chain.held(), supply.genesis.get() + supply.issued.get() - supply.burned.get());
                for (_, account) in chain.reader().accounts(usize::MAX).unwrap() {
                    prop_assert!(account.unbonding <= account.bond);
                }
                let models = chain.reader().models(9).unwrap();
                prop_assert!(models.iter().filter(|(_, model)| model.name == "new").count() <= 1);
            }
        }
    }
}

/// A part of a payload that nobody asked for, so long that it takes twelve places.
fn long(chain: &Scenario, from: u8) -> VerifiedTransaction {
    let (at, sealed) = (height(1), vec![1; 3_584]);
    chain.order(from, Action::Deliver { height: at, index: 0, part: 0, parts: 1, sealed }, |_| {})
}

#[test]
fn each_place_in_a_block_has_its_price_and_there_are_so_many() {
    let mut chain = chain();
    let dear = long(&chain, 1);
    assert_eq!((dear.places(), dear.transaction().fee), (12, nano(12 * FEE)));
    let order = chain.order(1, dear.transaction().action.clone(), |order| order.fee = nano(12 * FEE - 1));
    chain.refuses(&order, &TransactionFault::FeeTooLow { fee: nano(12 * FEE - 1), min: 12 * FEE });

    let narrow = scenario::DEVNET.replace("transactions_per_block_max = 256", "transactions_per_block_max = 2");
    let mut chain = Scenario::new(&narrow);
    let three = (0..3).map(|nonce| chain.order(1, transfer(2, 5), |order| order.nonce = nonce)).collect::<Vec<_>>();
    chain.transactions = three.clone();
    let (block, _) = chain.propose(chain.soon(), Vec::new()).unwrap().block.unwrap();
    assert_eq!(block.transactions(), &three[..2], "the third waits for the next block");
    let full = |got| Err(ExecuteError::Invalid(BlockFault::TooManyTransactions { got, max: 2 }));
    assert_eq!(chain.execute(chain.draft(chain.soon()), Vec::new()), full(3));
    chain.transactions = vec![long(&chain, 1), chain.order(1, transfer(2, 5), |order| order.nonce = 1)];
    assert_eq!(chain.execute(chain.draft(chain.soon()), Vec::new()), full(13));
}
