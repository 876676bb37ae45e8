//! For which tasks a contract holds.

use std::fmt;
use std::str::FromStr;

use borsh::io::{Error, ErrorKind, Read};
use borsh::{BorshDeserialize, BorshSerialize};

use super::refusal::ConsentError;
use crate::request::TaskType;

/// A set of kinds of tasks, never empty: one bit each, by the number of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize)]
pub struct TaskTypes(u8);

fn bit(task: TaskType) -> u8 {
    1 << (task as u8)
}

impl TaskTypes {
    /// Every task, told or not.
    pub const ANY: TaskTypes = TaskTypes(1);

    /// Whether it holds for a task. One that is not told is of no kind in a list.
    pub fn accepts(self, task: TaskType) -> bool {
        self.0 & (bit(TaskType::Any) | bit(task)) != 0
    }

    /// Their canonical names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        TaskType::ALL.into_iter().filter(move |task| self.0 & bit(*task) != 0).map(TaskType::name)
    }

    /// The kinds with these names.
    pub fn from_names<'n>(names: impl Iterator<Item = &'n str>) -> Result<TaskTypes, ConsentError> {
        let mut kinds = 0;
        for name in names {
            kinds |= bit(name.trim().parse::<TaskType>().map_err(|()| ConsentError::task(name))?);
        }
        if kinds == 0 { Err(ConsentError::Nothing { field: "task_types" }) } else { Ok(TaskTypes(kinds)) }
    }
}

impl FromStr for TaskTypes {
    type Err = ConsentError;

    /// Names with commas.
    fn from_str(text: &str) -> Result<TaskTypes, ConsentError> {
        TaskTypes::from_names(text.split(',').filter(|part| !part.trim().is_empty()))
    }
}

impl fmt::Display for TaskTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl BorshDeserialize for TaskTypes {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<TaskTypes, Error> {
        let kinds = u8::deserialize_reader(reader)?;
        let all = TaskType::ALL.into_iter().fold(0, |all, task| all | bit(task));
        let fault = || Error::new(ErrorKind::InvalidData, format!("{kinds:#b} is no set of kinds of tasks"));
        (kinds != 0 && kinds & !all == 0).then_some(TaskTypes(kinds)).ok_or_else(fault)
    }
}
