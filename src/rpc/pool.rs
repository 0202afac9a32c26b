//! Which request goes over which connection: bookkeeping without I/O.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::error::{RpcError, SILENCE};
use super::stream::Outgoing;
use crate::net::Task;

/// From how many requests in flight on a connection on another one is opened, where one more may be.
const SPREAD: usize = 32;

/// How many requests may wait for a connection to one destination. Further ones fail at once.
pub(super) const MAX_WAITING: usize = 1 << 16;

/// A connection's number, unique in its pool.
pub(super) type TransportId = u64;

/// A request's place in the order of submission.
pub(super) type Ticket = u64;

/// A request to be sent.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) rid: Uuid,
    pub(super) text: Bytes,
    pub(super) reply: oneshot::Sender<Result<Value, RpcError>>,
}

/// A connection that the pool wants opened: connect, and write what comes out of `messages`.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: TransportId,
    pub(super) to: SocketAddr,
    pub(super) messages: mpsc::UnboundedReceiver<Outgoing>,
}

/// How many connections and requests a [`Pool`] allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolLimits {
    /// Connections to a destination, those taken out of service not counted.
    pub(super) transports: usize,
    /// Requests in flight on a connection.
    pub(super) pipeline: usize,
    /// After how long unused a connection is closed.
    pub(super) inactivity: Duration,
}

/// The connections of a client and what is in flight on them.
///
/// The driver opens what [`next_opening`](Self::next_opening) gives after each call that may free or need a
/// connection, and reports what becomes of it.
#[derive(Debug)]
pub(super) struct Pool {
    limits: PoolLimits,
    destinations: BTreeMap<SocketAddr, Destination>,
    next_id: TransportId,
    next_ticket: Ticket,
}

#[derive(Debug, Default)]
struct Destination {
    transports: BTreeMap<TransportId, Transport>,
    /// Requests for which no connection has room, in the order they came.
    waiting: BTreeMap<Ticket, Job>,
}

#[derive(Debug)]
struct Transport {
    messages: mpsc::UnboundedSender<Outgoing>,
    in_flight: BTreeMap<Uuid, InFlight>,
    connected: bool,
    /// Given no further requests, as the peer fell silent.
    retired: bool,
    /// When a request was last sent or answered.
    used: Instant,
    /// When the peer was last heard.
    heard: Instant,
    /// Ends with the transport.
    task: Option<Task>,
}

#[derive(Debug)]
struct InFlight {
    reply: oneshot::Sender<Result<Value, RpcError>>,
    sent: Instant,
    /// While it lives, the message is still to be written.
    _wanted: Arc<()>,
}

impl Pool {
    pub(super) fn new(limits: PoolLimits) -> Self {
        Self { limits, destinations: BTreeMap::new(), next_id: 0, next_ticket: 0 }
    }

    /// Takes a request: its reply sender gets the outcome, unless [`cancel`](Self::cancel) comes first.
    pub(super) fn submit(&mut self, now: Instant, to: SocketAddr, job: Job) -> Result<Ticket, RpcError> {
        let destination = self.destinations.entry(to).or_default();
        if destination.waiting.len() >= MAX_WAITING {
            return Err(RpcError::QueueFull(MAX_WAITING));
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        destination.waiting.insert(ticket, job);
        destination.assign(now, &self.limits);
        Ok(ticket)
    }

    /// The next connection to open to a destination, where requests wait that no present one has room for.
    pub(super) fn next_opening(&mut self, now: Instant, to: SocketAddr) -> Option<Opening> {
        let destination = self.destinations.get_mut(&to)?;
        let in_service = destination.transports.values().filter(|t| !t.retired).count();
        if destination.waiting.is_empty() || in_service >= self.limits.transports {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let (messages, receiver) = mpsc::unbounded_channel();
        let transport = Transport {
            messages,
            in_flight: BTreeMap::new(),
            connected: false,
            retired: false,
            used: now,
            heard: now,
            task: None,
        };
        destination.transports.insert(id, transport);
        destination.assign(now, &self.limits);
        Some(Opening { id, to, messages: receiver })
    }

    /// Gives the pool the task that carries a connection: it ends with it.
    pub(super) fn carried_by(&mut self, to: SocketAddr, id: TransportId, task: Task) {
        if let Some(transport) = self.transport(to, id) {
            transport.task = Some(task);
        }
    }

    /// A connection is established.
    pub(super) fn connected(&mut self, now: Instant, to: SocketAddr, id: TransportId) {
        if let Some(transport) = self.transport(to, id) {
            transport.connected = true;
            transport.heard = now;
        }
    }

    /// Something arrived on a connection.
    pub(super) fn heard(&mut self, now: Instant, to: SocketAddr, id: TransportId) {
        if let Some(transport) = self.transport(to, id) {
            transport.heard = now;
        }
    }

    /// Ends a request with what came for it. Gives false where no such request is in flight on the connection.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        to: SocketAddr,
        id: TransportId,
        rid: Uuid,
        outcome: Result<Value, RpcError>,
    ) -> bool {
        let Some(transport) = self.transport(to, id) else { return false };
        let Some(request) = transport.in_flight.remove(&rid) else { return false };
        transport.used = now;
        // The requester may have gone in this very moment.
        let _ = request.reply.send(outcome);
        self.tidy(now, to);
        true
    }

    /// Forgets a request that nobody waits for any more. A connection that was silent for it goes out of service.
    pub(super) fn cancel(&mut self, now: Instant, to: SocketAddr, ticket: Ticket, rid: Uuid) {
        let Some(destination) = self.destinations.get_mut(&to) else { return };
        destination.waiting.remove(&ticket);
        for transport in destination.transports.values_mut() {
            if let Some(request) = transport.in_flight.remove(&rid) {
                let silent = transport.heard <= request.sent && now >= request.sent + SILENCE;
                transport.retired |= silent;
            }
        }
        self.tidy(now, to);
    }

    /// A connection ended: its requests fail. Those that wait fail with them where it was never established and there
    /// is no other, as the next attempt would hardly go better.
    pub(super) fn closed(&mut self, now: Instant, to: SocketAddr, id: TransportId, error: &RpcError) {
        let Some(destination) = self.destinations.get_mut(&to) else { return };
        let Some(transport) = destination.transports.remove(&id) else { return };
        let mut failed: Vec<_> = transport.in_flight.into_values().map(|request| request.reply).collect();
        if !transport.connected && destination.transports.values().all(|t| t.retired) {
            failed.extend(std::mem::take(&mut destination.waiting).into_values().map(|job| job.reply));
        }
        for reply in failed {
            let _ = reply.send(Err(error.clone()));
        }
        self.tidy(now, to);
    }

    /// When to ask again whether a connection is unused; `None` where it is, and now closed.
    pub(super) fn next_check(&mut self, now: Instant, to: SocketAddr, id: TransportId) -> Option<Instant> {
        let inactivity = self.limits.inactivity;
        let transport = self.transport(to, id)?;
        let unused_at = if transport.in_flight.is_empty() { transport.used } else { now } + inactivity;
        if unused_at > now {
            return Some(unused_at);
        }
        self.destinations.get_mut(&to)?.transports.remove(&id);
        self.tidy(now, to);
        None
    }

    /// Gives the connections to a destination no further requests: each is closed once nothing is in flight on it.
    pub(super) fn retire(&mut self, now: Instant, to: SocketAddr) {
        let Some(destination) = self.destinations.get_mut(&to) else { return };
        destination.transports.values_mut().for_each(|transport| transport.retired = true);
        self.tidy(now, to);
    }

    /// Whether a connection to a destination is established.
    pub(super) fn is_active(&self, to: SocketAddr) -> bool {
        self.destinations.get(&to).is_some_and(|d| d.transports.values().any(|t| t.connected && !t.retired))
    }

    /// How many connections there are, established or not.
    pub(super) fn transports(&self) -> usize {
        self.destinations.values().map(|d| d.transports.len()).sum()
    }

    /// Forgets every connection. Nothing more is written to those that are established, so that they end in good order;
    /// what carries them is given. The others end at once.
    pub(super) fn finish(&mut self) -> Vec<Task> {
        let destinations = std::mem::take(&mut self.destinations).into_values();
        let transports = destinations.flat_map(|destination| destination.transports.into_values());
        transports.filter(|transport| transport.connected).filter_map(|transport| transport.task).collect()
    }

    /// Ends every connection and request.
    pub(super) fn clear(&mut self) {
        self.destinations.clear();
    }

    fn transport(&mut self, to: SocketAddr, id: TransportId) -> Option<&mut Transport> {
        self.destinations.get_mut(&to)?.transports.get_mut(&id)
    }

    /// Uses the room that was made, and drops what is empty.
    fn tidy(&mut self, now: Instant, to: SocketAddr) {
        let Some(destination) = self.destinations.get_mut(&to) else { return };
        destination.transports.retain(|_, t| !(t.retired && t.in_flight.is_empty()));
        destination.assign(now, &self.limits);
        if destination.transports.is_empty() && destination.waiting.is_empty() {
            self.destinations.remove(&to);
        }
    }
}

impl Destination {
    /// Puts waiting requests on the least busy connection each, while one has room; over [`SPREAD`] only once no
    /// further connection may be opened.
    fn assign(&mut self, now: Instant, limits: &PoolLimits) {
        let in_service = self.transports.values().filter(|t| !t.retired).count();
        let room = if in_service < limits.transports { limits.pipeline.min(SPREAD) } else { limits.pipeline };
        while !self.waiting.is_empty() {
            let least = self.transports.values_mut().filter(|t| !t.retired).min_by_key(|t| t.in_flight.len());
            let Some(transport) = least.filter(|t| t.in_flight.len() < room) else { return };
            let Some((_, Job { rid, text, reply })) = self.waiting.pop_first() else { return };
            let wanted = Arc::new(());
            // Where the carrier has just ended, `closed` is about to fail the request.
            let _ = transport.messages.send(Outgoing {
                text,
                permit: None,
                unsent: None,
                wanted: Some(Arc::downgrade(&wanted)),
            });
            transport.in_flight.insert(rid, InFlight { reply, sent: now, _wanted: wanted });
            transport.used = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    type Answer = oneshot::Receiver<Result<Value, RpcError>>;

    const LIMITS: PoolLimits = PoolLimits { transports: 3, pipeline: usize::MAX, inactivity: Duration::from_secs(120) };

    fn to() -> SocketAddr {
        "203.0.113.5:1337".parse().unwrap()
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn submit(pool: &mut Pool, now: Instant, rid: u128) -> Answer {
        let (reply, answer) = oneshot::channel();
        let rid = Uuid::from_u128(rid);
        pool.submit(now, to(), Job { rid, text: Bytes::from(rid.to_string()), reply }).unwrap();
        answer
    }

    fn written(opening: &mut Opening) -> Vec<String> {
        std::iter::from_fn(|| opening.messages.try_recv().ok())
            .filter(|message| message.is_wanted())
            .map(|message| String::from_utf8_lossy(&message.text).into_owned())
            .collect()
    }

    fn openings(pool: &mut Pool, now: Instant) -> Vec<Opening> {
        std::iter::from_fn(|| pool.next_opening(now, to())).collect()
    }

    #[test]
    fn further_connections_are_opened_only_under_load() {
        let (mut pool, now) = (Pool::new(LIMITS), start());
        let mut opened = Vec::new();
        let mut answers = Vec::new();
        for rid in 0..300 {
            answers.push(submit(&mut pool, now, rid));
            opened.extend(openings(&mut pool, now));
            let expected = (rid as usize / SPREAD + 1).min(3);
            assert_eq!(opened.len(), expected, "with {} in flight", rid + 1);
        }
        let loads: Vec<usize> = opened.iter_mut().map(|opening| written(opening).len()).collect();
        assert_eq!(loads, [100, 100, 100], "spread evenly");
    }

    #[test]
    fn one_in_flight_a_connection_where_told_so() {
        let (mut pool, now) = (Pool::new(PoolLimits { pipeline: 1, ..LIMITS }), start());
        let mut answers: Vec<Answer> = (0..5).map(|rid| submit(&mut pool, now, rid)).collect();
        let mut opened = openings(&mut pool, now);
        assert_eq!(opened.iter_mut().map(|o| written(o).len()).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(pool.settle(now, to(), opened[1].id, Uuid::from_u128(1), Ok(Value::Null)));
        assert_eq!(answers[1].try_recv().unwrap(), Ok(Value::Null));
        assert_eq!(written(&mut opened[1]), [Uuid::from_u128(3).to_string()], "the next in order takes the place");
        pool.cancel(now, to(), 4, Uuid::from_u128(4));
        pool.cancel(now, to(), 0, Uuid::from_u128(0));
        assert!(written(&mut opened[0]).is_empty(), "a cancelled request takes no place");
        assert!(!pool.settle(now, to(), opened[0].id, Uuid::from_u128(0), Ok(Value::Null)), "unknown by now");
    }

    #[test]
    fn a_request_cancelled_before_it_was_written_is_not_written() {
        let (mut pool, now) = (Pool::new(LIMITS), start());
        let _answer = submit(&mut pool, now, 1);
        let mut opened = openings(&mut pool, now);
        pool.cancel(now, to(), 0, Uuid::from_u128(1));
        assert!(written(&mut opened[0]).is_empty());
    }

    #[test]
    fn a_failed_connect_fails_all_that_wait_for_it() {
        let (mut pool, now) = (Pool::new(PoolLimits { pipeline: 1, transports: 1, ..LIMITS }), start());
        let mut answers: Vec<Answer> = (0..2).map(|rid| submit(&mut pool, now, rid)).collect();
        let opened = openings(&mut pool, now);
        pool.closed(now, to(), opened[0].id, &RpcError::UtpTimedOut);
        for answer in &mut answers {
            assert_eq!(answer.try_recv().unwrap(), Err(RpcError::UtpTimedOut));
        }
        assert_eq!(pool.transports(), 0);
    }

    #[test]
    fn what_waits_outlives_an_established_connection() {
        let (mut pool, now) = (Pool::new(PoolLimits { pipeline: 1, transports: 1, ..LIMITS }), start());
        let mut answers: Vec<Answer> = (0..2).map(|rid| submit(&mut pool, now, rid)).collect();
        let opened = openings(&mut pool, now);
        pool.connected(now, to(), opened[0].id);
        pool.closed(now, to(), opened[0].id, &RpcError::TransportClose);
        assert_eq!(answers[0].try_recv().unwrap(), Err(RpcError::TransportClose));
        assert_eq!(answers[1].try_recv(), Err(TryRecvError::Empty));
        assert_eq!(written(&mut openings(&mut pool, now)[0]), [Uuid::from_u128(1).to_string()]);
    }

    #[test]
    fn a_silent_connection_is_given_no_more() {
        let second = Duration::from_secs(1);
        for (heard_after, waited, retired) in
            [(None, SILENCE, true), (None, SILENCE - Duration::from_nanos(1), false), (Some(second), 2 * second, false)]
        {
            let (mut pool, now) = (Pool::new(LIMITS), start());
            let _answer = submit(&mut pool, now, 1);
            let opened = openings(&mut pool, now);
            pool.connected(now, to(), opened[0].id);
            if let Some(after) = heard_after {
                pool.heard(now + after, to(), opened[0].id);
            }
            pool.cancel(now + waited, to(), 0, Uuid::from_u128(1));
            assert_eq!(pool.transports(), usize::from(!retired), "heard {heard_after:?}, waited {waited:?}");
        }
    }

    #[test]
    fn an_unused_connection_is_closed_in_time() {
        let (mut pool, now) = (Pool::new(LIMITS), start());
        let _answer = submit(&mut pool, now, 1);
        let id = openings(&mut pool, now)[0].id;
        pool.connected(now, to(), id);
        let later = now + LIMITS.inactivity * 3;
        assert_eq!(pool.next_check(later, to(), id), Some(later + LIMITS.inactivity), "a request is in flight");
        pool.settle(later, to(), id, Uuid::from_u128(1), Ok(Value::Null));
        let end = later + LIMITS.inactivity;
        assert_eq!(pool.next_check(end - Duration::from_nanos(1), to(), id), Some(end));
        assert_eq!(pool.next_check(end, to(), id), None);
        assert_eq!(pool.transports(), 0);
    }

    #[test]
    fn the_queue_has_a_limit() {
        let (mut pool, now) = (Pool::new(PoolLimits { pipeline: 1, transports: 1, ..LIMITS }), start());
        let mut answers = vec![submit(&mut pool, now, 0)];
        let _opened = openings(&mut pool, now);
        answers.extend((1..=MAX_WAITING as u128).map(|rid| submit(&mut pool, now, rid)));
        let (reply, _answer) = oneshot::channel();
        let job = Job { rid: Uuid::from_u128(u128::MAX), text: Bytes::new(), reply };
        assert_eq!(pool.submit(now, to(), job), Err(RpcError::QueueFull(MAX_WAITING)));
    }
}
