//! From tables to faults.

use std::time::Duration;

use toml::Spanned;

use super::error::Problems;
use super::model::{Fault, FaultKind, Name};
use super::program::before_limit;
use super::raw::{FaultTable, File, Text};
use super::topology::{Topology, defined};

/// Makes faults of the file's tables, in its order.
pub(super) fn faults(problems: &mut Problems, file: &File, topology: &Topology, limit: Duration) -> Vec<Fault> {
    check_restarts(problems, file);
    check_crashes(problems, file);
    check_in_time(problems, file, limit);
    file.faults
        .iter()
        .filter_map(|table| {
            let (table, span) = (table.get_ref(), table.span());
            let at = before_limit(problems, Some(&table.at), limit, "the fault begins");
            let there = [
                ("partition", table.partition.is_some()),
                ("rebind", table.rebind.is_some()),
                ("crash", table.crash.is_some()),
                ("restart", table.restart.is_some()),
            ];
            if !exactly_one(problems, span, "fault", &there) {
                return None;
            }
            let kind = fault_kind(problems, topology, table)?;
            let lasts = table.lasts.as_ref().map(|lasts| lasts.get_ref().0);
            if let Some(lasts) = &table.lasts {
                if lasts.get_ref().0.is_zero() {
                    problems.add(lasts.span(), "a fault that lasts no time is none");
                }
                if matches!(kind, FaultKind::Rebind(_) | FaultKind::Restart(_)) {
                    problems
                        .add(lasts.span(), "this fault happens in a moment: it cannot last")
                        .help("leave `lasts` out; partition and crash have it");
                }
            }
            Some(Fault { at, lasts, kind })
        })
        .collect()
}

/// Only what crashed for good can start again.
fn check_restarts(problems: &mut Problems, file: &File) {
    let faults = || file.faults.iter().map(Spanned::get_ref);
    for restart in faults() {
        let Some(node) = &restart.restart else { continue };
        let crashed = faults().any(|fault| {
            let same = fault.crash.as_ref().is_some_and(|crashed| crashed.get_ref() == node.get_ref());
            same && fault.lasts.is_none() && fault.at.get_ref().0 < restart.at.get_ref().0
        });
        if !crashed {
            problems
                .add(node.span(), format!("`{}` is not down at this moment: it cannot be restarted", node.get_ref()))
                .help("crash it first, with a fault that has no `lasts`");
        }
    }
}

/// Only what is up can crash.
fn check_crashes(problems: &mut Problems, file: &File) {
    let faults = || file.faults.iter().map(Spanned::get_ref);
    let mut crashes: Vec<(&FaultTable, &Text)> =
        faults().filter_map(|fault| fault.crash.as_ref().map(|node| (fault, node))).collect();
    crashes.sort_by_key(|(fault, _)| fault.at.get_ref().0);
    for (index, (again, node)) in crashes.iter().enumerate() {
        let at = again.at.get_ref().0;
        let before = crashes[..index].iter().rev().find(|(_, other)| other.get_ref() == node.get_ref());
        let Some((earlier, first)) = before else { continue };
        let begun = earlier.at.get_ref().0;
        let restarted = faults().any(|fault| {
            let same = fault.restart.as_ref().is_some_and(|restarted| restarted.get_ref() == node.get_ref());
            let moment = fault.at.get_ref().0;
            same && begun < moment && moment < at
        });
        let up = match &earlier.lasts {
            Some(lasts) => begun.saturating_add(lasts.get_ref().0) <= at && begun < at,
            None => restarted,
        };
        if !up {
            problems
                .add(node.span(), format!("`{}` is down already at this moment: it cannot crash", node.get_ref()))
                .help("have it up again before: by a `restart`, or by a shorter `lasts` of the crash before")
                .label("crashes again")
                .also(first.span(), "is down from here on");
        }
    }
}

/// A run ends when its last expectation is decided, which is at the latest when its time is up: nothing begins later.
fn check_in_time(problems: &mut Problems, file: &File, limit: Duration) {
    let Some(end) = file
        .expects
        .iter()
        .map(|expect| {
            let within = expect.get_ref().within.as_ref().or(file.head.within.as_ref());
            within.map_or(limit, |within| within.get_ref().0)
        })
        .max()
    else {
        return;
    };
    for fault in file.faults.iter().map(Spanned::get_ref) {
        let at = fault.at.get_ref().0;
        // What is beyond the limit is told as that.
        if at > end && at < limit {
            problems
                .add(fault.at.span(), format!("this fault never happens: the run ends at {end:?} or before"))
                .help("a run ends when every expectation is decided: lengthen a `within`, or choose an earlier moment");
        }
    }
}

fn fault_kind(problems: &mut Problems, topology: &Topology, table: &FaultTable) -> Option<FaultKind> {
    if let Some(groups) = &table.partition {
        let [a, b] = groups.get_ref().as_slice() else {
            problems
                .add(
                    groups.span(),
                    format!("a partition is between two groups of nodes, not {}", groups.get_ref().len()),
                )
                .help("write partition = [[\"a\"], [\"b\", \"c\"]]");
            return None;
        };
        let mut named = Vec::new();
        for group in [a, b] {
            if group.get_ref().is_empty() {
                problems.add(group.span(), "a group of a partition has at least one node");
            }
            let nodes: Vec<Option<Name>> =
                group.get_ref().iter().map(|node| defined(problems, "node", node, &topology.nodes)).collect();
            named.push(nodes.into_iter().flatten().collect::<Vec<_>>());
        }
        if let Some(both) =
            b.get_ref().iter().find(|node| a.get_ref().iter().any(|other| other.get_ref() == node.get_ref()))
        {
            problems.add(both.span(), format!("`{}` is in both groups of the partition", both.get_ref()));
        }
        let b = named.pop()?;
        return Some(FaultKind::Partition(named.pop()?, b));
    }
    if let Some(nat) = &table.rebind {
        return defined(problems, "NAT", nat, &topology.nats).map(FaultKind::Rebind);
    }
    if let Some(node) = &table.crash {
        return defined(problems, "node", node, &topology.nodes).map(FaultKind::Crash);
    }
    let node = table.restart.as_ref()?;
    defined(problems, "node", node, &topology.nodes).map(FaultKind::Restart)
}

/// Whether exactly one of some keys is there; else a problem.
pub(super) fn exactly_one(
    problems: &mut Problems,
    span: std::ops::Range<usize>,
    what: &str,
    keys: &[(&str, bool)],
) -> bool {
    let all: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    let there: Vec<&str> = keys.iter().filter(|(_, there)| *there).map(|(key, _)| *key).collect();
    let message = match there.as_slice() {
        [_] => return true,
        [] => format!("the {what} says nothing"),
        several => format!("the {what} says several things: {}", several.join(", ")),
    };
    problems.add(span, message).help(format!("write one of: {}", all.join(", "))).label("this one");
    false
}
