//! The status page: one file each of HTML, CSS and script from the binary, the OpenAI door, and the chain's methods at
//! `/rpc`, all from one address, so that the page needs no other.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jsonrpsee::RpcModule;

use crate::{
    chain::{self, Context},
    openai,
    services::Services,
};

const PAGE: &str = include_str!("../assets/dashboard.html");
const STYLE: &str = include_str!("../assets/dashboard.css");
const SCRIPT: &str = include_str!("../assets/dashboard.js");

/// Bytes of one call from the page.
const CALL_BYTES_MAX: usize = 64 << 10;

/// The page and what it asks.
pub fn router(services: Arc<dyn Services>) -> Router {
    let module = Arc::new(chain::module(Arc::clone(&services)));
    let rpc = post(move |body: Bytes| call(Arc::clone(&module), body)).layer(DefaultBodyLimit::max(CALL_BYTES_MAX));
    openai::router(services)
        .route("/", get(async || file("text/html; charset=utf-8", PAGE)))
        .route("/dashboard.css", get(async || file("text/css", STYLE)))
        .route("/dashboard.js", get(async || file("text/javascript", SCRIPT)))
        .route("/rpc", rpc)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

pub(crate) async fn call(module: Arc<RpcModule<Context>>, body: Bytes) -> Response {
    let json = [(CONTENT_TYPE, "application/json")];
    let request = String::from_utf8_lossy(&body);
    match module.raw_json_request(&request, 1).await {
        Ok((answer, _)) => (json, answer.to_string()).into_response(),
        Err(error) => {
            let body = serde_json::json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": error.to_string()}});
            (json, body.to_string()).into_response()
        }
    }
}
