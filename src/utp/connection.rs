//! One connection: its states and what its user does. Arriving packets, timers and packets out are in siblings.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::config::{Config, MIN_DATAGRAM};
use super::congestion::Congestion;
use super::error::Error;
use super::receive::Receiver;
use super::rtt::Rtt;
use super::send::{MAX_PACKETS_OUT, Sender};
use super::seq::Seq;
use super::wire::Repr;

/// How long a SYN waits for its answer before it is repeated; doubles each time. Punching holes needs it short.
pub(super) const SYN_RETRY: Duration = Duration::from_millis(250);

/// How long a SYN-ACK waits for a sign that it arrived before it is repeated; doubles each time.
pub(super) const SYN_ACK_RETRY: Duration = Duration::from_secs(1);

/// How long the initiator waits for a word of the acceptor before it says again that it got the SYN-ACK, and how often
/// it does; the pause doubles each time. The acceptor does not ask: it owes an unproven address no more than it got.
pub(super) const CONFIRM_RETRY: Duration = Duration::from_secs(1);
pub(super) const CONFIRMATIONS: u32 = 3;

/// After how many SYNs with one connection id another is tried: libutp answers each id only once, so where its
/// answer is lost only a new id brings another.
pub(super) const SYNS_BEFORE_REDIAL: u32 = 3;

/// How long after both FINs, and after each packet since, a connection stays to ack the peer's FIN again, should our
/// ack be lost: longer than the longest pause between retransmissions.
pub(super) const TIME_WAIT: Duration = Duration::from_secs(3);

/// How long a dropped connection that has delivered everything waits for the peer's FIN. Some peers never send one.
pub(super) const FIN_WAIT: Duration = Duration::from_secs(10);

/// For how long a SYN may be a late duplicate of the one that made a connection; afterwards it is a peer's that has
/// started anew (libutp starts with the same ids and numbers in every process).
const SYN_LIFETIME: Duration = Duration::from_secs(30);

/// Where the acceptor's timestamps begin. Both sides' clocks start about a latency apart: were it exactly one, every
/// delay would come out as 0, which stands for none.
const ACCEPTOR_CLOCK: u32 = 1 << 30;

/// A µTP connection without I/O: see the [module](super) for how to drive it.
#[derive(Debug)]
pub struct Connection {
    pub(super) config: Config,
    /// The origin of our timestamps.
    pub(super) epoch: Instant,
    pub(super) initiator: bool,
    pub(super) receive_id: u16,
    pub(super) send_id: u16,
    pub(super) phase: Phase,
    /// The SYN's number, ours or the peer's.
    pub(super) syn_seq: Seq,
    /// The number in the SYN-ACK, which the acceptor's first packet with payload has too.
    pub(super) syn_ack_seq: Seq,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) rtt: Rtt,
    pub(super) congestion: Box<dyn Congestion>,
    pub(super) began: Instant,
    pub(super) last_received: Instant,
    pub(super) last_sent: Instant,
    /// What to tell the peer as the one-way delay of its packets.
    pub(super) reply_delay: u32,
    /// The timestamp of the packet that `peer_window` was taken from: older ones must not shrink it.
    pub(super) window_stamp: Option<u32>,
    pub(super) pending: Pending,
    /// How many of the next packets are acked one by one.
    pub(super) quick_acks: u32,
    /// Bytes that a half-open connection's peer has sent us more than we have sent there.
    pub(super) credit: usize,
    /// When the initiator confirms once more, and how often it did.
    pub(super) confirm_at: Option<Instant>,
    pub(super) confirmed: u32,
    pub(super) retransmit_at: Option<Instant>,
    /// When the first unacked packet is sent again to draw an ack, and how often it was since the last one.
    pub(super) probe_ack_at: Option<Instant>,
    pub(super) ack_probes: u32,
    /// Since when packets are out and none was acked.
    pub(super) stalled_since: Instant,
    pub(super) probe_at: Option<Instant>,
    pub(super) probes: u32,
    /// When a connection without a user ends at the latest, and how long it waits for the peer's FIN alone.
    pub(super) orphan_until: Option<Instant>,
    pub(super) fin_wait: Duration,
    pub(super) events: VecDeque<Event>,
    pub(super) error: Option<Error>,
    pub(super) established: bool,
    pub(super) large_arrived: bool,
    path_suspect: bool,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    SynSent { sent: u32, retry_at: Instant },
    SynReceived { sent: u32, retry_at: Instant },
    Established,
    TimeWait { until: Instant },
    Closed,
}

/// Packets without payload that are due.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) syn: bool,
    pub(super) syn_ack: bool,
    pub(super) ack: bool,
    pub(super) keep_alive: bool,
    pub(super) reset: bool,
}

/// Something that the connection's user should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer has answered: both sides know of the connection.
    Connected,
    /// There are bytes to read, or the end of them.
    Readable,
    /// There is room for bytes to write.
    Writable,
    /// The peer has acked our FIN and so everything before it.
    Finished,
    /// An unanswered SYN should be tried with another id: call [`Connection::redial`]. May be left alone.
    Redial,
    /// It is over; `None` where both sides have finished and everything was acked.
    Closed(Option<Error>),
}

impl Connection {
    /// Starts a connection to a peer. `receive_id` must be free for that peer; `initial` should be random.
    pub fn connect(now: Instant, config: Config, receive_id: u16, initial: Seq) -> Self {
        let sender = Sender::new(initial + 1, config.send_buffer, config.max_payload());
        let receiver = Receiver::new(Seq(0), config.receive_window);
        let phase = Phase::SynSent { sent: 0, retry_at: now };
        let mut this = Self::new(now, config, sender, receiver, phase);
        this.initiator = true;
        this.receive_id = receive_id;
        this.send_id = receive_id.wrapping_add(1);
        this.syn_seq = initial;
        this.pending.syn = true;
        this
    }

    /// Answers a peer's SYN. `initial` should be random.
    ///
    /// [`Event::Connected`] follows when the peer shows that it got the answer. Bytes written earlier wait for it.
    pub fn accept(now: Instant, config: Config, syn: &Repr<'_>, initial: Seq) -> Self {
        let sender = Sender::new(initial, config.send_buffer, config.max_payload());
        let receiver = Receiver::new(syn.seq + 1, config.receive_window);
        let phase = Phase::SynReceived { sent: 0, retry_at: now };
        let mut this = Self::new(now, config, sender, receiver, phase);
        this.receive_id = syn.connection_id.wrapping_add(1);
        this.send_id = syn.connection_id;
        this.syn_seq = syn.seq;
        this.syn_ack_seq = initial;
        this.sender.set_peer_window(syn.window as usize);
        this.note_timestamp(now, syn);
        this.credit = syn.len();
        this.pending.syn_ack = true;
        this
    }

    fn new(now: Instant, config: Config, sender: Sender, receiver: Receiver, phase: Phase) -> Self {
        let congestion = (config.congestion)(config.max_payload());
        Self {
            config,
            epoch: now,
            initiator: false,
            receive_id: 0,
            send_id: 0,
            phase,
            syn_seq: Seq(0),
            syn_ack_seq: Seq(0),
            sender,
            receiver,
            rtt: Rtt::default(),
            congestion,
            began: now,
            last_received: now,
            last_sent: now,
            reply_delay: 0,
            window_stamp: None,
            pending: Pending::default(),
            quick_acks: 0,
            credit: 0,
            confirm_at: None,
            confirmed: 0,
            retransmit_at: None,
            probe_ack_at: None,
            ack_probes: 0,
            stalled_since: now,
            probe_at: None,
            probes: 0,
            orphan_until: None,
            fin_wait: FIN_WAIT,
            events: VecDeque::new(),
            error: None,
            established: false,
            large_arrived: false,
            path_suspect: false,
        }
    }

    /// Whether this side sent the SYN.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// The connection id in packets to us.
    pub fn receive_id(&self) -> u16 {
        self.receive_id
    }

    /// The connection id in packets from us, other than SYNs.
    pub fn send_id(&self) -> u16 {
        self.send_id
    }

    /// Whether the peer has answered at some time.
    pub fn was_established(&self) -> bool {
        self.established
    }

    /// Whether the connection waits for its handshake to complete.
    pub fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::SynSent { .. } | Phase::SynReceived { .. })
    }

    /// Whether nothing more will happen: what [`poll_transmit`](Self::poll_transmit) still has should be sent, then
    /// the connection can be forgotten.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether both sides are through: at most the peer's last packet may have to be acked again.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::TimeWait { .. } | Phase::Closed)
    }

    /// Whether reading has opened the window so far that the peer should hear of it.
    pub fn wants_transmit(&self) -> bool {
        self.pending.ack
    }

    /// Whether all that was written and the FIN are acked, or never will be.
    pub fn has_delivered(&self) -> bool {
        self.sender.is_finished() || matches!(self.phase, Phase::TimeWait { .. } | Phase::Closed)
    }

    /// Why it ended, where it did not end well.
    pub fn error(&self) -> Option<Error> {
        self.error
    }

    /// The smoothed round-trip time, once it was measured.
    pub fn round_trip_time(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// How many bytes congestion control lets be in flight.
    pub fn congestion_window(&self) -> usize {
        self.congestion.window()
    }

    /// How many bytes were sent and are not acked.
    pub fn in_flight(&self) -> usize {
        self.sender.in_flight()
    }

    /// Whether the connection died on a large packet and none has ever arrived: the path may not carry datagrams of
    /// [`Config::max_datagram`] bytes.
    pub fn path_suspect(&self) -> bool {
        self.path_suspect
    }

    /// Whether a packet received with this id is for this connection. Any packet for us has our receive id, but a
    /// RESET may carry the id that we send with.
    pub fn takes_reset(&self, id: u16) -> bool {
        id == self.receive_id || id == self.send_id
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Queues an event unless the same is queued, which bounds the queue.
    pub(super) fn tell(&mut self, event: Event) {
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// Takes as many of `bytes` as there is room for; 0 where there is none until [`Event::Writable`].
    ///
    /// # Errors
    /// [`Error::Finished`] after [`finish`](Self::finish), or why the connection has ended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.sender.is_finishing() || matches!(self.phase, Phase::TimeWait { .. } | Phase::Closed) {
            return Err(Error::Finished);
        }
        Ok(self.sender.write(bytes))
    }

    /// Reads into `out`: `Some(0)` at the peer's FIN, `None` where there is nothing until [`Event::Readable`].
    ///
    /// # Errors
    /// Why the connection has ended, once everything that arrived in order was read.
    pub fn read(&mut self, out: &mut [u8]) -> Result<Option<usize>, Error> {
        let len = self.receiver.read(out);
        if len > 0 {
            if self.phase == Phase::Established && self.receiver.wants_update() {
                self.pending.ack = true;
            }
            return Ok(Some(len));
        }
        if self.receiver.is_finished() || out.is_empty() {
            return Ok(Some(0));
        }
        match self.error {
            Some(error) => Err(error),
            None if self.phase == Phase::Closed => Ok(Some(0)),
            None => Ok(None),
        }
    }

    /// Raises the receive window. `true` where the peer should hear of it at once: it has used up the old one.
    pub fn open_window(&mut self, bytes: usize) -> bool {
        let update = self.receiver.grow(bytes) && self.phase == Phase::Established;
        self.pending.ack |= update;
        update
    }

    /// Sends a FIN after everything that was written. Reading goes on.
    pub fn finish(&mut self) {
        self.sender.finish();
    }

    /// Ends the connection at once, with a RESET to the peer.
    pub fn reset(&mut self) {
        if !matches!(self.phase, Phase::TimeWait { .. } | Phase::Closed) {
            self.pending.reset = true;
        }
        self.close(Some(Error::Aborted));
    }

    /// There is no user any more: what was written is delivered, what arrives is thrown away, and the connection
    /// ends within [`Config::linger`].
    pub fn orphan(&mut self, now: Instant) {
        if self.is_half_open() {
            // An unproven address gets no more than it has sent.
            return if self.initiator { self.reset() } else { self.close(Some(Error::Aborted)) };
        }
        self.orphan_until.get_or_insert(now + self.config.linger);
        self.receiver.discard();
        self.finish();
        self.check_end(now);
    }

    /// [Orphans](Self::orphan) the connection and shortens its end: `linger` altogether, `fin_wait` for the peer's FIN
    /// once everything of ours was acked.
    pub fn hurry(&mut self, now: Instant, linger: Duration, fin_wait: Duration) {
        self.fin_wait = fin_wait;
        self.orphan_until = Some(self.orphan_until.map_or(now + linger, |until| until.min(now + linger)));
        self.orphan(now);
    }

    /// Tries the SYN again with another id, as [`Event::Redial`] asks for. Does nothing once there was an answer.
    pub fn redial(&mut self, now: Instant, receive_id: u16) {
        if let Phase::SynSent { sent, .. } = self.phase {
            self.receive_id = receive_id;
            self.send_id = receive_id.wrapping_add(1);
            self.phase = Phase::SynSent { sent, retry_at: now };
            self.pending.syn = true;
        }
    }

    /// Whether a SYN with our peer's address and id is from a peer that has started anew, so that this connection
    /// is dead.
    pub fn is_superseded_by(&self, now: Instant, syn: &Repr<'_>) -> bool {
        !self.initiator
            && (syn.seq != self.syn_seq
                || !self.is_half_open() && now.saturating_duration_since(self.began) > SYN_LIFETIME)
    }

    /// Ends the connection as a RESET from the peer would.
    pub fn supersede(&mut self) {
        self.close(Some(Error::Reset));
    }

    /// Our clock in µs; never 0, which stands for no measurement.
    pub(super) fn timestamp(&self, now: Instant) -> u32 {
        let micros = now.saturating_duration_since(self.epoch).as_micros() as u32;
        let origin = if self.initiator { 1 } else { ACCEPTOR_CLOCK };
        micros.wrapping_add(origin).max(1)
    }

    /// After every change: are both sides through?
    pub(super) fn check_end(&mut self, now: Instant) {
        if let Phase::TimeWait { until } = &mut self.phase {
            *until = now + TIME_WAIT;
        }
        if self.phase != Phase::Established || !self.sender.is_finished() {
            return;
        }
        if self.receiver.is_finished() {
            self.phase = Phase::TimeWait { until: now + TIME_WAIT };
            self.stop_timers();
            self.tell(Event::Closed(None));
        } else if let Some(until) = self.orphan_until {
            self.orphan_until = Some(until.min(now + self.fin_wait));
        }
    }

    /// The peer is gone.
    pub(super) fn time_out(&mut self) {
        let large = self.sender.oldest().is_some_and(|(len, times)| len > MIN_DATAGRAM && times > 1);
        self.path_suspect = large && !self.large_arrived;
        self.close(Some(Error::TimedOut));
    }

    pub(super) fn close(&mut self, error: Option<Error>) {
        let told = matches!(self.phase, Phase::TimeWait { .. } | Phase::Closed);
        self.phase = Phase::Closed;
        self.stop_timers();
        self.pending = Pending { reset: self.pending.reset, ..Pending::default() };
        self.sender.clear();
        if !told {
            self.error = error;
            self.tell(Event::Closed(error));
        }
    }

    fn stop_timers(&mut self) {
        self.retransmit_at = None;
        self.probe_ack_at = None;
        self.probe_at = None;
        self.confirm_at = None;
    }
}

const _: () = assert!(MAX_PACKETS_OUT < 1 << 14, "ahead and behind must stay apart");
