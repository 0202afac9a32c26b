//! The driver's receiving half: whose is a datagram?

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::driver::Driver;
use super::shared::{Conn, Key};
use super::{DATAGRAM_QUEUE, Datagram, MAX_MESSAGE};
use crate::event::Event;
use crate::limits::Limit;
use crate::net::RecvMeta;
use crate::source::source;
use crate::utp::wire::{Kind, Repr, is_utp};
use crate::utp::{Batch, Connection, Seq};

/// How many buffers are received into at once.
pub(super) const BUFFERS: usize = 8;

/// How many bytes a buffer needs for each datagram that it may be filled with.
pub(super) const BYTES_PER_SEGMENT: usize = 2048;

/// How many acks of single packets wait to be sent; beyond them, a connection acks what has arrived with one.
const MAX_ACKS: usize = 256;

impl Driver {
    /// Receives one batch. `false` where there was none.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.pause.poll_over(cx).is_pending() {
            return false;
        }
        let mut meta = [RecvMeta::default(); BUFFERS];
        let mut storage = std::mem::take(&mut self.buffers);
        let size = storage.len() / BUFFERS;
        let mut chunks = storage.chunks_exact_mut(size).map(IoSliceMut::new);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| chunks.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let received = match self.socket.poll_recv(cx, &mut slices, &mut meta) {
            Poll::Pending => {
                self.pause.passed();
                None
            }
            // An error mostly speaks of a datagram sent earlier (unreachable): timeouts deal with that.
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "receiving");
                if self.pause.failed() {
                    self.shared.limits.reached(Limit::ReceiveErrors, None);
                }
                Some(0)
            }
            Poll::Ready(Ok(count)) => {
                self.pause.passed();
                Some(count)
            }
        };
        let mut last = None;
        for (buffer, meta) in storage.chunks_exact(size).zip(&meta).take(received.unwrap_or(0)) {
            let bytes = &buffer[..meta.len.min(size)];
            if bytes.is_empty() {
                self.on_message(meta.source, bytes);
            }
            for datagram in bytes.chunks(meta.stride.max(1)) {
                self.on_datagram(now, meta.source, datagram, &mut last);
            }
        }
        self.buffers = storage;
        received.is_some()
    }

    fn on_message(&mut self, from: SocketAddr, payload: &[u8]) {
        if payload.len() > MAX_MESSAGE {
            return self.shared.limits.reached(Limit::DatagramSize, Some(from));
        }
        if self.shared.datagrams.receiver_count() > 0 {
            // No receiver in the meantime is no error of ours.
            let _ = self.shared.datagrams.send(Datagram { from, payload: Bytes::copy_from_slice(payload) });
        }
    }

    fn on_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], last: &mut Option<(Key, Arc<Conn>)>) {
        if !is_utp(bytes) {
            return self.on_message(from, bytes);
        }
        let packet = match Repr::parse(bytes) {
            Ok(packet) => packet,
            Err(error) => {
                self.shared.inner().malformed += 1;
                return self.shared.net.emit(Event::Malformed { layer: "utp", from, reason: error.to_string() });
            }
        };
        match packet.kind {
            Kind::Syn => {
                *last = None;
                self.on_syn(now, from, &packet);
            }
            Kind::Reset => {
                *last = None;
                if let Some(conn) = self.find_for_reset(from, packet.connection_id) {
                    self.deliver(now, &conn, &packet);
                }
            }
            _ => {
                let key = (from, packet.connection_id);
                // The packets of a batch mostly belong to one connection.
                if let Some((_, conn)) = last.as_ref().filter(|(cached, _)| *cached == key) {
                    return self.deliver(now, &conn.clone(), &packet);
                }
                let found = self.shared.inner().connections.get(&key).cloned();
                match found {
                    Some(conn) => {
                        self.deliver(now, &conn, &packet);
                        *last = Some((key, conn));
                    }
                    None => self.on_unknown(now, from, &packet),
                }
            }
        }
    }

    fn deliver(&mut self, now: Instant, conn: &Arc<Conn>, packet: &Repr<'_>) {
        let mut ack = Vec::new();
        let mut state = conn.state();
        state.core.handle_datagram(now, packet);
        if self.acks.len() < MAX_ACKS && state.core.poll_ack(now, &mut ack).is_some() {
            self.acks.push_back((conn.peer, ack));
        }
        drop(state);
        self.enqueue(conn);
    }

    pub(super) fn enqueue(&mut self, conn: &Arc<Conn>) {
        if !conn.queued.swap(true, Ordering::AcqRel) {
            self.queue.push_back(conn.clone());
        }
    }

    /// A RESET carries the receive id or the send id: the id itself, or the one beside it.
    fn find_for_reset(&self, from: SocketAddr, id: u16) -> Option<Arc<Conn>> {
        let candidates: Vec<_> = {
            let inner = self.shared.inner();
            [id, id.wrapping_sub(1), id.wrapping_add(1)]
                .into_iter()
                .filter_map(|id| inner.connections.get(&(from, id)).cloned())
                .collect()
        };
        candidates.into_iter().find(|conn| conn.state().core.takes_reset(id))
    }

    fn on_syn(&mut self, now: Instant, from: SocketAddr, syn: &Repr<'_>) {
        let key = (from, syn.connection_id.wrapping_add(1));
        let found = self.shared.inner().connections.get(&key).cloned();
        if let Some(conn) = found {
            let mut state = conn.state();
            if state.core.is_initiator() {
                // Our own connection to that peer has the id that theirs would have: they have to choose another.
                drop(state);
                return self.refuse(now, from, syn);
            }
            if !state.core.is_superseded_by(now, syn) {
                drop(state);
                return self.deliver(now, &conn, syn);
            }
            state.core.supersede();
            drop(state);
            self.settle(now, &conn);
        }
        let initial = self.shared.inner().cookies.number(now, from, syn);
        if let Some(conn) = self.admit(now, from, syn, initial) {
            self.queue.push_back(conn);
        }
    }

    /// Makes a connection for a SYN where the limits allow it; a half-open one may have to go for it.
    fn admit(&mut self, now: Instant, from: SocketAddr, syn: &Repr<'_>, initial: Seq) -> Option<Arc<Conn>> {
        let shared = Arc::clone(&self.shared);
        let config = &shared.config;
        let mut inner = shared.inner();
        if inner.closing || inner.unheld {
            return None;
        }
        let own = source(from.ip());
        let reached = if inner.of_source(own) >= config.max_connections_per_source {
            Some(Limit::ConnectionsPerSource)
        } else if inner.half_open.len() >= config.max_half_open {
            Some(Limit::HalfOpen)
        } else if inner.connections.len() >= config.max_connections {
            Some(Limit::Connections)
        } else {
            None
        };
        if let Some(limit) = reached {
            let oldest = match limit {
                Limit::ConnectionsPerSource => inner.half_open.values().find(|conn| source(conn.peer.ip()) == own),
                _ => inner.half_open.values().next(),
            };
            let oldest = oldest.cloned();
            drop(inner);
            shared.limits.reached(limit, Some(from));
            self.forget(now, &oldest?);
            inner = shared.inner();
        }
        let window = config.unaccepted_window;
        let core = Connection::accept(now, inner.config_for(from, config).at_most(window), syn, initial);
        Some(inner.add(from, core, true))
    }

    /// Forgets a half-open connection without a word to its peer, who may not even know of it.
    fn forget(&mut self, now: Instant, conn: &Arc<Conn>) {
        let mut answer = Vec::new();
        {
            let mut state = conn.state();
            // Its SYN-ACK may not have gone out yet; without it the peer could not go on.
            state.core.poll_transmit(now, Batch::SINGLE, &mut answer);
            state.core.supersede();
        }
        self.settle(now, conn);
        if !answer.is_empty() {
            let mut inner = self.shared.inner();
            if inner.outgoing.len() < DATAGRAM_QUEUE {
                inner.outgoing.push_back((conn.peer, answer.into()));
            }
        }
        let time = self.shared.config.utp.connecting();
        self.shared.inner().cookies.forgot(now, time);
    }

    /// A packet of no connection that is known: of a forgotten one, which it brings back, or of none.
    fn on_unknown(&mut self, now: Instant, from: SocketAddr, packet: &Repr<'_>) {
        let syn = self.shared.inner().cookies.syn_of(now, from, packet);
        let Some(seq) = syn else { return self.refuse(now, from, packet) };
        let syn = Repr { kind: Kind::Syn, connection_id: packet.connection_id.wrapping_sub(1), seq, ..*packet };
        if let Some(conn) = self.admit(now, from, &syn, packet.ack + 1) {
            conn.state().core.handle_datagram(now, packet);
            self.queue.push_back(conn);
        }
    }

    /// BEP 29: a packet of an unknown connection is answered with a RESET, but not for ever.
    fn refuse(&mut self, now: Instant, from: SocketAddr, packet: &Repr<'_>) {
        if !self.resets.allows(now, from, packet.connection_id, packet.seq) {
            return self.shared.limits.reached(Limit::Resets, Some(from));
        }
        let mut inner = self.shared.inner();
        if inner.outgoing.len() < DATAGRAM_QUEUE {
            let mut bytes = Vec::new();
            let seq = inner.random_seq();
            Repr::reset(packet.connection_id, seq, packet.seq).encode(&mut bytes);
            inner.outgoing.push_back((from, bytes.into()));
        }
    }
}
