//! Drives a [`Node`]: owns its socket, its clock and its random numbers, and carries calls to it.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Sleep;

use super::GrapeState;
use super::krpc::{Key, MAX_DATAGRAM, Mutable, NodeId, Value};
use super::node::{Node, NodeEvent, NodeStats, OperationError, OperationId, Outcome};
use crate::event::Event;
use crate::net::{Net, RecvMeta, Rng, Transmit, UdpSocket};

/// How many calls wait for the driver; a further caller waits to be let in.
const MAX_CALLS: usize = 256;

/// How many receive buffers there are.
const BUFFERS: usize = 8;

/// How many batches are received before other tasks get their turn.
const MAX_BATCHES: usize = 32;

/// What a Grape is asked to do.
#[derive(Debug)]
pub(super) enum Call {
    Announce { name: Key, port: u16 },
    Lookup { name: Key },
    Put { value: Value, mutable: Option<Box<Mutable>> },
    Get { target: NodeId, salt: Option<Vec<u8>> },
}

type Answer = oneshot::Sender<Result<Outcome, OperationError>>;

/// What comes in through a [`Handle`].
#[derive(Debug)]
pub(super) enum Command {
    Call(Call, Answer),
    AddBootstrap(SocketAddrV4),
}

/// Carries calls to the driver.
#[derive(Debug, Clone)]
pub(super) struct Handle(mpsc::Sender<Command>);

/// The driver's end of a [`Handle`].
pub(super) type Commands = mpsc::Receiver<Command>;

impl Handle {
    pub(super) fn new() -> (Self, Commands) {
        let (sender, receiver) = mpsc::channel(MAX_CALLS);
        (Self(sender), receiver)
    }

    /// Has it done; `None` where the Grape has ended.
    pub(super) async fn call(&self, call: Call) -> Option<Result<Outcome, OperationError>> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Command::Call(call, sender)).await.ok()?;
        receiver.await.ok()
    }

    /// One more node to start from.
    pub(super) async fn add_bootstrap(&self, address: SocketAddrV4) {
        // A Grape that has ended needs none.
        let _ = self.0.send(Command::AddBootstrap(address)).await;
    }
}

/// What the outside sees of a node.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) ready: bool,
    pub(super) stats: NodeStats,
}

/// The task around a node.
#[derive(Debug)]
pub(super) struct Driver {
    net: Net,
    socket: Arc<dyn UdpSocket>,
    buffers: Vec<Vec<u8>>,
    node: Node,
    rng: Rng,
    commands: Commands,
    /// Who waits for an operation: several where lookups share one.
    waiting: BTreeMap<OperationId, Vec<Answer>>,
    status: watch::Sender<Status>,
    state: watch::Sender<GrapeState>,
    timer: Pin<Box<Sleep>>,
    /// Taken from the node, but the socket's buffer was full.
    unsent: Option<(SocketAddrV4, Vec<u8>)>,
    api_port: u16,
    /// Dropped last, when the socket is closed.
    _alive: mpsc::Sender<()>,
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "the parts of a Grape, put together in one place")]
    pub(super) fn new(
        net: Net,
        socket: Arc<dyn UdpSocket>,
        node: Node,
        rng: Rng,
        commands: Commands,
        status: watch::Sender<Status>,
        state: watch::Sender<GrapeState>,
        api_port: u16,
        alive: mpsc::Sender<()>,
    ) -> Self {
        let segments = socket.max_receive_segments().max(1);
        // One byte more than a message may have, so that a longer one is known by its length.
        let buffers = vec![vec![0; segments * (MAX_DATAGRAM + 1)]; BUFFERS];
        let timer = Box::pin(tokio::time::sleep_until(node.poll_timeout().into()));
        let waiting = BTreeMap::new();
        Self {
            net,
            socket,
            buffers,
            node,
            rng,
            commands,
            waiting,
            status,
            state,
            timer,
            unsent: None,
            api_port,
            _alive: alive,
        }
    }

    /// Runs until it is dropped, or its socket breaks.
    pub(super) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..MAX_BATCHES {
            self.tell();
            ready!(self.poll_send_all(cx));
            let mut progress = self.poll_calls(cx);
            progress |= self.poll_timer(cx);
            match self.poll_receive(cx) {
                Poll::Ready(Ok(())) => progress = true,
                Poll::Ready(Err(error)) => {
                    // Unreachable destinations show up here on some systems: they are not the socket's end.
                    tracing::debug!(target: "grenache", %error, "receiving failed");
                    progress = true;
                }
                Poll::Pending => {}
            }
            if !progress {
                self.publish();
                return Poll::Pending;
            }
        }
        self.publish();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what the node has to send. While the socket's buffer is full nothing else is done.
    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some((to, datagram)) = self.unsent.take().or_else(|| self.node.poll_transmit()) {
            let transmit = Transmit { destination: to.into(), contents: &datagram, segment_size: None };
            // What cannot be sent is lost like any datagram: its query times out.
            if self.socket.poll_send(cx, &transmit).is_pending() {
                self.unsent = Some((to, datagram));
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut meta = [RecvMeta::default(); BUFFERS];
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let count = ready!(self.socket.poll_recv(cx, &mut slices, &mut meta))?;
        let now = now();
        for (buffer, meta) in self.buffers.iter().zip(&meta).take(count) {
            let SocketAddr::V4(from) = unmapped(meta.source) else { continue };
            let filled = buffer.get(..meta.len).unwrap_or(buffer);
            for datagram in filled.chunks(meta.stride.max(1)) {
                self.node.handle_datagram(now, &mut self.rng, from, datagram);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) else { return false };
        let (now, rng) = (now(), &mut self.rng);
        let (call, answer) = match command {
            Command::Call(call, answer) => (call, answer),
            Command::AddBootstrap(address) => {
                self.node.add_bootstrap(now, rng, address);
                return true;
            }
        };
        let operation = match call {
            Call::Announce { name, port } => self.node.announce(now, rng, name, port),
            Call::Lookup { name } => self.node.lookup(now, rng, name),
            Call::Put { value, mutable } => self.node.put(now, rng, value, mutable),
            Call::Get { target, salt } => self.node.get(now, rng, target, salt),
        };
        self.waiting.entry(operation).or_default().push(answer);
        true
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.node.poll_timeout().into();
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.node.handle_timeout(now(), &mut self.rng);
        true
    }

    /// Passes on what the node has to tell.
    fn tell(&mut self) {
        while let Some(event) = self.node.poll_event() {
            match event {
                NodeEvent::Ready => {
                    let dht_port = self.socket.local_addr().map_or(0, |address| address.port());
                    self.net.emit(Event::GrapeReady { dht_port, api_port: self.api_port });
                    self.status.send_modify(|status| status.ready = true);
                }
                NodeEvent::Finished { operation, result } => {
                    for answer in self.waiting.remove(&operation).into_iter().flatten() {
                        // Whoever asked may have gone.
                        let _ = answer.send(result.clone());
                    }
                }
                NodeEvent::NodeFound(contact) => self.net.emit(Event::NodeFound { node: contact.address.into() }),
                NodeEvent::PeerFound { name, peer, through } => {
                    let through = through.map(SocketAddr::from);
                    self.net.emit(Event::PeerFound { name: text(&name), peer: peer.into(), through });
                }
                NodeEvent::LookedUp { name, nodes } => {
                    self.net.emit(Event::GrapeLookup { name: text(&name), nodes });
                }
                NodeEvent::PeerStored { name, peer } => {
                    self.net.emit(Event::PeerStored { name: text(&name), peer: peer.into() });
                }
                NodeEvent::Malformed { from, error } => {
                    self.net.emit(Event::Malformed { layer: "krpc", from: from.into(), reason: error.to_string() });
                }
            }
        }
    }

    fn publish(&self) {
        let stats = self.node.stats();
        self.status.send_if_modified(|status| {
            let changed = status.stats != stats;
            status.stats = stats;
            changed
        });
        self.state.send_if_modified(|state| {
            let changed = state.token_secrets != *self.node.token_secrets();
            if changed {
                state.token_secrets = self.node.token_secrets().clone();
            }
            changed
        });
    }
}

/// A service's name for people.
fn text(name: &Key) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A socket of both families shows IPv4 addresses as mapped ones.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
