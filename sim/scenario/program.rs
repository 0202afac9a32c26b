//! From tables to programs: what runs where, with which Grape and which ports.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::error::{Problems, suggestion};
use super::model::{Answer, Client, Name, Program, ProgramKind, Reach, Worker};
use super::raw::{self, ClientTable, File, ProgramTable, Text, WorkerTable};
use super::topology::{Topology, defined, shared};
use super::units::{Endpoint, Time};

/// How often a lookup that found nothing is tried again.
const DEFAULT_LOOKUP_EVERY: Duration = Duration::from_secs(1);

/// How long a client waits for a reply.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a client tries anew after a failure: enough for the service to be announced meanwhile.
const DEFAULT_RETRIES: u32 = 10;

/// Makes programs of the file's tables, in its order.
pub(super) fn programs(problems: &mut Problems, file: &File, topology: &Topology, limit: Duration) -> Vec<Program> {
    if file.programs.is_empty() {
        problems
            .add(0..0, "the scenario has no programs: nothing would happen")
            .help(format!("add a [[program]]; programs: {}", ProgramTable::KINDS.join(", ")))
            .label("no [[program]] in this file");
    }
    check_ports(problems, file);
    let mut api_ports = BTreeMap::new();
    for program in &file.programs {
        if let ProgramTable::Grape(grape) = program.get_ref() {
            api_ports.entry(grape.node.get_ref().as_str()).or_insert(grape.api_port.get_ref().port());
        }
    }
    super::six::check_programs(problems, file, topology);
    let mut reader = Reader { problems, topology, file, api_ports };
    file.programs
        .iter()
        .filter_map(|table| {
            let table = table.get_ref();
            let node = defined(reader.problems, "node", table.node(), &topology.nodes);
            let start = before_limit(reader.problems, table.start(), limit, "the program starts");
            // A program on no node is told; its other keys are read all the same, for their problems.
            let kind = reader.kind(table, node.as_ref());
            Some(Program { node: node?, start, kind: kind? })
        })
        .collect()
}

/// A moment, which must lie before the time limit.
pub(super) fn before_limit(
    problems: &mut Problems,
    written: Option<&Spanned<Time>>,
    limit: Duration,
    what: &str,
) -> Duration {
    let Some(written) = written else { return Duration::ZERO };
    let at = written.get_ref().0;
    if at >= limit {
        problems
            .add(written.span(), format!("{what} at {at:?}, but the run ends at {limit:?}"))
            .help("raise `time-limit` at the top of the file, or choose an earlier moment");
    }
    at
}

struct Reader<'a> {
    problems: &'a mut Problems,
    topology: &'a Topology,
    file: &'a File,
    /// The API port of each node's first Grape.
    api_ports: BTreeMap<&'a str, u16>,
}

impl Reader<'_> {
    fn kind(&mut self, table: &ProgramTable, node: Option<&Name>) -> Option<ProgramKind> {
        match table {
            ProgramTable::Grape(table) => {
                let bootstrap: Vec<_> = table
                    .bootstrap
                    .iter()
                    .filter_map(|entry| endpoint(self.problems, self.topology, node, entry))
                    .collect();
                Some(ProgramKind::Grape {
                    dht_port: table.dht_port.get_ref().port(),
                    api_port: table.api_port.get_ref().port(),
                    bootstrap,
                    kind: table.kind.into(),
                })
            }
            ProgramTable::Announce(table) => {
                let service = self.service(&table.service);
                let grape = self.grape(node, &table.node, table.grape.as_ref())?;
                Some(ProgramKind::Announce { grape, service, port: table.port.port() })
            }
            ProgramTable::Lookup(table) => {
                let service = self.service(&table.service);
                let every = self.some_time(table.every.as_ref(), DEFAULT_LOOKUP_EVERY);
                let grape = self.grape(node, &table.node, table.grape.as_ref())?;
                Some(ProgramKind::Lookup { grape, service, every })
            }
            ProgramTable::Broker(table) => {
                let service = self.service(&table.service);
                let grape = self.grape(node, &table.node, table.grape.as_ref())?;
                let port = table.port.as_ref().map_or(0, |port| port.get_ref().port());
                let alternate_port = table.alternate_port.as_ref().map(|port| port.get_ref().port());
                let relay = table.relay.unwrap_or(false);
                Some(ProgramKind::Broker { grape, service, port, alternate_port, relay })
            }
            ProgramTable::Worker(table) => self.worker(table, node).map(ProgramKind::Worker),
            ProgramTable::Client(table) => self.client(table, node).map(ProgramKind::Client),
            ProgramTable::StunServer(table) => table.kind(self.problems, self.topology, node),
            ProgramTable::NatProbe(table) => table.kind(self.problems, self.topology, node),
            ProgramTable::Forward(table) => table.kind(self.problems, self.topology, node),
        }
    }

    fn worker(&mut self, table: &WorkerTable, node: Option<&Name>) -> Option<Worker> {
        let service = self.service(&table.service);
        let punches = table.punches.as_ref().map(|name| self.service(name));
        let broker = table.broker.as_ref().map(|name| self.service(name));
        self.only_one(&[
            ("answer", table.answer.as_ref().map(Spanned::span)),
            ("reply", table.reply.as_ref().map(Spanned::span)),
            ("error", table.error.as_ref().map(Spanned::span)),
        ]);
        let answer = if let Some(value) = &table.reply {
            Answer::Value(value.get_ref().0.clone())
        } else if let Some(message) = &table.error {
            Answer::Error(message.get_ref().clone())
        } else {
            match table.answer.as_ref().map(Spanned::get_ref) {
                Some(raw::Answer::Fibonacci) => Answer::Fibonacci,
                Some(raw::Answer::Echo) | None => Answer::Echo,
            }
        };
        let announce = table.announce.unwrap_or(true);
        let needs_grape = announce || punches.is_some() || broker.is_some() || table.grape.is_some();
        let grape = self.grape_if(needs_grape, node, &table.node, table.grape.as_ref())?;
        let port = table.port.as_ref().map_or(0, |port| port.get_ref().port());
        let connect = self.connects(table.connect.as_ref(), broker.is_some());
        let ipv6 = table.ipv6.as_ref().is_some_and(|ipv6| *ipv6.get_ref());
        Some(Worker { grape, service, port, answer, announce, punches, broker, connect, ipv6 })
    }

    fn client(&mut self, table: &ClientTable, node: Option<&Name>) -> Option<Client> {
        let service = self.service(&table.service);
        let punch = table.punch.as_ref().filter(|punch| *punch.get_ref());
        self.only_one(&[
            ("punch", punch.map(Spanned::span)),
            ("announce", table.announce.as_ref().map(Spanned::span)),
            ("broker", table.broker.as_ref().map(Spanned::span)),
            ("at", table.at.as_ref().map(Spanned::span)),
        ]);
        let connect = self.connects(table.connect.as_ref(), table.broker.is_some());
        let reach = if let Some(name) = &table.announce {
            Reach::AwaitPunch { announce: self.service(name) }
        } else if let Some(name) = &table.broker {
            let broker = self.service(name);
            if connect { Reach::Connect { broker } } else { Reach::Broker { broker } }
        } else if punch.is_some() {
            Reach::Punch
        } else if let Some(at) = &table.at {
            Reach::Address(super::six::endpoint(self.problems, self.topology, node?, at)?)
        } else {
            Reach::Lookup
        };
        let timeout = self.some_time(table.timeout.as_ref(), DEFAULT_TIMEOUT);
        let needs_grape = table.at.is_none() || table.grape.is_some();
        let grape = self.grape_if(needs_grape, node, &table.node, table.grape.as_ref())?;
        Some(Client {
            grape,
            service,
            port: table.port.as_ref().map_or(0, |port| port.get_ref().port()),
            reach,
            payload: table.payload.0.clone(),
            requests: table.requests.map_or(1, |requests| requests.count()),
            timeout,
            retries: table.retries.map_or(DEFAULT_RETRIES, |retries| retries.count()),
        })
    }

    /// Whether a program connects by every way, for which it needs a broker.
    fn connects(&mut self, written: Option<&Spanned<bool>>, has_broker: bool) -> bool {
        let Some(written) = written.filter(|written| *written.get_ref()) else { return false };
        if !has_broker {
            self.problems
                .add(written.span(), "`connect` needs a broker")
                .help("write `broker = \"SERVICE\"`, the broker that introduces the two");
        }
        has_broker
    }

    /// A service's name: anything but nothing.
    fn service(&mut self, name: &Text) -> String {
        check_service(self.problems, name);
        name.get_ref().clone()
    }

    /// A duration that cannot be zero.
    fn some_time(&mut self, written: Option<&Spanned<Time>>, default: Duration) -> Duration {
        let Some(written) = written else { return default };
        if written.get_ref().0.is_zero() {
            self.problems.add(written.span(), "this cannot be 0: write a duration such as \"1s\"");
        }
        written.get_ref().0
    }

    /// Tells where more than one of some keys that exclude each other is there.
    fn only_one(&mut self, keys: &[(&str, Option<Range<usize>>)]) {
        let mut there = keys.iter().filter_map(|(key, span)| span.clone().map(|span| (key, span)));
        if let (Some((first, first_span)), Some((second, second_span))) = (there.next(), there.next()) {
            let all: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
            self.problems
                .add(second_span, format!("`{first}` and `{second}` exclude each other"))
                .also(first_span, "the other")
                .help(format!("write at most one of: {}", all.join(", ")));
        }
    }

    /// The Grape of a program that may need none: then that on its node, if there is one. `None` is a problem.
    #[expect(clippy::option_option, reason = "the outer one is whether there was a problem")]
    fn grape_if(
        &mut self,
        needed: bool,
        node: Option<&Name>,
        at: &Text,
        written: Option<&Text>,
    ) -> Option<Option<SocketAddrV4>> {
        if needed || self.api_port(node?).is_some() { self.grape(node, at, written).map(Some) } else { Some(None) }
    }

    /// The API of the Grape that a program on `node` uses.
    fn grape(&mut self, node: Option<&Name>, at: &Text, written: Option<&Text>) -> Option<SocketAddrV4> {
        let Some(written) = written else {
            let node = node?;
            let Some(api_port) = self.api_port(node) else {
                if self.problems.is_told(&at.span()) {
                    return None;
                }
                let help = self.nodes_with_grapes(node);
                self.problems
                    .add(at.span(), format!("there is no Grape on `{node}`, and the program names none"))
                    .help(format!("write `grape = \"NODE\"`, or run a Grape on `{node}`; {help}"));
                return None;
            };
            return Some(SocketAddrV4::new(self.topology.address_seen(node, node), api_port));
        };
        let text = written.get_ref();
        if text.contains(':') {
            let Ok(address) = SocketAddrV4::from_str(text) else {
                self.problems
                    .add(written.span(), format!("`{text}` is neither a node nor an address of a Grape's HTTP API"))
                    .help("write a node's name, or \"IP:PORT\"");
                return None;
            };
            if address.port() == 0 {
                self.problems.add(written.span(), "0 is not a port: a port is from 1 to 65535");
            }
            return Some(address);
        }
        let target = defined(self.problems, "node", written, &self.topology.nodes)?;
        let Some(api_port) = self.api_port(&target) else {
            if self.problems.is_told(&written.span()) {
                return None;
            }
            let help = self.nodes_with_grapes(&target);
            self.problems.add(written.span(), format!("there is no Grape on `{target}`")).help(help);
            return None;
        };
        Some(SocketAddrV4::new(self.topology.address_seen(node?, &target), api_port))
    }

    /// The API port of a node's first Grape.
    fn api_port(&self, node: &Name) -> Option<u16> {
        self.api_ports.get(&**node).copied()
    }

    fn nodes_with_grapes(&self, got: &str) -> String {
        let mut nodes: Vec<&str> = Vec::new();
        for program in &self.file.programs {
            if let ProgramTable::Grape(grape) = program.get_ref()
                && self.api_ports.contains_key(grape.node.get_ref().as_str())
                && nodes.last() != Some(&grape.node.get_ref().as_str())
            {
                nodes.push(grape.node.get_ref());
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        nodes.retain(|node| seen.insert(*node));
        suggestion("nodes with Grapes", got, &nodes)
    }
}

/// A service's name is not empty.
pub(super) fn check_service(problems: &mut Problems, name: &Text) {
    if name.get_ref().is_empty() {
        problems.add(name.span(), "a service's name cannot be empty");
    }
}

/// The address that an `"IP:PORT"` or `"NODE:PORT"` means to a program on `viewer`.
pub(super) fn endpoint(
    problems: &mut Problems,
    topology: &Topology,
    viewer: Option<&Name>,
    written: &Spanned<Endpoint>,
) -> Option<SocketAddrV4> {
    match written.get_ref() {
        Endpoint::Address(address) => Some(*address),
        Endpoint::Node(name, port) => {
            let name = Spanned::new(written.span(), name.clone());
            let target = defined(problems, "node", &name, &topology.nodes)?;
            let address = viewer.map_or(Ipv4Addr::UNSPECIFIED, |viewer| topology.address_seen(viewer, &target));
            Some(SocketAddrV4::new(address, *port))
        }
    }
}

/// Two programs on a node cannot have the same port.
fn check_ports(problems: &mut Problems, file: &File) {
    let mut taken: BTreeMap<(Name, &str, u16), Range<usize>> = BTreeMap::new();
    for program in &file.programs {
        let table = program.get_ref();
        let mut ports: Vec<(&str, u16, Range<usize>)> = Vec::new();
        let any = |port: &Option<Spanned<super::units::PortOrAny>>| {
            port.as_ref().filter(|port| port.get_ref().0 != 0).map(|port| ("UDP", port.get_ref().port(), port.span()))
        };
        match table {
            ProgramTable::Grape(grape) => {
                ports.push(("UDP", grape.dht_port.get_ref().port(), grape.dht_port.span()));
                ports.push(("TCP", grape.api_port.get_ref().port(), grape.api_port.span()));
            }
            ProgramTable::Broker(broker) => {
                ports.extend(any(&broker.port));
                ports.extend(broker.alternate_port.as_ref().map(|port| ("UDP", port.get_ref().port(), port.span())));
            }
            ProgramTable::Worker(worker) => ports.extend(any(&worker.port)),
            ProgramTable::Client(client) => ports.extend(any(&client.port)),
            ProgramTable::StunServer(server) => {
                let spans = [&server.port, &server.alternate_port].map(|port| port.as_ref().map(Spanned::span));
                let spans = spans.map(|span| span.unwrap_or(server.node.span()));
                ports.extend(server.ports().into_iter().zip(spans).map(|(port, span)| ("UDP", port, span)));
            }
            ProgramTable::Announce(_)
            | ProgramTable::Lookup(_)
            | ProgramTable::NatProbe(_)
            | ProgramTable::Forward(_) => {}
        }
        for (protocol, port, span) in ports {
            let key = (shared(table.node()), protocol, port);
            if let Some(other) = taken.get(&key) {
                problems
                    .add(span, format!("{protocol} port {port} on `{}` is used twice", table.node().get_ref()))
                    .label("used again")
                    .also(other.clone(), "used here already");
            } else {
                taken.insert(key, span);
            }
        }
    }
}
