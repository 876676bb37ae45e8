//! What the command line says to a running node: HTTP over loopback, or over the private socket.

use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// Largest answer read: a full page of records is well below it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no node answers at {address}: {reason}; start one with `aria node start`")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The connection broke, or what came is no answer.
    #[error("the node's answer could not be read: {0}")]
    Broken(String),
    /// The node refused.
    #[error("{0}")]
    Refused(String),
}

async fn post<S>(
    stream: S,
    host: &str,
    path: &str,
    key: Option<&str>,
    body: &Value,
) -> Result<Response<Incoming>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| ClientError::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Drives the socket; it ends with the connection, and its error reaches us through the answer.
    tokio::spawn(connection);
    let mut request = Request::post(path).header("host", host).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|error| ClientError::Broken(error.to_string()))?;
    sender.send_request(request).await.map_err(broken)
}

async fn connect(url: &str) -> Result<(TcpStream, String, String), ClientError> {
    let unreachable = |reason: String| ClientError::Unreachable { address: url.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| unreachable(error.to_string()))?;
    let authority = uri.authority().ok_or_else(|| unreachable("no host in the address".into()))?.as_str().to_owned();
    let stream = TcpStream::connect(&authority).await.map_err(|error| unreachable(error.to_string()))?;
    Ok((stream, authority, uri.path().to_owned()))
}

async fn read_json(response: Response<Incoming>) -> Result<Value, ClientError> {
    let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| ClientError::Broken(error.to_string()))
}

fn result_of(mut answer: Value) -> Result<Value, ClientError> {
    if let Some(error) = answer.get("error") {
        let message = error["message"].as_str().unwrap_or("the node gave an error without a message");
        return Err(ClientError::Refused(message.to_owned()));
    }
    Ok(answer["result"].take())
}

/// Calls a JSON-RPC method and returns its result.
pub async fn rpc(url: &str, method: &str, params: Value) -> Result<Value, ClientError> {
    let (stream, host, path) = connect(url).await?;
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    result_of(read_json(post(stream, &host, &path, None, &request).await?).await?)
}

/// Calls a method of the private door.
pub async fn admin(socket: &Path, method: &str, params: Value) -> Result<Value, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| ClientError::Unreachable {
        address: socket.display().to_string(),
        reason: error.to_string(),
    })?;
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    result_of(read_json(post(stream, "localhost", "/", None, &request).await?).await?)
}

/// Posts to a door and returns status and answer, refusals included. `key` is the API key, where one is needed.
pub async fn post_json(url: &str, key: Option<&str>, body: &Value) -> Result<(u16, Value), ClientError> {
    let (stream, host, path) = connect(url).await?;
    let response = post(stream, &host, &path, key, body).await?;
    Ok((response.status().as_u16(), read_json(response).await?))
}

/// Streams a chat completion: `on_chunk` sees every chunk as it comes. `key` is the API key, where one is needed.
pub async fn chat(
    api: &str,
    key: Option<&str>,
    body: &Value,
    mut on_chunk: impl FnMut(&Value),
) -> Result<(), ClientError> {
    let (stream, host, path) = connect(&format!("{api}/chat/completions")).await?;
    let response = post(stream, &host, &path, key, body).await?;
    if !response.status().is_success() {
        let answer = read_json(response).await?;
        return Err(ClientError::Refused(
            answer["error"]["message"].as_str().unwrap_or("refused without a reason").to_owned(),
        ));
    }
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        if pending.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::Broken("an event without an end".into()));
        }
        while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            let Some(data) = event.strip_prefix(b"data: ") else { continue };
            if data.starts_with(b"[DONE]") {
                return Ok(());
            }
            let chunk: Value = serde_json::from_slice(data).map_err(|error| ClientError::Broken(error.to_string()))?;
            if let Some(message) = chunk["error"]["message"].as_str() {
                return Err(ClientError::Refused(message.to_owned()));
            }
            on_chunk(&chunk);
        }
    }
    Err(ClientError::Broken("the stream ended before its answer did".into()))
}
