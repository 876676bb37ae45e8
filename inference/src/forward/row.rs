//! One row of a pass, and who may watch it.

use super::{LOGIT_ROWS_MAX, ROWS_MAX};
use crate::model::Model;
use crate::session::Session;

/// One token of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Index of the session in the slice given to [`super::Runner::forward`].
    pub session: usize,
    /// The token. Rows of one session are consecutive positions, in order.
    pub token: u32,
    /// Its position: the session's next one, plus its earlier rows in this batch.
    pub position: usize,
    /// Whether logits are wanted.
    pub wants_logits: bool,
}

/// Sees the residual stream at each boundary: tests hash it.
pub trait Observe {
    /// `states` is `[rows][dim]`.
    fn boundary(&mut self, boundary: usize, states: &[f32]);
}

/// What the scheduler guarantees about the rows of a pass.
pub(super) fn check_rows(model: &Model, sessions: &[Session], rows: &[Row]) {
    assert!(rows.len() <= ROWS_MAX, "at most {ROWS_MAX} rows in a pass");
    assert!(rows.iter().filter(|row| row.wants_logits).count() <= LOGIT_ROWS_MAX, "a bounded number of logits");
    for (index, row) in rows.iter().enumerate() {
        let earlier = rows[..index].iter().rev().find(|other| other.session == row.session);
        let next = earlier.map_or(sessions[row.session].position, |other| other.position + 1);
        assert_eq!(row.position, next, "rows of a session are its next positions, in order");
        assert!(row.position < sessions[row.session].capacity().min(model.context), "room in the session");
        assert!((row.token as usize) < model.hyper.vocab, "a token of the vocabulary");
    }
}
