//! The HTTP API: what to answer to which request, as clients of the reference expect it.
//!
//! Any method works, the path alone decides; most errors are status 200 with a JSON string.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, mpsc};

use super::bencode::whole;
use super::driver::{Call, Handle};
use super::krpc::{Key, MAX_SALT, Mutable, NodeId, Value};
use super::node::{FoundValue, OperationError, Outcome};
use super::values::MAX_VALUE;
use crate::event::Event;
use crate::net::{Net, Task, TcpListener, TcpStream};

/// How many connections to a Grape's API are open at once; further ones wait in the listener's backlog.
pub const MAX_HTTP_CONNECTIONS: usize = 1024;

/// How long a request's head, and then its body, may take at a Grape's API; an idle connection is closed after as long.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when connections cannot be accepted, before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer: status and body.
type Answer = (StatusCode, Bytes);

/// The HTTP side of a Grape. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Api {
    net: Net,
    handle: Handle,
    max_payload: usize,
    /// Requests that were malformed.
    malformed: Arc<AtomicU64>,
    _alive: mpsc::Sender<()>,
}

impl Api {
    pub(super) fn new(net: Net, handle: Handle, max_payload: usize, alive: mpsc::Sender<()>) -> Self {
        Self { net, handle, max_payload, malformed: Arc::default(), _alive: alive }
    }

    /// The count of malformed requests, which goes on.
    pub(super) fn malformed_count(&self) -> Arc<AtomicU64> {
        self.malformed.clone()
    }

    /// Accepts connections until it is dropped, and ends them then.
    pub(super) async fn serve(self, mut listener: Box<dyn TcpListener>) {
        let permits = Arc::new(Semaphore::new(MAX_HTTP_CONNECTIONS));
        let mut connections: Vec<Task> = Vec::new();
        // The semaphore is never closed.
        while let Ok(permit) = permits.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let api = self.clone();
                    connections.retain(|task| !task.is_finished());
                    connections.push(self.net.spawn(Box::pin(async move {
                        api.connection(stream, from).await;
                        drop(permit);
                    })));
                }
                Err(error) => {
                    // Out of file descriptors, or a connection that broke before it was accepted.
                    tracing::debug!(target: "grenache", %error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: Box<dyn TcpStream>, from: SocketAddr) {
        let service = service_fn(|request| self.respond(request, from));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP_TIMEOUT)
            // The wall clock is not reproducible, and no client asks for it.
            .auto_date_header(false)
            // What a client sends back to back is answered back to back.
            .pipeline_flush(true)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served
            && error.is_parse()
        {
            self.malformed(from, &error.to_string());
        }
    }

    async fn respond(&self, request: Request<Incoming>, from: SocketAddr) -> hyper::Result<Response<Full<Bytes>>> {
        let (status, body) = self.answer(request, from).await;
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        Ok(response)
    }

    async fn answer(&self, request: Request<Incoming>, from: SocketAddr) -> Answer {
        // With its query, so that a query string makes the route unknown.
        let route = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
        let body = Limited::new(request.into_body(), self.max_payload).collect();
        let body = match tokio::time::timeout(HTTP_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                self.malformed(from, "the body is too long");
                return text(StatusCode::PAYLOAD_TOO_LARGE, "ERR_GRAPE_PAYLOAD_SIZE");
            }
            Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the body broke off"),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        };
        let Ok(body) = serde_json::from_slice::<Json>(&body) else {
            self.malformed(from, "the body is not JSON");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "ERR_GRAPE_PAYLOAD_INVALID");
        };
        if body.is_null() {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the body must be a JSON object");
        }
        let data = body.get("data").unwrap_or(&Json::Null);
        let call = match route.as_str() {
            "/announce" => announce(data),
            "/lookup" => lookup(data),
            "/put" => put(data),
            "/get" => get(data),
            _ => Err(error("ERR_REQ_NOTFOUND")),
        };
        match call {
            Err(answer) => answer,
            Ok(call) => match self.handle.call(call).await {
                Some(result) => self::result(result),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "the Grape is shutting down"),
            },
        }
    }

    fn malformed(&self, from: SocketAddr, reason: &str) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        self.net.emit(Event::Malformed { layer: "http", from, reason: reason.to_owned() });
    }
}

/// `[name, port]`.
fn announce(data: &Json) -> Result<Call, Answer> {
    let items = data.as_array().ok_or_else(|| error("ERR_GRAPE_ANNOUNCE"))?;
    let port = match items.get(1) {
        Some(Json::Number(port)) => whole(port).and_then(|port| u16::try_from(port).ok()),
        _ => None,
    };
    let port = port.ok_or_else(|| error("ERR_GRAPE_SERVICE_PORT"))?;
    let name = items.first().and_then(name).ok_or_else(|| error("ERR_GRAPE_ANNOUNCE"))?;
    Ok(Call::Announce { name, port })
}

/// `name`.
fn lookup(data: &Json) -> Result<Call, Answer> {
    Ok(Call::Lookup { name: name(data).ok_or_else(|| error("ERR_GRAPE_LOOKUP"))? })
}

fn name(data: &Json) -> Option<Key> {
    Key::new(data.as_str()?.as_bytes())
}

/// `value` as a string, or `{v, k?, sig?, salt?, seq?, cas?}`.
fn put(data: &Json) -> Result<Call, Answer> {
    let value = match data {
        Json::Null => return Err(text(StatusCode::INTERNAL_SERVER_ERROR, "data must be an object with v")),
        Json::String(_) => data,
        _ => data.get("v").filter(|v| !v.is_null()).ok_or_else(|| error("opts.v not given"))?,
    };
    let value = Value::from_json(value).map_err(|e| error(&e.to_string()))?;
    if value.size() >= MAX_VALUE {
        return Err(error("v must be less than 1000 bytes in put()"));
    }
    let mutable = match data.get("k").filter(|key| !key.is_null()) {
        Some(key) => {
            let mutable = mutable(data, key)?;
            // Others would refuse it, one by one.
            if !mutable.is_signed(&value) {
                return Err(error("opts.sig is not the signature of opts.k over salt, seq and v"));
            }
            Some(Box::new(mutable))
        }
        None => None,
    };
    Ok(Call::Put { value, mutable })
}

fn mutable(data: &Json, key: &Json) -> Result<Mutable, Answer> {
    let given = |name| data.get(name).filter(|value| !value.is_null());
    let integer = |value: &Json| match value {
        Json::Number(number) => whole(number),
        _ => None,
    };
    let expected = match given("cas") {
        Some(cas) => Some(integer(cas).ok_or_else(|| error("opts.cas must be an integer if provided"))?),
        None => None,
    };
    let key = from_hex(key).ok_or_else(|| error("opts.k ed25519 public key must be 32 bytes"))?;
    let signature = given("sig").and_then(from_hex).ok_or_else(|| error("opts.sig must be a signature of 64 bytes"))?;
    let salt = salt(data)?;
    let sequence = given("seq").ok_or_else(|| error("opts.seq not provided for a mutable update"))?;
    let sequence = integer(sequence).ok_or_else(|| error("opts.seq not an integer"))?;
    Ok(Mutable { key, signature, sequence, salt, expected })
}

/// The salt of a mutable value, a text; an empty one is none (BEP 44).
fn salt(data: &Json) -> Result<Option<Vec<u8>>, Answer> {
    let Some(salt) = data.get("salt").filter(|salt| !salt.is_null()) else { return Ok(None) };
    let salt = salt.as_str().ok_or_else(|| error("opts.salt must be a string"))?;
    if salt.len() > MAX_SALT {
        return Err(error("opts.salt is > 64 bytes long"));
    }
    Ok(Some(salt.as_bytes().to_vec()).filter(|salt| !salt.is_empty()))
}

/// `"hash"` or `{hash, salt?}`.
fn get(data: &Json) -> Result<Call, Answer> {
    let hash = match data {
        Json::Null => return Err(text(StatusCode::INTERNAL_SERVER_ERROR, "data must be a hash")),
        Json::Object(fields) => fields.get("hash").unwrap_or(&Json::Null),
        other => other,
    };
    if !hash.is_string() {
        return Err(error("ERR_GRAPE_GENERIC"));
    }
    // What cannot be a hash is a value that is not there.
    let target = from_hex(hash).ok_or((StatusCode::OK, Bytes::new()))?;
    Ok(Call::Get { target: NodeId(target), salt: salt(data)? })
}

fn from_hex<const N: usize>(json: &Json) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(json.as_str()?, &mut bytes).ok()?;
    Some(bytes)
}

fn result(result: Result<Outcome, OperationError>) -> Answer {
    match result {
        Ok(Outcome::Announced(nodes)) => ok(&json!(nodes)),
        Ok(Outcome::Peers(peers)) => ok(&peers.iter().map(ToString::to_string).collect()),
        Ok(Outcome::Stored(target)) => ok(&json!(target.to_string())),
        Ok(Outcome::Value(None)) => (StatusCode::OK, Bytes::new()),
        Ok(Outcome::Value(Some(found))) => ok(&shown(found)),
        Err(refused) => {
            // BEP 44's codes are the status too.
            let status = match refused {
                OperationError::Refused { code, .. } => u16::try_from(code).ok(),
                _ => None,
            };
            let status = status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK);
            (status, json!(refused.to_string()).to_string().into())
        }
    }
}

fn shown(found: FoundValue) -> Json {
    let FoundValue { id, token, value, mutable } = found;
    let mut shown = json!({"id": id.to_string(), "token": token.map(hex::encode), "v": value.to_json()});
    if let Some(mutable) = mutable {
        shown["k"] = json!(hex::encode(mutable.key));
        shown["seq"] = json!(mutable.sequence);
        shown["sig"] = json!(hex::encode(mutable.signature));
        if let Some(salt) = mutable.salt {
            shown["salt"] = json!(String::from_utf8_lossy(&salt));
        }
    }
    shown
}

fn ok(json: &Json) -> Answer {
    (StatusCode::OK, json.to_string().into())
}

fn error(message: &str) -> Answer {
    ok(&json!(message))
}

fn text(status: StatusCode, message: &'static str) -> Answer {
    (status, Bytes::from_static(message.as_bytes()))
}
