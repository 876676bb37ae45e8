//! What this node pays for the requests of its own clients: they have no account, so it is this node's money.

use aria_chain::{request::AuditMode, units::NanoAria};
use aria_rpc::services::{GenerateCall, GenerateError};
use aria_runtime::state::Reader;

use crate::{amount::Amount, chain::Chain};

/// The fee of a call. `most` is what the operator pays for each answer: a client may ask for less, and never for more.
pub(super) fn fee(chain: &Chain, most: NanoAria, call: &GenerateCall) -> Result<NanoAria, GenerateError> {
    let fee = call.max_fee.unwrap_or(most);
    if fee > most {
        return Err(GenerateError::Fee(format!(
            "aria.max_fee {fee} is above {most} nano-ARIA, the most that this node pays for its clients; ask for less, or its operator raises --client-fee"
        )));
    }
    if fee == NanoAria::ZERO || call.audit == AuditMode::None {
        // What nobody may check earns nothing, so nothing is paid.
        return Ok(NanoAria::ZERO);
    }
    let account = Reader(&chain.view()).account(&chain.key.node_id());
    let balance = account.map_err(|error| GenerateError::Engine(error.to_string()))?.unwrap_or_default().balance;
    if balance >= fee {
        return Ok(fee);
    }
    if call.max_fee.is_some() {
        let (fee, balance) = (Amount(fee), Amount(balance));
        return Err(GenerateError::Fee(format!("aria.max_fee {fee} is more than this node's account has, {balance}")));
    }
    tracing::warn!(%fee, %balance, "the account has not what --client-fee says; the answer is free");
    Ok(NanoAria::ZERO)
}
