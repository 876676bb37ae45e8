//! What a node lets others do with its machine: the consent contract, and whether it admits what is asked.
//!
//! Everything here is a pure function of integers. The node that serves asks [`Consent::admits`] before it begins, and keeps
//! the limits while it runs; the chain keeps who stated which contract since when.
//!
//! In reading order: [`time`], [`tasks`], [`refusal`], and the contract itself.

use borsh::{BorshDeserialize, BorshSerialize};

pub use self::refusal::{ConsentError, Refusal};
pub use self::tasks::TaskTypes;
pub use self::time::{Days, Schedule};
use crate::hash::Domain;
use crate::ids::Digest;
use crate::request::TaskType;
use crate::units::{NanoAria, Timestamp};

pub mod refusal;
pub mod tasks;
pub mod time;

/// Most memory that can be stated, in megabytes: 16 TiB, beyond any one machine.
pub const RAM_MB_MAX: u32 = 16 * 1_024 * 1_024;
/// Most bandwidth that can be stated, in kilobits a second: 100 gigabits.
pub const BANDWIDTH_KBPS_MAX: u32 = 100_000_000;
/// Most answers at once that can be stated: more than any engine computes together.
pub const CONCURRENT_MAX: u16 = 4_096;
/// Largest reward that can be demanded, 100,000 ARIA: every amount up to it is exact where JSON shows it as a number.
pub const MIN_REWARD_MAX: NanoAria = NanoAria::new(100_000 * 1_000_000_000);

/// A contract. What is not allowed here is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Consent {
    /// Share of the machine's processors, in percent of all of them together.
    pub cpu_percent: u8,
    /// Memory of the model and its answers, in megabytes of 2^20 bytes.
    pub max_ram_mb: u32,
    /// What goes to and comes from all peers together, in kilobits a second.
    pub max_bandwidth_kbps: u32,
    /// When.
    pub schedule: Schedule,
    /// On which days a window of the schedule may begin.
    pub days: Days,
    /// For which tasks.
    pub task_types: TaskTypes,
    /// Answers in the making at once.
    pub max_concurrent_tasks: u16,
    /// Whether texts of requests and answers may be logged.
    pub allow_logging: bool,
    /// Whether the node may tell where it is.
    pub allow_geo_tracking: bool,
    /// What an answer must be able to earn.
    pub min_reward: NanoAria,
}

impl Default for Consent {
    /// What an operator begins from: a quarter of the machine, at any time, for any task.
    fn default() -> Consent {
        Consent {
            cpu_percent: 25,
            max_ram_mb: 512,
            max_bandwidth_kbps: 10_000,
            schedule: Schedule::ALWAYS,
            days: Days::ALL,
            task_types: TaskTypes::ANY,
            max_concurrent_tasks: 2,
            allow_logging: true,
            allow_geo_tracking: false,
            min_reward: NanoAria::ZERO,
        }
    }
}

/// What somebody wants of a node, as far as a contract speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// When it is to begin.
    pub at: Timestamp,
    /// What kind of task it is.
    pub task: TaskType,
    /// Memory that it takes, in megabytes, rounded up.
    pub ram_mb: u32,
    /// What its answer can earn.
    pub reward: NanoAria,
    /// Answers in the making when it comes.
    pub running: u16,
}

impl Consent {
    /// Its digest: what names it at the doors.
    pub fn digest(&self) -> Digest {
        Domain::CONSENT.hash_of(self)
    }

    /// Checks every number by itself. The other fields cannot be wrong.
    pub fn check(&self) -> Result<(), ConsentError> {
        let ranges = [
            ("cpu_percent", u64::from(self.cpu_percent), 1, 100),
            ("max_ram_mb", u64::from(self.max_ram_mb), 1, u64::from(RAM_MB_MAX)),
            ("max_bandwidth_kbps", u64::from(self.max_bandwidth_kbps), 1, u64::from(BANDWIDTH_KBPS_MAX)),
            ("max_concurrent_tasks", u64::from(self.max_concurrent_tasks), 1, u64::from(CONCURRENT_MAX)),
            ("min_reward_nano", self.min_reward.get(), 0, MIN_REWARD_MAX.get()),
        ];
        match ranges.into_iter().find(|(_, got, min, max)| !(min..=max).contains(&got)) {
            Some((field, got, min, max)) => Err(ConsentError::Range { field, got, min, max }),
            None => Ok(()),
        }
    }

    /// Whether this may begin; if not, the first clause that forbids it.
    pub fn admits(&self, ask: &Ask) -> Result<(), Refusal> {
        self.schedule.admits(self.days, ask.at)?;
        if !self.task_types.accepts(ask.task) {
            return Err(Refusal::Task { asked: ask.task, accepted: self.task_types });
        }
        if ask.ram_mb > self.max_ram_mb {
            return Err(Refusal::Ram { asked_mb: ask.ram_mb, max_mb: self.max_ram_mb });
        }
        if ask.reward < self.min_reward {
            return Err(Refusal::Reward { offered: ask.reward, min: self.min_reward });
        }
        if ask.running >= self.max_concurrent_tasks {
            return Err(Refusal::Concurrency { running: ask.running, max: self.max_concurrent_tasks });
        }
        Ok(())
    }
}
