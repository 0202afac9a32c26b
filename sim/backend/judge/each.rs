//! A state for each of the nodes that an expectation is about, and when that is enough.

use std::collections::BTreeMap;

use crate::scenario::model::{Each, Name};

/// Where one of them stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Met,
    Failed,
}

/// What is counted for each of some nodes.
#[derive(Debug)]
pub(super) struct PerNode<T> {
    nodes: BTreeMap<Name, (T, Standing)>,
    needed: usize,
    met: usize,
    failed: usize,
}

impl<T: Default> PerNode<T> {
    pub(super) fn new(each: &Each) -> Self {
        let nodes = each.names.iter().map(|name| (name.clone(), (T::default(), Standing::Open))).collect();
        Self { nodes, needed: each.needed, met: 0, failed: 0 }
    }

    /// What is counted for a node, where it is one of them and not decided.
    pub(super) fn open(&mut self, node: &Name) -> Option<&mut T> {
        self.nodes.get_mut(node).filter(|(_, standing)| *standing == Standing::Open).map(|(counted, _)| counted)
    }

    /// Decides a node, and the whole where that is enough.
    pub(super) fn decide(&mut self, node: &Name, met: bool) -> Option<bool> {
        let (_, standing) = self.nodes.get_mut(node)?;
        (*standing, self.met, self.failed) = if met {
            (Standing::Met, self.met + 1, self.failed)
        } else {
            (Standing::Failed, self.met, self.failed + 1)
        };
        if self.met >= self.needed {
            Some(true)
        } else if self.nodes.len() - self.failed < self.needed {
            Some(false)
        } else {
            None
        }
    }

    /// Whether enough are met, those that are open judged by `end`.
    pub(super) fn end(&self, end: impl Fn(&T) -> bool) -> bool {
        self.met_at_end(end) >= self.needed
    }

    /// How many are met, those that are open judged by `end`.
    pub(super) fn met_at_end(&self, end: impl Fn(&T) -> bool) -> usize {
        let is_met = |(counted, standing): &&(T, Standing)| match standing {
            Standing::Open => end(counted),
            Standing::Met => true,
            Standing::Failed => false,
        };
        self.nodes.values().filter(is_met).count()
    }

    /// How many there are, and how many of them must be met.
    pub(super) fn all_and_needed(&self) -> (usize, usize) {
        (self.nodes.len(), self.needed)
    }

    /// The only one, where there is one only.
    pub(super) fn only(&self) -> Option<&T> {
        let mut values = self.nodes.values();
        values.next().filter(|_| self.nodes.len() == 1).map(|(counted, _)| counted)
    }

    /// The first that is not met at the end, for a reason.
    pub(super) fn first_unmet(&self, end: impl Fn(&T) -> bool) -> Option<&Name> {
        let unmet = |(counted, standing): &(T, Standing)| match standing {
            Standing::Open => !end(counted),
            Standing::Met => false,
            Standing::Failed => true,
        };
        self.nodes.iter().find(|(_, state)| unmet(state)).map(|(name, _)| name)
    }
}
