//! One call to a Grape's HTTP API, and what its answers mean.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::event::Event;
use crate::net::{Net, Rng};

/// The most addresses that are taken from one lookup; a Grape gives at most 100. Those after it are dropped.
pub const MAX_ADDRESSES: usize = 256;

/// How much of an answer that makes no sense is shown in an error, in bytes.
const SHOWN: usize = 100;

/// How long a link waits between two tries of a call.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why a call to a Grape failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody has announced the name.
    #[error("ERR_GRAPE_LOOKUP_EMPTY")]
    LookupEmpty,
    /// No answer within the timeout, in any try.
    #[error("ERR_TIMEOUT")]
    Timeout,
    /// No connection to the Grape, or a broken one, in the last try.
    #[error("ERR_GRAPE_UNREACHABLE: {0}")]
    Unreachable(String),
    /// The Grape's own message: `No nodes to query`, `ERR_GRAPE_SERVICE_PORT`, ….
    #[error("{0}")]
    Refused(String),
    /// An answer that is not what the call gives; is it a Grape?
    #[error("ERR_GRAPE_ANSWER: status {status}, {shown}")]
    Malformed {
        /// The HTTP status.
        status: u16,
        /// The answer's beginning.
        shown: String,
    },
}

impl LinkError {
    /// Whether the Grape was not reached, so that another try may go better.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable(_))
    }
}

/// The calls of a Grape's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Announce,
    Lookup,
    Put,
    Get,
}

impl Call {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Lookup => "lookup",
            Self::Put => "put",
            Self::Get => "get",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Announce => "/announce",
            Self::Lookup => "/lookup",
            Self::Put => "/put",
            Self::Get => "/get",
        }
    }
}

/// Posts calls to one Grape.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) net: Net,
    pub(super) grape: SocketAddr,
    pub(super) timeout: Duration,
    pub(super) tries: u32,
    pub(super) rng: Mutex<Rng>,
}

impl Caller {
    /// Posts `data` and reads the answer with `read`: up to `tries` times where the Grape is not reached.
    pub(super) async fn call<T>(
        &self,
        call: Call,
        data: Value,
        read: impl Fn(u16, &[u8]) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let tries = if matches!(call, Call::Announce | Call::Lookup) { self.tries } else { 1 };
        let mut tried = 1;
        loop {
            let outcome = self.post(call, &data).await.and_then(|(status, body)| read(status, &body));
            match outcome {
                Err(e) if e.is_passing() && tried < tries => {
                    tried += 1;
                    sleep(RETRY_PAUSE).await;
                }
                Err(e) => {
                    self.net.emit(Event::LinkFailed { call: call.name(), error: e.to_string() });
                    return Err(e);
                }
                done => return done,
            }
        }
    }

    async fn post(&self, call: Call, data: &Value) -> Result<(u16, Bytes), LinkError> {
        let body = json!({ "rid": self.rid(), "data": data }).to_string();
        let posting = self.net.http().post(self.grape, call.path(), body.into());
        match timeout(self.timeout, posting).await {
            Ok(answer) => answer.map_err(|e| LinkError::Unreachable(e.to_string())),
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// A UUID of version 4, as other links send; Grapes ignore it.
    fn rid(&self) -> String {
        let mut bytes = [0; 16];
        self.rng.lock().expect("no panic while locked").fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// `1`: how many nodes took it. An error is a JSON string.
pub(super) fn read_announce(status: u16, body: &[u8]) -> Result<u64, LinkError> {
    let answer = parse(status, body)?;
    answer.as_u64().ok_or_else(|| refused(status, body, &answer))
}

/// `["203.0.113.5:1337", …]`. What is no such address is skipped; with nothing left nobody is there.
pub(super) fn read_lookup(status: u16, body: &[u8]) -> Result<Vec<SocketAddr>, LinkError> {
    let answer = parse(status, body)?;
    let Some(list) = answer.as_array() else { return Err(refused(status, body, &answer)) };
    let addresses: Vec<SocketAddr> = list
        .iter()
        .filter_map(|address| address.as_str()?.parse().ok())
        .filter(|address: &SocketAddr| address.port() != 0)
        .take(MAX_ADDRESSES)
        .collect();
    if addresses.is_empty() { Err(LinkError::LookupEmpty) } else { Ok(addresses) }
}

/// `"<40 hex digits>"`. An error is a JSON string as well.
pub(super) fn read_put(status: u16, body: &[u8]) -> Result<String, LinkError> {
    match parse(status, body)? {
        Value::String(hash) if hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(hash),
        other => Err(refused(status, body, &other)),
    }
}

/// `{"id": …, "token": …, "v": …}`, or nothing where there is no such value.
pub(super) fn read_get(status: u16, body: &[u8]) -> Result<Option<Value>, LinkError> {
    if status == 200 && body.is_empty() {
        return Ok(None);
    }
    match parse(status, body)? {
        Value::Object(mut found) if found.contains_key("v") => Ok(found.remove("v")),
        Value::Null => Ok(None),
        other => Err(refused(status, body, &other)),
    }
}

fn parse(status: u16, body: &[u8]) -> Result<Value, LinkError> {
    serde_json::from_slice(body).map_err(|_| malformed(status, body))
}

/// Errors are mostly a JSON string with status 200.
fn refused(status: u16, body: &[u8], answer: &Value) -> LinkError {
    match answer {
        Value::String(message) => LinkError::Refused(message.clone()),
        _ => malformed(status, body),
    }
}

fn malformed(status: u16, body: &[u8]) -> LinkError {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned();
    // Two refusals come as bare text.
    if text.starts_with("ERR_GRAPE_") { LinkError::Refused(text) } else { LinkError::Malformed { status, shown: text } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Result<Vec<SocketAddr>, LinkError> {
        Ok(list.iter().map(|a| a.parse().unwrap()).collect())
    }

    fn refused(message: &str) -> LinkError {
        LinkError::Refused(message.to_owned())
    }

    #[test]
    fn lookups() {
        // Recorded from a Grape of the original implementation.
        let two = br#"["127.0.0.1:1337","127.0.0.1:1338"]"#;
        assert_eq!(read_lookup(200, two), addresses(&["127.0.0.1:1337", "127.0.0.1:1338"]));
        assert_eq!(
            read_lookup(200, br#"["[2001:db8::1]:9","nowhere",7,"1.2.3.4","1.2.3.4:0"]"#),
            addresses(&["[2001:db8::1]:9"])
        );
        assert_eq!(read_lookup(200, b"[]"), Err(LinkError::LookupEmpty));
        assert_eq!(read_lookup(200, br#""ERR_GRAPE_LOOKUP""#), Err(refused("ERR_GRAPE_LOOKUP")));
        assert_eq!(read_lookup(500, b"ERR_GRAPE_PAYLOAD_INVALID"), Err(refused("ERR_GRAPE_PAYLOAD_INVALID")));
        for odd in [&b"{}"[..], b"1", b"null", b"", b"<html>", b"\xff"] {
            assert!(matches!(read_lookup(502, odd), Err(LinkError::Malformed { status: 502, .. })), "{odd:?}");
        }
        let many = format!("[{}]", vec!["\"1.2.3.4:5\""; MAX_ADDRESSES + 1].join(","));
        assert_eq!(read_lookup(200, many.as_bytes()).unwrap().len(), MAX_ADDRESSES);
    }

    #[test]
    fn announces() {
        assert_eq!(read_announce(200, b"1"), Ok(1));
        assert_eq!(read_announce(200, br#""No nodes to query""#), Err(refused("No nodes to query")));
        assert!(matches!(read_announce(200, b"-1"), Err(LinkError::Malformed { .. })));
    }

    #[test]
    fn puts_and_gets() {
        let hash = "28f4acc5fb92cca63cad5db1fcb106dad5546fc1";
        assert_eq!(read_put(200, format!("\"{hash}\"").as_bytes()).as_deref(), Ok(hash));
        assert_eq!(read_put(200, br#""opts.v not given""#), Err(refused("opts.v not given")));
        assert_eq!(read_get(200, br#"{"id":"00","token":null,"v":"hello"}"#), Ok(Some("hello".into())));
        assert_eq!(read_get(200, b""), Ok(None));
        assert_eq!(read_get(200, br#""ERR_GRAPE_GENERIC""#), Err(refused("ERR_GRAPE_GENERIC")));
        assert!(matches!(read_get(500, b""), Err(LinkError::Malformed { .. })));
    }
}
