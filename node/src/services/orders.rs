//! Clients that pay by themselves: each request is offered to its requester to sign before it is run, and its record after.
//!
//! 1. A call that names a requester is put into a request and offered. Nothing is computed yet.
//! 2. Its requester signs the request; what was offered is run, and nothing else.
//! 3. The record of the answer is owed a receipt. With it the proof is whole, and the fee can be taken.
//!
//! A requester that gives no receipt has an answer for nothing: it may owe a few, then it is offered no more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use aria_chain::{
    codec::Versioned,
    ids::{NodeId, RecordId, RequestId},
    keys::{Signature, verify_request},
    proof::VerifiedProof,
    request::InferenceRequest,
    units::{Millis, Timestamp},
};
use aria_inference::generation::GenerationRequest;
use aria_rpc::services::{GenerateError, Owed};

use super::gateway::{Admitted, Secrets, Terms, Unreceipted};
use crate::audit::payload::Payload;

/// How long an offer stands.
const OFFER_MAX: Millis = Millis::new(60_000);
/// How long a receipt is waited for. Then the record is forgotten, and so is the debt.
const RECEIPT_MAX: Millis = Millis::new(3_600_000);
/// Offers at once, of all requesters and of one. An offer holds a prompt.
const OFFERS_MAX: usize = 256;
const OFFERS_EACH_MAX: usize = 16;
/// Records that wait for receipts at once, of all requesters and of one.
const OWED_MAX: usize = 1_024;
const OWED_EACH_MAX: usize = 4;

/// What is to be run, and under which terms.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) request: InferenceRequest,
    pub(super) generation: GenerationRequest,
    pub(super) terms: Terms,
    pub(super) ram_mb: u32,
    pub(super) secrets: Secrets,
}

/// A finished answer without its receipt.
struct Finished {
    proof: Unreceipted,
    payload: Option<Payload>,
}

/// Offers that stand, and records that are owed a receipt, each with its time.
#[derive(Default)]
pub(super) struct Orders(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    offers: HashMap<RequestId, (Timestamp, Order)>,
    owed: HashMap<RecordId, (Timestamp, Finished)>,
}

impl Tables {
    fn forget_old(&mut self, now: Timestamp) {
        self.offers.retain(|_, (since, _)| now.since(*since) <= OFFER_MAX);
        self.owed.retain(|_, (since, _)| now.since(*since) <= RECEIPT_MAX);
    }

    /// Who compares offers signs few of them: its oldest gives way.
    fn make_room(&mut self, requester: &NodeId) {
        let own = self.offers.iter().filter(|(_, (_, order))| order.request.requester == *requester);
        let mut own: Vec<(Timestamp, RequestId)> = own.map(|(id, (since, _))| (*since, *id)).collect();
        if own.len() >= OFFERS_EACH_MAX {
            own.sort_unstable();
            self.offers.remove(&own[0].1);
        }
    }
}

impl Orders {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().expect("no section that holds this lock panics")
    }

    /// Keeps an order until its requester has signed it. The error is the offer.
    pub(super) fn offer(&self, order: Order, provider: NodeId, now: Timestamp) -> GenerateError {
        let mut tables = self.tables();
        tables.forget_old(now);
        let requester = order.request.requester;
        let owed = tables.owed.values().filter(|(_, owed)| owed.proof.request.requester == requester).count();
        if owed >= OWED_EACH_MAX {
            return GenerateError::ReceiptOwed { requester, owed };
        }
        tables.make_room(&requester);
        if tables.offers.len() >= OFFERS_MAX || tables.owed.len() >= OWED_MAX {
            let reason = "too many offers wait for a signature, or answers for a receipt".into();
            return GenerateError::Busy { reason, retry_after_s: OFFER_MAX.get() / 1_000 };
        }
        let request = Box::new(order.request.clone());
        tables.offers.insert(request.id(), (now, order));
        GenerateError::Unsigned { request, provider }
    }

    /// Takes an order whose request is signed now.
    pub(super) fn redeem(
        &self,
        id: &RequestId,
        signature: Signature,
        now: Timestamp,
    ) -> Result<(Order, Admitted), GenerateError> {
        let mut tables = self.tables();
        tables.forget_old(now);
        let unknown =
            || GenerateError::Signature { field: "aria.request_id", rule: "is of no offer that stands; ask again" };
        let request = &tables.offers.get(id).ok_or_else(unknown)?.1.request;
        if !verify_request(&request.requester, &request.chain_id, id, &signature) {
            let (field, rule) = ("aria.signature", "is not the requester's over this request");
            return Err(GenerateError::Signature { field, rule });
        }
        let (_, order) = tables.offers.remove(id).ok_or_else(unknown)?;
        let admitted = Admitted::new(order.request.clone(), signature, order.secrets);
        Ok((order, admitted))
    }

    /// Keeps the record of an answer until its requester has signed for it, with what its auditors may ask for.
    pub(super) fn owe(&self, proof: Unreceipted, payload: Option<Payload>, now: Timestamp) -> Owed {
        let owed = owed(&proof);
        self.tables().owed.insert(proof.record.id(), (now, Finished { proof, payload }));
        owed
    }

    /// What a requester pays once it signs for what it got.
    pub(super) fn promised(&self, requester: &NodeId) -> u64 {
        let tables = self.tables();
        let requests = tables.owed.values().map(|(_, owed)| &owed.proof.request);
        let own = requests.filter(|request| request.requester == *requester);
        own.fold(0, |sum, request| sum.saturating_add(request.max_fee.get()))
    }

    /// What a requester owes receipts for.
    pub(super) fn owed(&self, requester: &NodeId, now: Timestamp) -> Vec<Owed> {
        let mut tables = self.tables();
        tables.forget_old(now);
        let own = tables.owed.values().filter(|(_, owed)| owed.proof.request.requester == *requester);
        own.map(|(_, finished)| owed(&finished.proof)).collect()
    }

    /// The whole proof of a record, once its requester signed for it, with what its auditors may ask for. It is owed until
    /// [`Orders::settle`]: who could not keep it can be given it again.
    pub(super) fn receive(
        &self,
        record: &RecordId,
        receipt: Signature,
    ) -> Result<(VerifiedProof, Option<Payload>), String> {
        let tables = self.tables();
        let unknown = || "no receipt is owed for this record; it was given, or an hour is over".to_owned();
        let (_, finished) = tables.owed.get(record).ok_or_else(unknown)?;
        let proof = finished.proof.clone().receipted(receipt).map_err(|error| error.to_string())?;
        Ok((proof, finished.payload.clone()))
    }

    /// Its proof is on disk.
    pub(super) fn settle(&self, record: &RecordId) {
        self.tables().owed.remove(record);
    }
}

fn owed(proof: &Unreceipted) -> Owed {
    Owed { record_id: proof.record.id(), record: proof.record.encode() }
}
