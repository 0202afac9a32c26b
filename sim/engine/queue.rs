//! What happens when: a heap of events, those of the same moment in the order in which they were scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events of type `T` by time. Without a limit of its own: packets in flight are bounded by who sends them.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// (time in nanoseconds, sequence, slot)
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// The events' bodies, so that the heap moves only keys.
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    scheduled: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), scheduled: 0 }
    }

    /// Schedules an event.
    pub(crate) fn push(&mut self, at_ns: u64, event: T) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 events are pending")
            }
        };
        self.heap.push(Reverse((at_ns, self.scheduled, slot)));
        self.scheduled += 1;
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next event if it is due before `end_ns`.
    pub(crate) fn pop_before(&mut self, end_ns: u64) -> Option<(u64, T)> {
        if self.next_at()? >= end_ns {
            return None;
        }
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize].take().expect("a scheduled slot is filled");
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_order() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd'), (9, 'e')] {
            queue.push(at, event);
        }
        assert_eq!(queue.next_at(), Some(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop_before(9)).collect();
        assert_eq!(order, [(3, 'b'), (3, 'd'), (5, 'a'), (5, 'c')]);
        assert_eq!(queue.pop_before(9), None);
        queue.push(9, 'f');
        assert_eq!(queue.pop_before(10), Some((9, 'e')));
        assert_eq!(queue.pop_before(10), Some((9, 'f')));
    }
}
