//! Drives the client's pool: opens the connections it asks for, writes requests and hands replies back.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::connection::MAX_MALFORMED;
use super::error::RpcError;
use super::framing::FramingError;
use super::gate::Gate;
use super::message::{MalformedMessage, ReplyMessage, readable_rid};
use super::pool::{Job, Opening, Pool, PoolLimits, Ticket, TransportId};
use super::stream::{TextReader, write_all};
use crate::event::Event;
use crate::net::{BoxFuture, Net, TcpStream};
use crate::transport::Endpoint;

/// How long a client that has ended its side of a connection waits for the peer to do the same.
const FIN_WAIT: Duration = Duration::from_secs(1);

/// A connected stream of any kind.
pub(super) type BoxStream = Box<dyn TcpStream>;

/// What connects to peers.
pub(super) trait Dial: fmt::Debug + Send + Sync + 'static {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxStream>>;
}

impl Dial for Endpoint {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<BoxStream>> {
        let endpoint = self.clone();
        Box::pin(async move { Ok(Box::new(endpoint.connect(to).await?) as BoxStream) })
    }
}

/// A pool with its connections: one task carries each.
#[derive(Debug)]
pub(super) struct Carrier {
    net: Net,
    dial: Arc<dyn Dial>,
    pool: Mutex<Pool>,
    max_message: usize,
    unknown_replies: AtomicU64,
    malformed: AtomicU64,
    /// What carries connections is inside.
    gate: Gate,
}

impl Carrier {
    pub(super) fn new(net: &Net, dial: Arc<dyn Dial>, limits: PoolLimits, max_message: usize) -> Arc<Self> {
        Arc::new(Self {
            net: net.clone(),
            dial,
            pool: Mutex::new(Pool::new(limits)),
            max_message,
            unknown_replies: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            gate: Gate::new(),
        })
    }

    pub(super) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("no panic while locked")
    }

    pub(super) fn submit(self: &Arc<Self>, to: SocketAddr, job: Job) -> Result<Ticket, RpcError> {
        let mut pool = self.pool();
        let ticket = pool.submit(now(), to, job)?;
        self.open(&mut pool, to);
        Ok(ticket)
    }

    pub(super) fn cancel(self: &Arc<Self>, to: SocketAddr, ticket: Ticket, rid: Uuid) {
        let mut pool = self.pool();
        pool.cancel(now(), to, ticket, rid);
        self.open(&mut pool, to);
    }

    /// Opens no more connections, ends those there are with a FIN, and waits until their peers have acknowledged it.
    pub(super) async fn finish(&self, within: Duration) {
        self.gate.close();
        let _ending = self.pool().finish();
        // What has not ended by then is cut off: its task ends with `_ending`.
        let _ = timeout(within, self.gate.empty()).await;
    }

    /// Ends every connection. What carries them holds the carrier, so that dropping it would not.
    pub(super) fn close(&self) {
        self.pool().clear();
    }

    pub(super) fn unknown_replies(&self) -> u64 {
        self.unknown_replies.load(Ordering::Relaxed)
    }

    pub(super) fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Starts what the pool wants opened. The lock is held until the pool has the tasks, which use it themselves.
    fn open(self: &Arc<Self>, pool: &mut Pool, to: SocketAddr) {
        while let Some(opening) = pool.next_opening(now(), to) {
            let id = opening.id;
            let task = self.net.spawn(Box::pin(self.clone().carry(opening)));
            pool.carried_by(to, id, task);
        }
    }

    /// One connection's life.
    async fn carry(self: Arc<Self>, opening: Opening) {
        let Opening { id, to, messages } = opening;
        let _inside = self.gate.enter();
        let error = match self.dial.dial(to).await {
            Err(e) => RpcError::from(&e),
            Ok(stream) => {
                self.pool().connected(now(), to, id);
                let (reader, writer) = tokio::io::split(stream);
                let reading = pin!(self.read(to, id, TextReader::new(reader, self.max_message)));
                let writing = pin!(write_all(writer, messages));
                match select(reading, writing).await {
                    Either::Left((error, _)) => error,
                    Either::Right((Err(e), _)) => RpcError::from(&e),
                    // This side has ended in good order, and gives the peer the time to do the same: were its end to
                    // come when this process is gone, it would send it again and again.
                    Either::Right((Ok(()), reading)) => {
                        timeout(FIN_WAIT, reading).await.unwrap_or(RpcError::TransportClose)
                    }
                }
            }
        };
        let mut pool = self.pool();
        pool.closed(now(), to, id, &error);
        self.open(&mut pool, to);
    }

    /// Hands replies out until the connection ends; gives why it did.
    async fn read<R: AsyncRead + Unpin>(
        self: &Arc<Self>,
        to: SocketAddr,
        id: TransportId,
        mut texts: TextReader<R>,
    ) -> RpcError {
        let mut malformed = 0;
        loop {
            let Some(check_at) = self.pool().next_check(now(), to, id) else { return RpcError::TransportClose };
            let text = match timeout_at(check_at.into(), texts.next()).await {
                Ok(Ok(Some(text))) => text,
                Ok(Ok(None)) => return RpcError::TransportClose,
                Ok(Err(e)) => return RpcError::from(&e),
                Err(_) => continue,
            };
            let fatal = text.as_ref().is_err_and(FramingError::is_fatal);
            let reply = match text {
                Ok(text) => ReplyMessage::parse(&text),
                Err(e) => Err(MalformedMessage { rid: readable_rid(e.head()), reason: e.to_string() }),
            };
            let (rid, outcome) = match reply {
                Ok(ReplyMessage { rid, result }) => (Some(rid), result.map_err(RpcError::Remote)),
                Err(MalformedMessage { rid, reason }) => {
                    malformed += 1;
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                    self.net.emit(Event::Malformed { layer: "rpc", from: to, reason: reason.clone() });
                    (rid, Err(RpcError::MalformedReply(reason)))
                }
            };
            {
                let mut pool = self.pool();
                pool.heard(now(), to, id);
                let settled = rid
                    .and_then(|rid| Uuid::try_parse(&rid).ok())
                    .is_some_and(|rid| pool.settle(now(), to, id, rid, outcome));
                if !settled {
                    self.unknown_replies.fetch_add(1, Ordering::Relaxed);
                }
                self.open(&mut pool, to);
            }
            if fatal || malformed >= MAX_MALFORMED {
                return RpcError::TransportClose;
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
