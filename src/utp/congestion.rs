//! How fast to send: a trait, and LEDBAT.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Decides how many bytes may be in flight.
pub trait Congestion: fmt::Debug + Send {
    /// Bytes that may be in flight.
    fn window(&self) -> usize;
    /// `bytes` were acked. `delay` is the one-way delay that the peer measured for a packet of ours, in microseconds
    /// with the clocks' offset in it; `None` where the peer has measured none. `limited` says that the window, and not
    /// the application, held back what was sent.
    fn on_ack(&mut self, now: Instant, bytes: usize, delay: Option<u32>, limited: bool);
    /// Packets were lost.
    fn on_loss(&mut self, now: Instant, rtt: Duration);
    /// Nothing was acked for a whole retransmission timeout.
    fn on_timeout(&mut self, now: Instant);
}

/// RFC 6817, 2.3: the queueing delay that LEDBAT aims at, in microseconds.
const TARGET: f64 = 100_000.0;

/// The most that the window grows in a round trip, in bytes, as libutp has it.
const MAX_GAIN: f64 = 3000.0;

/// RFC 6817, 2.4.2: how many one-minute minima make the base delay.
const BASE_HISTORY: usize = 13;

/// RFC 6817, 2.4.2: how many samples the current delay is the minimum of.
const CURRENT_FILTER: usize = 3;

/// The part of the target at which slow start ends.
const SLOW_START_END: f64 = 0.9;

/// Packets in the first window (RFC 3390's order of magnitude).
const INITIAL_PACKETS: usize = 4;

/// RFC 6817, 2.4.1: packets in the smallest window.
const MIN_PACKETS: usize = 2;

/// The largest window, in bytes: what a path of 1 Gbit/s and 200 ms holds.
const MAX_WINDOW: f64 = (32 << 20) as f64;

/// The least time between two halvings, as libutp has it.
const HALVING_PAUSE: Duration = Duration::from_millis(100);

/// Low Extra Delay Background Transport (RFC 6817), with a slow start.
#[derive(Debug)]
pub struct Ledbat {
    segment: usize,
    window: f64,
    slow_start: bool,
    threshold: f64,
    base: BaseDelay,
    current: VecDeque<u32>,
    last_halving: Option<Instant>,
}

impl Ledbat {
    /// For segments of at most `segment` bytes.
    pub fn new(segment: usize) -> Self {
        Self {
            segment,
            window: (INITIAL_PACKETS * segment) as f64,
            slow_start: true,
            threshold: MAX_WINDOW,
            base: BaseDelay::default(),
            current: VecDeque::with_capacity(CURRENT_FILTER),
            last_halving: None,
        }
    }

    /// How long packets wait in queues now, in microseconds: the current delay above the base.
    fn queueing_delay(&mut self, now: Instant, delay: u32) -> f64 {
        self.base.update(now, delay);
        if self.current.len() == CURRENT_FILTER {
            self.current.pop_front();
        }
        self.current.push_back(delay);
        let base = self.base.min().unwrap_or(delay);
        // Delays carry the offset of two clocks, so that only their differences mean something.
        let above = self.current.iter().map(|delay| delay.wrapping_sub(base).cast_signed().max(0)).min();
        f64::from(above.unwrap_or(0))
    }
}

impl Congestion for Ledbat {
    fn window(&self) -> usize {
        self.window as usize
    }

    fn on_ack(&mut self, now: Instant, bytes: usize, delay: Option<u32>, limited: bool) {
        let queueing = delay.map(|delay| self.queueing_delay(now, delay));
        // RFC 6817, 2.4.1 (ALLOWED_INCREASE): a window that is not used does not grow.
        if !limited {
            return;
        }
        let bytes = bytes as f64;
        if self.slow_start {
            if queueing.is_some_and(|delay| delay > SLOW_START_END * TARGET) {
                self.slow_start = false;
                self.threshold = self.window;
            } else {
                self.window = (self.window + bytes).min(MAX_WINDOW);
                self.slow_start = self.window < self.threshold;
                return;
            }
        }
        // RFC 6817, 2.4.2: grow or shrink in proportion to the distance from the target.
        let off_target = queueing.map_or(1.0, |delay| ((TARGET - delay) / TARGET).max(-1.0));
        let gain = MAX_GAIN * off_target * (bytes / self.window).min(1.0);
        self.window = (self.window + gain).clamp((MIN_PACKETS * self.segment) as f64, MAX_WINDOW);
    }

    fn on_loss(&mut self, now: Instant, rtt: Duration) {
        // RFC 6817, 2.4.2: at most one halving a round trip.
        let pause = rtt.max(HALVING_PAUSE);
        if self.last_halving.is_some_and(|last| now.saturating_duration_since(last) < pause) {
            return;
        }
        self.last_halving = Some(now);
        self.slow_start = false;
        self.window = (self.window / 2.0).max((MIN_PACKETS * self.segment) as f64);
        self.threshold = self.window;
    }

    fn on_timeout(&mut self, now: Instant) {
        self.threshold = (self.window / 2.0).max((MIN_PACKETS * self.segment) as f64);
        self.window = self.segment as f64;
        self.slow_start = true;
        self.last_halving = Some(now);
    }
}

/// The least delay of the last thirteen minutes (RFC 6817, 2.4.2).
#[derive(Debug, Default)]
struct BaseDelay {
    minima: VecDeque<u32>,
    minute_began: Option<Instant>,
}

impl BaseDelay {
    fn update(&mut self, now: Instant, delay: u32) {
        let began = *self.minute_began.get_or_insert(now);
        match self.minima.back_mut() {
            Some(last) if now.saturating_duration_since(began) < Duration::from_secs(60) => {
                if delay.wrapping_sub(*last).cast_signed() < 0 {
                    *last = delay;
                }
            }
            _ => {
                self.minute_began = Some(now);
                if self.minima.len() == BASE_HISTORY {
                    self.minima.pop_front();
                }
                self.minima.push_back(delay);
            }
        }
    }

    fn min(&self) -> Option<u32> {
        self.minima.iter().copied().reduce(|a, b| if b.wrapping_sub(a).cast_signed() < 0 { b } else { a })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs some moment to start from")]
mod tests {
    use super::*;

    const SEGMENT: usize = 1382;

    /// RFC 6817, 2.4.2: below the target the window grows by at most the gain a round trip; above it shrinks.
    #[test]
    fn the_window_follows_the_delay() {
        let now = Instant::now();
        let mut ledbat = Ledbat::new(SEGMENT);
        ledbat.on_ack(now, 1, Some(5_000), true);
        ledbat.on_loss(now, Duration::from_millis(50));
        let before = ledbat.window();
        ledbat.on_ack(now, before, Some(5_000), true);
        assert_eq!(ledbat.window() - before, 3000, "a whole window acked at no queueing delay");
        let before = ledbat.window();
        for _ in 0..CURRENT_FILTER {
            ledbat.on_ack(now, 0, Some(205_000), true);
        }
        ledbat.on_ack(now, before, Some(205_000), true);
        assert!(ledbat.window() < before, "a delay of twice the target");
    }

    #[test]
    fn clocks_may_be_offset_and_wrap_around() {
        let now = Instant::now();
        let mut ledbat = Ledbat::new(SEGMENT);
        ledbat.on_ack(now, 0, Some(u32::MAX - 10_000), true);
        for _ in 0..CURRENT_FILTER {
            assert!(ledbat.queueing_delay(now, 9_999) <= 20_000.0);
        }
        assert_eq!(ledbat.queueing_delay(now, 9_999), 20_000.0);
    }

    /// RFC 6817, 2.4.2: at most one halving a round trip.
    #[test]
    fn a_burst_of_losses_halves_once() {
        let now = Instant::now();
        let mut ledbat = Ledbat::new(SEGMENT);
        ledbat.window = 100_000.0;
        ledbat.on_loss(now, Duration::from_millis(200));
        ledbat.on_loss(now + Duration::from_millis(199), Duration::from_millis(200));
        assert_eq!(ledbat.window(), 50_000);
        ledbat.on_loss(now + Duration::from_millis(200), Duration::from_millis(200));
        assert_eq!(ledbat.window(), 25_000);
    }
}
