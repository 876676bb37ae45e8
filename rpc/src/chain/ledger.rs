//! Amounts and work as the state has them: supply, accounts, work by epoch, totals of the network.

use aria_chain::ids::NodeId;
use aria_chain::store::Store;
use aria_chain::units::{Epoch, NanoAria};
use aria_runtime::state::{Account, EpochTotals, Reader, StateError, StoreView};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::api::{Answer, unavailable};
use super::arguments::{Arguments, invalid};
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

/// What exists: given out at genesis, minted since, destroyed, and held as security.
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
        Ok(json!({"epoch": epoch, "work": own.get().to_string(), "network": all.get().to_string()}))
    };
    let listed = epochs.into_iter().map(one).collect::<Result<Vec<Value>, StateError>>().map_err(unreadable)?;
    Ok(json!({"at": at, "node_id": node, "epochs": listed}))
}

/// What the network did in the last epochs, and in all of them together.
pub(super) fn get_network_stats(services: &dyn Services, arguments: &Arguments) -> Answer {
    let store = services.store();
    let (at, epochs) = epochs(services, &*store, arguments)?;
    let view = StoreView(&*store);
    let reader = Reader(&view);
    let (mut listed, mut sums) = (Vec::new(), [0_u128; 10]);
    for epoch in epochs {
        let totals = reader.epoch_totals(epoch).map_err(unreadable)?;
        let numbers = numbers(&totals);
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        let mut view = stats(&numbers);
        view["epoch"] = json!(epoch);
        listed.push(view);
    }
    let validators = reader.voters().map_err(unreadable)?.members().len();
    Ok(json!({"at": at, "validators": validators, "total": stats(&sums), "epochs": listed}))
}

fn numbers(totals: &EpochTotals) -> [u128; 10] {
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
    ]
}

/// Counts are numbers; energy, work and amounts may be beyond what a client's numbers hold, and are text.
fn stats([blocks, records, settled, prompt, generated, energy_uj, work, rewards, orders, fees]: &[u128; 10]) -> Value {
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
    })
}
