//! Whose energy is believed: attestations, comparisons, and what they are worth.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

mod scenario;

use aria_chain::record::{EnergySource, Stage};
use aria_chain::sobriety::{Hardware, SobrietyAttestation};
use aria_chain::transaction::{Action, VerifiedTransaction};
use aria_chain::units::{Epoch, Microjoules, NanoAria};
use aria_runtime::rules::settle::{Settlement, Unsettled};
use aria_runtime::rules::transaction::TransactionFault;
use aria_runtime::state::{Spent, Standing};
use scenario::{LAYERS, Scenario, key};

/// Blocks of an epoch here.
const SPAN: u64 = 10;

/// Six validators with money and bonds.
fn chain() -> Scenario {
    let mut text = scenario::DEVNET.replace("epoch_blocks = 100", "epoch_blocks = 10");
    for n in 2..=6 {
        let id = key(n).node_id();
        text.push_str(&format!(
            "\n[[validators]]\nkey = \"{id}\"\npower = 1\n[[accounts]]\nkey = \"{id}\"\nbalance_nano = 1_000_000_000\nbond_nano = 1_000_000_000_000\n"
        ));
    }
    text.push_str(&Scenario::requester());
    Scenario::new(&text)
}

/// An answer of a node that claims so much energy for each token; what it will earn.
fn answer(chain: &mut Scenario, n: u8, uj_per_token: u64, source: EnergySource) -> u64 {
    let proof = chain.proof(|claim| {
        claim.record.stages = vec![Stage { node_id: key(n).node_id(), layer_start: 0, layer_end: LAYERS }];
        claim.record.energy_uj = Microjoules::new(uj_per_token * u64::from(claim.record.tokens_generated));
        claim.record.energy_source = source;
        claim.request.max_fee = NanoAria::new(10_000_000);
        claim.stage_keys = vec![n];
    });
    let (_, executed) = chain.advance(chain.soon(), vec![proof]);
    let Settlement::Awaiting(earned) = executed.settlements[0] else { panic!("{:?}", executed.settlements) };
    earned.reward.get()
}

fn to_epoch(chain: &mut Scenario, epoch: u64) {
    while chain.tip.height.get() < epoch * SPAN {
        chain.beat();
    }
}

fn tells(
    chain: &Scenario,
    n: u8,
    hardware: &str,
    change: impl FnOnce(&mut SobrietyAttestation),
) -> VerifiedTransaction {
    let epoch = Epoch::new(chain.tip.height.next().unwrap().get() / SPAN - 1);
    let known = chain.reader().sobriety(epoch, &key(n).node_id()).unwrap();
    let mut told = SobrietyAttestation {
        epoch,
        hardware: Hardware::new(hardware).unwrap(),
        energy_uj: known.measured.energy_uj.checked_add(known.estimated.energy_uj).unwrap(),
        tokens: known.measured.tokens + known.estimated.tokens,
        inferences: 1,
        is_measured: true,
    };
    change(&mut told);
    chain.order(n, Action::Sobriety(told), |_| {})
}

fn order(chain: &mut Scenario, orders: Vec<VerifiedTransaction>) {
    chain.transactions = orders;
    chain.advance(chain.soon(), Vec::new());
    chain.transactions.clear();
}

#[test]
fn who_claims_far_less_than_others_on_the_same_hardware_loses_the_bonus() {
    let mut chain = chain();
    // Three honest nodes at 60 mJ a token, a liar at 25, one on hardware of its own, one that estimates.
    let claims = [(1, 60_000, "A"), (2, 62_000, "A"), (3, 58_000, "A"), (4, 25_000, "A"), (5, 60_000, "B")];
    for (n, uj, _) in claims {
        let reward = answer(&mut chain, n, uj, EnergySource::Measured);
        assert!(reward <= 1_000_000, "nobody vouches for anybody yet");
    }
    answer(&mut chain, 6, 60_000, EnergySource::Estimated);
    to_epoch(&mut chain, 1);
    let told = claims.map(|(n, _, hardware)| tells(&chain, n, hardware, |_| {})).to_vec();
    order(&mut chain, told);
    to_epoch(&mut chain, 2);
    let model = chain.proof(|_| {}).record().model_id;
    let standing = |n: u8| chain.reader().standing(&key(n).node_id(), &model).unwrap();
    // Of 25, 58, 60 and 62 mJ the median is 60.
    let median_uj = 60_000_000;
    let vouched = Some(Standing { is_outlier: false, median_uj });
    assert_eq!(
        [1, 2, 3, 4, 5, 6].map(standing),
        [vouched, vouched, vouched, Some(Standing { is_outlier: true, median_uj }), None, None]
    );
    let base = answer(&mut chain, 1, 150_000, EnergySource::Measured);
    let paid = [1, 4, 5].map(|n| answer(&mut chain, n, 60_000, EnergySource::Measured));
    assert_eq!(paid, [2 * base, base, base], "a bonus for who is vouched for alone");
    let median = chain.reader().standing(&key(1).node_id(), &model).unwrap().unwrap().median_uj / 1_000;
    assert!(answer(&mut chain, 1, median * 2, EnergySource::Measured) < 2 * base);
    assert_eq!(answer(&mut chain, 6, 60_000, EnergySource::Estimated), base);
    // Each epoch anew.
    to_epoch(&mut chain, 3);
    assert_eq!(chain.reader().standing(&key(1).node_id(), &model).unwrap(), None);
    assert_eq!(answer(&mut chain, 1, 60_000, EnergySource::Measured), base);
}

#[test]
fn what_has_no_bond_behind_it_moves_no_median() {
    let mut chain = chain();
    let model = chain.proof(|_| {}).record().model_id;
    let strangers = [11, 12, 13];
    let gifts = strangers.map(|n| {
        let action = Action::Transfer { to: key(n).node_id(), amount: NanoAria::new(10_000_000) };
        chain.order(1, action, |order| order.nonce += u64::from(n - 11))
    });
    order(&mut chain, gifts.to_vec());
    for n in strangers {
        let proof = chain.proof(|claim| {
            claim.record.stages = vec![Stage { node_id: key(n).node_id(), layer_start: 0, layer_end: LAYERS }];
            claim.stage_keys = vec![n];
        });
        let (_, executed) = chain.advance(chain.soon(), vec![proof]);
        assert_eq!(executed.settlements, [Settlement::Included(Unsettled::NotBonded)]);
        assert_eq!(chain.reader().measured(Epoch::ZERO, &model, &key(n).node_id()).unwrap(), Spent::default());
        assert!(chain.reader().sobriety(Epoch::ZERO, &key(n).node_id()).unwrap().measured.tokens > 0, "it is shown");
    }
    answer(&mut chain, 1, 60_000, EnergySource::Measured);
    assert!(chain.reader().measured(Epoch::ZERO, &model, &key(1).node_id()).unwrap().tokens > 0);
}

#[test]
fn two_are_no_median() {
    let mut chain = chain();
    for n in [1, 2] {
        answer(&mut chain, n, 60_000, EnergySource::Measured);
    }
    to_epoch(&mut chain, 1);
    let told = [1, 2].map(|n| tells(&chain, n, "A", |_| {})).to_vec();
    order(&mut chain, told);
    to_epoch(&mut chain, 2);
    let model = chain.proof(|_| {}).record().model_id;
    assert_eq!(chain.reader().standing(&key(1).node_id(), &model).unwrap(), None);
}

#[test]
fn an_epoch_is_attested_once_in_the_next_one_and_not_below_its_records() {
    let mut chain = chain();
    answer(&mut chain, 2, 60_000, EnergySource::Measured);
    to_epoch(&mut chain, 1);
    let now = Epoch::new(1);
    for got in [1, 2] {
        let early = tells(&chain, 2, "A", |told| told.epoch = Epoch::new(got));
        chain.refuses(&early, &TransactionFault::SobrietyEpoch { got: Epoch::new(got), now });
    }
    let known = chain.reader().sobriety(Epoch::ZERO, &key(2).node_id()).unwrap().measured;
    let below =
        TransactionFault::SobrietyBelow { epoch: Epoch::ZERO, tokens: known.tokens, energy_uj: known.energy_uj };
    let fewer = tells(&chain, 2, "A", |told| told.tokens -= 1);
    chain.refuses(&fewer, &below);
    let less = tells(&chain, 2, "A", |told| told.energy_uj = Microjoules::new(told.energy_uj.get() - 1));
    chain.refuses(&less, &below);
    let nothing = tells(&chain, 3, "A", |_| {});
    let none = TransactionFault::SobrietyBelow { epoch: Epoch::ZERO, tokens: 0, energy_uj: Microjoules::ZERO };
    chain.refuses(&nothing, &none);
    // Answers that left no record may be told of too.
    let more = tells(&chain, 2, "A", |told| told.tokens += 5);
    order(&mut chain, vec![more]);
    let told = chain.reader().attested(Epoch::ZERO, &key(2).node_id()).unwrap().unwrap();
    assert_eq!(told.tokens, known.tokens + 5);
    let again = tells(&chain, 2, "A", |_| {});
    chain.refuses(&again, &TransactionFault::SobrietyTold { epoch: Epoch::ZERO });
    to_epoch(&mut chain, 2);
    let late = tells(&chain, 2, "A", |told| told.epoch = Epoch::ZERO);
    chain.refuses(&late, &TransactionFault::SobrietyEpoch { got: Epoch::ZERO, now: Epoch::new(2) });
}
