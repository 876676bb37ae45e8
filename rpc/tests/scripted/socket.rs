//! A WebSocket client, as far as the tests need one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// One connection.
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) fn open(address: SocketAddr) -> Socket {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
        Socket(stream)
    }

    /// Sends a call as one masked text frame, the mask being zeros.
    pub(crate) fn send(&mut self, method: &str, params: Value) {
        let text = json!({"jsonrpc": "2.0", "id": 9, "method": method, "params": params}).to_string();
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    /// The next text.
    pub(crate) fn next(&mut self) -> Value {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).unwrap();
            let mut length = u64::from(head[1]);
            if length >= 126 {
                let mut bytes = [0; 8];
                let from = if length == 126 { 6 } else { 0 };
                self.0.read_exact(&mut bytes[from..]).unwrap();
                length = u64::from_be_bytes(bytes);
            }
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut payload).unwrap();
            if head[0] == 0x81 {
                return serde_json::from_slice(&payload).unwrap();
            }
        }
    }

    /// Subscribes and returns the id of the subscription.
    pub(crate) fn subscribe(&mut self, method: &str, params: Value) -> Value {
        self.send(method, params);
        let answer = self.next();
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// The next item of a subscription.
    pub(crate) fn item(&mut self, method: &str, subscription: &Value) -> Value {
        let mut message = self.next();
        assert_eq!(
            (&message["method"], &message["params"]["subscription"]),
            (&json!(method), subscription),
            "{message}"
        );
        message["params"]["result"].take()
    }
}
