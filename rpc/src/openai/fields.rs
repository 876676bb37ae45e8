//! Fields of a request, each read with its type and range. Null means absent, everywhere.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;

/// The fields of an object.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn new(body: Value) -> Result<Fields, ApiError> {
        match body {
            Value::Object(fields) => Ok(Fields(fields)),
            _ => Err(ApiError::value("body", "must be a JSON object")),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn str(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.get(name).map(|value| value.as_str().ok_or_else(|| ApiError::value(name, "must be a string"))).transpose()
    }

    pub(super) fn bool(&self, name: &str) -> Result<bool, ApiError> {
        let truth = |value: &Value| value.as_bool().ok_or_else(|| ApiError::value(name, "must be true or false"));
        self.get(name).map_or(Ok(false), truth)
    }

    /// A whole number in a range.
    pub(super) fn whole(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number =
            value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        let rule = || format!("must be a whole number from {} to {}, not {value}", range.start(), range.end());
        number.map(Some).ok_or_else(|| ApiError::value(name, rule()))
    }

    /// A number in a range.
    #[expect(clippy::cast_possible_truncation, reason = "rounded to the engine's precision, as is meant")]
    pub(super) fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_f64().filter(|number| range.contains(number));
        let rule = || format!("must be a number from {} to {}, not {value}", range.start(), range.end());
        number.map(|number| Some(number as f32)).ok_or_else(|| ApiError::value(name, rule()))
    }

    /// Any 64-bit whole number, signed or not, as its bits.
    pub(super) fn seed(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let bits = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
        bits.map(Some).ok_or_else(|| ApiError::value(name, "must be a whole number of 64 bits"))
    }

    /// Up to four strings, or one.
    pub(super) fn stops(&self) -> Result<Vec<String>, ApiError> {
        let rule = "must be a string or an array of at most 4 strings, none of them empty";
        let texts = match self.get("stop") {
            None => return Ok(Vec::new()),
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(items)) if items.len() <= 4 => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| ApiError::value("stop", rule))?,
            Some(_) => return Err(ApiError::value("stop", rule)),
        };
        if texts.iter().any(String::is_empty) { Err(ApiError::value("stop", rule)) } else { Ok(texts) }
    }

    /// Token ids and what is added to their logits.
    pub(super) fn logit_bias(&self) -> Result<Vec<(u32, f32)>, ApiError> {
        let name = "logit_bias";
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let entries =
            value.as_object().ok_or_else(|| ApiError::value(name, "must be an object from token ids to numbers"))?;
        let read = |(token, bias): (&String, &Value)| {
            let token = token.parse().map_err(|_| ApiError::value(name, format!("`{token}` is not a token id")))?;
            #[expect(clippy::cast_possible_truncation, reason = "within -100 and 100")]
            let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)).map(|bias| bias as f32);
            Ok((token, bias.ok_or_else(|| ApiError::value(name, "each value must be a number from -100 to 100"))?))
        };
        entries.iter().map(read).collect()
    }
}
