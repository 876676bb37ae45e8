//! Parameters by position or by name, with errors that name the parameter.

use std::str::FromStr;

use aria_chain::{ids::BlockHash, units::Height};
use jsonrpsee::types::{ErrorObjectOwned, Params, error::INVALID_PARAMS_CODE};
use serde_json::{Map, Value, json};

/// The parameters of a call. Null means absent.
#[derive(Debug, Default)]
pub struct Arguments(Map<String, Value>);

/// An error of the caller's: which parameter, and what it must be.
pub fn invalid(param: &str, rule: impl std::fmt::Display) -> ErrorObjectOwned {
    let data = json!({"reason": "invalid_params", "param": param});
    ErrorObjectOwned::owned(INVALID_PARAMS_CODE, format!("Invalid params: `{param}` {rule}"), Some(data))
}

impl Arguments {
    /// Reads what a method with these parameters was given.
    pub fn read(params: &Params<'_>, names: &[&str]) -> Result<Arguments, ErrorObjectOwned> {
        let given: Value = match params.as_str() {
            None => return Ok(Arguments::default()),
            Some(text) => serde_json::from_str(text).map_err(|error| invalid("params", error))?,
        };
        let named = match given {
            Value::Array(values) if values.len() <= names.len() => {
                names.iter().map(|name| (*name).to_owned()).zip(values).collect()
            }
            Value::Array(values) => {
                return Err(invalid("params", format!("takes at most {} values, not {}", names.len(), values.len())));
            }
            Value::Object(named) => named,
            _ => return Err(invalid("params", "must be an array or an object")),
        };
        match named.keys().find(|name| !names.contains(&name.as_str())) {
            Some(unknown) => Err(invalid(unknown, format!("is unknown; known are: {}", names.join(", ")))),
            None => Ok(Arguments(named)),
        }
    }

    /// A value that may be absent.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text in the form of `T`, such as an id.
    pub fn opt_parse<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, ErrorObjectOwned> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| invalid(name, "must be a text"))?;
        text.parse().map(Some).map_err(|error| invalid(name, format!("is not right: {error}")))
    }

    /// The same, required.
    pub fn parse<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, ErrorObjectOwned> {
        self.opt_parse(name)?.ok_or_else(|| invalid(name, "is missing"))
    }

    /// A whole number.
    pub fn opt_u64(&self, name: &str) -> Result<Option<u64>, ErrorObjectOwned> {
        let whole = |value: &Value| value.as_u64().ok_or_else(|| invalid(name, "must be a whole number, not negative"));
        self.get(name).map(whole).transpose()
    }

    /// An object whose fields are read like parameters: a filter.
    pub fn object(&self, name: &str, fields: &[&str]) -> Result<Arguments, ErrorObjectOwned> {
        match self.get(name) {
            None => Ok(Arguments::default()),
            Some(Value::Object(object)) => match object.keys().find(|key| !fields.contains(&key.as_str())) {
                Some(unknown) => {
                    Err(invalid(unknown, format!("is unknown in `{name}`; known are: {}", fields.join(", "))))
                }
                None => Ok(Arguments(object.clone())),
            },
            Some(_) => Err(invalid(name, "must be an object")),
        }
    }

    /// A block: height, hash or tag.
    pub fn opt_block(&self, name: &str) -> Result<Option<BlockRef>, ErrorObjectOwned> {
        let rule = "must be a height, a block hash of 64 hex digits, or one of latest, finalized, earliest";
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => match text.as_str() {
                "latest" | "finalized" => Ok(Some(BlockRef::Latest)),
                "earliest" => Ok(Some(BlockRef::Height(Height::ZERO))),
                "pending" => {
                    Err(invalid(name, "cannot be `pending`: blocks here are final or not there; ask mempool_status"))
                }
                hash => hash.parse().map(|hash| Some(BlockRef::Hash(hash))).map_err(|_| invalid(name, rule)),
            },
            Some(value) => value
                .as_u64()
                .map(|height| Some(BlockRef::Height(Height::new(height))))
                .ok_or_else(|| invalid(name, rule)),
        }
    }
}

/// A way to name a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockRef {
    /// The tip: commit is final, so the latest block is a final one.
    Latest,
    /// By number.
    Height(Height),
    /// By hash.
    Hash(BlockHash),
}
