//! A lossy path: a UDP relay between a peer and everyone who sends to it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use grenache::net::{Net, Rng, Task};
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::UdpSocket;

use super::any_port;

/// What is asked of the kernel for a relay's buffers, so that it loses nothing of its own.
const BUFFER: usize = 4 << 20;

/// The longest datagram.
const DATAGRAM: usize = 65_507;

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// To the peer that the relay stands before.
    In,
    /// From it.
    Out,
}

/// What happened on one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) datagrams: u64,
    pub(crate) lost: u64,
}

/// Is shown every datagram that arrives at a relay.
type Watcher = dyn Fn(Way, &[u8]) + Send + Sync;

/// Stands before a peer: what is sent to [`address`](Self::address) reaches the peer from a socket of the sender's own,
/// and answers go back. It ends when this is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _running: Task,
}

struct State {
    net: Net,
    outside: UdpSocket,
    peer: Mutex<SocketAddr>,
    loss: f64,
    seed: u64,
    passed: Mutex<BTreeMap<Way, Passed>>,
    watcher: Box<Watcher>,
}

impl Relay {
    /// Loses this share of the datagrams, each way by itself: which ones depends on the seed and on their order alone.
    pub(crate) fn new(net: &Net, peer: SocketAddr, loss: f64, seed: u64) -> Self {
        Self::watched(net, peer, loss, seed, |_, _| {})
    }

    /// One that shows every datagram to `watcher`, those that it then loses too.
    pub(crate) fn watched(
        net: &Net,
        peer: SocketAddr,
        loss: f64,
        seed: u64,
        watcher: impl Fn(Way, &[u8]) + Send + Sync + 'static,
    ) -> Self {
        let outside = socket().unwrap();
        let address = outside.local_addr().unwrap();
        let (passed, watcher) = (Mutex::default(), Box::new(watcher));
        let state = Arc::new(State { net: net.clone(), outside, peer: Mutex::new(peer), loss, seed, passed, watcher });
        let running = net.spawn(Box::pin(Arc::clone(&state).inwards()));
        Self { address, state, _running: running }
    }

    /// Puts another peer in the place of the one that it stands before, as where that has started anew.
    pub(crate) fn retarget(&self, peer: SocketAddr) {
        *self.state.peer.lock().unwrap() = peer;
    }

    /// What has passed one way.
    pub(crate) fn passed(&self, way: Way) -> Passed {
        self.state.passed.lock().unwrap().get(&way).copied().unwrap_or_default()
    }
}

impl State {
    fn rng(&self, way: Way) -> Rng {
        Rng::seed_from_u64(self.seed * 2 + u64::from(way == Way::Out))
    }

    /// Whether a datagram gets through.
    fn passes(&self, way: Way, bytes: &[u8], rng: &mut Rng) -> bool {
        (self.watcher)(way, bytes);
        let lost = rng.random_bool(self.loss);
        let mut passed = self.passed.lock().unwrap();
        let passed = passed.entry(way).or_default();
        passed.datagrams += 1;
        passed.lost += u64::from(lost);
        !lost
    }

    async fn inwards(self: Arc<Self>) {
        let mut rng = self.rng(Way::In);
        let mut senders: BTreeMap<SocketAddr, (Arc<UdpSocket>, Task)> = BTreeMap::new();
        let mut bytes = vec![0; DATAGRAM];
        loop {
            // What a port answers that is not there (any more) is for the next call to hear, and means nothing here.
            let Ok((len, from)) = self.outside.recv_from(&mut bytes).await else { continue };
            if !self.passes(Way::In, &bytes[..len], &mut rng) {
                continue;
            }
            let (inside, _) = senders.entry(from).or_insert_with(|| {
                let inside = Arc::new(socket().unwrap());
                let back = self.net.spawn(Box::pin(Arc::clone(&self).outwards(Arc::clone(&inside), from)));
                (inside, back)
            });
            let peer = *self.peer.lock().unwrap();
            let _ = inside.send_to(&bytes[..len], peer).await;
        }
    }

    async fn outwards(self: Arc<Self>, inside: Arc<UdpSocket>, to: SocketAddr) {
        let mut rng = self.rng(Way::Out);
        let mut bytes = vec![0; DATAGRAM];
        loop {
            let Ok((len, _)) = inside.recv_from(&mut bytes).await else { continue };
            if self.passes(Way::Out, &bytes[..len], &mut rng) {
                let _ = self.outside.send_to(&bytes[..len], to).await;
            }
        }
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&any_port().into())?;
    // A smaller grant than asked for is still a path.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    UdpSocket::from_std(socket.into())
}
