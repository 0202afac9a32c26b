//! A network in memory, on the paused clock, whose packets may have any source, and which counts bytes.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use grenache::event::Event;
use grenache::net::UdpSocket;
use grenache::net::{BoxFuture, HttpClient, Net, Network, RecvMeta, Rng, Task, TcpListener, TcpStream, Transmit};
use rand::SeedableRng;

/// The network, and a handle on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    sockets: BTreeMap<SocketAddr, Queue>,
    /// Bytes from everywhere to each socket, and from each socket to everywhere, by the other address.
    received: BTreeMap<SocketAddr, usize>,
    sent: BTreeMap<SocketAddr, usize>,
    /// What went to addresses without a socket.
    strays: VecDeque<(SocketAddr, Vec<u8>)>,
    events: Vec<Event>,
    latency: Duration,
    rngs: u64,
    /// How often a socket was polled, and whether it gives errors only.
    polls: u64,
    failing: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

impl Wire {
    pub(crate) fn net(&self) -> Net {
        Arc::new(self.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How long packets from sockets to sockets take.
    pub(crate) fn latency(self, latency: Duration) -> Self {
        self.state().latency = latency;
        self
    }

    /// A datagram with any source.
    pub(crate) fn inject(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.state();
        *state.received.entry(from).or_default() += bytes.len();
        if let Some(queue) = state.sockets.get_mut(&to) {
            queue.waiting.push_back((from, bytes.to_vec()));
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }

    /// How many bytes a socket has got from an address, and sent there.
    pub(crate) fn bytes(&self, peer: SocketAddr) -> (usize, usize) {
        let state = self.state();
        let of = |bytes: &BTreeMap<_, usize>| bytes.get(&peer).copied().unwrap_or(0);
        (of(&state.received), of(&state.sent))
    }

    /// Takes what went to addresses without a socket.
    pub(crate) fn strays(&self) -> VecDeque<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.state().strays)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// From now on receiving fails, always.
    pub(crate) fn fail(&self) {
        let mut state = self.state();
        state.failing = true;
        state.sockets.values_mut().filter_map(|queue| queue.waker.take()).for_each(Waker::wake);
    }

    pub(crate) fn recover(&self) {
        self.state().failing = false;
    }

    pub(crate) fn polls(&self) -> u64 {
        self.state().polls
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let latency = {
            let mut state = self.state();
            *state.sent.entry(to).or_default() += bytes.len();
            if !state.sockets.contains_key(&to) {
                state.strays.push_back((to, bytes.to_vec()));
                return;
            }
            state.latency
        };
        let (wire, bytes) = (self.clone(), bytes.to_vec());
        spawn(Box::pin(async move {
            tokio::time::sleep(latency).await;
            wire.inject(from, to, &bytes);
        }))
        .detach();
    }
}

#[expect(clippy::disallowed_methods, reason = "this network is a test's own")]
fn spawn(task: BoxFuture<'static, ()>) -> Task {
    Task::new(tokio::spawn(task).abort_handle())
}

impl Network for Wire {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        self.state().sockets.insert(local, Queue::default());
        Ok(Arc::new(Socket { wire: self.clone(), local }))
    }

    fn connect_tcp(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        Box::pin(async move { Ok(Box::new(Silence(local)) as Box<dyn TcpListener>) })
    }

    fn http(&self) -> Arc<dyn HttpClient> {
        unreachable!("no link in these tests")
    }

    fn rng(&self, _: &str) -> Rng {
        let mut state = self.state();
        state.rngs += 1;
        Rng::seed_from_u64(state.rngs)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        spawn(task)
    }

    fn emit(&self, event: Event) {
        self.state().events.push(event);
    }
}

/// A TCP listener that nobody connects to.
#[derive(Debug)]
struct Silence(SocketAddr);

impl TcpListener for Silence {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn TcpStream>, SocketAddr)>> {
        Box::pin(std::future::pending())
    }
}

#[derive(Debug)]
struct Socket {
    wire: Wire,
    local: SocketAddr,
}

impl UdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        self.wire.send(self.local, transmit.destination, transmit.contents);
        Poll::Ready(Ok(()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.wire.state();
        state.polls += 1;
        if state.failing {
            return Poll::Ready(Err(io::Error::other("the interface is gone")));
        }
        let queue = state.sockets.get_mut(&self.local).expect("it is bound");
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((source, bytes)) = queue.waiting.pop_front() else { break };
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta { source, len, stride: len };
            count += 1;
        }
        if count == 0 {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn max_receive_segments(&self) -> usize {
        // Room for datagrams that are too long.
        2
    }

    fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        Ok((1 << 20, 1 << 20))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.wire.state().sockets.remove(&self.local);
    }
}

/// The `nth` forged address.
pub(crate) fn forged(nth: u32) -> SocketAddr {
    SocketAddr::from(((0x0a00_0000 + nth).to_be_bytes(), 4000))
}

pub(crate) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, last], 1337))
}

/// Lets everything that is due now happen.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
