//! The genesis file as text: TOML with unknown fields refused, before any of it is believed.

use serde::{Deserialize, Serialize};

use crate::params::Params;
use crate::work::Shape;

/// Stands in the file for the key of the node that starts the chain.
pub(super) const LOCAL: &str = "local";

/// Which version of the file it is.
#[derive(Debug, Deserialize)]
pub(super) struct Edition {
    pub(super) version: u32,
}

/// The file, field by field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GenesisFile {
    pub(super) version: u32,
    pub(super) chain_id: String,
    pub(super) timestamp_ms: u64,
    pub(super) parameters: Params,
    pub(super) validators: Vec<ValidatorFile>,
    #[serde(default)]
    pub(super) accounts: Vec<AccountFile>,
    #[serde(default)]
    pub(super) models: Vec<ModelFile>,
}

/// `[[validators]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValidatorFile {
    pub(super) key: String,
    pub(super) power: u64,
}

/// `[[accounts]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountFile {
    pub(super) key: String,
    pub(super) balance_nano: u64,
    #[serde(default)]
    pub(super) bond_nano: u64,
}

/// `[[models]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) shape: Shape,
}
