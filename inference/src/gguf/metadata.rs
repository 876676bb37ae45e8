//! Keys and values of a model file. Scalars were read with the header; strings and arrays are spans of the file.

use std::collections::BTreeMap;
use std::ops::Range;

use super::GgufError;
use super::reader::{Cursor, TYPE_STRING};

/// One value, as the header pass leaves it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    /// The bytes of the text, without its length.
    Text(Range<usize>),
    /// Element type, number of elements, and the bytes of all of them.
    Array {
        element: u32,
        count: usize,
        span: Range<usize>,
    },
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Unsigned(_) => "an unsigned number",
            Value::Signed(_) => "a signed number",
            Value::Float(_) => "a floating-point number",
            Value::Bool(_) => "a truth value",
            Value::Text(_) => "a text",
            Value::Array { .. } => "an array",
        }
    }
}

/// A view of all keys of one file. Every question names its key in the error.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    bytes: &'a [u8],
    values: &'a BTreeMap<String, Value>,
}

impl<'a> Metadata<'a> {
    pub(crate) fn new(bytes: &'a [u8], values: &'a BTreeMap<String, Value>) -> Metadata<'a> {
        Metadata { bytes, values }
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether the key is there, whatever its type.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A whole number from 0 up, stored in any integer type.
    ///
    /// # Errors
    /// Missing, no integer, or negative.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        self.opt_u64(key)?.ok_or_else(|| missing(key))
    }

    /// As [`Metadata::u64`], or none if the key is missing.
    ///
    /// # Errors
    /// No integer, or negative.
    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(*value)),
            Some(Value::Signed(value)) => match u64::try_from(*value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(bad_value(key, value, "it must not be negative")),
            },
            Some(other) => Err(wrong_type(key, "a whole number", other)),
        }
    }

    /// A whole number that fits 32 bits.
    ///
    /// # Errors
    /// Missing, no integer, negative, or too big.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        self.opt_u32(key)?.ok_or_else(|| missing(key))
    }

    /// As [`Metadata::u32`], or none if the key is missing.
    ///
    /// # Errors
    /// No integer, negative, or too big.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let Some(value) = self.opt_u64(key)? else { return Ok(None) };
        u32::try_from(value).map(Some).map_err(|_| bad_value(key, value, "it must fit 32 bits"))
    }

    /// A floating-point number, rounded to binary32 if it was stored wider.
    ///
    /// # Errors
    /// Missing, or no floating-point number.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a value stored as binary32 comes back exactly, a wider one is rounded as documented"
    )]
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        Ok(self.f64(key)? as f32)
    }

    /// A floating-point number.
    ///
    /// # Errors
    /// Missing, or no floating-point number.
    pub fn f64(&self, key: &str) -> Result<f64, GgufError> {
        self.opt_f64(key)?.ok_or_else(|| missing(key))
    }

    /// As [`Metadata::f64`], or none if the key is missing.
    ///
    /// # Errors
    /// No floating-point number.
    pub fn opt_f64(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Float(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(key, "a floating-point number", other)),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// Missing, or no truth value.
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        self.opt_bool(key)?.ok_or_else(|| missing(key))
    }

    /// As [`Metadata::bool`], or none if the key is missing.
    ///
    /// # Errors
    /// No truth value.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_type(key, "a truth value", other)),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// Missing, no text, or not UTF-8.
    pub fn str(&self, key: &str) -> Result<&'a str, GgufError> {
        self.opt_str(key)?.ok_or_else(|| missing(key))
    }

    /// As [`Metadata::str`], or none if the key is missing.
    ///
    /// # Errors
    /// No text, or not UTF-8.
    pub fn opt_str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(span)) => match std::str::from_utf8(&self.bytes[span.clone()]) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(GgufError::NotUtf8 { what: format!("the key {key:?}") }),
            },
            Some(other) => Err(wrong_type(key, "a text", other)),
        }
    }

    /// Number of elements of an array, or none if the key is missing.
    ///
    /// # Errors
    /// No array.
    pub fn opt_count(&self, key: &str) -> Result<Option<usize>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array { count, .. }) => Ok(Some(*count)),
            Some(other) => Err(wrong_type(key, "an array", other)),
        }
    }

    /// An array of texts, borrowed from the file.
    ///
    /// # Errors
    /// Missing, another type, or an element that is not UTF-8.
    pub fn strings(&self, key: &str) -> Result<Vec<&'a str>, GgufError> {
        let (count, span) = self.array(key, &[TYPE_STRING], "an array of texts")?;
        let mut cursor = Cursor::at(self.bytes, span.start);
        let mut strings = Vec::with_capacity(count);
        for index in 0..count {
            let what = || format!("element {index} of the key {key:?}");
            let span = cursor.text(what)?;
            let text = std::str::from_utf8(&self.bytes[span]).map_err(|_| GgufError::NotUtf8 { what: what() })?;
            strings.push(text);
        }
        Ok(strings)
    }

    /// An array of binary32 numbers.
    ///
    /// # Errors
    /// Missing, or another type.
    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        let (_, span) = self.array(key, &[6], "an array of binary32 numbers")?;
        Ok(self.bytes[span].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// An array of 32-bit integers, signed or not (both are used for token types).
    ///
    /// # Errors
    /// Missing, or another type.
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, GgufError> {
        let (_, span) = self.array(key, &[4, 5], "an array of 32-bit integers")?;
        Ok(self.bytes[span].as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect())
    }

    /// The bytes of an array as they lie in the file: what the model digest hashes.
    pub(crate) fn raw_array(&self, key: &str) -> Option<&'a [u8]> {
        match self.values.get(key) {
            Some(Value::Array { span, .. }) => Some(&self.bytes[span.clone()]),
            _ => None,
        }
    }

    fn array(&self, key: &str, types: &[u32], wanted: &'static str) -> Result<(usize, Range<usize>), GgufError> {
        match self.values.get(key) {
            None => Err(missing(key)),
            Some(Value::Array { element, count, span }) if types.contains(element) => Ok((*count, span.clone())),
            Some(other) => Err(wrong_type(key, wanted, other)),
        }
    }
}

/// The error of a value that cannot be; also used by those who know the meaning of a key.
pub(crate) fn bad_value(key: &str, value: impl ToString, rule: impl Into<String>) -> GgufError {
    GgufError::KeyValue { key: key.to_owned(), value: value.to_string(), rule: rule.into() }
}

fn missing(key: &str) -> GgufError {
    GgufError::KeyMissing { key: key.to_owned() }
}

fn wrong_type(key: &str, wanted: &'static str, found: &Value) -> GgufError {
    GgufError::KeyType { key: key.to_owned(), wanted, found: found.kind() }
}
