//! Runs scenarios over real UDP and TCP sockets on this machine's loopback addresses.
//!
//! Every node becomes an address of its own in 127.0.0.0/8 and keeps its ports; the addresses in the file are
//! translated to these. There are no links and no NATs here, so that a file with either is refused.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use grenache::event::Event as StackEvent;
use grenache::net::{BoxFuture, HostNetwork, HttpClient, Net, Network, Rng, Task, TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::director::{Court, Stage, direct};
use super::programs::ProgramError;
use super::{BackendError, judge, outside};
use crate::event::{Event, LabEvent, Record};
use crate::report::Outcome;
use crate::scenario::Scenario;
use crate::scenario::model::{ExpectationKind, FaultKind, Name, ProgramKind, Reach};

/// The most nodes that a scenario may have here: they are in a /16 of the process's own.
const MAX_NODES: usize = 60_000;

/// The address before the first node's; the others follow. Another process has others, as good as always: two runs of
/// one scenario on a machine would find each other's programs at its ports.
fn base_address() -> Ipv4Addr {
    // 127.0.0.0/16 is left to everything else.
    let second = u8::try_from(1 + std::process::id() % 254).expect("at most 254");
    Ipv4Addr::new(127, second, 1, 0)
}

pub(super) fn run(scenario: &Scenario, mut observer: impl FnMut(&Record)) -> Result<Outcome, BackendError> {
    refuse_what_is_missing(scenario)?;
    let scenario = on_loopback(scenario)?;
    let court = Court::new(&scenario);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (log, lasted) = runtime.block_on(async {
        outside::check(&scenario).await?;
        let log = Arc::new(Log { start: Instant::now(), records: Mutex::default(), court: court.clone() });
        let host = HostNetwork::new();
        let hosts = scenario
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), LoopbackNetwork::new(&host, name, node.address, &log)))
            .collect();
        let stage = LoopbackStage { log: log.clone(), hosts };
        direct(&stage, &scenario, &court).await;
        Ok::<_, BackendError>((log, stage.now()))
    })?;
    // Ends every task and closes every socket; Grapes outside of this process end with their tasks.
    drop(runtime);
    for record in log.records().drain(..) {
        observer(&record);
    }
    Ok(super::outcome(court, lasted))
}

/// Refuses a file that this backend would run without its NATs, links or faults.
fn refuse_what_is_missing(scenario: &Scenario) -> Result<(), BackendError> {
    let missing = if let Some(name) = scenario.nats.keys().next() {
        format!("the NAT \"{name}\"")
    } else if let Some(name) = scenario.nodes.values().find_map(|node| node.link.as_ref()) {
        format!("the link \"{name}\"")
    } else if scenario.nodes.values().any(|node| node.address6.is_some()) {
        "IPv6 addresses".to_owned()
    } else if scenario.nodes.values().any(|node| node.firewall.is_some()) {
        "firewalls".to_owned()
    } else if let Some(fault) = scenario.faults.iter().find(|fault| !is_possible(&fault.kind)) {
        format!("the fault \"{}\"", fault.kind)
    } else if scenario.expectations.iter().any(|expectation| judge::counts_bytes(&expectation.kind)) {
        "to see the bytes of each packet".to_owned()
    } else if scenario.nodes.len() > MAX_NODES {
        format!("more than {MAX_NODES} nodes")
    } else {
        return Ok(());
    };
    let name = &scenario.name;
    Err(BackendError::Unsupported(format!(
        "\"{name}\" needs {missing}, which loopback addresses cannot have: run it with `--on sim`"
    )))
}

/// Whether a fault can happen to programs on this machine: all others are of networks, or of whole hosts.
fn is_possible(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::Crash(_) | FaultKind::Restart(_) | FaultKind::GrapeOutage(_))
}

/// The same scenario with every address translated to a loopback address.
fn on_loopback(scenario: &Scenario) -> Result<Scenario, BackendError> {
    let mut scenario = scenario.clone();
    let mut translated = BTreeMap::new();
    let base = base_address();
    for (node, number) in scenario.nodes.values_mut().zip(1_u32..) {
        let address = Ipv4Addr::from_bits(base.to_bits() + number);
        translated.insert(node.address, address);
        node.address = address;
    }
    let name = scenario.name.clone();
    let translate = |address: &mut SocketAddrV4, own: Ipv4Addr| {
        let to = if address.ip().is_loopback() { Some(&own) } else { translated.get(address.ip()) };
        let to = to.ok_or_else(|| {
            BackendError::Unsupported(format!(
                "\"{name}\" speaks to {address}, which is no node's address: only nodes can be reached on loopback"
            ))
        })?;
        address.set_ip(*to);
        Ok::<_, BackendError>(())
    };
    for program in &mut scenario.programs {
        let own = scenario.nodes[&program.node].address;
        match &mut program.kind {
            ProgramKind::Grape { bootstrap, .. } => bootstrap.iter_mut().try_for_each(|a| translate(a, own))?,
            ProgramKind::Announce { grape, .. }
            | ProgramKind::Lookup { grape, .. }
            | ProgramKind::Broker { grape, .. } => translate(grape, own)?,
            ProgramKind::Worker(worker) => worker.grape.iter_mut().try_for_each(|a| translate(a, own))?,
            ProgramKind::Client(client) => {
                client.grape.iter_mut().try_for_each(|a| translate(a, own))?;
                if let Reach::Address(SocketAddr::V4(address)) = &mut client.reach {
                    translate(address, own)?;
                }
            }
            ProgramKind::NatProbe(probe) => translate(&mut probe.server, own)?,
            ProgramKind::StunServer { partner: Some(partner), .. } => {
                let mut at = SocketAddrV4::new(*partner, 0);
                translate(&mut at, own)?;
                *partner = *at.ip();
            }
            // A forward needs a NAT, and with a NAT nothing runs here.
            ProgramKind::StunServer { .. } | ProgramKind::Forward(_) => {}
        }
    }
    for expectation in &mut scenario.expectations {
        translate_expectation(&mut expectation.kind, &mut |address, at| {
            translate(address, scenario.nodes[at].address)
        })?;
    }
    Ok(scenario)
}

/// Translates the addresses of an expectation and its parts.
fn translate_expectation(
    kind: &mut ExpectationKind,
    translate: &mut impl FnMut(&mut SocketAddrV4, &Name) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    match kind {
        ExpectationKind::Found { at, address: Some(address), .. } => translate(address, &at.names[0]),
        ExpectationKind::Never(part) => translate_expectation(&mut part.kind, translate),
        ExpectationKind::All(parts) | ExpectationKind::Any(parts) => {
            parts.iter_mut().try_for_each(|part| translate_expectation(&mut part.kind, translate))
        }
        _ => Ok(()),
    }
}

/// The event stream of a run, in the order in which things happened.
#[derive(Debug)]
struct Log {
    start: Instant,
    records: Mutex<Vec<Record>>,
    court: Court,
}

impl Log {
    fn write(&self, at: Option<&Name>, event: Event) {
        let mut records = self.records();
        let at_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let record = Record { at_ns, at: at.cloned(), event };
        self.court.observe(&record);
        records.push(record);
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().expect("no holder of the lock panics")
    }
}

/// This machine as a stage.
struct LoopbackStage {
    log: Arc<Log>,
    hosts: BTreeMap<Name, Arc<LoopbackNetwork>>,
}

impl Stage for LoopbackStage {
    fn now(&self) -> Duration {
        self.log.start.elapsed()
    }

    fn network(&self, node: &Name) -> Net {
        self.hosts[node].clone()
    }

    fn outside(&self, node: &Name, kind: &ProgramKind) -> Option<BoxFuture<'static, Result<(), ProgramError>>> {
        let host = &self.hosts[node];
        let net: Net = host.clone();
        outside::program(&net, node, host.address, kind).map(|run| Box::pin(run) as BoxFuture<'static, _>)
    }

    fn spawn(&self, node: &Name, task: BoxFuture<'static, ()>) -> Task {
        self.hosts[node].spawn(task)
    }

    fn record(&self, at: Option<&Name>, event: LabEvent) {
        self.log.write(at, Event::Lab(event));
    }

    fn reporter(&self, node: &Name) -> Box<dyn FnOnce(LabEvent) + Send> {
        let (log, node) = (self.log.clone(), node.clone());
        Box::new(move |event| log.write(Some(&node), Event::Lab(event)))
    }

    /// That a node crashes or starts only where it can is checked when the file is read.
    fn begin(&self, _fault: usize, kind: &FaultKind) -> bool {
        match kind {
            FaultKind::Crash(node) => {
                self.hosts[node].end_tasks();
                self.log.write(Some(node), Event::Lab(LabEvent::NodeCrashed));
                false
            }
            FaultKind::Restart(node) => {
                self.log.write(Some(node), Event::Lab(LabEvent::NodeStarted));
                true
            }
            // An outage is the director's; all else is refused before the run.
            _ => false,
        }
    }

    fn end(&self, _fault: usize, kind: &FaultKind) -> bool {
        let FaultKind::Crash(node) = kind else { return false };
        self.log.write(Some(node), Event::Lab(LabEvent::NodeStarted));
        true
    }
}

/// The operating system's network, confined to one loopback address.
#[derive(Debug)]
struct LoopbackNetwork {
    host: HostNetwork,
    node: Name,
    address: Ipv4Addr,
    log: Arc<Log>,
    /// What the node runs, to be ended where it crashes.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl LoopbackNetwork {
    fn new(host: &HostNetwork, node: &Name, address: Ipv4Addr, log: &Arc<Log>) -> Arc<Self> {
        let (host, node, log) = (host.clone(), node.clone(), log.clone());
        Arc::new(Self { host, node, address, log, tasks: Mutex::default() })
    }

    /// An unspecified address becomes the node's own.
    fn own(&self, local: SocketAddr) -> SocketAddr {
        if local.ip().is_unspecified() { SocketAddr::from((self.address, local.port())) } else { local }
    }

    fn end_tasks(&self) {
        self.tasks().drain(..).for_each(|task| task.abort());
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().expect("no holder of the lock panics")
    }
}

impl Network for LoopbackNetwork {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        self.host.bind_udp(self.own(local))
    }

    fn local_ip(&self, _remote: SocketAddr) -> io::Result<IpAddr> {
        Ok(self.address.into())
    }

    fn connect_tcp(&self, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        self.host.connect_tcp(remote)
    }

    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        self.host.listen_tcp(self.own(local))
    }

    fn http(&self) -> Arc<dyn HttpClient> {
        self.host.http()
    }

    fn rng(&self, name: &str) -> Rng {
        self.host.rng(name)
    }

    #[expect(clippy::disallowed_methods, reason = "this network keeps its tasks, to end them where the node crashes")]
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        let handle = tokio::spawn(task).abort_handle();
        let mut tasks = self.tasks();
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle.clone());
        Task::new(handle)
    }

    fn emit(&self, event: StackEvent) {
        self.log.write(Some(&self.node), Event::Stack(event));
    }
}
