//! The rules of a block in the context of its parent and state: one test per error variant, and how records settle.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use aria_chain::block::ProposedBlock;
use aria_chain::ids::{BlockHash, ChainId, Digest, ModelId};
use aria_chain::record::{BackendClass, EnergySource, RecordStatus, Stage};
use aria_chain::request::AuditMode;
use aria_chain::store::StateEntry;
use aria_chain::units::{Epoch, Microjoules, Millis, NanoAria, Round, Timestamp, WorkUnits};
use aria_runtime::execute::{BlockFault, ExecuteError, check_clock, execute};
use aria_runtime::propose::ProposeError;
use aria_runtime::rules::record::RecordFault;
use aria_runtime::rules::settle::{Earned, Settlement, Unsettled};
use aria_runtime::state::{MemoryState, ReadError, Sobriety, Spent, StateError, View, Work, key as state_key};
use scenario::{LAYERS, REQUESTER, Scenario, Unsigned, height, key};

/// Operations of one token of the registered model.
const OPS: u64 = 11_534_336;

/// An account for key `n`, for a genesis file.
fn account(n: u8) -> String {
    format!("[[accounts]]\nkey = \"{}\"\nbalance_nano = 5\n", key(n).node_id())
}

/// A record with one change is refused with this fault, by the proposer's side and by execution.
#[track_caller]
fn refused(change: impl FnOnce(&mut Unsigned), expected: &RecordFault) {
    let mut chain = Scenario::devnet();
    let proof = chain.proof(change);
    refused_on(&chain, proof, expected);
}

#[track_caller]
fn refused_on(chain: &Scenario, proof: aria_chain::proof::VerifiedProof, expected: &RecordFault) {
    let record = proof.record_id();
    let proposal = chain.propose(chain.soon(), vec![proof.clone()]).unwrap();
    assert_eq!(proposal.skipped, [(record, expected.clone())]);
    assert!(proposal.block.is_none());
    let fault = BlockFault::Record { index: 0, record, fault: expected.clone() };
    assert_eq!(chain.execute(chain.draft(chain.soon()), vec![proof]), Err(ExecuteError::Invalid(fault)));
}

/// A block with one change to its draft is invalid with this fault.
#[track_caller]
fn invalid(change: impl FnOnce(&mut aria_chain::block::Draft), expected: BlockFault) {
    let mut chain = Scenario::devnet();
    let proof = chain.proof(|_| {});
    let mut draft = chain.draft(chain.soon());
    change(&mut draft);
    assert_eq!(chain.execute(draft, vec![proof]), Err(ExecuteError::Invalid(expected)));
}

#[test]
fn a_right_block_is_valid() {
    let mut chain = Scenario::devnet();
    let proof = chain.proof(|_| {});
    let record = proof.record_id();
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);
    assert_eq!(executed.changes.statuses, [(record, RecordStatus::SelfAudited)]);
    assert_eq!(executed.changes.state_root, chain.state.full_root());
    assert_eq!(chain.tip.height, height(1));
}

// The block.

#[test]
fn rule_1_chain() {
    let other = ChainId::new("other").unwrap();
    let ours = Scenario::devnet().genesis.chain_id().clone();
    invalid(|draft| draft.chain_id = other.clone(), BlockFault::Chain { got: other.clone(), expected: ours });
}

#[test]
fn rule_1_stamp() {
    let mut chain = Scenario::devnet();
    let proof = chain.proof(|_| {});
    // Sealed without a stamp, a block rarely has one; search a draft that has none.
    let block = (0..)
        .map(|extra| chain.draft(chain.after_ms(200 + extra)))
        .map(|draft| ProposedBlock::seal(draft, vec![proof.clone()].into(), 0).unwrap())
        .find(|block| block.hash().as_bytes()[0] != 0)
        .unwrap();
    let fault = BlockFault::Stamp { hash: block.hash(), digits: 2 };
    assert_eq!(execute(&block, &chain.tip, &chain.state, &chain.genesis), Err(ExecuteError::Invalid(fault)));
}

#[test]
fn rule_2_height() {
    invalid(|draft| draft.height = height(2), BlockFault::Height { got: height(2), expected: height(1) });
}

#[test]
fn rule_3_parent() {
    let expected = Scenario::devnet().tip.hash();
    invalid(|draft| draft.parent = BlockHash::ZERO, BlockFault::Parent { got: BlockHash::ZERO, expected });
}

#[test]
fn rule_4_distance() {
    let parent = Scenario::devnet().tip.timestamp_ms;
    let too_soon = |timestamp| BlockFault::TooSoon { timestamp, parent, interval_ms: 200 };
    let just_before = parent.plus(Millis::new(199)).unwrap();
    invalid(|draft| draft.timestamp_ms = just_before, too_soon(just_before));
    invalid(|draft| draft.timestamp_ms = Timestamp::ZERO, too_soon(Timestamp::ZERO));
    let chain = Scenario::devnet();
    let early = chain.propose(just_before, Vec::new()).unwrap_err();
    assert_eq!(early, ProposeError::Slot(too_soon(just_before)));
}

#[test]
fn rule_5_an_empty_block_is_a_heartbeat() {
    let mut chain = Scenario::devnet();
    let (timestamp, parent) = (chain.after_ms(59_999), chain.tip.timestamp_ms);
    let fault = BlockFault::EmptyTooSoon { timestamp, parent, heartbeat_ms: 60_000 };
    assert_eq!(chain.execute(chain.draft(timestamp), Vec::new()), Err(ExecuteError::Invalid(fault)));
    assert!(chain.propose(timestamp, Vec::new()).unwrap().block.is_none());
    let (block, executed) = chain.beat();
    assert_eq!(block.header().record_count, 0);
    assert_eq!(executed.settlements, []);
}

#[test]
fn rule_6_validators() {
    let expected = Scenario::devnet().genesis.validators().hash();
    let got = Digest::new([9; 32]);
    invalid(|draft| draft.validators_hash = got, BlockFault::Validators { got, expected });
    invalid(|draft| draft.next_validators_hash = got, BlockFault::NextValidators { got, expected });
}

#[test]
fn rule_7_proposer() {
    let (got, expected) = (key(2).node_id(), key(1).node_id());
    invalid(|draft| draft.proposer = got, BlockFault::Proposer { got, expected, round: Round::ZERO });
}

#[test]
fn rule_8_state_root() {
    let expected = Scenario::devnet().state.full_root();
    let got = Digest::new([9; 32]);
    invalid(|draft| draft.state_root = got, BlockFault::StateRoot { got, expected });
}

#[test]
fn rule_9_number_of_records() {
    let mut chain =
        Scenario::new(&scenario::DEVNET.replace("records_per_block_max = 256", "records_per_block_max = 2"));
    let proofs: Vec<_> = (0..3).map(|_| chain.proof(|_| {})).collect();
    let fault = BlockFault::TooManyRecords { got: 3, max: 2 };
    assert_eq!(chain.execute(chain.draft(chain.soon()), proofs.clone()), Err(ExecuteError::Invalid(fault)));
    let (block, _) = chain.advance(chain.soon(), proofs);
    assert_eq!(block.header().record_count, 2, "the proposer leaves out what does not fit");
}

#[test]
fn rule_10_size_of_the_body() {
    let probe = Scenario::devnet().proof(|_| {}).size_bytes();
    let max = u32::try_from(2 * probe).unwrap();
    let text = scenario::DEVNET.replace("block_bytes_max = 4_194_304", &format!("block_bytes_max = {max}"));
    let mut chain = Scenario::new(&text);
    let proofs: Vec<_> = (0..3).map(|_| chain.proof(|_| {})).collect();
    let fault = BlockFault::BodyTooLong { got: 3 * probe, max };
    assert_eq!(chain.execute(chain.draft(chain.soon()), proofs.clone()), Err(ExecuteError::Invalid(fault)));
    let (block, _) = chain.advance(chain.soon(), proofs);
    assert_eq!(block.header().record_count, 2);
}

#[test]
fn a_block_ahead_of_the_clock_is_named() {
    let mut chain = Scenario::devnet();
    let (block, _) = chain.beat();
    let (header, params) = (block.header(), chain.genesis.params());
    let timestamp = header.timestamp_ms;
    let skew = |ms: u64| Timestamp::new(timestamp.get() - ms);
    assert_eq!(check_clock(header, skew(30_000), params), Ok(()));
    assert_eq!(check_clock(header, Timestamp::new(u64::MAX), params), Ok(()));
    let now = skew(30_001);
    let fault = BlockFault::AheadOfClock { timestamp, now, skew_ms: 30_000 };
    assert_eq!(check_clock(header, now, params), Err(fault));
}

#[test]
fn a_state_that_cannot_be_read_is_no_fault_of_the_block() {
    struct Broken;
    impl View for Broken {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
            Err(ReadError("disk".to_owned()))
        }
        fn scan(&self, _: &[u8], _: usize) -> Result<Vec<StateEntry>, ReadError> {
            Err(ReadError("disk".to_owned()))
        }
    }
    let mut chain = Scenario::devnet();
    let proof = chain.proof(|_| {});
    let block = ProposedBlock::seal(chain.draft(chain.soon()), vec![proof].into(), 2).unwrap();
    let failed = StateError::Read(ReadError("disk".to_owned()));
    assert_eq!(execute(&block, &chain.tip, &Broken, &chain.genesis), Err(ExecuteError::State(failed)));

    // Damage in the middle of a record is no fault of the record either.
    let model = state_key::model(&chain.model());
    let mut damaged: MemoryState = chain.state.clone();
    damaged.apply(&[(model.clone(), Some(vec![0]))]);
    let error = execute(&block, &chain.tip, &damaged, &chain.genesis).unwrap_err();
    assert_eq!(error, ExecuteError::State(StateError::Damaged { key: model }));
}

// Records.

#[test]
fn a_request_counts_once() {
    let mut chain = Scenario::devnet();
    let claim = chain.claim();
    let first = chain.sign(claim.clone());
    let request = first.request_id();
    chain.advance(chain.soon(), vec![first.clone()]);

    // The same record again, and another answer to the same request.
    let counted = RecordFault::RequestCounted { request, height: height(1) };
    refused_on(&chain, first, &counted);
    let mut other = claim;
    other.record.tokens_generated = 7;
    refused_on(&chain, chain.sign(other), &counted);
}

#[test]
fn a_request_counts_once_within_a_block() {
    let mut chain = Scenario::devnet();
    let claim = chain.claim();
    let first = chain.sign(claim.clone());
    let mut other = claim;
    other.record.tokens_generated = 7;
    let second = chain.sign(other);
    let fault = RecordFault::RequestCounted { request: first.request_id(), height: height(1) };
    let proposal = chain.propose(chain.soon(), vec![first.clone(), second.clone()]).unwrap();
    assert_eq!(proposal.skipped, [(second.record_id(), fault.clone())]);
    assert_eq!(proposal.block.unwrap().0.header().record_count, 1);
    let whole = BlockFault::Record { index: 1, record: second.record_id(), fault };
    assert_eq!(chain.execute(chain.draft(chain.soon()), vec![first, second]), Err(ExecuteError::Invalid(whole)));
}

#[test]
fn a_request_expires() {
    let mut chain = Scenario::devnet();
    let last_moment = chain.proof(|claim| claim.request.expiry = height(1));
    let mut early = Scenario::devnet();
    early.advance(early.soon(), vec![last_moment.clone()]);

    chain.beat();
    refused_on(&chain, last_moment, &RecordFault::Expired { expiry: height(1), height: height(2) });
}

#[test]
fn an_expiry_has_a_horizon() {
    let fault = RecordFault::ExpiryTooFar { expiry: height(20_002), height: height(1), max: 20_000 };
    refused(|claim| claim.request.expiry = height(20_002), &fault);
    let mut chain = Scenario::devnet();
    let at_the_horizon = chain.proof(|claim| claim.request.expiry = height(20_001));
    chain.advance(chain.soon(), vec![at_the_horizon]);
}

#[test]
fn a_record_is_recent() {
    let mut chain = Scenario::devnet();
    chain.beat();
    let block = chain.soon();
    let at = |ms: u64| Timestamp::new(block.get() - ms);
    let old = chain.proof(|claim| claim.record.timestamp_ms = at(604_800_001));
    refused_on(&chain, old, &RecordFault::TooOld { timestamp: at(604_800_001), block, max_ms: 604_800_000 });
    let just = chain.proof(|claim| claim.record.timestamp_ms = at(604_800_000));
    chain.advance(block, vec![just]);
}

#[test]
fn a_record_is_not_from_the_future() {
    let mut chain = Scenario::devnet();
    let block = chain.soon();
    let at = |ms: u64| block.plus(Millis::new(ms)).unwrap();
    let future = chain.proof(|claim| claim.record.timestamp_ms = at(30_001));
    refused_on(&chain, future, &RecordFault::FromTheFuture { timestamp: at(30_001), block, skew_ms: 30_000 });
    let just = chain.proof(|claim| claim.record.timestamp_ms = at(30_000));
    chain.advance(block, vec![just]);
}

#[test]
fn energy_and_latency_are_bounded() {
    let energy_uj = Microjoules::new(1_000_000_001);
    refused(|claim| claim.record.energy_uj = energy_uj, &RecordFault::TooMuchEnergy { energy_uj, max: 1_000_000_000 });
    let latency_ms = Millis::new(300_001);
    refused(|claim| claim.record.latency_ms = latency_ms, &RecordFault::TooSlow { latency_ms, max: 300_000 });
    let mut chain = Scenario::devnet();
    let at_the_limits = chain.proof(|claim| {
        claim.record.energy_uj = Microjoules::new(1_000_000_000);
        claim.record.latency_ms = Millis::new(300_000);
    });
    chain.advance(chain.soon(), vec![at_the_limits]);
}

#[test]
fn a_stage_node_has_an_account() {
    let node = key(2).node_id();
    let by_another = |claim: &mut Unsigned| {
        claim.record.stages[0].node_id = node;
        claim.stage_keys = vec![2];
    };
    refused(by_another, &RecordFault::UnknownNode { node });
    let mut chain = Scenario::with(&account(2));
    let known = chain.proof(by_another);
    chain.advance(chain.soon(), vec![known]);
}

#[test]
fn the_stages_run_every_layer_of_a_registered_model() {
    let model = Scenario::devnet().model();
    for got in [LAYERS - 1, LAYERS + 1] {
        let fault = RecordFault::LayersNotCovered { model, got, layers: LAYERS };
        refused(|claim| claim.record.stages[0].layer_end = got, &fault);
    }
}

#[test]
fn the_supply_cannot_overflow() {
    // Two accounts of 2^63 - 1 leave room for one more nano-ARIA.
    let max = i64::MAX;
    let text = scenario::DEVNET
        .replacen("balance_nano = 1_000_000_000_000_000", &format!("balance_nano = {max}"), 1)
        .replacen("balance_nano = 1_000_000_000_000_000", "balance_nano = 0", 1)
        .replace("bond_nano = 1_000_000_000_000", &format!("bond_nano = {max}"));
    let mut chain = Scenario::new(&text);
    let proof = chain.proof(|_| {});
    refused_on(&chain, proof, &RecordFault::Overflow { quantity: "NanoAria" });
    assert_eq!(chain.held(), u64::MAX - 1);
}

// Settlement.

#[test]
fn a_canonical_record_of_the_only_validator_settles_at_once() {
    let mut chain = Scenario::devnet();
    let before = chain.reader().account(&key(1).node_id()).unwrap().unwrap();
    let proof = chain.proof(|_| {});
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);

    // 200 ms + 50 x 20 ms, 28 mJ per token: the list's 1200 ms row.
    let (work, reward) = (WorkUnits::new(71 * OPS), NanoAria::new(1_900_000));
    assert_eq!(executed.settlements, [self_audited(work, reward)]);
    let account = chain.reader().account(&key(1).node_id()).unwrap().unwrap();
    assert_eq!(account.balance.get(), before.balance.get() + 1_900_000);
    assert_eq!(account.rewards_total, reward);
    assert_eq!(account.bond, before.bond);
    assert_eq!(chain.reader().supply().unwrap().issued, reward);
    assert_eq!(chain.reader().work(Epoch::ZERO, &key(1).node_id()), Ok(Work { served: work, ..Work::default() }));

    let totals = chain.reader().epoch_totals(Epoch::ZERO).unwrap();
    assert_eq!((totals.blocks, totals.records, totals.settled), (1, 1, 1));
    assert_eq!((totals.prompt_tokens, totals.generated_tokens), (20, 51));
    assert_eq!(totals.energy_uj, Microjoules::new(28_000 * 51));
    assert_eq!((totals.work, totals.rewards), (work, reward));
}

/// What the only validator earns by a request for which nobody pays.
fn self_audited(work: WorkUnits, reward: NanoAria) -> Settlement {
    Settlement::SelfAudited(Earned { work, reward, ..Earned::default() })
}

/// A record that is included and earns nothing, for this reason.
#[track_caller]
fn earns_nothing(mut chain: Scenario, change: impl FnOnce(&mut Unsigned), reason: Unsettled) {
    let held = chain.held();
    let proof = chain.proof(change);
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);
    assert_eq!(executed.settlements, [Settlement::Included(reason)]);
    assert_eq!(executed.settlements[0].status(), RecordStatus::Included);
    assert_eq!(executed.changes.statuses, []);
    assert_eq!(chain.held(), held);
    assert_eq!(chain.reader().supply().unwrap().issued, NanoAria::ZERO);
    assert_eq!(chain.reader().work_of_epoch(Epoch::ZERO, 10), Ok(Vec::new()));
    let totals = chain.reader().epoch_totals(Epoch::ZERO).unwrap();
    assert_eq!((totals.records, totals.settled), (1, 0), "it is provenance all the same");
}

#[test]
fn other_backends_earn_nothing() {
    for backend in [BackendClass::External, BackendClass::Simulation] {
        let as_other = |claim: &mut Unsigned| {
            claim.record.backend = backend;
            claim.record.transcript_root = Digest::ZERO;
        };
        earns_nothing(Scenario::devnet(), as_other, Unsettled::NotCanonical);
    }
}

#[test]
fn the_only_validator_gets_the_fee_that_is_left_and_the_whole_reward() {
    let mut chain = Scenario::with(&Scenario::requester());
    let before = chain.held();
    let proof = chain.proof(|claim| claim.request.max_fee = NanoAria::new(5_000_001));
    chain.advance(chain.soon(), vec![proof]);
    let earned = chain.reader().account(&key(1).node_id()).unwrap().unwrap().rewards_total.get();
    assert_eq!(earned, 1_900_000 + 2_500_001, "rounding is for the payee: what is destroyed is rounded down");
    let supply = chain.reader().supply().unwrap();
    assert_eq!((supply.issued.get(), supply.burned.get(), supply.held), (1_900_000, 2_500_000, NanoAria::ZERO));
    assert_eq!(chain.held(), before + 1_900_000 - 2_500_000);
    let paid = chain.reader().account(&key(REQUESTER).node_id()).unwrap().unwrap().balance.get();
    assert_eq!(paid, 1_000_000_000_000 - 5_000_001);
    assert_eq!(chain.reader().epoch_totals(Epoch::ZERO).unwrap().paid.get(), 5_000_001);
}

#[test]
fn an_answer_that_nobody_can_run_again_is_paid_by_who_signed_for_it() {
    let mut chain = Scenario::with(&Scenario::requester());
    let external = |claim: &mut Unsigned| {
        claim.request.max_fee = NanoAria::new(4_000_000);
        claim.record.backend = BackendClass::External;
        claim.record.transcript_root = Digest::ZERO;
    };
    let proof = chain.proof(external);
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);
    assert_eq!(executed.settlements, [Settlement::Paid(NanoAria::new(4_000_000))]);
    assert_eq!((executed.changes.statuses, chain.reader().supply().unwrap().issued), (vec![], NanoAria::ZERO));
    let earned = chain.reader().account(&key(1).node_id()).unwrap().unwrap().rewards_total.get();
    assert_eq!(earned, 2_000_000);
    let work = chain.reader().work(Epoch::ZERO, &key(1).node_id()).unwrap();
    assert_eq!((work.served, work.audited), (WorkUnits::ZERO, WorkUnits::ZERO), "and gives no power");
    earns_nothing(Scenario::devnet(), external, Unsettled::Unpaid);
    let made_up = |claim: &mut Unsigned| {
        external(claim);
        claim.record.backend = BackendClass::Simulation;
    };
    earns_nothing(Scenario::with(&Scenario::requester()), made_up, Unsettled::NotCanonical);
}

#[test]
fn who_cannot_pay_what_it_signed_for_has_a_record_that_earns_nothing() {
    let fee = |nano: u64| move |claim: &mut Unsigned| claim.request.max_fee = NanoAria::new(nano);
    earns_nothing(Scenario::devnet(), fee(1), Unsettled::Unpaid);
    let poor = Scenario::with(&Scenario::requester().replace("1_000_000_000_000", "4_999_999"));
    earns_nothing(poor, fee(5_000_000), Unsettled::Unpaid);
    // Two in one block, of whom it can pay one.
    let mut chain = Scenario::with(&Scenario::requester().replace("1_000_000_000_000", "9_999_999"));
    let both = [chain.proof(fee(5_000_000)), chain.proof(fee(5_000_000))].to_vec();
    let (_, executed) = chain.advance(chain.soon(), both);
    assert!(matches!(executed.settlements[0], Settlement::SelfAudited(_)));
    assert_eq!(executed.settlements[1], Settlement::Included(Unsettled::Unpaid));

    let mut chain = Scenario::with(&Scenario::requester());
    let (max_fee, most) = (NanoAria::new(10_000_001), NanoAria::new(10_000_000));
    let proof = chain.proof(fee(max_fee.get()));
    refused_on(&chain, proof, &RecordFault::FeeTooHigh { max_fee, most });
}

#[test]
fn what_nobody_may_see_earns_nothing() {
    let hidden = |claim: &mut Unsigned| {
        (claim.request.audit, claim.request.max_fee) = (AuditMode::None, NanoAria::new(1_000_000));
    };
    earns_nothing(Scenario::with(&Scenario::requester()), hidden, Unsettled::Private);
    let two = format!("[[validators]]\nkey = \"{}\"\npower = 1\n", key(2).node_id());
    let mut chain = Scenario::with(&two);
    let proof = chain.proof(|claim| claim.request.audit = AuditMode::None);
    chain.advance(chain.soon(), vec![proof]);
    assert_eq!(chain.reader().audits(9).unwrap(), [], "nobody is drawn");
}

#[test]
fn unregistered_models_earn_nothing() {
    let unknown = |claim: &mut Unsigned| claim.request.model_id = ModelId::new([8; 32]);
    earns_nothing(Scenario::devnet(), unknown, Unsettled::ModelNotRegistered);
}

#[test]
fn an_estimate_is_paid_without_a_bonus() {
    let mut chain = Scenario::devnet();
    let proof = chain.proof(|claim| claim.record.energy_source = EnergySource::Estimated);
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);
    let work = WorkUnits::new(71 * OPS);
    assert_eq!(executed.settlements, [self_audited(work, NanoAria::new(950_000))]);
}

#[test]
fn measured_and_estimated_energy_are_counted_apart_and_unknown_energy_nowhere() {
    let mut chain = Scenario::devnet();
    let measured = chain.proof(|_| {});
    let estimated = chain.proof(|claim| claim.record.energy_source = EnergySource::Estimated);
    let unknown = chain.proof(|claim| claim.record.energy_uj = Microjoules::ZERO);
    chain.advance(chain.soon(), vec![measured, estimated, unknown]);
    let spent = Spent { tokens: 51, energy_uj: Microjoules::new(28_000 * 51) };
    let sobriety = Sobriety { measured: spent, estimated: spent };
    assert_eq!(chain.reader().sobriety(Epoch::ZERO, &key(1).node_id()), Ok(sobriety));
    assert_eq!(chain.reader().epoch_totals(Epoch::ZERO).unwrap().sobriety, sobriety);
    assert_eq!(chain.reader().sobriety(Epoch::new(1), &key(1).node_id()), Ok(Sobriety::default()));
}

#[test]
fn energy_below_the_physical_floor_earns_no_more_than_the_floor() {
    let mut chain = Scenario::devnet();
    let counted =
        |chain: &Scenario| chain.reader().sobriety(Epoch::ZERO, &key(1).node_id()).unwrap().measured.energy_uj;
    let absurd = chain.proof(|claim| claim.record.energy_uj = Microjoules::new(1));
    let (_, executed) = chain.advance(chain.soon(), vec![absurd]);
    let floor = counted(&chain);
    assert!(floor > Microjoules::new(1));
    let honest = chain.proof(|claim| claim.record.energy_uj = floor);
    let (_, as_honest) = chain.advance(chain.soon(), vec![honest]);
    assert_eq!(executed.settlements, as_honest.settlements);
    assert_eq!(counted(&chain).get(), 2 * floor.get());
}

#[test]
fn stages_share_work_and_reward_by_their_layers() {
    let mut chain = Scenario::with(&(account(2) + &account(3)));
    let stage = |n: u8, layer_start, layer_end| Stage { node_id: key(n).node_id(), layer_start, layer_end };
    let proof = chain.proof(|claim| {
        claim.record.stages = vec![stage(1, 0, 1), stage(2, 1, 3), stage(3, 3, 6)];
        claim.stage_keys = vec![1, 2, 3];
    });
    chain.advance(chain.soon(), vec![proof]);

    let work = |n: u8| chain.reader().work(Epoch::ZERO, &key(n).node_id()).unwrap().served.get();
    assert_eq!([work(1), work(2), work(3)].iter().sum::<u64>(), 71 * OPS, "nothing is lost in rounding");
    assert_eq!(work(3), 71 * OPS / 2);
    assert!(work(2).abs_diff(71 * OPS / 3) <= 1);
    let paid = |n: u8| chain.reader().account(&key(n).node_id()).unwrap().unwrap().rewards_total.get();
    assert_eq!([paid(1), paid(2), paid(3)], [316_666, 633_334, 950_000]);
    let spent = |n: u8| chain.reader().sobriety(Epoch::ZERO, &key(n).node_id()).unwrap().measured;
    assert_eq!([spent(1).tokens, spent(2).tokens, spent(3).tokens], [8, 17, 26]);
    assert_eq!([1, 2, 3].map(|n| spent(n).energy_uj.get()).iter().sum::<u64>(), 28_000 * 51);
}

#[test]
fn work_is_counted_by_epoch() {
    let mut chain = Scenario::devnet();
    for _ in 0..98 {
        chain.beat();
    }
    for _ in 0..3 {
        let proof = chain.proof(|_| {});
        chain.advance(chain.soon(), vec![proof]);
    }
    assert_eq!(chain.tip.height, height(101));
    let work = |epoch| chain.reader().work(Epoch::new(epoch), &key(1).node_id()).unwrap().served.get();
    assert_eq!([work(0), work(1), work(2)], [71 * OPS, 2 * 71 * OPS, 0]);
    let blocks = |epoch| chain.reader().epoch_totals(Epoch::new(epoch)).unwrap().blocks;
    assert_eq!([blocks(0), blocks(1)], [99, 2], "genesis is no block of anyone's");
    assert_eq!(chain.reader().work_of_epoch(Epoch::ZERO, 5).unwrap().len(), 1);
}

#[test]
fn counted_requests_are_remembered_until_they_expire() {
    let mut chain = Scenario::devnet();
    let short = chain.proof(|claim| claim.request.expiry = height(3));
    let long = chain.proof(|claim| claim.request.expiry = height(9));
    let (short_id, long_id) = (short.request_id(), long.request_id());
    chain.advance(chain.soon(), vec![short, long]);
    let known = |chain: &Scenario| {
        let at = |expiry, id| chain.reader().request_height(height(expiry), id).unwrap();
        (at(3, &short_id), at(9, &long_id))
    };
    assert_eq!(known(&chain), (Some(height(1)), Some(height(1))));
    chain.beat();
    chain.beat();
    assert_eq!(known(&chain), (Some(height(1)), Some(height(1))), "height 3 may still include it");
    chain.beat();
    assert_eq!(known(&chain), (None, Some(height(1))));
}
