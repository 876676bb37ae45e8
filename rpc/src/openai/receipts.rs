//! Receipts of clients that pay by themselves: which records wait for one, and taking it.

use aria_chain::ids::{NodeId, RecordId};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{Door, error::ApiError, fields::Fields, read_json, request::signature};
use crate::services::Owed;

/// Records that a requester has not signed for.
pub(super) async fn owed(State(services): Door, Path(requester): Path<String>) -> Result<Json<Value>, ApiError> {
    let requester: NodeId =
        requester.parse().map_err(|_| ApiError::value("requester", "must be a public key of 64 hex digits"))?;
    let show = |owed: &Owed| json!({"record_id": owed.record_id, "record": hex::encode(&owed.record)});
    let records: Vec<Value> = services.owed(&requester).iter().map(show).collect();
    Ok(Json(json!({"requester": requester, "records": records})))
}

/// Takes a receipt. When this is answered the record is on disk.
pub(super) async fn receive(
    State(services): Door,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let fields = Fields::new(read_json(&headers, body)?)?;
    let fault = || ApiError::value("record_id", "must be 64 hex digits");
    let record: RecordId = fields.str("record_id")?.and_then(|id| id.parse().ok()).ok_or_else(fault)?;
    let receipt = signature(&fields, "signature")?.ok_or_else(|| ApiError::value("signature", "is missing"))?;
    let taken = spawn_blocking(move || services.receive(&record, receipt)).await;
    match taken {
        Ok(Ok(())) => Ok(Json(json!({"record_id": record}))),
        Ok(Err(reason)) => Err(ApiError::value("record_id", reason)),
        Err(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the receipt could not be taken")),
    }
}
