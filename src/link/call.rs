//! One call to a Grape's HTTP API, and what its answers mean.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::config::CallOptions;
use super::error::LinkError;
use super::grapes::Grapes;
use super::value::{Found, check};
use crate::event::Event;
use crate::net::{Net, Rng};

/// The most addresses that are taken from one lookup; a Grape gives at most 100. Those after it are dropped.
pub const MAX_ADDRESSES: usize = 256;

/// How much of an answer that makes no sense is shown in an error, in bytes.
const SHOWN: usize = 100;

/// How long a link waits between two tries of a call.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

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

/// Posts calls to the first Grape that is reached.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) net: Net,
    pub(super) grapes: Mutex<Grapes>,
    pub(super) rng: Mutex<Rng>,
}

impl Caller {
    /// Posts `data` to one Grape after the other until one is reached, up to as often as the options say, and reads
    /// its answer with `read`.
    pub(super) async fn call<T>(
        &self,
        call: Call,
        data: Value,
        options: CallOptions,
        read: impl Fn(u16, &[u8]) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let tries = if matches!(call, Call::Announce | Call::Lookup) { options.tries } else { options.value_tries };
        let mut last = LinkError::Timeout;
        for number in 0..tries {
            if number > 0 {
                sleep(RETRY_PAUSE).await;
            }
            let order = self.grapes().order(Instant::now().into_std());
            for grape in order {
                let posted = self.post(grape, call, &data, options.timeout).await;
                self.grapes().note(Instant::now().into_std(), grape, posted.is_ok());
                match posted.and_then(|(status, body)| read(status, &body)) {
                    Err(e) if e.is_unreached() => last = e,
                    Err(e) => return Err(self.failed(call, e)),
                    done => return done,
                }
            }
        }
        Err(self.failed(call, last))
    }

    fn failed(&self, call: Call, error: LinkError) -> LinkError {
        self.net.emit(Event::LinkFailed { call: call.name(), error: error.to_string() });
        error
    }

    async fn post(
        &self,
        grape: SocketAddr,
        call: Call,
        data: &Value,
        within: Duration,
    ) -> Result<(u16, Bytes), LinkError> {
        let body = json!({ "rid": self.rid(), "data": data }).to_string();
        let posting = self.net.http().post(grape, call.path(), body.into());
        match timeout(within, posting).await {
            Ok(answer) => answer.map_err(|e| LinkError::Unreachable(e.to_string())),
            Err(_) => Err(LinkError::Timeout),
        }
    }

    pub(super) fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().expect("no panic while locked")
    }

    fn grapes(&self) -> MutexGuard<'_, Grapes> {
        self.grapes.lock().expect("no panic while locked")
    }

    /// A UUID of version 4, as other links send; Grapes ignore it.
    fn rid(&self) -> String {
        let mut bytes = [0; 16];
        self.rng().fill_bytes(&mut bytes);
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

/// `"<40 hex digits>"`, which must be `hash`. An error is a JSON string as well; BEP 44's begin with their code.
pub(super) fn read_put(status: u16, body: &[u8], hash: &str) -> Result<String, LinkError> {
    match parse(status, body)? {
        Value::String(told) if told.len() == 40 && told.bytes().all(|b| b.is_ascii_hexdigit()) => {
            if told.eq_ignore_ascii_case(hash) { Ok(told) } else { Err(LinkError::Forged) }
        }
        Value::String(message) if message.starts_with("301") => Err(LinkError::CasMismatch),
        Value::String(message) if message.starts_with("302") => Err(LinkError::Stale),
        other => Err(refused(status, body, &other)),
    }
}

/// `{"id": …, "token": …, "v": …}`, with `k`, `seq` and `sig` where it is mutable, or nothing where there is no such
/// value.
pub(super) fn read_get(status: u16, body: &[u8], hash: &str, salt: Option<&str>) -> Result<Option<Found>, LinkError> {
    if status == 200 && body.is_empty() {
        return Ok(None);
    }
    match parse(status, body)? {
        Value::Null => Ok(None),
        found if found.get("v").is_some() => check(&found, hash, salt).map(Some),
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
    fn puts() {
        let hash = "28f4acc5fb92cca63cad5db1fcb106dad5546fc1";
        let read = |status, body: &str| read_put(status, body.as_bytes(), hash);
        assert_eq!(read(200, &format!("\"{hash}\"")).as_deref(), Ok(hash));
        assert_eq!(read(200, &format!("\"{}\"", "0".repeat(40))), Err(LinkError::Forged));
        assert_eq!(read(200, r#""opts.v not given""#), Err(refused("opts.v not given")));
        // Recorded from a Grape of the original implementation.
        assert_eq!(read(301, r#""301 CAS mismatch, re-read and try again""#), Err(LinkError::CasMismatch));
        assert_eq!(read(302, r#""302 sequence number less than current""#), Err(LinkError::Stale));
        assert!(matches!(read(200, "1"), Err(LinkError::Malformed { .. })));
    }

    #[test]
    fn gets() {
        let hash = "e5f96f6f38320f0f33959cb4d3d656452117aadb";
        let read = |status, body: &str| read_get(status, body.as_bytes(), hash, None);
        let found = Found::Immutable("Hello World!".into());
        assert_eq!(read(200, r#"{"id":"00","token":null,"v":"Hello World!"}"#), Ok(Some(found)));
        assert_eq!(read(200, ""), Ok(None));
        assert_eq!(read(200, "null"), Ok(None));
        assert_eq!(read(200, r#"{"id":"00","token":null,"v":"Hello"}"#), Err(LinkError::Forged));
        assert_eq!(read(200, r#""ERR_GRAPE_GENERIC""#), Err(refused("ERR_GRAPE_GENERIC")));
        assert!(matches!(read(500, ""), Err(LinkError::Malformed { .. })));
    }
}
