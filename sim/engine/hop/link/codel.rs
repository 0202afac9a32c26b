//! CoDel (RFC 8289): drops at the head of a queue in which packets wait for too long.

/// How long packets may wait (RFC 8289, 4.4).
const TARGET_NS: u64 = 5_000_000;

/// For how long they may wait longer than that: a worst-case round-trip time.
const INTERVAL_NS: u64 = 100_000_000;

/// What may wait without being a queue: one full packet.
const MAX_PACKET: usize = 1_500;

/// The state of the control law (RFC 8289, 5).
#[derive(Debug, Default)]
pub(super) struct CoDel {
    /// When the waits are to be shorter again, where they are too long.
    first_above_ns: Option<u64>,
    is_dropping: bool,
    drop_next_ns: u64,
    /// Drops since dropping began, and those of the time before.
    count: u32,
    last_count: u32,
}

impl CoDel {
    /// Whether the packet that gets to the head of the queue at `head_ns` after `wait_ns` is dropped.
    ///
    /// Packets are asked for in their order, when they enter: what comes before a packet is known by then, and decides
    /// when it is at the head. `waiting` is what waits before it, in bytes; RFC 8289 looks at what waits behind it.
    pub(super) fn drops(&mut self, head_ns: u64, wait_ns: u64, waiting: usize) -> bool {
        let is_above = self.is_above(head_ns, wait_ns, waiting);
        if self.is_dropping {
            if !is_above {
                self.is_dropping = false;
            } else if head_ns >= self.drop_next_ns {
                self.count += 1;
                self.drop_next_ns = next(self.drop_next_ns, self.count);
                return true;
            }
            return false;
        }
        if !is_above {
            return false;
        }
        self.is_dropping = true;
        // Where it dropped a short while ago, it goes on at that rate.
        let dropped = self.count - self.last_count;
        let is_recent = head_ns.saturating_sub(self.drop_next_ns) < 16 * INTERVAL_NS;
        self.count = if dropped > 1 && is_recent { dropped } else { 1 };
        self.drop_next_ns = next(head_ns, self.count);
        self.last_count = self.count;
        true
    }

    /// Whether packets have waited for too long, for long enough.
    fn is_above(&mut self, head_ns: u64, wait_ns: u64, waiting: usize) -> bool {
        if wait_ns < TARGET_NS || waiting <= MAX_PACKET {
            self.first_above_ns = None;
            return false;
        }
        head_ns >= *self.first_above_ns.get_or_insert(head_ns + INTERVAL_NS)
    }
}

/// The control law: the interval over the square root of the drops (which IEEE 754 rounds in one way only).
fn next(from_ns: u64, count: u32) -> u64 {
    from_ns + (INTERVAL_NS as f64 / f64::from(count).sqrt()) as u64
}
