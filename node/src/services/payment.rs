//! Who pays for a request. Most clients have no account: then it is this node's money, as far as its operator allows.

use aria_chain::{ids::NodeId, request::AuditMode, units::NanoAria};
use aria_rpc::services::{GenerateCall, GenerateError, Payer};
use aria_runtime::state::Reader;

use super::orders::Orders;
use crate::{amount::Amount, chain::Chain};

/// The requester of a call and its fee. `most` is what the operator pays for each answer.
pub(super) fn payer(
    (chain, orders): (&Chain, &Orders),
    most: NanoAria,
    call: &GenerateCall,
) -> Result<(NodeId, NanoAria), GenerateError> {
    match call.payer {
        Payer::Node(asked) => Ok((chain.key.node_id(), own(chain, most, call.audit, asked)?)),
        Payer::Client(requester, fee) => Ok((requester, clients((chain, orders), &requester, fee)?)),
        Payer::Signed(..) => Err(GenerateError::Engine("what is signed already is not priced again".into())),
    }
}

/// What a client with an account of its own offers, if it has that besides what it owes already.
fn clients((chain, orders): (&Chain, &Orders), requester: &NodeId, fee: NanoAria) -> Result<NanoAria, GenerateError> {
    let most = chain.genesis.params().request_fee_max();
    if fee > most {
        let text =
            format!("aria.max_fee {fee} is above {most} nano-ARIA, the most that a request may pay on this chain");
        return Err(GenerateError::Fee(text));
    }
    if fee == NanoAria::ZERO {
        return Ok(fee);
    }
    let owed = chain.mempool().fees_of(requester).get().saturating_add(orders.promised(requester));
    let left = balance(chain, requester)?.minus_or_zero(NanoAria::new(owed));
    if left < fee {
        let (fee, left) = (Amount(fee), Amount(left));
        let text = format!("aria.max_fee {fee} is more than the requester's account has besides what it owes, {left}");
        return Err(GenerateError::Fee(text));
    }
    Ok(fee)
}

fn balance(chain: &Chain, node: &NodeId) -> Result<NanoAria, GenerateError> {
    let account = Reader(&chain.view()).account(node).map_err(|error| GenerateError::Engine(error.to_string()))?;
    Ok(account.unwrap_or_default().balance)
}

/// What this node pays for a client, which may ask for less than its operator allows, and never for more.
fn own(chain: &Chain, most: NanoAria, audit: AuditMode, asked: Option<NanoAria>) -> Result<NanoAria, GenerateError> {
    let fee = asked.unwrap_or(most);
    if fee > most {
        return Err(GenerateError::Fee(format!(
            "aria.max_fee {fee} is above {most} nano-ARIA, the most that this node pays for its clients; ask for less, or its operator raises --client-fee"
        )));
    }
    if fee == NanoAria::ZERO || audit == AuditMode::None {
        // What nobody may check earns nothing, so nothing is paid.
        return Ok(NanoAria::ZERO);
    }
    let balance = balance(chain, &chain.key.node_id())?;
    if balance >= fee {
        return Ok(fee);
    }
    if asked.is_some() {
        let (fee, balance) = (Amount(fee), Amount(balance));
        return Err(GenerateError::Fee(format!("aria.max_fee {fee} is more than this node's account has, {balance}")));
    }
    tracing::warn!(%fee, %balance, "the account has not what --client-fee says; the answer is free");
    Ok(NanoAria::ZERO)
}
