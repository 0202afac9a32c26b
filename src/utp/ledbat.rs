//! LEDBAT congestion control (RFC 6817): yields to other traffic by keeping the queueing delay near a target.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::congestion::{Ack, Congestion};

/// The queueing delay aimed at. RFC 6817, 2.5: at most 100 ms.
const TARGET: Duration = Duration::from_millis(100);

/// Most bytes that the window grows by in a round trip outside slow start, as libutp does.
const MAX_GAIN_PER_RTT: f64 = 3000.0;

/// How long one minimum of the base delay's history covers (RFC 6817, 3.4.2).
const BASE_SLOT: Duration = Duration::from_secs(60);

/// How many of them are kept.
const BASE_SLOTS: usize = 13;

/// How many of the newest delays are filtered: the least of them counts as the current one.
const FILTER: usize = 3;

/// RFC 6817, 2.4.2: INIT_CWND and MIN_CWND, in packets.
const MIN_PACKETS: usize = 2;

/// Slow start ends at this part of the target, before the queue is full.
const SLOW_START_END: f64 = 0.9;

/// At most one halving in this time, or in a round trip where that is longer.
const LOSS_REACTION: Duration = Duration::from_millis(100);

/// Where the window stops growing. The peer's receive window ends it much earlier.
const MAX_WINDOW: f64 = (64 << 20) as f64;

/// RFC 6817 with a slow start.
#[derive(Debug)]
pub struct Ledbat {
    max_payload: usize,
    window: f64,
    slow_start_until: f64,
    delays: DelayHistory,
    halved_at: Option<Instant>,
}

impl Ledbat {
    /// For packets of up to `max_payload` bytes of payload.
    pub fn new(max_payload: usize) -> Self {
        Self {
            max_payload,
            window: (MIN_PACKETS * max_payload) as f64,
            slow_start_until: f64::INFINITY,
            delays: DelayHistory::default(),
            halved_at: None,
        }
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.slow_start_until
    }
}

impl Congestion for Ledbat {
    fn window(&self) -> usize {
        self.window as usize
    }

    fn on_ack(&mut self, ack: &Ack) {
        let queueing = match ack.one_way_delay {
            Some(delay) => self.delays.add(ack.now, delay),
            None => self.delays.queueing(),
        };
        let queueing = queueing.as_secs_f64() / TARGET.as_secs_f64();
        if queueing > SLOW_START_END && self.in_slow_start() {
            self.slow_start_until = self.window;
        }
        let acked = ack.bytes as f64;
        let in_flight = ack.in_flight as f64;
        if self.in_slow_start() {
            // A sender with little to say must not grow a window that it has not tried.
            if in_flight * 2.0 >= self.window {
                self.window += acked;
            }
        } else {
            let off_target = (1.0 - queueing).max(-1.0);
            let gain = MAX_GAIN_PER_RTT * off_target * (acked / self.window).min(1.0);
            // RFC 6817, 2.4.2: max_allowed_cwnd.
            if gain < 0.0 || in_flight + self.max_payload as f64 >= self.window {
                self.window += gain;
            }
        }
        self.window = self.window.clamp((MIN_PACKETS * self.max_payload) as f64, MAX_WINDOW);
    }

    fn on_loss(&mut self, now: Instant, rtt: Duration) {
        let pause = rtt.max(LOSS_REACTION);
        if self.halved_at.is_some_and(|at| now.saturating_duration_since(at) < pause) {
            return;
        }
        self.halved_at = Some(now);
        self.window = (self.window / 2.0).max((MIN_PACKETS * self.max_payload) as f64);
        self.slow_start_until = self.window;
    }

    fn on_timeout(&mut self, now: Instant, in_flight: usize) {
        // Several timeouts in a row have nothing left in flight: the first one has set the threshold.
        if in_flight > self.max_payload {
            self.slow_start_until = (in_flight as f64 / 2.0).max((MIN_PACKETS * self.max_payload) as f64);
        }
        self.window = self.max_payload as f64;
        self.halved_at = Some(now);
    }
}

/// Base and current one-way delay. Values are µs modulo 2^32 with an unknown offset: only differences mean something.
#[derive(Debug, Default)]
struct DelayHistory {
    base: VecDeque<u32>,
    slot_began: Option<Instant>,
    recent: VecDeque<u32>,
}

impl DelayHistory {
    fn add(&mut self, now: Instant, delay: u32) -> Duration {
        let began = *self.slot_began.get_or_insert(now);
        let slots = now.saturating_duration_since(began).as_secs() / BASE_SLOT.as_secs();
        if self.base.is_empty() || slots > 0 {
            for _ in 0..slots.clamp(1, BASE_SLOTS as u64) {
                self.base.push_back(delay);
            }
            self.slot_began = Some(began + BASE_SLOT * u32::try_from(slots).unwrap_or(u32::MAX));
            while self.base.len() > BASE_SLOTS {
                self.base.pop_front();
            }
        } else if let Some(newest) = self.base.back_mut() {
            *newest = earlier(*newest, delay);
        }
        self.recent.push_back(delay);
        if self.recent.len() > FILTER {
            self.recent.pop_front();
        }
        self.queueing()
    }

    fn queueing(&self) -> Duration {
        let base = self.base.iter().copied().reduce(earlier);
        let current = self.recent.iter().copied().reduce(earlier);
        match (base, current) {
            (Some(base), Some(current)) => {
                Duration::from_micros(u64::try_from(current.wrapping_sub(base).cast_signed()).unwrap_or(0))
            }
            _ => Duration::ZERO,
        }
    }
}

fn earlier(a: u32, b: u32) -> u32 {
    if b.wrapping_sub(a).cast_signed() < 0 { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: usize = 1000;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn ack(now: Instant, bytes: usize, in_flight: usize, delay: u32) -> Ack {
        Ack { now, bytes, in_flight, one_way_delay: Some(delay) }
    }

    #[test]
    fn slow_start_doubles_and_ends_before_the_target() {
        let start = now();
        let mut ledbat = Ledbat::new(PAYLOAD);
        assert_eq!(ledbat.window(), 2000);
        for _ in 0..4 {
            let window = ledbat.window();
            ledbat.on_ack(&ack(start, window, window, 500));
            assert_eq!(ledbat.window(), 2 * window);
        }
        // 90 ms: not yet; a hair more: the window no longer doubles.
        for _ in 0..FILTER {
            ledbat.on_ack(&ack(start, 0, 32_000, 500 + 90_000));
        }
        assert!(ledbat.in_slow_start());
        for _ in 0..FILTER {
            ledbat.on_ack(&ack(start, 0, 32_000, 500 + 90_001));
        }
        assert!(!ledbat.in_slow_start());
        ledbat.on_ack(&ack(start, 32_000, 32_000, 500 + 90_001));
        assert!(ledbat.window() < 32_000 + 301);
    }

    #[test]
    fn rfc6817_window_follows_the_distance_from_the_target() {
        let start = now();
        let mut ledbat = Ledbat::new(PAYLOAD);
        ledbat.window = 100_000.0;
        ledbat.slow_start_until = 0.0;
        ledbat.on_ack(&ack(start, 100_000, 100_000, 7));
        assert_eq!(ledbat.window(), 103_000, "no queue: the most a round trip may gain");
        for _ in 0..FILTER {
            ledbat.on_ack(&ack(start, 0, 103_000, 7 + 100_000));
        }
        ledbat.on_ack(&ack(start, 103_000, 103_000, 7 + 100_000));
        assert_eq!(ledbat.window(), 103_000, "on target: stays");
        for _ in 0..FILTER {
            ledbat.on_ack(&ack(start, 0, 103_000, 7 + 150_000));
        }
        ledbat.on_ack(&ack(start, 103_000, 103_000, 7 + 150_000));
        assert_eq!(ledbat.window(), 101_500, "over target: shrinks in proportion");
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut ledbat = Ledbat::new(PAYLOAD);
        ledbat.window = 100_000.0;
        ledbat.on_ack(&ack(now(), 1000, 1000, 7));
        assert_eq!(ledbat.window(), 100_000);
    }

    #[test]
    fn one_halving_a_round_trip() {
        let start = now();
        let mut ledbat = Ledbat::new(PAYLOAD);
        ledbat.window = 100_000.0;
        let rtt = Duration::from_millis(300);
        ledbat.on_loss(start, rtt);
        ledbat.on_loss(start + Duration::from_millis(299), rtt);
        assert_eq!(ledbat.window(), 50_000);
        ledbat.on_loss(start + rtt, rtt);
        assert_eq!(ledbat.window(), 25_000);
        ledbat.on_timeout(start + rtt, 25_000);
        assert_eq!(ledbat.window(), PAYLOAD);
        assert_eq!(ledbat.slow_start_until, 12_500.0);
        ledbat.on_timeout(start + rtt, 1000);
        assert_eq!(ledbat.slow_start_until, 12_500.0, "a second timeout keeps the threshold");
    }

    #[test]
    fn rfc6817_base_delay_is_forgotten_after_thirteen_minutes_and_survives_the_wrap() {
        let start = now();
        let mut delays = DelayHistory::default();
        let low = u32::MAX - 10;
        delays.add(start, low);
        let higher = low.wrapping_add(5_000);
        for minute in 1..=12 {
            assert_eq!(
                delays.add(start + BASE_SLOT * minute, higher),
                Duration::from_micros(if minute < 3 { 0 } else { 5_000 })
            );
        }
        assert_eq!(delays.add(start + BASE_SLOT * 13, higher), Duration::ZERO);
    }
}
