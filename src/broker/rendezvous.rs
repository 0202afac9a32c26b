//! A peer's side of what brokers of ours do beyond the original: waiting, signals, relays.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::extension::{EXTENSION, Extension, RelayOffer};
use super::registry::{Entry, entries};
use crate::nat::Behaviour;
use crate::rpc::{PeerRpcClient, RequestOptions, RpcError};

/// How long one call may take beyond the time that the broker is asked to hold its answer back.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// A peer at a broker.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    rpc: PeerRpcClient,
    broker: SocketAddr,
    service: String,
    server: bool,
    nat: Mutex<Behaviour>,
}

/// What a broker answers to a registration.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// Everybody who is registered for the service.
    pub(crate) entries: Vec<Entry>,
    /// `None` from brokers that do not know the extension.
    pub(crate) extension: Option<Extension>,
}

impl Rendezvous {
    pub(crate) fn new(rpc: &PeerRpcClient, broker: SocketAddr, service: &str, server: bool, nat: Behaviour) -> Self {
        Self { rpc: rpc.clone(), broker, service: service.to_owned(), server, nat: Mutex::new(nat) }
    }

    pub(crate) fn broker(&self) -> SocketAddr {
        self.broker
    }

    pub(crate) fn is_server(&self) -> bool {
        self.server
    }

    /// What is told of this peer's NAT from the next registration on.
    pub(crate) fn tell(&self, nat: Behaviour) {
        *self.nat.lock().expect("no panic while locked") = nat;
    }

    /// Registers; a broker that knows the extension answers when there is something new, or after `wait`.
    pub(crate) async fn register(&self, wait: Duration) -> Result<Registered, RpcError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let answer = self.ask(&json!({ "nat": self.nat(), "wait": wait_ms }), wait).await?;
        Ok(Registered { entries: entries(&answer, &self.service), extension: Extension::of(&answer) })
    }

    /// Leaves another peer a note.
    pub(crate) async fn signal(&self, to: &str, data: Value) -> Result<(), RpcError> {
        self.ask(&json!({ "do": "signal", "to": to, "data": data }), Duration::ZERO).await.map(drop)
    }

    /// Opens a relay to another peer; gives the broker's address for it, and this side's token.
    pub(crate) async fn relay(&self, to: &str) -> Result<(SocketAddr, String), RpcError> {
        let answer = self.ask(&json!({ "do": "relay", "to": to }), Duration::ZERO).await?;
        let RelayOffer { port, token } =
            RelayOffer::deserialize(&answer).map_err(|e| RpcError::MalformedReply(e.to_string()))?;
        Ok((SocketAddr::new(self.broker.ip(), port), token))
    }

    async fn ask(&self, more: &Value, wait: Duration) -> Result<Value, RpcError> {
        let mut payload = json!({ "service": self.service, "server": self.server });
        if let (Some(payload), Some(more)) = (payload.as_object_mut(), more.as_object()) {
            payload.extend(more.clone());
        }
        let options = RequestOptions::default().timeout(wait + CALL_TIMEOUT);
        self.rpc.request_at_with(self.broker, EXTENSION, &payload, options).await
    }

    fn nat(&self) -> Behaviour {
        *self.nat.lock().expect("no panic while locked")
    }
}
