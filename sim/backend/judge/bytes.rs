//! How many bytes pass through a node or a NAT.

use super::condition::{Rule, Verdict};
use super::each::PerNode;
use super::facts::{Fact, Facts};
use crate::scenario::model::Each;

/// Adds up the packets of each node or NAT.
#[derive(Debug)]
pub(super) struct Bytes {
    at_least: u64,
    at_most: Option<u64>,
    passed: PerNode<u64>,
}

impl Bytes {
    pub(super) fn new(through: &Each, at_least: Option<u64>, at_most: Option<u64>) -> Self {
        Self { at_least: at_least.unwrap_or_default(), at_most, passed: PerNode::new(through) }
    }

    /// Whether so many bytes by the end are as it must be.
    fn is_enough(&self, bytes: u64) -> bool {
        bytes >= self.at_least && self.at_most.is_none_or(|most| bytes <= most)
    }
}

impl Rule for Bytes {
    fn see(&mut self, _: &Facts, fact: &Fact<'_>) -> Verdict {
        let Fact::Passed { through, packet, size } = fact else { return None };
        let bytes = self.passed.open(through)?;
        *bytes = bytes.saturating_add(*size as u64);
        let met = match self.at_most {
            None if *bytes >= self.at_least => true,
            Some(most) if *bytes > most => false,
            _ => return None,
        };
        let words = format!("packet {packet} of {size} bytes made it {bytes} bytes through {through}");
        self.passed.decide(through, met).map(|met| (met, words))
    }

    fn end(&self) -> bool {
        self.passed.end(|bytes| self.is_enough(*bytes))
    }

    fn standing(&self) -> String {
        match (self.passed.only(), self.passed.all_and_needed()) {
            (Some(bytes), _) => format!(": {bytes} bytes passed"),
            (None, (all, needed)) => {
                let met = self.passed.met_at_end(|bytes| self.is_enough(*bytes));
                format!(": so it was for {met} of {all}, and {needed} are needed")
            }
        }
    }
}
