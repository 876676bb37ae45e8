//! Listing records: one index gives the candidates, the rest of the filter is checked on each.

use std::collections::BTreeSet;
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
    let key = |place: Cursor| match tree {
        Tree::Proofs => schema::place_key(place.height, place.index),
        _ => [prefix.clone(), schema::block_key(place.height)].concat(),
    };
    let is_wanted = |place: &Cursor| {
        let is_after = page.after.is_none_or(|after| match page.order {
            Order::Ascending => *place > after,
            Order::Descending => *place < after,
        });
        is_after && (from..=to).contains(place)
    };
    let (low, high) = match (page.after, page.order) {
        (Some(after), Order::Ascending) => (key(from.max(after)), key(to)),
        (Some(after), Order::Descending) => (key(from), key(to.min(after))),
        (None, _) => (key(from), key(to)),
    };
    let mut listed = RecordPage::default();
    let mut scanned = 0;
    let mut last_seen = None;
    let mut visit = |key: &[u8], value: &[u8]| {
        for place in places(tree, key, value, page.order)?.into_iter().filter(is_wanted) {
            if scanned == PAGE_SCAN_MAX {
                listed.next = last_seen;
                return Ok(false);
            }
            scanned += 1;
            last_seen = Some(place);
            let entry = entry_at(ledger, place.height, place.index)?;
            if !matches(filter, &entry) {
                continue;
            }
            if listed.records.len() == limit {
                listed.next = listed.records.last().map(|entry| Cursor { height: entry.height, index: entry.index });
                return Ok(false);
            }
            listed.records.push(entry);
        }
        Ok(true)
    };
    ledger.tables.scan(tree, Bound::Included(&low), Bound::Included(&high), page.order, &mut visit)?;
    Ok(listed)
}

/// Where the records stand that an entry of an index names.
fn places(tree: Tree, key: &[u8], value: &[u8], order: Order) -> Result<Vec<Cursor>, StoreError> {
    let no_place = || damaged(tree, key, "its key is no place");
    if tree == Tree::Proofs {
        let (height, index) = schema::place_of(key).ok_or_else(no_place)?;
        return Ok(vec![Cursor { height, index }]);
    }
    let height = schema::height_of(key).ok_or_else(no_place)?;
    let list: BTreeSet<u32> =
        borsh::from_slice(schema::unwrap(tree, key, value)?).map_err(|fault| damaged(tree, key, &fault.to_string()))?;
    let ascending = list.into_iter().map(|index| Cursor { height, index });
    Ok(match order {
        Order::Ascending => ascending.collect(),
        Order::Descending => ascending.rev().collect(),
    })
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
