//! Why a message of an older node is not answered as asked: one of the ten codes of its protocol, a sentence with the remedy, and details.

use std::fmt;

use serde_json::{Value, json};

/// The codes of version 0.5.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Malformed, or a field is missing or out of its range.
    InvalidMessage,
    /// Nobody knows this type.
    UnknownType,
    /// Only peers that prove their key may say this.
    Unauthorized,
    /// This node's consent forbids it.
    Forbidden,
    /// The model is not served here.
    NotFound,
    /// The answer took too long.
    Timeout,
    /// It contradicts what is known.
    Conflict,
    /// Too many of its kind.
    RateLimited,
    /// A fault of this node's.
    InternalError,
    /// Not now.
    Unavailable,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::InvalidMessage => "INVALID_MESSAGE",
            Code::UnknownType => "UNKNOWN_TYPE",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Forbidden => "FORBIDDEN",
            Code::NotFound => "NOT_FOUND",
            Code::Timeout => "TIMEOUT",
            Code::Conflict => "CONFLICT",
            Code::RateLimited => "RATE_LIMITED",
            Code::InternalError => "INTERNAL_ERROR",
            Code::Unavailable => "UNAVAILABLE",
        })
    }
}

/// A message that is not answered as asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What kind of reason it is.
    pub code: Code,
    message: String,
    details: Value,
}

impl Refusal {
    /// For this reason.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into(), details: json!({}) }
    }

    /// Because of a field.
    pub fn field(field: &str, message: impl Into<String>) -> Refusal {
        Refusal::new(Code::InvalidMessage, message).with("field", field)
    }

    /// With a detail.
    #[must_use]
    pub fn with(mut self, name: &str, detail: impl Into<Value>) -> Refusal {
        self.details[name] = detail.into();
        self
    }

    /// As it is told.
    pub fn fields(&self) -> Value {
        let Refusal { code, message, details } = self;
        json!({"status": "error", "error": message, "error_code": code.to_string(), "details": details})
    }
}
