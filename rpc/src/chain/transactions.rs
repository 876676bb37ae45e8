//! Transactions: those in blocks, and what waits or is submitted, proofs and transactions alike.

use aria_chain::codec::Versioned;
use aria_chain::ids::{RecordId, TransactionId};
use aria_chain::limits::{PAGE_RECORDS_MAX, PROOF_BYTES_MAX};
use aria_chain::proof::SignedProof;
use aria_chain::store::Cursor;
use aria_chain::transaction::SignedTransaction;
use aria_runtime::fixed::part;
use aria_runtime::rules::transaction::{own_fee, price};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::api::{Answer, REJECTED, unavailable};
use super::arguments::{Arguments, invalid};
use super::rewards::params;
use super::views;
use crate::services::{Services, Submission, WaitingProof, WaitingTransaction};

/// A transaction with its place, or null while no block has it.
pub(super) fn get_transaction(services: &dyn Services, arguments: &Arguments) -> Answer {
    let found = services.store().transaction(&arguments.parse("id")?).map_err(|error| unavailable(&error))?;
    Ok(found.as_ref().map_or(Value::Null, placed))
}

fn placed((place, signed): &(Cursor, SignedTransaction)) -> Value {
    let mut view = views::transaction(signed);
    view["height"] = json!(place.height);
    view["index"] = json!(place.index);
    view
}

/// What a transaction came to. One that fails is in no block, so being in one is success.
pub(super) fn get_receipt(services: &dyn Services, arguments: &Arguments) -> Answer {
    let (id, store) = (arguments.parse::<TransactionId>("id")?, services.store());
    let found = store.transaction(&id).map_err(|error| unavailable(&error))?;
    let Some((place, signed)) = found else { return Ok(Value::Null) };
    let header = store.header(place.height).map_err(|error| unavailable(&error))?;
    let (fee, params) = (signed.transaction.fee.get(), params(services)?);
    let own = own_fee(&signed.transaction, &params).get();
    let to_proposer = own - part(own, params.fee_burn_ppm);
    Ok(json!({
        "id": id,
        "success": true,
        "height": place.height,
        "index": place.index,
        "block_hash": header.as_ref().map(|header| header.hash()),
        "timestamp": header.as_ref().map(|header| header.timestamp_ms),
        "action": signed.transaction.action.name(),
        "fee": fee.to_string(),
        "fee_burned": (fee - to_proposer).to_string(),
        "fee_to_proposer": to_proposer.to_string(),
        "fee_of_deposit": (fee - own).to_string(),
        "registration_fee": price(&signed.transaction.action, &params).to_string(),
        "proposer": header.as_ref().map(|header| header.proposer),
    }))
}

/// Transactions in blocks, the newest first, page by page.
pub(super) fn list_transactions(services: &dyn Services, arguments: &Arguments) -> Answer {
    let (limit, store) = (page_limit(arguments)?, services.store());
    let found = store.transactions(arguments.opt_parse("cursor")?, limit).map_err(|error| unavailable(&error))?;
    let next = found.last().filter(|_| found.len() == limit).map(|(place, _)| place.to_string());
    Ok(json!({"transactions": found.iter().map(placed).collect::<Vec<Value>>(), "next_cursor": next}))
}

/// How many entries a page is to have.
pub(super) fn page_limit(arguments: &Arguments) -> Result<usize, ErrorObjectOwned> {
    let limit = arguments.opt_u64("limit")?.and_then(|limit| usize::try_from(limit).ok());
    Ok(limit.unwrap_or(PAGE_RECORDS_MAX).clamp(1, PAGE_RECORDS_MAX))
}

fn waiting_proof(waiting: &WaitingProof) -> Value {
    let record = waiting.proof.record();
    json!({
        "id": waiting.proof.record_id(),
        "kind": "proof",
        "since": waiting.since_ms,
        "bytes": waiting.proof.size_bytes(),
        "model_id": record.model_id,
        "node_ids": record.stages.iter().map(|stage| stage.node_id).collect::<Vec<_>>(),
        "requester": waiting.proof.proof().request.requester,
        "expiry": waiting.proof.proof().request.expiry,
    })
}

fn waiting_transaction(waiting: &WaitingTransaction) -> Value {
    let mut view = views::transaction(waiting.transaction.signed());
    view["kind"] = json!("transaction");
    view["since"] = json!(waiting.since_ms);
    view["bytes"] = json!(waiting.transaction.size_bytes());
    view
}

/// What waits for a block, page by page: proofs by arrival, or transactions by account. The cursor is the last id shown.
pub(super) fn mempool_list(services: &dyn Services, arguments: &Arguments) -> Answer {
    let limit = page_limit(arguments)?;
    let (mut waiting, ids): (Vec<Value>, Vec<String>) = match arguments.get("kind").map(Value::as_str) {
        None | Some(Some("proof")) => {
            let after = arguments.opt_parse::<RecordId>("cursor")?;
            let found = services.waiting_after(after.as_ref(), limit + 1);
            found.iter().map(|one| (waiting_proof(one), one.proof.record_id().to_string())).unzip()
        }
        Some(Some("transaction")) => {
            let after = arguments.opt_parse::<TransactionId>("cursor")?;
            let found = services.waiting_transactions_after(after.as_ref(), limit + 1);
            found.iter().map(|one| (waiting_transaction(one), one.transaction.id().to_string())).unzip()
        }
        Some(_) => return Err(invalid("kind", "must be `proof` or `transaction`")),
    };
    let next = ids.get(limit - 1).filter(|_| waiting.len() > limit);
    waiting.truncate(limit);
    Ok(json!({"waiting": waiting, "next_cursor": next}))
}

/// A proof or a transaction that waits, whole.
pub(super) fn mempool_get(services: &dyn Services, arguments: &Arguments) -> Answer {
    if let Some(waiting) = services.waiting(&arguments.parse("id")?) {
        let mut view = waiting_proof(&waiting);
        view["proof"] = views::useful_work_proof(waiting.proof.proof());
        view["bytes_hex"] = json!(hex::encode(waiting.proof.proof().encode()));
        return Ok(view);
    }
    let transaction = services.waiting_transaction(&arguments.parse("id")?);
    Ok(transaction.as_ref().map_or(Value::Null, waiting_transaction))
}

/// The bytes of a signed proof or of a signed transaction, in hex.
fn submission(arguments: &Arguments) -> Result<Submission, ErrorObjectOwned> {
    let Some(text) = arguments.get("bytes").and_then(Value::as_str) else {
        return Err(invalid("bytes", "must be hex"));
    };
    if text.len() > 2 * PROOF_BYTES_MAX {
        return Err(invalid("bytes", format!("must be at most {PROOF_BYTES_MAX} bytes")));
    }
    let bytes = hex::decode(text).map_err(|_| invalid("bytes", "must be hex"))?;
    // No bytes are both: the shortest proof is longer than a transaction may be.
    match (SignedProof::decode(&bytes), SignedTransaction::decode(&bytes)) {
        (Ok(proof), _) => Ok(Submission::Proof(Box::new(proof))),
        (Err(_), Ok(transaction)) => Ok(Submission::Transaction(Box::new(transaction))),
        (Err(proof), Err(transaction)) => {
            Err(invalid("bytes", format!("are no signed proof ({proof}) and no signed transaction ({transaction})")))
        }
    }
}

/// What would become of a proof or a transaction, without submitting it.
pub(super) fn mempool_simulate(services: &dyn Services, arguments: &Arguments) -> Answer {
    Ok(match services.simulate(submission(arguments)?) {
        Ok(id) => json!({"accepted": true, "id": id, "reason": null}),
        Err(reason) => json!({"accepted": false, "id": null, "reason": reason}),
    })
}

/// Takes a proof or a transaction and gives its id. When this returns it is on disk.
pub(super) fn mempool_submit(services: &dyn Services, arguments: &Arguments) -> Answer {
    let id = services.submit(submission(arguments)?).map_err(|reason| {
        ErrorObjectOwned::owned(REJECTED, format!("refused: {reason}"), Some(json!({"reason": "rejected"})))
    })?;
    Ok(json!(id))
}
