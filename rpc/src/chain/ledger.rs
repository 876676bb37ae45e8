//! Amounts and work as the state has them: supply, accounts, work by epoch, totals of the network.

use aria_chain::ids::NodeId;
use aria_chain::sobriety::SobrietyAttestation;
use aria_chain::store::Store;
use aria_chain::units::{Epoch, NanoAria};
use aria_runtime::rating::rating;
use aria_runtime::state::{Account, EpochTotals, Reader, Sobriety, Spent, StateError, StoreView};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::api::{Answer, unavailable};
use super::arguments::{Arguments, invalid};
use super::rewards::params;
use super::views;
use crate::services::Services;

/// Accounts of one page.
const ACCOUNTS_MAX: u64 = 100;
/// Epochs of one answer, and where the caller does not say.
const EPOCHS_MAX: u64 = 100;
const EPOCHS: u64 = 10;

fn unreadable(error: StateError) -> ErrorObjectOwned {
    unavailable(&error)
}

/// What exists: given out at genesis, minted since, destroyed, held until an audit or a doubt has ended, and held as security.
pub(super) fn get_supply(services: &dyn Services, _: &Arguments) -> Answer {
    let store = services.store();
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let view = StoreView(&*store);
    let reader = Reader(&view);
    let supply = reader.supply().map_err(unreadable)?;
    let total = supply.total().map_err(|error| unavailable(&error))?;
    let mut bonded = 0_u128;
    for (node, _) in reader.candidates().map_err(unreadable)? {
        let bond = reader.account(&node).map_err(unreadable)?.map_or(NanoAria::ZERO, |account| account.bond);
        bonded += u128::from(bond.get());
    }
    Ok(json!({
        "at": views::at(&tip),
        "genesis": supply.genesis.to_string(),
        "issued": supply.issued.to_string(),
        "burned": supply.burned.to_string(),
        "held": supply.held.to_string(),
        "total": total.to_string(),
        "bonded": bonded.to_string(),
    }))
}

/// Accounts in order of id, page by page. The cursor is the last id shown.
pub(super) fn list_accounts(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let limit = arguments.opt_u64("limit")?.unwrap_or(ACCOUNTS_MAX).clamp(1, ACCOUNTS_MAX);
    let limit = usize::try_from(limit).unwrap_or(1);
    let after = arguments.opt_parse::<NodeId>("cursor")?;
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let mut found = StoreView(&*store).accounts_after(after.as_ref(), limit + 1).map_err(unreadable)?;
    let is_more = found.len() > limit;
    found.truncate(limit);
    let view = |(node, account): &(NodeId, Account)| {
        json!({
            "node_id": node,
            "balance": account.balance.to_string(),
            "bond": account.bond.to_string(),
            "unbonding": account.unbonding.to_string(),
            "rewards_total": account.rewards_total.to_string(),
            "nonce": account.nonce,
        })
    };
    Ok(json!({
        "at": views::at(&tip),
        "accounts": found.iter().map(view).collect::<Vec<Value>>(),
        "next_cursor": found.last().filter(|_| is_more).map(|(node, _)| node),
    }))
}

/// The last epochs up to that of the tip, the newest first.
fn epochs(
    services: &dyn Services,
    store: &dyn Store,
    arguments: &Arguments,
) -> Result<(Value, Vec<Epoch>), ErrorObjectOwned> {
    let count = arguments.opt_u64("epochs")?.unwrap_or(EPOCHS);
    if !(1..=EPOCHS_MAX).contains(&count) {
        return Err(invalid("epochs", format!("must be 1 to {EPOCHS_MAX}")));
    }
    let tip = store.tip().map_err(|error| unavailable(&error))?;
    let last = tip.height.get() / services.status().epoch_blocks.max(1);
    let epochs = (last.saturating_sub(count - 1)..=last).rev().map(Epoch::new);
    Ok((views::at(&tip), epochs.collect()))
}

/// Work of a node in the last epochs, beside that of all.
pub(super) fn get_work(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let node = arguments.parse::<NodeId>("node")?;
    let (at, epochs) = epochs(services, &*store, arguments)?;
    let view = StoreView(&*store);
    let reader = Reader(&view);
    let one = |epoch: Epoch| {
        let (own, all) = (reader.work(epoch, &node)?, reader.epoch_totals(epoch)?.work);
        Ok(json!({
            "epoch": epoch,
            "work": own.total().to_string(),
            "served": own.served.get().to_string(),
            "audited": own.audited.get().to_string(),
            "burned": own.burned.to_string(),
            "network": all.get().to_string(),
        }))
    };
    let listed = epochs.into_iter().map(one).collect::<Result<Vec<Value>, StateError>>().map_err(unreadable)?;
    Ok(json!({"at": at, "node_id": node, "epochs": listed}))
}

/// Energy and tokens of a node in the last epochs, and in all of them together.
pub(super) fn get_sobriety(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let node = arguments.parse::<NodeId>("node")?;
    let (at, epochs) = epochs(services, &*store, arguments)?;
    let baseline = energy_baseline_uj(services)?;
    let view = StoreView(&*store);
    let (mut listed, mut sum) = (Vec::new(), Spendings::default());
    for epoch in epochs {
        let own = Spendings::from(&Reader(&view).sobriety(epoch, &node).map_err(unreadable)?);
        sum.add(&own);
        let told = Reader(&view).attested(epoch, &node).map_err(unreadable)?;
        let mut view = own.view(baseline);
        view["epoch"] = json!(epoch);
        view["attested"] = told.map_or(Value::Null, |told| attested(&told));
        listed.push(view);
    }
    let standings = Reader(&view).standings(&node).map_err(unreadable)?;
    let standings = standings.into_iter().map(|(model, standing)| {
        json!({"model_id": model, "standing": if standing.is_outlier { "outlier" } else { "vouched" }})
    });
    Ok(json!({
        "at": at,
        "node_id": node,
        "baseline_uj_per_token": baseline,
        "total": sum.view(baseline),
        "epochs": listed,
        "standings": standings.collect::<Vec<Value>>(),
    }))
}

/// What a node said of an epoch.
fn attested(told: &SobrietyAttestation) -> Value {
    let mut view = json!(told);
    view["energy_uj"] = json!(told.energy_uj.get().to_string());
    view["rating"] = json!(rating(told.energy_uj.get(), told.tokens).map(|letter| letter.to_string()));
    view
}

/// What savings are reckoned against.
fn energy_baseline_uj(services: &dyn Services) -> Result<u64, ErrorObjectOwned> {
    Ok(params(services)?.energy_baseline_uj)
}

/// Tokens and microjoules, those measured and those estimated.
#[derive(Default)]
struct Spendings([(u128, u128); 2]);

impl From<&Sobriety> for Spendings {
    fn from(sobriety: &Sobriety) -> Spendings {
        let pair = |spent: &Spent| (u128::from(spent.tokens), u128::from(spent.energy_uj.get()));
        Spendings([pair(&sobriety.measured), pair(&sobriety.estimated)])
    }
}

impl Spendings {
    fn add(&mut self, other: &Spendings) {
        for (sum, number) in self.0.iter_mut().zip(other.0) {
            *sum = (sum.0.saturating_add(number.0), sum.1.saturating_add(number.1));
        }
    }

    /// Energy may be beyond what a client's numbers hold, and is text. A negative saving is a loss.
    fn view(&self, baseline: u64) -> Value {
        let one = |(tokens, energy_uj): (u128, u128)| {
            let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
            let letter = u64::try_from(energy_uj).ok().and_then(|energy_uj| rating(energy_uj, tokens));
            let reference = u128::from(tokens).saturating_mul(baseline.into());
            let saved = reference.cast_signed().saturating_sub(energy_uj.cast_signed());
            json!({
                "tokens": tokens,
                "energy_uj": energy_uj.to_string(),
                "rating": letter.map(|letter| letter.to_string()),
                "baseline_uj": reference.to_string(),
                "saved_uj": saved.to_string(),
            })
        };
        json!({"measured": one(self.0[0]), "estimated": one(self.0[1])})
    }
}

/// What the network did in the last epochs, and in all of them together.
pub(super) fn get_network_stats(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let (at, epochs) = epochs(services, &*store, arguments)?;
    let view = StoreView(&*store);
    let reader = Reader(&view);
    let baseline = energy_baseline_uj(services)?;
    let (mut listed, mut sums, mut spent) = (Vec::new(), [0_u128; 11], Spendings::default());
    for epoch in epochs {
        let totals = reader.epoch_totals(epoch).map_err(unreadable)?;
        let numbers = numbers(&totals);
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        let own = Spendings::from(&totals.sobriety);
        spent.add(&own);
        let mut view = stats(&numbers);
        view["sobriety"] = own.view(baseline);
        view["epoch"] = json!(epoch);
        listed.push(view);
    }
    let validators = reader.voters().map_err(unreadable)?.members().len();
    let mut total = stats(&sums);
    total["sobriety"] = spent.view(baseline);
    Ok(json!({"at": at, "validators": validators, "total": total, "epochs": listed}))
}

fn numbers(totals: &EpochTotals) -> [u128; 11] {
    [
        u128::from(totals.blocks),
        u128::from(totals.records),
        u128::from(totals.settled),
        u128::from(totals.prompt_tokens),
        u128::from(totals.generated_tokens),
        u128::from(totals.energy_uj.get()),
        u128::from(totals.work.get()),
        u128::from(totals.rewards.get()),
        u128::from(totals.transactions),
        u128::from(totals.fees.get()),
        u128::from(totals.paid.get()),
    ]
}

/// Counts are numbers; energy, work and amounts may be beyond what a client's numbers hold, and are text.
fn stats(
    [blocks, records, settled, prompt, generated, energy_uj, work, rewards, orders, fees, paid]: &[u128; 11],
) -> Value {
    let count = |number: &u128| u64::try_from(*number).unwrap_or(u64::MAX);
    json!({
        "blocks": count(blocks),
        "records": count(records),
        "settled": count(settled),
        "prompt_tokens": count(prompt),
        "generated_tokens": count(generated),
        "energy_uj": energy_uj.to_string(),
        "work": work.to_string(),
        "rewards": rewards.to_string(),
        "transactions": count(orders),
        "fees": fees.to_string(),
        "paid": paid.to_string(),
    })
}
