//! From tables to faults.

use std::time::Duration;

use toml::Spanned;

use super::error::Problems;
use super::model::Name;
use super::program::before_limit;
use super::raw::{File, ProgramTable, Text};
use super::topology::{Topology, defined};

pub(crate) mod model;
pub(super) mod table;

use model::{Degradation, Fault, FaultKind, Move};
use table::{ClockTable, DegradeTable, FaultTable, MoveTable};

/// How often one fault may happen within the time limit.
const MAX_OCCURRENCES: usize = 10_000;

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
                ("reboot", table.reboot.is_some()),
                ("crash", table.crash.is_some()),
                ("restart", table.restart.is_some()),
                ("pause", table.pause.is_some()),
                ("down", table.down.is_some()),
                ("degrade", table.degrade.is_some()),
                ("clock", table.clock.is_some()),
                ("move", table.moves.is_some()),
                ("outage", table.outage.is_some()),
            ];
            if !exactly_one(problems, span, "fault", &there) {
                return None;
            }
            let kind = Reader { problems, file, topology }.kind(table)?;
            let lasts = table.lasts.as_ref().map(|lasts| lasts.get_ref().0);
            if let Some(lasts) = &table.lasts {
                if lasts.get_ref().0.is_zero() {
                    problems.add(lasts.span(), "a fault that lasts no time is none");
                }
                if kind.is_of_a_moment() {
                    problems
                        .add(lasts.span(), "this fault happens in a moment: it cannot last")
                        .help("leave `for` out; all but `rebind` and `restart` have it");
                }
            }
            let every = table.every.as_ref().map(|every| every.get_ref().0);
            let times = table.times.as_ref().map(|times| times.get_ref().count());
            let fault = Fault { at, lasts, every, times, kind };
            check_repetition(problems, table, &fault, limit);
            Some(fault)
        })
        .collect()
}

/// A fault that begins again has ended before, and does not begin without end.
fn check_repetition(problems: &mut Problems, table: &FaultTable, fault: &Fault, limit: Duration) {
    let Some(every) = &table.every else {
        if let Some(times) = &table.times {
            problems
                .add(times.span(), "`times` needs `every`")
                .help("write every = \"10s\", from one beginning to the next");
        }
        return;
    };
    let time = every.get_ref().0;
    if time.is_zero() {
        problems.add(every.span(), "a fault cannot happen again after no time");
        return;
    }
    let repeats = matches!(fault.kind, FaultKind::Reboot(_)) || fault.kind.is_of_a_moment();
    match &table.lasts {
        None if !repeats => {
            problems
                .add(every.span(), "a fault that never ends cannot begin again")
                .help("write `for`, how long it goes on each time");
        }
        Some(lasts) if lasts.get_ref().0 >= time => {
            problems
                .add(every.span(), format!("the fault begins again after {time:?}, but lasts {:?}", lasts.get_ref().0))
                .help("choose an `every` that is longer than `for`")
                .also(lasts.span(), "how long it lasts");
        }
        _ => {}
    }
    if fault.occurrences(limit).nth(MAX_OCCURRENCES).is_some() {
        problems
            .add(every.span(), format!("the fault happens more than {MAX_OCCURRENCES} times until {limit:?}"))
            .help("choose a longer `every`, or write `times`");
    }
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
                .help("crash it first, with a fault that has no `for`");
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
                .help("have it up again before: by a `restart`, or by a shorter `for` of the crash before")
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

struct Reader<'a> {
    problems: &'a mut Problems,
    file: &'a File,
    topology: &'a Topology,
}

impl Reader<'_> {
    fn kind(&mut self, table: &FaultTable) -> Option<FaultKind> {
        if let Some(groups) = &table.partition {
            return self.partition(groups);
        }
        if let Some(table) = &table.degrade {
            return self.degrade(table);
        }
        if let Some(table) = &table.clock {
            return self.clock(table);
        }
        if let Some(table) = &table.moves {
            return self.moves(table.get_ref()).map(FaultKind::Move);
        }
        if let Some(name) = &table.down {
            return self.node_or_nat(name).map(FaultKind::Down);
        }
        if let Some(node) = &table.outage {
            return self.grape(node).map(FaultKind::GrapeOutage);
        }
        let nats: [(_, fn(Name) -> FaultKind); 2] =
            [(&table.rebind, FaultKind::Rebind), (&table.reboot, FaultKind::Reboot)];
        for (nat, kind) in nats {
            if let Some(nat) = nat {
                return defined(self.problems, "NAT", nat, &self.topology.nats).map(kind);
            }
        }
        let nodes: [(_, fn(Name) -> FaultKind); 3] =
            [(&table.crash, FaultKind::Crash), (&table.restart, FaultKind::Restart), (&table.pause, FaultKind::Pause)];
        let (node, kind) = nodes.into_iter().find_map(|(node, kind)| Some((node.as_ref()?, kind)))?;
        self.node(node).map(kind)
    }

    fn partition(&mut self, groups: &Spanned<Vec<Spanned<Vec<Text>>>>) -> Option<FaultKind> {
        let [a, b] = groups.get_ref().as_slice() else {
            self.problems
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
                self.problems.add(group.span(), "a group of a partition has at least one node");
            }
            let nodes: Vec<Option<Name>> = group.get_ref().iter().map(|node| self.node(node)).collect();
            named.push(nodes.into_iter().flatten().collect::<Vec<_>>());
        }
        if let Some(both) =
            b.get_ref().iter().find(|node| a.get_ref().iter().any(|other| other.get_ref() == node.get_ref()))
        {
            self.problems.add(both.span(), format!("`{}` is in both groups of the partition", both.get_ref()));
        }
        let b = named.pop()?;
        Some(FaultKind::Partition(named.pop()?, b))
    }

    fn degrade(&mut self, table: &Spanned<DegradeTable>) -> Option<FaultKind> {
        let (table, span) = (table.get_ref(), table.span());
        let name = match (&table.node, &table.nat) {
            (Some(node), None) => self.node(node),
            (None, Some(nat)) => defined(self.problems, "NAT", nat, &self.topology.nats),
            _ => {
                self.problems
                    .add(span, "a degradation is of the link of one node or one NAT")
                    .help("write one of `node` and `nat`, such as degrade = { node = \"a\", loss = \"5%\" }");
                return None;
            }
        };
        let change = Degradation {
            latency: table.latency.map_or(Duration::ZERO, |latency| latency.0),
            jitter: table.jitter.as_ref().map_or(Duration::ZERO, |jitter| jitter.get_ref().0),
            loss: table.loss.map_or(0.0, |loss| loss.0),
            rate: table.rate.map(|rate| rate.0),
        };
        if let Some(jitter) = table.jitter.as_ref().filter(|_| change.jitter > change.latency) {
            self.problems
                .add(
                    jitter.span(),
                    format!("a jitter of {:?} is more than the latency of {:?}", change.jitter, change.latency),
                )
                .help("what is added is latency ± jitter, and never less than nothing: write a `latency` as well");
        }
        if change == Degradation::default() {
            self.problems.add(span, "this degradation changes nothing").help("write `latency`, `loss` or `rate`");
        }
        Some(FaultKind::Degrade(name?, change))
    }

    fn clock(&mut self, table: &Spanned<ClockTable>) -> Option<FaultKind> {
        let (table, span) = (table.get_ref(), table.span());
        let (skew_us, drift_ppm) = (table.skew.map_or(0, |skew| skew.0), table.drift.map_or(0, |drift| drift.0));
        if skew_us == 0 && drift_ppm == 0 {
            self.problems.add(span, "this clock is right").help("write `skew` or `drift`, such as drift = \"100ppm\"");
        }
        Some(FaultKind::Clock { node: self.node(&table.node)?, skew_us, drift_ppm })
    }

    fn moves(&mut self, table: &MoveTable) -> Option<Move> {
        let node = self.node(&table.node)?;
        let behind = match &table.behind {
            Some(nat) => Some(defined(self.problems, "NAT", nat, &self.topology.nats)?),
            None => None,
        };
        let link = match &table.link {
            Some(link) => Some(defined(self.problems, "link", link, &self.topology.links)?),
            None => None,
        };
        let nat = behind.as_ref().and_then(|nat| self.topology.nats.get(nat));
        if let (Some(address), Some(nat)) = (&table.address, nat)
            && !nat.lan.contains(&address.get_ref().0)
        {
            self.problems
                .add(
                    address.span(),
                    format!("{} is not an address in the LAN {} of the NAT", address.get_ref().0, nat.lan),
                )
                .help("leave `address` out for the next free one");
        }
        if let (Some(address), Some(nat)) = (&table.address6, nat)
            && !nat.lan6.is_some_and(|lan6| lan6.contains(&address.get_ref().0))
        {
            self.problems
                .add(address.span(), format!("{} is not an address in the NAT's IPv6 network", address.get_ref().0))
                .help("leave `address6` out for the next free one");
        }
        let (address, address6) = (
            table.address.as_ref().map(|address| address.get_ref().0),
            table.address6.as_ref().map(|address| address.get_ref().0),
        );
        let taken_by_node = self.topology.nodes.iter().find(|(name, other)| {
            **name != node
                && other.behind == behind
                && (address == Some(other.address) || address6.is_some() && address6 == other.address6)
        });
        let taken_by_nat =
            self.topology.nats.iter().find(|(_, nat)| nat.behind == behind && address == Some(nat.address));
        if let Some(other) = taken_by_node.map(|(name, _)| name).or(taken_by_nat.map(|(name, _)| name)) {
            let span = table.address.as_ref().map_or(table.node.span(), Spanned::span);
            self.problems
                .add(span, format!("this address is that of `{other}`"))
                .help("leave it out for the next free one");
        }
        Some(Move { node, behind, address, address6, link })
    }

    fn grape(&mut self, node: &Text) -> Option<Name> {
        let name = self.node(node)?;
        let has = self.file.programs.iter().any(|program| match program.get_ref() {
            ProgramTable::Grape(grape) => grape.node.get_ref() == node.get_ref(),
            _ => false,
        });
        if !has {
            self.problems
                .add(node.span(), format!("there is no Grape on `{name}`"))
                .help("an outage is of the Grape on a node: name one with a program that runs \"grape\"");
        }
        Some(name)
    }

    fn node(&mut self, name: &Text) -> Option<Name> {
        defined(self.problems, "node", name, &self.topology.nodes)
    }

    fn node_or_nat(&mut self, name: &Text) -> Option<Name> {
        match self.topology.nats.get_key_value(name.get_ref().as_str()) {
            Some((name, _)) => Some(name.clone()),
            None => self.node(name),
        }
    }
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
