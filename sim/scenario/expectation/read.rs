//! From `[[expect]]` tables to expectations.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::table::{BytesTable, ExpectTable, Frequency, PercentileTable};
use super::words::in_words;
use super::{Each, Expectation, ExpectationKind, Limits, Measure, Part, Percentile, ReplyValue, Times};
use crate::scenario::error::{Problems, suggestion};
use crate::scenario::fault::exactly_one;
use crate::scenario::model::Name;
use crate::scenario::program::{check_service, endpoint};
use crate::scenario::raw::{File, ProgramTable, Text};
use crate::scenario::topology::{Topology, defined};
use crate::scenario::units::Percentage;

/// Makes expectations of the file's tables, in its order.
pub(in crate::scenario) fn expectations(
    problems: &mut Problems,
    file: &File,
    topology: &Topology,
    limit: Duration,
) -> Vec<Expectation> {
    if let Some(within) = &file.head.within
        && !(Duration::from_nanos(1)..=limit).contains(&within.get_ref().0)
    {
        problems
            .add(within.span(), format!("expectations end within {:?}, and the run at {limit:?}", within.get_ref().0))
            .help("`within` is more than 0s and at most `time-limit`");
    }
    let mut reader = Reader { problems, file, topology, limit };
    file.expects.iter().filter_map(|table| reader.expectation(table)).collect()
}

/// When something counts.
#[derive(Debug, Clone, Copy)]
struct Window {
    after: Duration,
    within: Duration,
}

struct Reader<'a> {
    problems: &'a mut Problems,
    file: &'a File,
    topology: &'a Topology,
    limit: Duration,
}

impl Reader<'_> {
    fn expectation(&mut self, table: &Spanned<ExpectTable>) -> Option<Expectation> {
        let (table, span) = (table.get_ref(), table.span());
        let whole = Window { after: Duration::ZERO, within: self.limit };
        let mut window = self.window(table, whole, "the run");
        if let (None, Some(within)) = (&table.within, &self.file.head.within) {
            window.within = within.get_ref().0;
        }
        let kind = self.kind(table, span.clone(), window)?;
        let (line, file) = self.problems.line(&span);
        let Window { after, within } = window;
        let from = if after.is_zero() { String::new() } else { format!(", after {after:?}") };
        let text = format!("{}{from}, within {within:?}", in_words(&kind));
        Some(Expectation { kind, after, within, text, line, file })
    }

    /// A part's window lies in that of the whole, an expectation's in the run.
    fn window(&mut self, table: &ExpectTable, outer: Window, whole: &str) -> Window {
        let within = table.within.as_ref().map_or(outer.within, |within| within.get_ref().0);
        let after = table.after.as_ref().map_or(outer.after, |after| after.get_ref().0);
        if let Some(written) = &table.within {
            if within > outer.within {
                self.problems
                    .add(
                        written.span(),
                        format!("{whole} ends at {:?}, before this expectation's time is up", outer.within),
                    )
                    .help("raise `time-limit` at the top of the file, or shorten `within`");
            }
            if within.is_zero() {
                self.problems.add(written.span(), "nothing can happen within no time");
            }
        }
        if let Some(written) = &table.after {
            if after >= within && !within.is_zero() {
                self.problems
                    .add(written.span(), format!("nothing is both after {after:?} and within {within:?}"))
                    .help("both are from the beginning of the run: `after` is the earlier one");
            } else if after < outer.after {
                self.problems.add(written.span(), format!("{whole} begins at {:?}, after this", outer.after));
            }
        }
        Window { after, within }
    }

    fn kind(&mut self, table: &ExpectTable, span: Range<usize>, window: Window) -> Option<ExpectationKind> {
        let there = [
            ("reply", table.reply.is_some()),
            ("reached", table.reached.is_some()),
            ("failed", table.failed.is_some()),
            ("punched", table.punched.is_some()),
            ("found", table.found.is_some()),
            ("percentile", table.percentile.is_some()),
            ("bytes", table.bytes.is_some()),
            ("never", table.never.is_some()),
            ("all", table.all.is_some()),
            ("any", table.any.is_some()),
        ];
        if !exactly_one(self.problems, span, "expectation", &there) {
            return None;
        }
        if let Some(never) = &table.never {
            let part = self.part(never.get_ref(), never.span(), window)?;
            return Some(ExpectationKind::Never(Box::new(part)));
        }
        if let Some(all) = &table.all {
            return self.parts(all, window).map(ExpectationKind::All);
        }
        if let Some(any) = &table.any {
            return self.parts(any, window).map(ExpectationKind::Any);
        }
        if let Some(percentile) = &table.percentile {
            return self.percentile(percentile);
        }
        if let Some(bytes) = &table.bytes {
            return self.bytes(bytes);
        }
        self.event(table)
    }

    /// What happens in a moment, and can be counted.
    fn event(&mut self, table: &ExpectTable) -> Option<ExpectationKind> {
        if let Some(reply) = table.reply.as_ref().map(Spanned::get_ref) {
            let to = self.each(&reply.to, &["client"], reply.share.as_ref());
            let from = self.others(reply.from.as_ref(), &["worker", "broker"]);
            let value = match (&reply.value, &reply.contains) {
                (Some(_), Some(contains)) => {
                    self.problems
                        .add(contains.span(), "`value` and `contains` exclude each other")
                        .help("`value` is the whole reply, `contains` a part of it");
                    return None;
                }
                (Some(value), None) => ReplyValue::Is(value.0.clone()),
                (None, Some(contains)) => ReplyValue::Contains(contains.get_ref().0.clone()),
                (None, None) => ReplyValue::Any,
            };
            let (path, count) = (reply.path.map(Into::into), times(reply.count));
            return Some(ExpectationKind::Reply { from: from?, to: to?, value, path, count });
        }
        if let Some(reached) = table.reached.as_ref().map(Spanned::get_ref) {
            let by = self.each(&reached.by, &["client"], reached.share.as_ref());
            let at = self.others(reached.at.as_ref(), &["worker", "broker"]);
            let (path, count) = (reached.path.map(Into::into), times(reached.count));
            return Some(ExpectationKind::Reached { at: at?, by: by?, path, count });
        }
        if let Some(failed) = table.failed.as_ref().map(Spanned::get_ref) {
            let to = self.each(&failed.to, &["client"], failed.share.as_ref())?;
            let (error, count) = (failed.error.clone().unwrap_or_default(), times(failed.count));
            return Some(ExpectationKind::Failed { to, error, count });
        }
        if let Some(punched) = table.punched.as_ref().map(Spanned::get_ref) {
            let at = self.each(&punched.at, &["worker", "client"], punched.share.as_ref());
            let by = self.others(punched.by.as_ref(), &["worker", "client"]);
            return Some(ExpectationKind::Punched { at: at?, by: by?, count: times(punched.count) });
        }
        let found = table.found.as_ref()?.get_ref();
        check_service(self.problems, &found.service);
        let at = self.each(&found.at, &["lookup", "client", "worker"], found.share.as_ref())?;
        let address = match &found.address {
            Some(address) => Some(endpoint(self.problems, self.topology, at.names.first(), address)?),
            None => None,
        };
        let (service, count) = (found.service.get_ref().clone(), times(found.count));
        Some(ExpectationKind::Found { at, service, address, count })
    }

    fn percentile(&mut self, table: &Spanned<PercentileTable>) -> Option<ExpectationKind> {
        let (table, span) = (table.get_ref(), table.span());
        let to = self.each(&table.to, &["client"], None);
        let limits: Limits = [
            (Percentile::P50, table.p50),
            (Percentile::P75, table.p75),
            (Percentile::P90, table.p90),
            (Percentile::P95, table.p95),
            (Percentile::P99, table.p99),
            (Percentile::P999, table.p999),
            (Percentile::Max, table.max),
        ]
        .into_iter()
        .filter_map(|(percentile, limit)| Some((percentile, limit?.0)))
        .collect();
        if limits.is_empty() {
            self.problems
                .add(span, "no percentile is limited")
                .help("write at least one of: p50, p75, p90, p95, p99, p999, max");
            return None;
        }
        let of = Measure::from(*table.of.get_ref());
        let to = to?;
        let requests = self.requests(&to, of);
        if requests == 0 {
            self.problems
                .add(table.of.span(), format!("no client on `{}` has `connect = true`", to.called))
                .help("what is measured is how long a connector takes: choose \"latency\" or \"answer\"");
            return None;
        }
        Some(ExpectationKind::Percentile { of, to, requests, limits })
    }

    /// How many values of a measure the clients on these nodes give.
    fn requests(&self, to: &Each, of: Measure) -> usize {
        let mut requests = 0;
        let mut connected = std::collections::BTreeSet::new();
        for program in &self.file.programs {
            let ProgramTable::Client(client) = program.get_ref() else { continue };
            let node = client.node.get_ref().as_str();
            if to.names.binary_search_by(|name| (**name).cmp(node)).is_err() {
                continue;
            }
            match of {
                Measure::Latency | Measure::Answer => {
                    requests += client.requests.map_or(1, |requests| requests.count() as usize);
                }
                Measure::Connect => {
                    let connects = client.connect.as_ref().is_some_and(|connect| *connect.get_ref());
                    requests += usize::from(connects && connected.insert(node));
                }
            }
        }
        requests
    }

    fn bytes(&mut self, table: &Spanned<BytesTable>) -> Option<ExpectationKind> {
        let (table, span) = (table.get_ref(), table.span());
        let size = |size: &Option<Spanned<crate::scenario::units::Size>>| {
            size.as_ref().map(|size| u64::try_from(size.get_ref().0).unwrap_or(u64::MAX))
        };
        let (at_least, at_most) = (size(&table.at_least), size(&table.at_most));
        if at_least.is_none() && at_most.is_none() {
            self.problems
                .add(span, "the bytes are not limited")
                .help("write `at-most = \"10 kB\"`, `at-least = \"1 kB\"`, or both");
            return None;
        }
        if let (Some(least), Some(most), Some(written)) = (at_least, at_most, &table.at_least)
            && least > most
        {
            self.problems
                .add(written.span(), format!("{least} bytes at least and {most} at most: no number of bytes is both"));
        }
        let names = self.members(&table.through, true)?;
        let through = self.shared(&table.through, names, table.share.as_ref())?;
        Some(ExpectationKind::Bytes { through, at_least, at_most })
    }

    fn parts(&mut self, tables: &Spanned<Vec<Spanned<ExpectTable>>>, window: Window) -> Option<Vec<Part>> {
        if tables.get_ref().is_empty() {
            self.problems.add(tables.span(), "there is nothing in it").help("write at least one expectation in braces");
            return None;
        }
        let parts: Vec<Option<Part>> =
            tables.get_ref().iter().map(|part| self.part(part.get_ref(), part.span(), window)).collect();
        parts.into_iter().collect()
    }

    fn part(&mut self, table: &ExpectTable, span: Range<usize>, outer: Window) -> Option<Part> {
        let window = self.window(table, outer, "the whole");
        let kind = self.kind(table, span, window)?;
        Some(Part { kind, after: window.after, within: window.within })
    }

    /// The node or population that something must happen to, one that runs at least one of `kinds`.
    fn each(&mut self, name: &Text, kinds: &[&str], share: Option<&Spanned<Percentage>>) -> Option<Each> {
        let names = self.with(name, kinds)?;
        self.shared(name, names, share)
    }

    /// How many of some nodes are needed.
    fn shared(&mut self, name: &Text, names: Vec<Name>, share: Option<&Spanned<Percentage>>) -> Option<Each> {
        let needed = match share {
            None => names.len(),
            Some(share) if !self.is_population(name.get_ref()) => {
                self.problems
                    .add(share.span(), format!("`{}` is a single one, of which there is no share", name.get_ref()))
                    .help("leave `share` out, or name a population: a node or NAT with a `count`");
                return None;
            }
            Some(share) => {
                let billionths = (share.get_ref().0 * 1e9).round() as u128;
                let needed = (names.len() as u128 * billionths).div_ceil(1_000_000_000);
                if needed == 0 {
                    self.problems.add(share.span(), "a share of nothing is always met");
                }
                usize::try_from(needed).unwrap_or(names.len())
            }
        };
        Some(Each { called: name.get_ref().as_str().into(), names, needed })
    }

    /// The other side, which may be left out: then it is empty.
    fn others(&mut self, name: Option<&Text>, kinds: &[&str]) -> Option<Vec<Name>> {
        name.map_or(Some(Vec::new()), |name| self.with(name, kinds))
    }

    /// Nodes that each run at least one of `kinds`: on another, the expectation could never be met.
    fn with(&mut self, name: &Text, kinds: &[&str]) -> Option<Vec<Name>> {
        let nodes = self.members(name, false)?;
        let running: std::collections::BTreeSet<&str> = self
            .file
            .programs
            .iter()
            .map(Spanned::get_ref)
            .filter(|program| kinds.contains(&kind_name(program)))
            .map(|program| program.node().get_ref().as_str())
            .collect();
        if nodes.iter().all(|node| running.contains(&**node)) {
            return Some(nodes);
        }
        let names: Vec<&str> = self.topology.nodes.keys().map(|node| &**node).filter(|n| running.contains(n)).collect();
        let kinds = kinds.join(" or ");
        let help = suggestion(&format!("nodes with a {kinds}"), name.get_ref(), &names);
        self.problems.add(name.span(), format!("no {kinds} runs on `{}`", name.get_ref())).help(help);
        None
    }

    /// A node, or the nodes of a population; NATs too where they are meant. In the order of their names.
    fn members(&mut self, name: &Text, nats: bool) -> Option<Vec<Name>> {
        let is_nat = |name: &str| nats && self.topology.nats.contains_key(name);
        if let Some(population) = self.file.populations.get(name.get_ref()) {
            let members = population.members(name.get_ref());
            let known = members.filter(|name| is_nat(name) || self.topology.nodes.contains_key(name.as_str()));
            let mut names: Vec<Name> = known.map(Name::from).collect();
            if !names.is_empty() {
                names.sort();
                return Some(names);
            }
        }
        if is_nat(name.get_ref()) {
            return Some(vec![name.get_ref().as_str().into()]);
        }
        if nats && !self.topology.nodes.contains_key(name.get_ref().as_str()) {
            let names = self.topology.nodes.keys().chain(self.topology.nats.keys());
            let names: Vec<&str> = names.map(|name| &**name).collect();
            self.problems
                .add(name.span(), format!("there is no node or NAT `{}`", name.get_ref()))
                .help(suggestion("nodes and NATs in this file", name.get_ref(), &names))
                .label("not defined");
            return None;
        }
        defined(self.problems, "node", name, &self.topology.nodes).map(|name| vec![name])
    }

    fn is_population(&self, name: &str) -> bool {
        self.file.populations.get(name).is_some()
    }
}

fn times(written: Option<Frequency>) -> Times {
    written.map_or(Times::ONCE, |frequency| frequency.0)
}

fn kind_name(program: &ProgramTable) -> &'static str {
    match program {
        ProgramTable::Grape(_) => "grape",
        ProgramTable::Announce(_) => "announce",
        ProgramTable::Lookup(_) => "lookup",
        ProgramTable::Broker(_) => "broker",
        ProgramTable::Worker(_) => "worker",
        ProgramTable::Client(_) => "client",
        ProgramTable::StunServer(_) => "stun-server",
        ProgramTable::NatProbe(_) => "nat-probe",
        ProgramTable::Forward(_) => "forward",
    }
}
