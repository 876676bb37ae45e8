//! Who may come in. On loopback the Host header must name this machine, so that no page elsewhere can point its own name
//! here; a browser's Origin must be ours or configured; with keys configured, each request brings one.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, HOST, ORIGIN},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::openai::error::ApiError;

/// Longest request id that is given back to the client that sent it.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The rules of a door.
#[derive(Debug, Clone)]
pub struct Gate {
    /// BLAKE3 digests of the keys: comparing digests tells nothing of a key by its time.
    keys: Vec<blake3::Hash>,
    /// Host values let in; any, if none.
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
}

impl Gate {
    /// A door at `address`, with these keys (none: open) and these browser origins.
    pub fn new(address: SocketAddr, keys: &[String], origins: &[String]) -> Gate {
        let keys = keys.iter().map(|key| blake3::hash(key.as_bytes())).collect();
        Gate { keys, hosts: crate::chain::hosts_of(address), origins: origins.to_vec() }
    }

    /// Puts the rules before every route.
    pub fn protect(self, router: Router) -> Router {
        let origins: Vec<HeaderValue> = self.origins.iter().filter_map(|origin| origin.parse().ok()).collect();
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([AUTHORIZATION, HeaderName::from_static("content-type")]);
        let gate = Arc::new(self);
        let check = middleware::from_fn(move |request: Request, next: Next| {
            let gate = Arc::clone(&gate);
            async move { gate.pass(request, next).await }
        });
        router.layer(cors).layer(check)
    }

    async fn pass(&self, request: Request<Body>, next: Next) -> Response {
        let id = request_id(request.headers());
        let mut response = match self.check(request.method(), request.uri().path(), request.headers()) {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert("x-request-id", id.clone());
        headers.entry("x-aria-request-id").or_insert(id);
        response
    }

    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        // Two Host headers are nobody's honest request.
        let host = if headers.get_all(HOST).iter().count() == 1 { text(&HOST).unwrap_or_default() } else { "" };
        if let Some(hosts) = &self.hosts
            && !hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
        {
            let message = format!("The Host header must name this machine: one of {}.", hosts.join(", "));
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
        if let Some(origin) = text(&ORIGIN) {
            let is_own = origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
            if !is_own && !self.origins.iter().any(|known| known == origin) {
                let message =
                    "Pages of this origin may not call this node; list it under api.cors_origins to let them.";
                return Err(ApiError::new(StatusCode::FORBIDDEN, message));
            }
        }
        // Health is for watchers without a key; a browser asks what it may do before it shows its key.
        if self.keys.is_empty() || path == "/health" || method == Method::OPTIONS {
            return Ok(());
        }
        let shown = text(&AUTHORIZATION)
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(|key| blake3::hash(key.trim().as_bytes()));
        // Digests compare in constant time, and all of them are compared.
        if shown.is_some_and(|shown| self.keys.iter().fold(false, |known, key| known | (*key == shown))) {
            return Ok(());
        }
        let message =
            "An API key is needed: send `Authorization: Bearer KEY`; `aria key api` on the node's machine makes one.";
        Err(ApiError { code: Some("invalid_api_key"), ..ApiError::new(StatusCode::UNAUTHORIZED, message) })
    }
}

/// The client's own id if it is a plain one, else a fresh one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        !value.is_empty() && value.len() <= REQUEST_ID_BYTES_MAX && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(own) = headers.get("x-request-id").filter(plain) {
        return own.clone();
    }
    let mut bytes = [0; 12];
    // Without randomness the id is zeros: it only helps to find a line in a log.
    let _ = getrandom::fill(&mut bytes);
    HeaderValue::from_str(&format!("req-{}", hex::encode(bytes))).expect("hex digits are a good header")
}
