//! What a node says of an epoch: on which hardware it answered, and what that took. Signed with the transaction that carries it.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::codec::read_text;
use crate::ids::IdError;
use crate::limits::HARDWARE_BYTES_MAX;
use crate::units::{Epoch, Microjoules};

/// Name of a processor. Nodes that give the same one are compared with each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hardware(String);

impl Hardware {
    /// 1 to 40 visible ASCII characters and spaces between them.
    pub fn new(name: impl Into<String>) -> Result<Hardware, IdError> {
        let name = name.into();
        let is_sound = (1..=HARDWARE_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && name.trim() == name;
        if is_sound { Ok(Hardware(name)) } else { Err(IdError::Hardware) }
    }

    /// The same of a name that somebody else chose: what does not fit is left out.
    pub fn lossy(name: &str) -> Option<Hardware> {
        let visible: String = name.chars().filter(|char| (' '..='~').contains(char)).collect();
        let words: Vec<&str> = visible.split_whitespace().collect();
        let mut name = words.join(" ");
        name.truncate(HARDWARE_BYTES_MAX);
        Hardware::new(name.trim_end()).ok()
    }
}

impl BorshDeserialize for Hardware {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Hardware> {
        let name = read_text(reader, HARDWARE_BYTES_MAX, "hardware")?;
        Hardware::new(name).map_err(|fault| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, fault.to_string()))
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hardware {
    type Err = IdError;

    fn from_str(name: &str) -> Result<Hardware, IdError> {
        Hardware::new(name)
    }
}

impl TryFrom<String> for Hardware {
    type Error = IdError;

    fn try_from(name: String) -> Result<Hardware, IdError> {
        Hardware::new(name)
    }
}

impl From<Hardware> for String {
    fn from(hardware: Hardware) -> String {
        hardware.0
    }
}

/// What a node's answers took in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize)]
pub struct SobrietyAttestation {
    /// Which epoch.
    pub epoch: Epoch,
    /// What it ran on.
    pub hardware: Hardware,
    /// Energy of its answers; no less than what its records claim.
    pub energy_uj: Microjoules,
    /// Tokens that it generated; no fewer than in its records.
    pub tokens: u64,
    /// Answers.
    pub inferences: u64,
    /// Whether all of the energy was measured; else a part of it, or all, is an estimate.
    pub is_measured: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_a_short_readable_name() {
        for name in ["x", "AMD EPYC 7763 64-Core Processor", &"a".repeat(40)] {
            assert_eq!(Hardware::new(name).unwrap().to_string(), name);
        }
        for name in ["", " x", "x ", "a\nb", "\u{e9}", &"a".repeat(41)] {
            assert_eq!(Hardware::new(name), Err(IdError::Hardware), "{name:?}");
        }
    }

    #[test]
    fn names_of_others_are_made_to_fit() {
        let fitted = |name: &str| Hardware::lossy(name).map(|hardware| hardware.to_string());
        assert_eq!(fitted("  Intel(R)\tXeon(R)   CPU\u{ae} "), Some("Intel(R)Xeon(R) CPU".to_owned()));
        assert_eq!(fitted(&format!("{} b", "a".repeat(39))), Some("a".repeat(39)));
        assert_eq!(fitted("\u{e9}"), None);
    }
}
