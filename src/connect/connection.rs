//! A way to a service that was found, and a better one where there comes to be one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::climb::{Aim, climb};
use super::host::Host;
use super::relayed::leave;
use super::{ConnectReport, Path, Rung};
use crate::net::Task;
use crate::rpc::{PeerRpcClient, RequestOptions, RpcError};

/// How often it is looked whether a relay that was left for a better way is still in use.
const LEAVE_EVERY: Duration = Duration::from_millis(500);

/// A way to a service. Cheap to clone; with the last clone its sockets close, a relay's among them.
///
/// Where it leads through a relay, a better way is looked for now and then. Requests that begin after one was found take
/// that one; those that are under way stay where they are, and with the last of them the relay ends. A relay also ends when it was idle for too long
/// ([`RelayConfig::idle_timeout`](crate::broker::RelayConfig::idle_timeout)); the next request then connects anew within
/// its own timeout, and fails at once where there is no way any more.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    service: String,
    report: ConnectReport,
    path: Mutex<Arc<Path>>,
    /// Held by who connects anew.
    anew: tokio::sync::Mutex<()>,
    _upgrading: Option<Task>,
}

impl Connection {
    pub(super) fn new(host: Arc<Host>, path: Path, report: ConnectReport) -> Self {
        let relayed = path.rung == Rung::Relay;
        let service = report.service.clone();
        Self(Arc::new_cyclic(|this: &Weak<Inner>| {
            let net = host.net().clone();
            let upgrading = upgrade(host.clone(), service.clone(), this.clone());
            let upgrading = relayed.then(|| net.spawn(Box::pin(upgrading)));
            let path = Mutex::new(Arc::new(path));
            Inner { host, service, report, path, anew: tokio::sync::Mutex::default(), _upgrading: upgrading }
        }))
    }

    /// Asks the service.
    ///
    /// # Errors
    /// As those of a request. Where the way has failed ([`RpcError::is_transport`]) connect again;
    /// [`RpcError::Transport`] where a relay has ended and no other way was found.
    pub async fn request(&self, payload: &Value) -> Result<Value, RpcError> {
        let options = self.path().rpc.options();
        self.request_with(payload, options).await
    }

    /// As [`request`](Self::request), with options of its own.
    ///
    /// # Errors
    /// As those of [`request`](Self::request).
    pub async fn request_with(&self, payload: &Value, options: RequestOptions) -> Result<Value, RpcError> {
        let deadline = Instant::now() + options.timeout;
        let path = timeout_at(deadline, self.usable_path()).await.map_err(|_| RpcError::Timeout)??;
        let options = options.timeout(deadline.saturating_duration_since(Instant::now()));
        path.rpc.request_at_with(path.to, &self.0.service, payload, options).await
    }

    /// How the connection came about.
    pub fn report(&self) -> &ConnectReport {
        &self.0.report
    }

    /// The rung that requests take now.
    pub fn rung(&self) -> Rung {
        self.path().rung
    }

    /// Where requests go to now.
    pub fn address(&self) -> SocketAddr {
        self.path().to
    }

    /// The client that reaches [`address`](Self::address): its endpoint has the hole.
    pub fn client(&self) -> PeerRpcClient {
        self.path().rpc.clone()
    }

    fn path(&self) -> Arc<Path> {
        self.0.path().clone()
    }

    /// The path, or another one where it is gone.
    async fn usable_path(&self) -> Result<Arc<Path>, RpcError> {
        if !self.path().is_gone() {
            return Ok(self.path());
        }
        let _anew = self.0.anew.lock().await;
        if self.path().is_gone() {
            let found = climb(&self.0.host, &self.0.service, Aim::AnyWay).await;
            let (path, _) = found.map_err(|report| {
                RpcError::Transport(format!("the relay has ended, and there is no other way: {report}"))
            })?;
            *self.0.path() = Arc::new(path);
        }
        Ok(self.path())
    }
}

impl Inner {
    fn path(&self) -> MutexGuard<'_, Arc<Path>> {
        self.path.lock().expect("no panic while locked")
    }
}

/// Looks for a better way than a relay, now and then.
async fn upgrade(host: Arc<Host>, service: String, connection: Weak<Inner>) {
    for _ in 0..host.config.upgrades {
        sleep(host.config.upgrade_interval).await;
        let relayed = |inner: &Arc<Inner>| inner.path().rung == Rung::Relay;
        if !connection.upgrade().as_ref().is_some_and(relayed) {
            return;
        }
        if let Ok((path, _)) = climb(&host, &service, Aim::NoRelay).await
            && let Some(connection) = connection.upgrade()
        {
            let relayed = std::mem::replace(&mut *connection.path(), Arc::new(path));
            drop(connection);
            return leave_relay(&host, relayed).await;
        }
    }
}

/// Ends a relay once nothing goes through it any more.
async fn leave_relay(host: &Host, path: Arc<Path>) {
    // Streamed calls, and clients that were handed out, have connections of their own.
    while Arc::strong_count(&path) > 1 || host.endpoint.connections_to(path.to) > 0 {
        path.rpc.retire(path.to);
        sleep(LEAVE_EVERY).await;
    }
    if let Some((_, token)) = &path.kept {
        leave(&host.endpoint, path.to, token);
    }
}
