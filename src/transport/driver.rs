//! The task that owns an endpoint's socket: receives, hands over, keeps time, sends.

use std::future::Future;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::state::State;
use super::{Datagram, Shared};
use crate::event::Event;
use crate::net::{RecvMeta, Transmit};
use crate::utp::{Config, Packet, is_utp};

/// How many receive buffers are filled at a time.
const RECEIVE_BUFFERS: usize = 16;

/// Room for a datagram in a receive buffer.
const DATAGRAM_ROOM: usize = 2048;

/// The most a kernel gives or takes as one batch: a UDP length field's worth.
const MAX_BATCH: usize = 65_535;

/// How many rounds of receiving and sending are made before other tasks get a turn.
const MAX_ROUNDS: usize = 16;

/// How many batches are sent before receiving gets a turn.
const MAX_BATCHES: usize = 32;

pub(super) struct Driver {
    shared: Arc<Shared>,
    buffers: Vec<u8>,
    buffer_len: usize,
    segments: usize,
    /// What waits for the socket.
    outgoing: Outgoing,
    sleep: Pin<Box<Sleep>>,
}

/// A batch that is on its way into the socket; its buffer is used again.
#[derive(Debug)]
struct Outgoing {
    to: SocketAddr,
    bytes: Vec<u8>,
    segment: Option<usize>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let buffer_len = (shared.socket.max_receive_segments() * DATAGRAM_ROOM).clamp(DATAGRAM_ROOM, MAX_BATCH);
        let segments = shared.socket.max_transmit_segments().min(MAX_BATCH / Config::MAX_DATAGRAM).max(1);
        let outgoing = Outgoing { to: shared.local, bytes: Vec::new(), segment: None };
        let sleep = Box::pin(sleep_until(Instant::now()));
        Self { shared, buffers: vec![0; buffer_len * RECEIVE_BUFFERS], buffer_len, segments, outgoing, sleep }
    }

    /// Receives one batch; whether there was one.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut slices: [IoSliceMut<'_>; RECEIVE_BUFFERS] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        for (slice, buffer) in slices.iter_mut().zip(self.buffers.chunks_exact_mut(self.buffer_len)) {
            *slice = IoSliceMut::new(buffer);
        }
        let mut meta = [RecvMeta::default(); RECEIVE_BUFFERS];
        let count = match self.shared.socket.poll_recv(cx, &mut slices, &mut meta) {
            Poll::Ready(Ok(count)) => count,
            // Errors speak of datagrams that were sent, and each is told of once.
            Poll::Ready(Err(_)) => return true,
            Poll::Pending => return false,
        };
        let now = Instant::now().into_std();
        let mut state = self.shared.state();
        for (slice, meta) in slices.iter().zip(&meta).take(count) {
            let filled = &slice[..meta.len.min(slice.len())];
            for datagram in filled.chunks(meta.stride.max(1)) {
                hand_over(&self.shared, &mut state, now, meta.source, datagram);
            }
        }
        true
    }

    /// Sends until the socket or the connections have had enough; whether there is more to do at once.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now().into_std();
        for _ in 0..MAX_BATCHES {
            if self.outgoing.bytes.is_empty() && !self.fill(now) {
                return false;
            }
            let Outgoing { to, bytes, segment } = &self.outgoing;
            let transmit = Transmit { destination: *to, contents: bytes, segment_size: *segment };
            match self.shared.socket.poll_send(cx, &transmit) {
                // An error is the loss of what was sent: it speaks of one destination.
                Poll::Ready(_) => self.outgoing.bytes.clear(),
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Finds the next batch to send; whether there is one.
    fn fill(&mut self, now: std::time::Instant) -> bool {
        let Outgoing { to, bytes, segment } = &mut self.outgoing;
        let mut state = self.shared.state();
        if let Some((address, payload)) = state.datagrams.pop_front() {
            (*to, *segment) = (address, None);
            bytes.extend_from_slice(&payload);
            return !payload.is_empty();
        }
        if let Some((address, reset)) = state.resets.pop_front() {
            (*to, *segment) = (address, None);
            reset.encode(bytes);
            return true;
        }
        while let Some(id) = state.next_dirty() {
            let Some(entry) = state.entry(id) else { continue };
            let size = entry.connection.transmit(now, bytes, self.segments);
            *to = entry.peer;
            *segment = size.filter(|size| *size < bytes.len());
            state.set_timer(id, now);
            if size.is_some() {
                state.touch(id);
                return true;
            }
            state.reap(&self.shared.net, id);
        }
        false
    }

    /// Sets the timer for the connection that is due first; whether one is due already.
    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        let next = self.shared.state().next_timeout();
        let Some(next) = next else { return false };
        let next = Instant::from_std(next);
        if self.sleep.deadline() != next || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(next);
        }
        self.sleep.as_mut().poll(cx).is_ready()
    }
}

fn hand_over(shared: &Shared, state: &mut State, now: std::time::Instant, from: SocketAddr, datagram: &[u8]) {
    if !is_utp(datagram) {
        // Nobody listens: nothing is copied.
        if shared.datagrams.receiver_count() > 0 {
            let _ = shared.datagrams.send(Datagram { from, payload: Bytes::copy_from_slice(datagram) });
        }
        return;
    }
    match Packet::parse(datagram) {
        Ok(packet) => state.on_packet(&shared.net, &shared.config, now, from, &packet),
        Err(error) => {
            state.stats.malformed += 1;
            shared.net.emit(Event::Malformed { layer: "utp", from, reason: error.to_string() });
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        driver.shared.driver.register(cx.waker());
        for _ in 0..MAX_ROUNDS {
            let received = driver.receive(cx);
            let due = driver.wait(cx);
            if due {
                driver.shared.state().on_timers(&driver.shared.net, Instant::now().into_std());
            }
            let unsent = driver.send(cx);
            {
                let mut state = driver.shared.state();
                if state.closing && state.is_empty() && driver.outgoing.bytes.is_empty() {
                    state.ended = true;
                    drop(state);
                    driver.shared.ended.notify_waiters();
                    return Poll::Ready(());
                }
            }
            if !received && !due && !unsent && !driver.wait(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
