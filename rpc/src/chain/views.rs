//! What rests in the store, as JSON. Field names are those of the seed documents where they have one: a block has `index`,
//! `timestamp`, `previous_hash`, `miner_id`; ids and hashes are hex without prefix; amounts are decimal text.

use aria_chain::{
    attestation::{Opening, SignedAttestation, Statement},
    block::Header,
    certificate::CommitCertificate,
    evidence::{Evidence, Said},
    keys::Signature,
    model::proposal_id,
    proof::SignedProof,
    record::{BackendClass, EnergySource, RecordEntry},
    store::{StoredBlock, Tip},
    transaction::{Action, SignedTransaction},
};
use aria_runtime::rating::rating;
use serde_json::{Value, json};

use crate::consent;

/// The block that an answer speaks of.
pub fn at(tip: &Tip) -> Value {
    json!({"height": tip.height, "hash": tip.hash})
}

/// A header.
pub fn header(header: &Header) -> Value {
    json!({
        "index": header.height,
        "hash": header.hash(),
        "chain_id": header.chain_id,
        "round": header.round,
        "timestamp": header.timestamp_ms,
        "previous_hash": header.parent,
        "miner_id": header.proposer,
        "record_count": header.record_count,
        "records_root": header.records_root,
        "transaction_count": header.transaction_count,
        "attestation_count": header.attestation_count,
        "vrf": header.vrf.to_string(),
        "evidence_count": header.evidence_count,
        "body_root": header.body_root,
        "state_root": header.state_root,
        "validators_hash": header.validators_hash,
        "next_validators_hash": header.next_validators_hash,
        "nonce": header.nonce,
    })
}

/// A certificate.
pub fn certificate(certificate: &CommitCertificate) -> Value {
    let signatures = certificate
        .signatures
        .iter()
        .map(|one| json!({"node_id": one.node_id, "signature": one.signature.to_string()}));
    json!({
        "height": certificate.height,
        "round": certificate.round,
        "block_hash": certificate.block_hash,
        "signatures": signatures.collect::<Vec<Value>>(),
    })
}

/// A block with its records as given.
pub fn block(block: &StoredBlock, records: Vec<Value>) -> Value {
    let mut view = header(&block.header);
    view["records"] = Value::Array(records);
    view["transactions"] = block.body.transactions.iter().map(transaction).collect();
    view["attestations"] = block.body.attestations.iter().map(attestation).collect();
    view["evidence"] = block.body.evidence.iter().map(evidence).collect();
    view
}

/// A transaction, wherever it stands.
pub fn transaction(signed: &SignedTransaction) -> Value {
    let transaction = &signed.transaction;
    let mut view = json!({
        "id": transaction.id(),
        "chain_id": transaction.chain_id,
        "sender": transaction.sender,
        "nonce": transaction.nonce,
        "fee": transaction.fee.to_string(),
        "expiry": transaction.expiry,
        "action": transaction.action.name(),
        "to": null,
        "amount": transaction.action.amount().map(|amount| amount.to_string()),
        "contract": null,
        "doubt": null,
        "sobriety": null,
        "leak": null,
        "challenge": null,
        "delivery": null,
        "signature": signed.signature.to_string(),
    });
    match &transaction.action {
        Action::Transfer { to, .. } => view["to"] = json!(to),
        Action::Bond { .. } | Action::Unbond { .. } | Action::Consent { contract: None } => {}
        Action::Consent { contract: Some(contract) } => view["contract"] = consent::show(contract),
        Action::Doubt { height, index, auditor } => {
            view["doubt"] = json!({"height": height, "index": index, "auditor": auditor});
        }
        Action::Leak { height, index, auditor, opening } => {
            view["leak"] = shown(*index, opening);
            view["leak"]["height"] = json!(height);
            view["leak"]["auditor"] = json!(auditor);
        }
        Action::Challenge { height, index } => view["challenge"] = json!({"height": height, "index": index}),
        Action::Deliver { height, index, part, parts, sealed } => {
            view["delivery"] =
                json!({"height": height, "index": index, "part": part, "parts": parts, "bytes": sealed.len()});
        }
        Action::Sobriety(attestation) => view["sobriety"] = json!(attestation),
        Action::RegisterModel { model, name, shape } => {
            view["model_id"] = json!(model);
            view["name"] = json!(name.as_str());
            view["shape"] = json!(shape);
            view["proposal"] = json!(proposal_id(model, name, shape));
        }
        Action::ConfirmModel { model, proposal } => {
            view["model_id"] = json!(model);
            view["proposal"] = json!(proposal);
        }
    }
    view
}

/// What an auditor committed to about a record.
fn shown(index: u32, opening: &Opening) -> Value {
    let secret: String = opening.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"index": index, "verdict": opening.verdict, "root": opening.root, "secret": secret})
}

/// What an auditor says of records of a block.
pub fn attestation(signed: &SignedAttestation) -> Value {
    let said = &signed.attestation;
    let (kind, items): (&str, Vec<Value>) = match &said.statement {
        Statement::Commit(items) => (
            "commit",
            items.iter().map(|(index, commitment)| json!({"index": index, "commitment": commitment})).collect(),
        ),
        Statement::Open(items) => ("open", items.iter().map(|(index, opening)| shown(*index, opening)).collect()),
    };
    json!({
        "id": said.id(),
        "auditor": said.auditor,
        "height": said.height,
        "kind": kind,
        "records": items,
        "signature": signed.signature.to_string(),
    })
}

/// A validator that contradicted itself.
pub fn evidence(piece: &Evidence) -> Value {
    let statement =
        |(said, signature): &(Said, Signature)| json!({"block_hash": said.block(), "signature": signature.to_string()});
    json!({
        "id": piece.digest(),
        "node_id": piece.node_id,
        "kind": piece.first.0.name(),
        "height": piece.height,
        "round": piece.round,
        "statements": [statement(&piece.first), statement(&piece.second)],
    })
}

/// A record. `model` is the name that the chain knows its model by.
pub fn record(entry: &RecordEntry, model: Option<&str>) -> Value {
    let record = &entry.record;
    let node_ids: Vec<_> = record.stages.iter().map(|stage| stage.node_id).collect();
    let stages: Vec<Value> = record
        .stages
        .iter()
        .map(|stage| json!({"node_id": stage.node_id, "layer_start": stage.layer_start, "layer_end": stage.layer_end}))
        .collect();
    let letter = rating(record.energy_uj.get(), u64::from(record.tokens_generated));
    json!({
        "id": entry.id,
        "status": entry.status,
        "height": entry.height,
        "index": entry.index,
        "request_id": record.request_id,
        "query_hash": record.query_hash,
        "output_hash": record.output_hash,
        "model_id": record.model_id,
        "model": model,
        "node_ids": node_ids,
        "stages": stages,
        "backend": backend(record.backend),
        "energy_mj": millijoules(record.energy_uj.get()),
        "energy_source": source(record.energy_source),
        "rating": letter.map(|letter| letter.to_string()),
        "latency_ms": record.latency_ms,
        "first_token_ms": record.first_token_ms,
        "prompt_tokens": record.prompt_tokens,
        "tokens_generated": record.tokens_generated,
        "timestamp": record.timestamp_ms,
        "transcript_root": record.transcript_root,
    })
}

/// The whole proof of a record: request, record, every signature.
pub fn useful_work_proof(proof: &SignedProof) -> Value {
    let request = &proof.request;
    let stage_signatures: Vec<String> = proof.stage_signatures.iter().map(ToString::to_string).collect();
    json!({
        "request": {
            "id": request.id(),
            "chain_id": request.chain_id,
            "model_id": request.model_id,
            "prompt_commitment": request.prompt_commitment,
            "temperature_ppm": request.temperature_ppm,
            "top_p_ppm": request.top_p_ppm,
            "top_k": request.top_k,
            "min_p_ppm": request.min_p_ppm,
            "repetition_penalty_ppm": request.repetition_penalty_ppm,
            "presence_penalty_ppm": request.presence_penalty_ppm,
            "frequency_penalty_ppm": request.frequency_penalty_ppm,
            "logit_bias_commitment": request.logit_bias_commitment,
            "seed": request.seed.to_string(),
            "choices": request.choices,
            "max_tokens": request.max_tokens,
            "stop_commitment": request.stop_commitment,
            "task_type": request.task_type,
            "audit": request.audit,
            "max_fee": request.max_fee.to_string(),
            "requester": request.requester,
            "nonce": request.nonce.to_string(),
            "expiry": request.expiry,
        },
        "record_id": proof.record.id(),
        "request_signature": proof.request_signature.to_string(),
        "stage_signatures": stage_signatures,
        "receipt_signature": proof.receipt_signature.to_string(),
    })
}

/// Microjoules as decimal millijoules.
#[expect(clippy::cast_precision_loss, reason = "shown to people; the exact number is in the record")]
pub fn millijoules(microjoules: u64) -> f64 {
    microjoules as f64 / 1000.0
}

fn source(source: EnergySource) -> &'static str {
    match source {
        EnergySource::Measured => "measured",
        EnergySource::Estimated => "estimated",
    }
}

fn backend(class: BackendClass) -> &'static str {
    match class {
        BackendClass::Canonical => "canonical",
        BackendClass::External => "external",
        BackendClass::Simulation => "simulation",
    }
}

#[cfg(test)]
mod tests {
    use aria_chain::attestation::Verdict;
    use aria_chain::ids::Digest;
    use aria_chain::keys::NodeKey;
    use aria_chain::transaction::Transaction;
    use aria_chain::units::{Height, NanoAria};

    use super::*;

    fn shown_as(action: Action) -> Value {
        let (key, chain_id) = (NodeKey::from_seed(&[1; 32]), "aria-test".parse().expect("a name"));
        let (fee, expiry) = (NanoAria::new(7), Height::new(8));
        let transaction = Transaction { chain_id, sender: key.node_id(), nonce: 6, fee, expiry, action };
        let signature = key.sign_transaction(&transaction.chain_id, &transaction.id());
        super::transaction(&SignedTransaction { transaction, signature })
    }

    #[test]
    fn a_challenge_and_its_answer_show_about_which_record() {
        let (height, index) = (Height::new(9), 5);
        let view = shown_as(Action::Challenge { height, index });
        let challenge = json!({"height": 9, "index": 5});
        assert_eq!((&view["action"], &view["challenge"]), (&json!("challenge"), &challenge));
        let view = shown_as(Action::Deliver { height, index, part: 1, parts: 2, sealed: vec![3; 40] });
        let delivery = json!({"height": 9, "index": 5, "part": 1, "parts": 2, "bytes": 40});
        assert_eq!((&view["action"], &view["delivery"]), (&json!("deliver"), &delivery));
    }

    #[test]
    fn a_leak_shows_whose_it_is_and_what() {
        let auditor = NodeKey::from_seed(&[2; 32]).node_id();
        let opening = Opening { secret: [3; 32], verdict: Verdict::Valid, root: Digest::new([4; 32]) };
        let action = Action::Leak { height: Height::new(9), index: 5, auditor, opening };
        let view = shown_as(action);
        let (secret, root) = ("03".repeat(32), "04".repeat(32));
        let leak =
            json!({"height": 9, "index": 5, "auditor": auditor, "secret": secret, "verdict": "valid", "root": root});
        assert_eq!((&view["action"], &view["leak"], &view["doubt"]), (&json!("leak"), &leak, &Value::Null));
    }
}
