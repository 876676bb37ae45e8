//! The OpenAI door: `/v1/models`, `/v1/chat/completions`, `/v1/completions`, and beside them `/health` and `/metrics`.
//!
//! In reading order: `request` (JSON to an order), `answer` (a generation to a response), `shape` (the JSON of an
//! answer), `receipts` (of clients that pay by themselves), `fields` and [`error`].

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State, rejection::BytesRejection},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::services::{ModelCard, Readiness, Services};

mod answer;
pub mod error;
mod fields;
mod receipts;
mod request;
mod shape;

use self::{
    error::ApiError,
    request::Asked,
    shape::{Frame, Shape},
};

/// Largest request: a context of a million tokens is four megabytes of text.
pub const BODY_BYTES_MAX: usize = 4 << 20;

type Door = State<Arc<dyn Services>>;

/// The routes of this door.
pub fn router(services: Arc<dyn Services>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/aria/receipts", post(receipts::receive))
        .route("/v1/aria/receipts/{requester}", get(receipts::owed))
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(async || {
            ApiError::new(StatusCode::NOT_FOUND, "There is nothing at this path; see docs/rpc.md for what there is.")
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "This path does not take this method.")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(refuse_large))
        .with_state(services)
}

fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is larger than {BODY_BYTES_MAX} bytes."))
}

/// A body that says itself that it is too large is refused before it is sent.
async fn refuse_large(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length > BODY_BYTES_MAX => too_large().into_response(),
        _ => next.run(request).await,
    }
}

fn card(card: &ModelCard) -> Value {
    json!({
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": "aria",
        "root": card.id,
        "parent": null,
        "ready": true,
        "meta": {
            "model_id": card.digest,
            "arithmetic": card.arithmetic,
            "context_length": card.context,
            "parameters": card.parameters,
            "backend": card.backend,
        },
    })
}

async fn models(State(services): Door) -> Json<Value> {
    let cards: Vec<Value> = services.models().iter().map(card).collect();
    Json(json!({"object": "list", "data": cards}))
}

async fn model(State(services): Door, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let models = services.models();
    let found = models.iter().find(|model| model.id == id);
    let unknown =
        || ApiError::of(&crate::services::GenerateError::UnknownModel(id.chars().take(128).collect()), "messages");
    found.map(|model| Json(card(model))).ok_or_else(unknown)
}

async fn health(State(services): Door) -> Response {
    match services.readiness() {
        Readiness::Ready => Json(json!({"status": "healthy"})).into_response(),
        Readiness::NotReady { reason } => {
            let body = json!({"status": "unavailable", "reason": reason});
            let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
            response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
            response
        }
    }
}

async fn metrics(State(services): Door) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], services.metrics())
}

async fn chat(
    State(services): Door,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked = request::chat(read_json(&headers, body)?)?;
    respond(&*services, asked, Shape::Chat).await
}

async fn completions(
    State(services): Door,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked = request::completion(read_json(&headers, body)?)?;
    respond(&*services, asked, Shape::Text).await
}

fn read_json(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Value, ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("application/json") {
        let message = "The body must be JSON and say so: send the header Content-Type: application/json.";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => ApiError::new(status, "The body could not be read to its end."),
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, format!("The body is not JSON: {error}")))
}

async fn respond(services: &dyn Services, asked: Asked, shape: Shape) -> Result<Response, ApiError> {
    let prompt = if shape == Shape::Chat { "messages" } else { "prompt" };
    let Asked { call, is_stream, includes_usage } = asked;
    let (has_logprobs, model) = (call.logprobs.is_some(), call.model.clone());
    let generation = services.generate(call).map_err(|error| ApiError::of(&error, prompt))?;
    // Of a request that was offered before, whatever this call says.
    let choices = generation.choices;
    let request_id = generation.request_id.clone();
    let prefix = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
    let frame = Frame {
        shape,
        id: format!("{prefix}-aria-{}", request_id.get(..24).unwrap_or(&request_id)),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        fingerprint: fingerprint(services, &model),
        model,
        has_logprobs,
    };
    let mut response = if is_stream {
        answer::tell(frame, generation, choices, includes_usage)
    } else {
        answer::gather(&frame, generation, choices, prompt).await?
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-aria-request-id", id);
    }
    Ok(response)
}

fn fingerprint(services: &dyn Services, model: &str) -> String {
    let cards = services.models();
    let card = cards.iter().find(|card| card.id == model);
    card.map(|card| format!("arith{}-{}", card.arithmetic, card.digest.get(..12).unwrap_or(&card.digest)))
        .unwrap_or_default()
}
