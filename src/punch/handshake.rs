//! When to send which punch of a handshake: a state machine without I/O.

use std::time::{Duration, Instant};

/// How often the peer is punched that has not been heard after the first burst.
const REPEAT: Duration = Duration::from_millis(500);

/// The longest of a handshake's times.
const HOUR: Duration = Duration::from_secs(3600);

/// Settings of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeConfig {
    min: u32,
    max: u32,
    delay: Duration,
    timeout: Duration,
}

impl Default for HandshakeConfig {
    fn default() -> Self {
        Self { min: 2, max: 5, delay: Duration::from_millis(50), timeout: Duration::from_secs(30) }
    }
}

impl HandshakeConfig {
    /// How many punches must arrive (default 2, at least 1).
    pub fn min(self, min: u32) -> Self {
        Self { min: min.max(1), ..self }
    }

    /// How many punches are sent in a burst (default 5, at least 1).
    pub fn max(self, max: u32) -> Self {
        Self { max: max.max(1), ..self }
    }

    /// The time between two punches of a burst (default 50 ms, at most an hour).
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay: delay.min(HOUR), ..self }
    }

    /// How long the handshake may take (default 30 s, at most an hour).
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(HOUR), ..self }
    }
}

/// A handshake of punches with one peer.
///
/// A burst of `max` punches opens this side's NAT. Those that arrive before the peer has opened its own are lost, so
/// it goes on, slowly, until the peer is heard, and then makes sure that `max` − 1 punches follow: the peer's NAT lets
/// these in. It is complete when `min` punches have arrived as well.
#[derive(Debug)]
pub(super) struct Handshake {
    config: HandshakeConfig,
    deadline: Instant,
    next_at: Instant,
    sent: u32,
    sent_since_heard: u32,
    received: u32,
}

/// What a handshake wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send a punch now.
    Send,
    /// Wait until then, or until a punch arrives.
    Wait(Instant),
    /// Both directions pass.
    Complete,
    /// The time is over.
    TimedOut,
}

impl Handshake {
    pub(super) fn new(now: Instant, config: HandshakeConfig) -> Self {
        let deadline = now + config.timeout;
        Self { config, deadline, next_at: now, sent: 0, sent_since_heard: 0, received: 0 }
    }

    /// A punch of the peer arrived.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.received == 0 && self.sent >= self.config.max {
            self.next_at = now;
        }
        self.received = self.received.saturating_add(1);
    }

    /// What to do now. After [`Step::Send`] ask again.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let max = self.config.max;
        let all_sent = self.sent >= max && self.sent_since_heard >= max - 1;
        if all_sent && self.received >= self.config.min {
            return Step::Complete;
        }
        if now >= self.deadline {
            return Step::TimedOut;
        }
        if self.received > 0 && all_sent {
            return Step::Wait(self.deadline);
        }
        if now < self.next_at {
            return Step::Wait(self.next_at.min(self.deadline));
        }
        self.sent = self.sent.saturating_add(1);
        let pause = if self.received > 0 {
            self.sent_since_heard += 1;
            self.config.delay
        } else if self.sent < max {
            self.config.delay
        } else {
            REPEAT
        };
        self.next_at = now + pause;
        Step::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Two peers behind NATs that let in only whom they have punched, `latency` apart; `late` is how much later the
    /// second begins. Gives when each was complete and how many it sent.
    fn meet(config: HandshakeConfig, latency: Duration, late: Duration) -> [(Option<Duration>, u32); 2] {
        let t0 = start();
        let begin = [Duration::ZERO, late];
        let mut peers: [Option<Handshake>; 2] = [None, None];
        let mut ended = [None; 2];
        let mut sent = [0; 2];
        let mut in_flight: Vec<(Duration, usize)> = Vec::new();
        for ms in 0..40_000 {
            let at = MS * ms;
            let now = t0 + at;
            let (arrived, rest): (Vec<_>, Vec<_>) = in_flight.into_iter().partition(|(due, _)| *due <= at);
            in_flight = rest;
            for (_, to) in arrived {
                if let Some(peer) = peers[to].as_mut().filter(|_| sent[to] > 0 && ended[to].is_none()) {
                    peer.heard(now);
                }
            }
            for me in 0..2 {
                if at < begin[me] || ended[me].is_some() {
                    continue;
                }
                let peer = peers[me].get_or_insert_with(|| Handshake::new(now, config));
                loop {
                    match peer.step(now) {
                        Step::Send => {
                            sent[me] += 1;
                            in_flight.push((at + latency, 1 - me));
                        }
                        Step::Wait(_) => break,
                        Step::Complete => {
                            ended[me] = Some(Some(at));
                            break;
                        }
                        Step::TimedOut => {
                            ended[me] = Some(None);
                            break;
                        }
                    }
                }
            }
        }
        [0, 1].map(|me| (ended[me].flatten(), sent[me]))
    }

    #[test]
    fn peers_that_begin_together_send_little_more_than_a_burst() {
        for (end, sent) in meet(HandshakeConfig::default(), 20 * MS, Duration::ZERO) {
            assert_eq!((end, sent), (Some(200 * MS), 5));
        }
    }

    #[test]
    fn peers_meet_however_much_later_one_begins() {
        let config = HandshakeConfig::default();
        for latency in [Duration::ZERO, 20 * MS, 80 * MS, 300 * MS] {
            for late in [0, 10, 60, 110, 180, 210, 1000, 5000, 20_000].map(|late| late * MS) {
                let both = meet(config, latency, late);
                for (end, sent) in both {
                    let end = end.unwrap_or_else(|| panic!("latency {latency:?}, late {late:?}: {both:?}"));
                    assert!(end <= late + 4 * latency + 1000 * MS, "latency {latency:?}, late {late:?}: {both:?}");
                    assert!(sent <= 12 + (late.as_millis() / REPEAT.as_millis()) as u32, "{both:?}");
                }
            }
        }
    }

    #[test]
    fn nobody_there() {
        let config = HandshakeConfig::default().timeout(Duration::from_secs(2));
        let t0 = start();
        let mut handshake = Handshake::new(t0, config);
        let mut sent = 0;
        let mut now = t0;
        let end = loop {
            match handshake.step(now) {
                Step::Send => sent += 1,
                Step::Wait(until) => now = until,
                end => break end,
            }
        };
        assert_eq!((end, now - t0, sent), (Step::TimedOut, Duration::from_secs(2), 8));
    }

    #[test]
    fn fewer_than_min_are_not_enough() {
        let t0 = start();
        let mut handshake = Handshake::new(t0, HandshakeConfig::default());
        handshake.heard(t0);
        let mut now = t0;
        loop {
            match handshake.step(now) {
                Step::Send => {}
                Step::Wait(until) if until == t0 + Duration::from_secs(30) => break,
                Step::Wait(until) => now = until,
                other => panic!("{other:?} with one of two punches"),
            }
        }
        handshake.heard(now);
        assert_eq!(handshake.step(now), Step::Complete);
    }
}
