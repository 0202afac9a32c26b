//! The task that owns the socket: receives, runs timers, sends, tells the streams.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::receive::{BUFFERS, BYTES_PER_SEGMENT};
use super::shared::{Conn, Shared, now};
use crate::event::Event;
use crate::limits::Limit;
use crate::net::{ReceivePause, Transmit, UdpSocket};
use crate::utp::{self, Batch, ResetLimiter};

/// How many batches are received before the driver sends and lets other tasks run.
const RECEIVE_ROUNDS: usize = 4;

/// How many batches are sent before the driver receives again.
const SEND_ROUNDS: usize = 64;

/// How many bytes go into one batch: what one UDP datagram may have, since offload begins with one.
const BATCH_BYTES: usize = 65_507;

/// How long [`close`](super::Endpoint::close) waits for what was written to be acked, and then for the peer's FIN.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_FIN_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) socket: Arc<dyn UdpSocket>,
    pub(super) buffers: Vec<u8>,
    /// Connections that were changed.
    pub(super) queue: VecDeque<Arc<Conn>>,
    /// Acks of single packets, where there is loss.
    pub(super) acks: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(super) resets: ResetLimiter,
    timers: BTreeMap<(Instant, u64), Arc<Conn>>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What is being sent. Where the socket is full, it waits here.
    out: Vec<u8>,
    unsent: Option<(SocketAddr, Option<usize>)>,
    closing: bool,
    pub(super) pause: ReceivePause,
    _end: End,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, socket: Arc<dyn UdpSocket>) -> Self {
        let buffer = socket.max_receive_segments().max(1) * BYTES_PER_SEGMENT;
        let end = End(shared.clone());
        Self {
            shared,
            socket,
            buffers: vec![0; buffer * BUFFERS],
            queue: VecDeque::new(),
            acks: VecDeque::new(),
            resets: ResetLimiter::default(),
            timers: BTreeMap::new(),
            sleep: None,
            out: Vec::new(),
            unsent: None,
            closing: false,
            pause: ReceivePause::default(),
            _end: end,
        }
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let conn = entry.remove();
            let mut state = conn.state();
            state.armed = None;
            match state.core.poll_timeout() {
                Some(due) if due <= now => {
                    state.core.handle_timeout(now);
                    drop(state);
                    self.enqueue(&conn);
                }
                // Deadlines mostly move on: the timer is moved only when it fires.
                Some(due) => {
                    state.armed = Some(due);
                    drop(state);
                    self.timers.insert((due, conn.serial), conn);
                }
                None => {}
            }
        }
    }

    /// Sends everything that is due. `Pending` where the socket is full, or after enough for now.
    fn send(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        // Asked each time: a socket may find out that offload does not work.
        let batch = Batch { datagrams: self.socket.max_transmit_segments().max(1), bytes: BATCH_BYTES };
        for _ in 0..SEND_ROUNDS {
            ready!(self.send_unsent(cx));
            if let Some((to, ack)) = self.acks.pop_front() {
                self.out = ack;
                self.unsent = Some((to, None));
                continue;
            }
            let datagram = self.shared.inner().outgoing.pop_front();
            if let Some((to, payload)) = datagram {
                self.out.clear();
                self.out.extend_from_slice(&payload);
                self.unsent = Some((to, None));
                continue;
            }
            let Some(conn) = self.queue.pop_front() else { return Poll::Ready(()) };
            // From here on a stream's change queues it again.
            conn.queued.store(false, Ordering::Release);
            let mut state = conn.state();
            if state.dropped {
                state.core.orphan(now);
            }
            self.out.clear();
            let sent = state.core.poll_transmit(now, batch, &mut self.out);
            drop(state);
            match sent {
                Some(sent) => {
                    self.unsent = Some((conn.peer, (sent.datagrams > 1).then_some(sent.segment_size)));
                    self.enqueue(&conn);
                }
                None => self.settle(now, &conn),
            }
        }
        ready!(self.send_unsent(cx));
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn send_unsent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((destination, segment_size)) = self.unsent {
            let transmit = Transmit { destination, contents: &self.out, segment_size };
            // What cannot be sent is lost, as on the way.
            if let Err(error) = ready!(self.socket.poll_send(cx, &transmit)) {
                tracing::debug!(%destination, %error, "sending");
            }
            self.unsent = None;
        }
        Poll::Ready(())
    }

    /// After a connection has sent all it had: tells its stream and the world, sets its timer.
    pub(super) fn settle(&mut self, now: Instant, conn: &Arc<Conn>) {
        let mut state = conn.state();
        let mut connected = false;
        let mut closed = None;
        let mut redial = false;
        while let Some(event) = state.core.poll_event() {
            let waker = match event {
                utp::Event::Connected => {
                    connected = true;
                    state.writer.take()
                }
                utp::Event::Readable => state.reader.take(),
                utp::Event::Writable => state.writer.take(),
                utp::Event::Finished => state.shutter.take(),
                utp::Event::Redial => {
                    redial = true;
                    None
                }
                utp::Event::Closed(error) => {
                    closed = Some(error);
                    state.wake_all();
                    None
                }
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        let initiator = state.core.is_initiator();
        let established = state.core.was_established();
        let key = (conn.peer, state.core.receive_id());
        let gone = state.core.is_closed();
        let narrow = closed.is_some() && state.core.path_suspect();
        let sample = if self.shared.samples && closed.is_none() { state.sample(now, conn.peer) } else { None };
        match state.core.poll_timeout() {
            Some(due) if state.armed.is_none_or(|armed| due < armed) => {
                if let Some(armed) = state.armed.replace(due) {
                    self.timers.remove(&(armed, conn.serial));
                }
                self.timers.insert((due, conn.serial), conn.clone());
            }
            None => {
                if let Some(armed) = state.armed.take() {
                    self.timers.remove(&(armed, conn.serial));
                }
            }
            Some(_) => {}
        }
        drop(state);

        if let Some(sample) = sample {
            self.shared.net.emit(sample);
        }
        if connected {
            self.shared.net.emit(Event::UtpConnected { peer: conn.peer, initiator });
            if !initiator {
                let mut inner = self.shared.inner();
                inner.half_open.remove(&conn.serial);
                if inner.backlog.len() < self.shared.config.accept_backlog {
                    inner.backlog.push_back(conn.clone());
                    drop(inner);
                    self.shared.accepted.notify_one();
                } else {
                    drop(inner);
                    self.shared.limits.reached(Limit::AcceptBacklog, Some(conn.peer));
                    conn.state().core.reset();
                    self.enqueue(conn);
                }
            }
        }
        if let Some(error) = closed {
            let reason = error.map_or("closed", utp::Error::code);
            // A peer's attempt that came to nothing was never a connection.
            if established || initiator {
                self.shared.net.emit(Event::UtpClosed { peer: conn.peer, reason: reason.to_owned() });
            }
            let mut inner = self.shared.inner();
            inner.half_open.remove(&conn.serial);
            if narrow {
                inner.remember_narrow_path(conn.peer);
            }
            if error.is_some() && !initiator {
                // Nobody has accepted it yet, and nothing can be done with it any more.
                inner.backlog.retain(|waiting| !Arc::ptr_eq(waiting, conn));
            }
        }
        if gone {
            self.shared.inner().remove(key, conn);
        } else if redial {
            self.redial(now, conn);
        }
    }

    fn redial(&mut self, now: Instant, conn: &Arc<Conn>) {
        let old = conn.state().core.receive_id();
        let mut inner = self.shared.inner();
        let Some(id) = inner.free_id(conn.peer) else { return };
        inner.remove((conn.peer, old), conn);
        inner.connections.insert((conn.peer, id), conn.clone());
        drop(inner);
        conn.state().core.redial(now, id);
        self.enqueue(conn);
    }

    /// Takes over what streams and handles have asked for. `true` once there is nothing left to do.
    fn take_requests(&mut self, now: Instant) -> bool {
        let mut inner = self.shared.inner();
        let changed = std::mem::take(&mut inner.changed);
        self.queue.extend(changed);
        let unaccepted =
            if inner.unheld || inner.closing { std::mem::take(&mut inner.backlog) } else { VecDeque::new() };
        let hurry = inner.closing && !std::mem::replace(&mut self.closing, inner.closing);
        let connections: Vec<_> = if hurry { inner.connections.values().cloned().collect() } else { Vec::new() };
        drop(inner);
        for conn in unaccepted {
            conn.state().core.reset();
            self.enqueue(&conn);
        }
        for conn in connections {
            conn.state().core.hurry(now, CLOSE_TIMEOUT, CLOSE_FIN_WAIT);
            self.enqueue(&conn);
        }
        self.queue.is_empty() && self.unsent.is_none() && self.is_done()
    }

    fn is_done(&self) -> bool {
        let inner = self.shared.inner();
        if !inner.outgoing.is_empty() || !(inner.closing || inner.unheld) {
            return false;
        }
        if inner.closing {
            // Who still waits for a last retransmission of the peer's FIN need not hold up the socket's end.
            let connections: Vec<_> = inner.connections.values().cloned().collect();
            drop(inner);
            return connections.iter().all(|conn| conn.state().core.is_over());
        }
        inner.connections.is_empty()
    }

    /// Sets the sleep to the earliest timer. `true` where that is due already.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(((due, _), _)) = self.timers.first_key_value() else { return false };
        let due = tokio::time::Instant::from_std(*due);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.driver.register(cx.waker());
        let mut busy = true;
        for _ in 0..RECEIVE_ROUNDS {
            if !this.receive(cx, now()) {
                busy = false;
                break;
            }
        }
        let now = now();
        this.run_timers(now);
        if this.take_requests(now) {
            return Poll::Ready(());
        }
        let sent = this.send(cx, now);
        if sent.is_ready() && this.take_requests(now) {
            return Poll::Ready(());
        }
        if busy || this.sleep(cx) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Ends whatever is still open: the endpoint was closed, or its host has ended. The driver's last field, so that the
/// socket is closed before.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let connections = {
            let mut inner = self.0.inner();
            inner.ended = true;
            inner.backlog.clear();
            inner.changed.clear();
            inner.outgoing.clear();
            std::mem::take(&mut inner.connections)
        };
        for conn in connections.values() {
            let mut state = conn.state();
            state.core.reset();
            state.wake_all();
        }
        self.0.accepted.notify_waiters();
        self.0.ended.notify_waiters();
    }
}
