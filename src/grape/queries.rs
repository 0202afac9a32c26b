//! Queries of ours that wait for an answer.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::node::OperationId;

/// How long an answer may take. A query is not repeated: another node will do.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Whom a query went to, and for which operation (`None`: a ping, to see whether the node lives).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) to: SocketAddrV4,
    pub(super) operation: Option<OperationId>,
}

/// By transaction id: a counter of two bytes from 1, as the reference has it; 0 is never used.
///
/// Operations and the routing table are bounded, so that there is always a free one of the 65,535.
#[derive(Debug, Default)]
pub(super) struct Queries {
    last: u16,
    waiting: BTreeMap<u16, (Instant, Asked)>,
    /// In the order of their timeouts, which is that of their sending; answered ones included.
    deadlines: VecDeque<(Instant, u16)>,
}

impl Queries {
    /// Takes note of a query that is sent now; gives its transaction id.
    pub(super) fn add(&mut self, now: Instant, asked: Asked) -> [u8; 2] {
        for _ in 0..=u16::MAX {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.waiting.contains_key(&self.last) {
                break;
            }
        }
        let deadline = now + TIMEOUT;
        self.waiting.insert(self.last, (deadline, asked));
        self.deadlines.push_back((deadline, self.last));
        self.last.to_be_bytes()
    }

    /// The query that a reply from this address with this transaction id is for.
    pub(super) fn take(&mut self, transaction: &[u8], from: SocketAddrV4) -> Option<Asked> {
        let transaction = u16::from_be_bytes(transaction.try_into().ok()?);
        let (_, asked) = self.waiting.get(&transaction)?;
        if asked.to != from {
            return None;
        }
        let (_, asked) = self.waiting.remove(&transaction)?;
        self.skip_answered();
        Some(asked)
    }

    /// The next query whose time is over.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Asked> {
        let (deadline, transaction) = *self.deadlines.front()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_front();
        let (_, asked) = self.waiting.remove(&transaction)?;
        self.skip_answered();
        Some(asked)
    }

    /// When the next query's time is over.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Keeps the front of the deadlines a query that is still waiting.
    fn skip_answered(&mut self) {
        while let Some((deadline, transaction)) = self.deadlines.front() {
            if self.waiting.get(transaction).is_some_and(|(waiting, _)| waiting == deadline) {
                break;
            }
            self.deadlines.pop_front();
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn asked(port: u16) -> Asked {
        Asked { to: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), operation: None }
    }

    #[test]
    fn ids_count_from_one_and_skip_zero_and_those_in_use() {
        let (now, mut queries) = (Instant::now(), Queries::default());
        assert_eq!(queries.add(now, asked(1)), [0, 1]);
        for _ in 2..=u16::MAX {
            let id = queries.add(now, asked(2));
            assert!(queries.take(&id, asked(2).to).is_some());
        }
        assert_eq!(queries.add(now, asked(3)), [0, 2]);
    }

    #[test]
    fn an_answer_must_come_from_whom_was_asked_and_in_time() {
        let (now, mut queries) = (Instant::now(), Queries::default());
        let id = queries.add(now, asked(1));
        assert_eq!(queries.take(&id, asked(2).to), None);
        assert_eq!(queries.take(&[0, 0, 1], asked(1).to), None);
        assert_eq!(queries.expired(now + TIMEOUT - Duration::from_nanos(1)), None);
        assert_eq!(queries.expired(now + TIMEOUT), Some(asked(1)));
        assert_eq!(queries.take(&id, asked(1).to), None);
        assert_eq!(queries.next_timeout(), None);
    }

    #[test]
    fn an_answered_query_does_not_time_out() {
        let (now, mut queries) = (Instant::now(), Queries::default());
        let first = queries.add(now, asked(1));
        queries.add(now + Duration::from_secs(1), asked(2));
        queries.take(&first, asked(1).to);
        assert_eq!(queries.next_timeout(), Some(now + Duration::from_secs(1) + TIMEOUT));
        assert_eq!(queries.expired(now + Duration::from_secs(9)), Some(asked(2)));
        assert_eq!(queries.expired(now + Duration::from_secs(9)), None);
    }
}
