//! Listing records: one index gives the candidates, the rest of the filter is checked on each.

use std::ops::Bound;

use super::super::error::StoreError;
use super::super::schema::{self, Tree, damaged};
use super::super::{Cursor, Order, Page, RecordFilter, RecordPage};
use super::{Ledger, Tables};
use crate::limits::{PAGE_RECORDS_MAX, PAGE_SCAN_MAX};
use crate::record::RecordEntry;
use crate::units::Height;

pub(super) fn records<T: Tables>(
    ledger: &Ledger<T>,
    filter: &RecordFilter,
    page: &Page,
) -> Result<RecordPage, StoreError> {
    let limit = page.limit.clamp(1, PAGE_RECORDS_MAX);
    let tip = ledger.tip_now().height;
    let from = Cursor { height: filter.from.unwrap_or(Height::ZERO), index: 0 };
    let to = Cursor { height: filter.to.unwrap_or(tip).min(tip), index: u32::MAX };
    let (tree, prefix) = index_of(filter);
    let key = |cursor: Cursor| [prefix.clone(), schema::place_key(cursor.height, cursor.index)].concat();
    let (mut low, mut high) = (Bound::Included(key(from)), Bound::Included(key(to)));
    if let Some(cursor) = page.after {
        match page.order {
            Order::Ascending if cursor >= from => low = Bound::Excluded(key(cursor)),
            Order::Descending if cursor <= to => high = Bound::Excluded(key(cursor)),
            Order::Ascending | Order::Descending => {}
        }
    }
    let mut listed = RecordPage::default();
    let mut scanned = 0;
    let mut last_seen = None;
    let mut visit = |key: &[u8], _: &[u8]| {
        if scanned == PAGE_SCAN_MAX {
            listed.next = last_seen;
            return Ok(false);
        }
        scanned += 1;
        let (height, index) = schema::place_of(key).ok_or_else(|| damaged(tree, key, "its key is no place"))?;
        last_seen = Some(Cursor { height, index });
        let entry = entry_at(ledger, height, index)?;
        if !matches(filter, &entry) {
            return Ok(true);
        }
        if listed.records.len() == limit {
            listed.next = listed.records.last().map(|entry| Cursor { height: entry.height, index: entry.index });
            return Ok(false);
        }
        listed.records.push(entry);
        Ok(true)
    };
    ledger.tables.scan(tree, as_slice(&low), as_slice(&high), page.order, &mut visit)?;
    Ok(listed)
}

/// The narrowest index for a filter, and the prefix of its keys.
fn index_of(filter: &RecordFilter) -> (Tree, Vec<u8>) {
    match filter {
        RecordFilter { node: Some(node), .. } => (Tree::Nodes, schema::node_prefix(node)),
        RecordFilter { model: Some(model), .. } => (Tree::Models, schema::model_prefix(model)),
        RecordFilter { status: Some(status), .. } => (Tree::Statuses, schema::status_prefix(*status)),
        RecordFilter { node: None, model: None, status: None, .. } => (Tree::Proofs, Vec::new()),
    }
}

fn matches(filter: &RecordFilter, entry: &RecordEntry) -> bool {
    let has_node = filter.node.is_none_or(|node| entry.record.stages.iter().any(|stage| stage.node_id == node));
    let has_model = filter.model.is_none_or(|model| entry.record.model_id == model);
    let has_status = filter.status.is_none_or(|status| entry.status == status);
    has_node && has_model && has_status
}

fn entry_at<T: Tables>(ledger: &Ledger<T>, height: Height, index: u32) -> Result<RecordEntry, StoreError> {
    let record = ledger.proof_at(height, index)?.record;
    let id = record.id();
    let place = ledger.place(&id)?.ok_or_else(|| damaged(Tree::Records, id.as_bytes(), "it is missing"))?;
    Ok(RecordEntry { id, record, status: place.status, height, index })
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
