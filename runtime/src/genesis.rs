//! The first state of a chain, from a file: the same text and the same local key give the same hash everywhere.
//!
//! Where the file says `local`, the key of the node that starts the chain stands. Such a chain is that node's own, so its
//! id gets the first digits of the key. [`Genesis::to_toml`] writes the resolved file, which means the same to all.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::str::FromStr;

use aria_chain::block::GenesisBlock;
use aria_chain::certificate::{Validator, ValidatorSet};
use aria_chain::error::CertificateError;
use aria_chain::ids::{ChainId, Digest, ModelId, NodeId};
use aria_chain::model::{ModelName, ModelNameError, ShapeError};
use aria_chain::store::StateChanges;
use aria_chain::units::{NanoAria, Timestamp};

use self::file::{AccountFile, Edition, GenesisFile, LOCAL, ModelFile, ValidatorFile};
use crate::beacon;
use crate::params::{Params, ParamsError};
use crate::state::{Account, Candidate, MemoryState, Model, Overlay, Supply, key};
use crate::voters::scaled;

/// Version of the file that this program reads.
const FILE_VERSION: u32 = 6;

/// Domain of the genesis hash.
const HASH_DOMAIN: &str = "aria/genesis/v3";

/// Hex digits of the local key in the id of its chain: enough to tell devnets apart.
const ID_SUFFIX_DIGITS: usize = 8;

/// A checked genesis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    chain_id: ChainId,
    timestamp: Timestamp,
    params: Params,
    validators: ValidatorSet,
    accounts: BTreeMap<NodeId, Account>,
    models: BTreeMap<ModelId, Model>,
}

/// Why a genesis file is refused. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not TOML, a field missing, unknown or of the wrong type.
    #[error("the genesis file cannot be read: {0}")]
    Toml(String),
    /// A later format needs a later program.
    #[error(
        "version {0} of the genesis file is unknown, this program reads version {FILE_VERSION}; use the program that wrote it, or begin a new chain in another --data-dir"
    )]
    Version(u32),
    /// The chain id has the form of one.
    #[error("chain_id `{chain_id}` is refused: {reason}")]
    ChainId {
        /// As given, with suffix.
        chain_id: String,
        /// The rule it breaks.
        reason: String,
    },
    /// `local` stands for a key that the caller must have.
    #[error("{field} says `local`, but no local key was given; start from a node's data directory or name the key")]
    LocalKeyMissing {
        /// Where.
        field: &'static str,
    },
    /// Keys are the hex digits of a public key.
    #[error("{field} `{key}` is no node key: {reason}; write 64 hex digits or `local`")]
    Key {
        /// Where.
        field: &'static str,
        /// As given.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Digests are 64 hex digits.
    #[error(
        "models: digest `{digest}` of `{name}` is no digest: {reason}; write the 64 hex digits that `aria model list` shows"
    )]
    Digest {
        /// Model.
        name: String,
        /// As given.
        digest: String,
        /// What is wrong.
        reason: String,
    },
    /// The validators form a set: some, not too many, each with power, together not too much.
    #[error(transparent)]
    Validators(#[from] CertificateError),
    /// Each validator once.
    #[error("validator {0} appears twice; merge the entries")]
    DuplicateValidator(NodeId),
    /// Each account once.
    #[error("account {0} appears twice; merge the entries")]
    DuplicateAccount(NodeId),
    /// Each model once.
    #[error("model {0} appears twice; remove one entry")]
    DuplicateModel(ModelId),
    /// See [`ModelName`].
    #[error("model name `{0}`: {ModelNameError}")]
    ModelName(String),
    /// See [`ShapeError`].
    #[error("model `{name}`: {error}")]
    Shape {
        /// Model.
        name: String,
        /// What is wrong.
        error: ShapeError,
    },
    /// All amounts together fit 64 bits.
    #[error("the accounts together hold more than 2^64 nano-ARIA; lower the balances")]
    SupplyOverflow,
    /// See [`ParamsError`].
    #[error(transparent)]
    Params(#[from] ParamsError),
}

impl Genesis {
    /// Reads and checks a genesis file. `local` is the key that the word `local` in it stands for.
    pub fn from_toml(text: &str, local: Option<NodeId>) -> Result<Genesis, GenesisError> {
        let unreadable = |error: toml::de::Error| GenesisError::Toml(error.to_string());
        // First of all, because the rest may look different in another version.
        let Edition { version } = toml::from_str(text).map_err(unreadable)?;
        if version != FILE_VERSION {
            return Err(GenesisError::Version(version));
        }
        let file: GenesisFile = toml::from_str(text).map_err(unreadable)?;
        file.parameters.check()?;
        let mut accounts = accounts_of(&file.accounts, local)?;
        let validators = validators_of(&file.validators, local)?;
        for validator in validators.members() {
            accounts.entry(validator.node_id).or_default();
        }
        Ok(Genesis {
            chain_id: chain_id_of(&file, local)?,
            timestamp: Timestamp::new(file.timestamp_ms),
            params: file.parameters,
            validators,
            accounts,
            models: models_of(&file.models)?,
        })
    }

    /// The resolved file: reading it gives this genesis again, without a local key.
    pub fn to_toml(&self) -> String {
        let validators = self.validators.members().iter();
        let validators =
            validators.map(|member| ValidatorFile { key: member.node_id.to_string(), power: member.power });
        let accounts = self.accounts.iter().map(|(key, account)| AccountFile {
            key: key.to_string(),
            balance_nano: account.balance.get(),
            bond_nano: account.bond.get(),
        });
        let models = self.models.iter().map(|(digest, model)| ModelFile {
            name: model.name.clone(),
            digest: digest.to_string(),
            shape: model.shape,
        });
        let file = GenesisFile {
            version: FILE_VERSION,
            chain_id: self.chain_id.to_string(),
            timestamp_ms: self.timestamp.get(),
            parameters: self.params.clone(),
            validators: validators.collect(),
            accounts: accounts.collect(),
            models: models.collect(),
        };
        toml::to_string(&file).expect("the file is a table of tables, numbers and text, which TOML can hold")
    }

    /// The hash of all that this genesis says.
    pub fn hash(&self) -> Digest {
        let content = (
            (FILE_VERSION, &self.chain_id, self.timestamp, &self.params),
            (&self.validators, &self.accounts, &self.models),
        );
        let bytes = borsh::to_vec(&content).expect("writing to memory does not fail");
        Digest::new(blake3::derive_key(HASH_DOMAIN, &bytes))
    }

    /// The chain.
    pub fn chain_id(&self) -> &ChainId {
        &self.chain_id
    }

    /// When the chain begins.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The model that begins with this name.
    pub fn model_of_name(&self, name: &str) -> Option<ModelId> {
        self.models.iter().find(|(_, model)| model.name == name).map(|(digest, _)| *digest)
    }

    /// Who votes in the first two epochs, with all of [`POWER_TOTAL`](crate::voters::POWER_TOTAL) among them.
    pub fn validators(&self) -> &ValidatorSet {
        &self.validators
    }

    /// The block at height 0. Its state root covers the genesis hash, and with it every parameter.
    pub fn block(&self) -> GenesisBlock {
        let root = self.changes().state_root;
        GenesisBlock::new(self.chain_id.clone(), self.timestamp, self.validators.clone(), root)
    }

    /// The changes that make the first state out of nothing.
    pub fn changes(&self) -> StateChanges {
        let nothing = MemoryState::new();
        let mut overlay = Overlay::new(&nothing);
        overlay.put(key::GENESIS.to_vec(), &self.hash());
        overlay.put(key::BEACON.to_vec(), &beacon::first(&self.hash()));
        overlay.put(key::SUPPLY.to_vec(), &Supply { genesis: self.total(), ..Supply::default() });
        overlay.put(key::VOTERS.to_vec(), &self.validators);
        overlay.put(key::NEXT_VOTERS.to_vec(), &self.validators);
        for (node, candidate) in self.candidates() {
            overlay.put(key::candidate(&node), &candidate);
        }
        for (node, account) in &self.accounts {
            overlay.put(key::account(node), account);
        }
        for (digest, model) in &self.models {
            overlay.put(key::model(digest), model);
        }
        overlay.seal().expect("an empty state in memory can be read")
    }

    /// Validators, and who has a bond.
    fn candidates(&self) -> BTreeMap<NodeId, Candidate> {
        let bonded = self.accounts.iter().filter(|(_, account)| account.bond > NanoAria::ZERO);
        let bonded = bonded.map(|(node, _)| (*node, Candidate::default()));
        let members = self.validators.members().iter();
        let members = members.map(|member| (member.node_id, Candidate { base: member.power, ..Candidate::default() }));
        bonded.chain(members).collect()
    }

    fn total(&self) -> NanoAria {
        let total = total_of(self.accounts.values());
        NanoAria::new(total.expect("`accounts_of` refused a sum above 64 bits"))
    }
}

fn chain_id_of(file: &GenesisFile, local: Option<NodeId>) -> Result<ChainId, GenesisError> {
    let keys = file.validators.iter().map(|validator| &validator.key);
    let is_local = keys.chain(file.accounts.iter().map(|account| &account.key)).any(|key| key == LOCAL);
    let mut chain_id = file.chain_id.clone();
    if let Some(local) = local.filter(|_| is_local) {
        let digits: String = local.to_string().chars().take(ID_SUFFIX_DIGITS).collect();
        write!(chain_id, "-{digits}").expect("writing to text does not fail");
    }
    ChainId::from_str(&chain_id).map_err(|error| GenesisError::ChainId { chain_id, reason: error.to_string() })
}

fn node_of(field: &'static str, key: &str, local: Option<NodeId>) -> Result<NodeId, GenesisError> {
    if key == LOCAL {
        return local.ok_or(GenesisError::LocalKeyMissing { field });
    }
    NodeId::from_str(key).map_err(|error| GenesisError::Key { field, key: key.to_owned(), reason: error.to_string() })
}

fn validators_of(files: &[ValidatorFile], local: Option<NodeId>) -> Result<ValidatorSet, GenesisError> {
    let mut seen = BTreeSet::new();
    let mut members = Vec::new();
    for file in files {
        let node_id = node_of("validators.key", &file.key, local)?;
        if !seen.insert(node_id) {
            return Err(GenesisError::DuplicateValidator(node_id));
        }
        members.push(Validator { node_id, power: file.power });
    }
    // The rules for a set hold for what the file says; the chain then counts in parts of the whole.
    let given = ValidatorSet::new(members)?;
    let weights: Vec<(NodeId, u128)> =
        given.members().iter().map(|member| (member.node_id, u128::from(member.power))).collect();
    Ok(scaled(&weights)?)
}

fn accounts_of(files: &[AccountFile], local: Option<NodeId>) -> Result<BTreeMap<NodeId, Account>, GenesisError> {
    let mut accounts = BTreeMap::new();
    for file in files {
        let node = node_of("accounts.key", &file.key, local)?;
        let (balance, bond) = (NanoAria::new(file.balance_nano), NanoAria::new(file.bond_nano));
        if accounts.insert(node, Account { balance, bond, ..Account::default() }).is_some() {
            return Err(GenesisError::DuplicateAccount(node));
        }
    }
    total_of(accounts.values()).ok_or(GenesisError::SupplyOverflow)?;
    Ok(accounts)
}

fn total_of<'a>(mut accounts: impl Iterator<Item = &'a Account>) -> Option<u64> {
    accounts.try_fold(0_u64, |sum, account| sum.checked_add(account.balance.get())?.checked_add(account.bond.get()))
}

fn models_of(files: &[ModelFile]) -> Result<BTreeMap<ModelId, Model>, GenesisError> {
    let mut models = BTreeMap::new();
    for ModelFile { name, digest, shape } in files {
        ModelName::new(name.as_str()).map_err(|_| GenesisError::ModelName(name.clone()))?;
        shape.check().map_err(|error| GenesisError::Shape { name: name.clone(), error })?;
        let id = ModelId::from_str(digest).map_err(|error| GenesisError::Digest {
            name: name.clone(),
            digest: digest.clone(),
            reason: error.to_string(),
        })?;
        if models.insert(id, Model { name: name.clone(), shape: *shape }).is_some() {
            return Err(GenesisError::DuplicateModel(id));
        }
    }
    Ok(models)
}
