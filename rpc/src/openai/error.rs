//! Errors in OpenAI's shape: every status carries `{"error": {"message", "type", "param", "code"}}`.

use aria_chain::{codec::Versioned, consent::Refusal};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::services::GenerateError;

/// Seconds after which a node that is loading its model is worth another try.
const LOADING_RETRY_S: u64 = 1;
/// Seconds after which one of the answers in the making may have ended.
const BUSY_RETRY_S: u64 = 1;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// In words, with the remedy.
    pub message: String,
    /// The field that must change.
    pub param: Option<String>,
    /// For programs.
    pub code: Option<&'static str>,
    /// Whole seconds until another try is worthwhile.
    pub retry_after_s: Option<u64>,
    /// What is ours alone.
    pub aria: Option<Value>,
}

impl ApiError {
    /// A refusal of this status, without more.
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, code: None, retry_after_s: None, aria: None }
    }

    /// A field with a value that cannot be.
    pub fn value(param: &str, rule: impl std::fmt::Display) -> ApiError {
        let message = format!("Invalid '{param}': {rule}");
        ApiError {
            param: Some(param.to_owned()),
            code: Some("invalid_value"),
            ..ApiError::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// A field that this server does not act on, so it is not accepted either.
    pub fn unsupported(param: &str, rule: impl std::fmt::Display) -> ApiError {
        let message = format!("Unsupported parameter '{param}': {rule}");
        ApiError {
            param: Some(param.to_owned()),
            code: Some("unsupported_parameter"),
            ..ApiError::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// What went wrong with an answer. `prompt` names the field that holds the prompt.
    pub fn of(error: &GenerateError, prompt: &str) -> ApiError {
        let message = error.to_string();
        match error {
            GenerateError::UnknownModel(_) => ApiError {
                param: Some("model".into()),
                code: Some("model_not_found"),
                ..ApiError::new(StatusCode::NOT_FOUND, message)
            },
            GenerateError::NotReady { .. } => ApiError {
                code: Some("model_loading"),
                retry_after_s: Some(LOADING_RETRY_S),
                ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
            },
            GenerateError::StoreStopped { .. } => {
                ApiError { code: Some("store_stopped"), ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message) }
            }
            GenerateError::Busy { retry_after_s, .. } => ApiError {
                code: Some("rate_limit_exceeded"),
                retry_after_s: Some(*retry_after_s),
                ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
            },
            GenerateError::Consent(refusal) => ApiError::consent(refusal, message),
            GenerateError::Unsigned { request, provider } => ApiError {
                param: Some("aria.signature".into()),
                code: Some("sign_request"),
                aria: Some(json!({
                    "request_id": request.id(),
                    "request": hex::encode(request.encode()),
                    "provider": provider,
                })),
                ..ApiError::new(StatusCode::PAYMENT_REQUIRED, message)
            },
            GenerateError::ReceiptOwed { .. } => ApiError {
                param: Some("aria.requester".into()),
                code: Some("receipt_owed"),
                ..ApiError::new(StatusCode::PAYMENT_REQUIRED, message)
            },
            GenerateError::Signature { field, rule } => ApiError::value(field, rule),
            GenerateError::Fee(_) => ApiError { message, ..ApiError::value("aria.max_fee", "") },
            GenerateError::Request(aria_inference::generation::RequestError::TooLong { .. }) => ApiError {
                param: Some(prompt.into()),
                code: Some("context_length_exceeded"),
                ..ApiError::new(StatusCode::BAD_REQUEST, message)
            },
            GenerateError::Request(error) => {
                let param = if error.field() == "prompt" { prompt } else { error.field() };
                ApiError { message, ..ApiError::value(param, "") }
            }
            GenerateError::Messages(_) => ApiError { message, ..ApiError::value(prompt, "") },
            GenerateError::Engine(_) => {
                ApiError { code: Some("server_error"), ..ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message) }
            }
        }
    }

    /// What the node's consent contract forbids: a program tells the clause by its code.
    fn consent(refusal: &Refusal, message: String) -> ApiError {
        let forbidden = StatusCode::FORBIDDEN;
        let (status, code, param) = match refusal {
            Refusal::Schedule { .. } => (forbidden, "consent_schedule", None),
            Refusal::Days { .. } => (forbidden, "consent_days", None),
            Refusal::Task { .. } => (forbidden, "consent_task", Some("aria.task_type")),
            Refusal::Ram { .. } => (forbidden, "consent_ram", Some("max_tokens")),
            Refusal::Reward { .. } => (forbidden, "consent_reward", Some("model")),
            Refusal::Concurrency { .. } => (StatusCode::TOO_MANY_REQUESTS, "consent_concurrency", None),
            Refusal::Revoked => (forbidden, "consent_revoked", None),
        };
        ApiError {
            param: param.map(str::to_owned),
            code: Some(code),
            retry_after_s: (status == StatusCode::TOO_MANY_REQUESTS).then_some(BUSY_RETRY_S),
            ..ApiError::new(status, message)
        }
    }

    /// The object, as it stands in a body or in an event.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            402 => "payment_required",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        let mut body =
            json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}});
        if let Some(aria) = &self.aria {
            body["aria"] = aria.clone();
        }
        body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.retry_after_s {
            Some(seconds) => drop(headers.insert(RETRY_AFTER, HeaderValue::from(seconds))),
            // OpenAI's clients try some statuses again by themselves; here it would change nothing.
            None => drop(headers.insert("x-should-retry", HeaderValue::from_static("false"))),
        }
        response
    }
}
