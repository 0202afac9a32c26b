//! Drives a [`Node`]: owns its socket, its clock and its random numbers, and carries calls to it.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
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
use crate::net::{Net, ReceivePause, RecvMeta, Rng, Transmit, UdpSocket};

/// How many calls wait for the driver; a further caller waits to be let in.
const MAX_CALLS: usize = 256;

/// How many receive buffers there are.
const BUFFERS: usize = 8;

/// The most bytes that one call of the socket sends: what an IPv4 datagram may hold.
const MAX_BATCH_BYTES: usize = 65_507;

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
    pause: ReceivePause,
    /// Taken from the node to be sent.
    outgoing: VecDeque<(SocketAddrV4, Vec<u8>)>,
    /// What is being sent: it stays where the socket's buffer is full.
    batch: Batch,
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
        // Each on its own: what is cloned is written to, and so would be in memory before anything is received.
        let buffers = std::iter::repeat_with(|| vec![0; segments * (MAX_DATAGRAM + 1)]).take(BUFFERS).collect();
        let timer = Box::pin(tokio::time::sleep_until(node.poll_timeout().into()));
        Self {
            net,
            socket,
            buffers,
            node,
            rng,
            commands,
            waiting: BTreeMap::new(),
            status,
            state,
            timer,
            pause: ReceivePause::default(),
            outgoing: VecDeque::new(),
            batch: Batch::default(),
            api_port,
            _alive: alive,
        }
    }

    /// Runs until it is dropped, or its socket breaks.
    pub(super) async fn run(mut self) {
        loop {
            // First, so that whoever is told that it is ready sees what it has found.
            self.publish();
            self.tell();
            poll_fn(|cx| self.poll_send_all(cx)).await;
            poll_fn(|cx| self.poll_work(cx)).await;
            // Everybody who has something for this node has their turn before anything is sent.
            tokio::task::yield_now().await;
            poll_fn(|cx| Poll::Ready(self.work(cx))).await;
        }
    }

    /// Waits for work, and does what there is.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.work(cx) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Does what there is to do, up to a bound; `false` where there is nothing.
    fn work(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        for _ in 0..MAX_BATCHES {
            let mut progress = self.poll_commands(cx);
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
            any |= progress;
            if !progress {
                break;
            }
        }
        any
    }

    /// Sends what the node has to send. While the socket's buffer is full nothing else is done.
    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.batch.contents.is_empty() {
                if self.outgoing.is_empty() {
                    self.outgoing.extend(std::iter::from_fn(|| self.node.poll_transmit()));
                }
                if !self.batch.fill(&mut self.outgoing, self.socket.max_transmit_segments()) {
                    return Poll::Ready(());
                }
            }
            // What cannot be sent is lost like any datagram: its query times out.
            if self.socket.poll_send(cx, &self.batch.transmit()).is_pending() {
                return Poll::Pending;
            }
            self.batch.contents.clear();
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.pause.poll_over(cx));
        let mut meta = [RecvMeta::default(); BUFFERS];
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let received = self.socket.poll_recv(cx, &mut slices, &mut meta);
        match received {
            Poll::Ready(Err(_)) => {
                self.pause.failed();
            }
            _ => self.pause.passed(),
        }
        let count = ready!(received)?;
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

    /// Starts what is asked for by now; what that has to send goes out together.
    fn poll_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        for _ in 0..MAX_CALLS {
            let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) else { break };
            progress = true;
            match command {
                Command::Call(call, answer) => {
                    let operation = self.start(call);
                    self.waiting.entry(operation).or_default().push(answer);
                }
                Command::AddBootstrap(address) => self.node.add_bootstrap(now(), &mut self.rng, address),
            }
        }
        progress
    }

    fn start(&mut self, call: Call) -> OperationId {
        let (now, rng) = (now(), &mut self.rng);
        match call {
            Call::Announce { name, port } => self.node.announce(now, rng, name, port),
            Call::Lookup { name } => self.node.lookup(now, rng, name),
            Call::Put { value, mutable } => self.node.put(now, rng, value, mutable),
            Call::Get { target, salt } => self.node.get(now, rng, target, salt),
        }
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
                    self.net.emit(Event::PeerStored { name: text(&name), peer: Some(peer.into()) });
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

/// Datagrams of one size to one address, which one call of the socket sends.
#[derive(Debug)]
struct Batch {
    to: SocketAddrV4,
    size: usize,
    contents: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { to: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), size: 0, contents: Vec::new() }
    }
}

impl Batch {
    /// Takes the first of `outgoing`, and up to `most` in all of those that go with it; `false` where there is none.
    fn fill(&mut self, outgoing: &mut VecDeque<(SocketAddrV4, Vec<u8>)>, most: usize) -> bool {
        let Some((to, first)) = outgoing.pop_front() else { return false };
        (self.to, self.size) = (to, first.len());
        self.contents.extend_from_slice(&first);
        let mut room = most.min(MAX_BATCH_BYTES / self.size.max(1)).saturating_sub(1);
        if room > 0 {
            // The order of datagrams is nobody's promise.
            outgoing.retain(|(other, datagram)| {
                let fits = room > 0 && *other == to && datagram.len() == self.size;
                if fits {
                    room -= 1;
                    self.contents.extend_from_slice(datagram);
                }
                !fits
            });
        }
        true
    }

    fn transmit(&self) -> Transmit<'_> {
        let several = self.contents.len() > self.size;
        Transmit { destination: self.to.into(), contents: &self.contents, segment_size: several.then_some(self.size) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_what_has_its_size_and_destination_and_leaves_the_rest_in_order() {
        let to = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut outgoing: VecDeque<_> = [(1, "aa"), (2, "bb"), (1, "ccc"), (1, "dd"), (1, "ee"), (1, "ff")]
            .map(|(port, text)| (to(port), text.as_bytes().to_vec()))
            .into();
        let mut batch = Batch::default();
        let mut next = |most| {
            batch.contents.clear();
            batch.fill(&mut outgoing, most).then(|| {
                let transmit = batch.transmit();
                (transmit.destination.port(), transmit.contents.escape_ascii().to_string(), transmit.segment_size)
            })
        };
        assert_eq!(next(3), Some((1, "aaddee".into(), Some(2))));
        assert_eq!(next(3), Some((2, "bb".into(), None)));
        assert_eq!(next(1), Some((1, "ccc".into(), None)));
        assert_eq!(next(3), Some((1, "ff".into(), None)));
        assert_eq!(next(3), None);
    }
}
