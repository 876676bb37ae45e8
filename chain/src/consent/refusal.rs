//! Why a contract cannot be, and why one does not admit what is asked.

use super::time::{Day, Minute};
use super::{Days, Schedule, TaskTypes};
use crate::request::TaskType;
use crate::units::NanoAria;

/// Longest text of somebody else that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// A contract that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// A number has a range.
    #[error("{field} must be {min} to {max}, not {got}; choose a number in between")]
    Range {
        /// Which.
        field: &'static str,
        /// What it was.
        got: u64,
        /// Least allowed.
        min: u64,
        /// Greatest allowed.
        max: u64,
    },
    /// A text has a form.
    #[error("{field} must be {form}, not `{got}`")]
    Form {
        /// Which.
        field: &'static str,
        /// What it must be.
        form: &'static str,
        /// What it was.
        got: String,
    },
    /// A contract for nothing is none.
    #[error("{field} names nothing; name at least one, or revoke the contract")]
    Nothing {
        /// Which.
        field: &'static str,
    },
}

impl ConsentError {
    /// A field that is not of its form.
    pub fn form(field: &'static str, form: &'static str, got: &str) -> ConsentError {
        ConsentError::Form { field, form, got: got.chars().take(SHOWN_CHARS_MAX).collect() }
    }

    pub(super) fn schedule(got: &str) -> ConsentError {
        ConsentError::form("schedule", "two times of the day in UTC, as in 08:00-22:00", got)
    }

    pub(super) fn day(got: &str) -> ConsentError {
        ConsentError::form("days", "mon, tue, wed, thu, fri, sat, sun, or all", got)
    }

    pub(super) fn task(got: &str) -> ConsentError {
        let form = "of text_gen, code_gen, summarization, translation, embedding, or any";
        ConsentError::form("task_types", form, got)
    }
}

/// Why a contract does not admit what is asked. One variant per clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The time of the day.
    #[error("this node's consent, clause schedule: it is {at} UTC, and it serves {schedule} UTC; ask again then")]
    Schedule {
        /// When it was asked.
        at: Minute,
        /// As the contract says.
        schedule: Schedule,
    },
    /// The day on which the window began.
    #[error("this node's consent, clause days: the window began on {}, and it serves on {days}; ask again then", began.name())]
    Days {
        /// When the window began.
        began: Day,
        /// As the contract says.
        days: Days,
    },
    /// The kind of task.
    #[error(
        "this node's consent, clause task: the request is of type {}, and it serves {accepted}; state another type, or ask another node",
        asked.name()
    )]
    Task {
        /// As the request says.
        asked: TaskType,
        /// As the contract says.
        accepted: TaskTypes,
    },
    /// The memory.
    #[error(
        "this node's consent, clause ram: the request takes {asked_mb} MB with the model, and {max_mb} MB are allowed; ask for fewer tokens or answers"
    )]
    Ram {
        /// What it takes.
        asked_mb: u32,
        /// As the contract says.
        max_mb: u32,
    },
    /// The reward.
    #[error(
        "this node's consent, clause reward: an answer can earn {offered} nano-ARIA here, and {min} are demanded; ask for a registered model and let it be audited"
    )]
    Reward {
        /// What the answer can earn.
        offered: NanoAria,
        /// As the contract says.
        min: NanoAria,
    },
    /// The number of answers.
    #[error(
        "this node's consent, clause concurrency: {running} answers are in the making, and {max} are allowed; ask again in a moment"
    )]
    Concurrency {
        /// Answers in the making.
        running: u16,
        /// As the contract says.
        max: u16,
    },
    /// Nothing is allowed any more.
    #[error("this node's consent, clause revoked: its operator took the consent back; ask another node")]
    Revoked,
}

impl Refusal {
    /// The clause that forbids it: a stable word for programs.
    pub fn clause(&self) -> &'static str {
        match self {
            Refusal::Schedule { .. } => "schedule",
            Refusal::Days { .. } => "days",
            Refusal::Task { .. } => "task",
            Refusal::Ram { .. } => "ram",
            Refusal::Reward { .. } => "reward",
            Refusal::Concurrency { .. } => "concurrency",
            Refusal::Revoked => "revoked",
        }
    }
}
