//! One row of a pass, what is wanted of it, and who may watch it.

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
    /// Logits that are wanted of it.
    pub wants: Wants,
}

/// Logits that are wanted of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// So many of the greatest, in the order of R12.
    pub greatest: usize,
    /// All of them, which costs several times as much.
    pub all: bool,
}

impl Wants {
    /// No logits: most rows of a prompt.
    pub const NOTHING: Wants = Wants { greatest: 0, all: false };
    /// Every logit.
    pub const ALL: Wants = Wants { greatest: 0, all: true };

    /// The `count` greatest.
    #[must_use]
    pub fn greatest(count: usize) -> Wants {
        Wants { greatest: count, all: false }
    }

    /// Whether there is anything to compute.
    #[must_use]
    pub fn any(self) -> bool {
        self.all || self.greatest > 0
    }
}

/// Sees the residual stream at each boundary: tests hash it.
pub trait Observe {
    /// `states` is `[rows][dim]`.
    fn boundary(&mut self, boundary: usize, states: &[f32]);
}

/// What the scheduler guarantees about the rows of a pass.
pub(super) fn check_rows(model: &Model, sessions: &[Session], rows: &[Row]) {
    assert!(rows.len() <= ROWS_MAX, "at most {ROWS_MAX} rows in a pass");
    assert!(rows.iter().filter(|row| row.wants.any()).count() <= LOGIT_ROWS_MAX, "a bounded number of logits");
    for (index, row) in rows.iter().enumerate() {
        // Rows of a session mostly follow each other, so the search ends at once.
        let earlier = rows[..index].iter().rev().find(|other| other.session == row.session);
        let next = earlier.map_or(sessions[row.session].position, |other| other.position + 1);
        assert_eq!(row.position, next, "rows of a session are its next positions, in order");
        assert!(row.position < sessions[row.session].capacity().min(model.context), "room in the session");
        assert!((row.token as usize) < model.hyper.vocab, "a token of the vocabulary");
    }
}
