//! Who gets which rows of the next pass, and what the pass cost whom.

use std::ops::Range;
use std::time::Duration;

use super::Task;
use crate::forward::{LOGIT_ROWS_MAX, ROWS_MAX, Row};

/// Prompt rows of a pass while nobody decodes: enough to reuse each weight many times.
const PREFILL_ROWS_ALONE: usize = 256;
/// Prompt rows of a pass beside decoding choices: they wait for the whole pass, so it is kept short.
const PREFILL_ROWS_BESIDE: usize = 64;
const _: () = assert!(PREFILL_ROWS_ALONE <= ROWS_MAX && LOGIT_ROWS_MAX + PREFILL_ROWS_BESIDE <= ROWS_MAX, "passes fit");

/// What a task may add to a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Rows of prompt or claim. Decoding rows are always allowed.
    pub(super) prefill: usize,
    /// Rows that want logits.
    pub(super) logits: usize,
}

/// What a task has in a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Planned {
    /// Its rows.
    pub(super) rows: Range<usize>,
    /// Its logits, counted over the whole pass.
    pub(super) logits: Range<usize>,
}

/// Fills `rows` with one pass, and `planned` with each task's part of it.
pub(super) fn plan(tasks: &mut [Task], rows: &mut Vec<Row>, planned: &mut Vec<Planned>) {
    rows.clear();
    planned.clear();
    let decoding: usize = tasks.iter().map(Task::decoding).sum();
    let mut readers = tasks.iter().filter(|task| task.decoding() == 0).count();
    let mut prefill = if decoding == 0 { PREFILL_ROWS_ALONE } else { PREFILL_ROWS_BESIDE };
    let mut logits = LOGIT_ROWS_MAX - decoding;
    let mut wanted = 0;
    for task in tasks {
        let is_reader = task.decoding() == 0;
        let quota = if is_reader {
            // An even share of what is left; what one does not use goes to the next.
            Quota { prefill: prefill.div_ceil(readers), logits: logits.div_ceil(readers) }
        } else {
            Quota { prefill: 0, logits: task.decoding() }
        };
        let first = rows.len();
        let part = task.plan(quota, rows);
        let used = part.logits.len();
        planned.push(Planned { rows: first..rows.len(), logits: wanted..wanted + used });
        wanted += used;
        if is_reader {
            readers -= 1;
            prefill -= rows.len() - first;
            logits -= used;
        }
    }
}

/// What one pass cost: its threads count as busy while it lasts, for between phases they spin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    cpu: Duration,
    rows: u32,
}

impl Cost {
    pub(super) fn new(elapsed: Duration, rows: usize, threads: usize) -> Cost {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        Cost { cpu: elapsed.saturating_mul(threads), rows: u32::try_from(rows.max(1)).unwrap_or(u32::MAX) }
    }

    /// Processor time of `rows` of the pass.
    pub(super) fn share(&self, rows: usize) -> Duration {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.cpu.saturating_mul(rows) / self.rows
    }
}
