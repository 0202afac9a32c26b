//! Grapes of a scenario that run outside of this process: the original's, as a process or in a container.

use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use grenache::event::Event;
use grenache::net::Net;
use tokio::time::sleep;

use super::BackendError;
use super::programs::ProgramError;
use crate::grapes::docker::{self, Container};
use crate::grapes::process::{GrapeProcess, Programs, tail};
use crate::grapes::{self, GrapeSpec, GrapesError, node};
use crate::scenario::Scenario;
use crate::scenario::model::{GrapeKind, Name, ProgramKind};

/// How often a Grape's log is looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// The kinds of a scenario's Grapes that are not ours, with a node that has one.
pub(super) fn kinds(scenario: &Scenario) -> impl Iterator<Item = (GrapeKind, &Name)> {
    scenario.programs.iter().filter_map(|program| match &program.kind {
        ProgramKind::Grape { kind, .. } if *kind != GrapeKind::Rust => Some((*kind, &program.node)),
        _ => None,
    })
}

/// Refuses a scenario whose Grapes are not installed here.
pub(super) async fn check(scenario: &Scenario) -> Result<(), BackendError> {
    for (kind, _) in kinds(scenario) {
        let missing = match kind {
            GrapeKind::Rust => Ok(()),
            GrapeKind::Node => node::find().map(drop).map_err(GrapesError::from),
            GrapeKind::Container => docker::check([grapes::GrapeKind::Node]).await,
        };
        missing.map_err(|error| BackendError::Unsupported(error.to_string()))?;
    }
    Ok(())
}

/// A Grape that runs outside of this process, until it ends or this is dropped, which kills it. `None` where the
/// program is another. What it says becomes events.
pub(super) fn program(
    net: &Net,
    node: &Name,
    address: Ipv4Addr,
    program: &ProgramKind,
) -> Option<impl Future<Output = Result<(), ProgramError>> + Send + use<>> {
    let ProgramKind::Grape { dht_port, api_port, bootstrap, kind } = program else { return None };
    let container = match kind {
        GrapeKind::Rust => return None,
        GrapeKind::Node => false,
        GrapeKind::Container => true,
    };
    let name = format!("{node}-{dht_port}");
    let spec =
        GrapeSpec::new(&name, grapes::GrapeKind::Node, *dht_port, *api_port).bind(address).bootstrap(bootstrap.clone());
    let net = net.clone();
    Some(async move {
        let run = if container { contained(&net, spec).await } else { processed(&net, spec).await };
        run.map_err(ProgramError::from)
    })
}

async fn processed(net: &Net, spec: GrapeSpec) -> Result<(), GrapesError> {
    let folder = tempfile::tempdir().map_err(|source| no_log(&std::env::temp_dir(), source))?;
    let path = folder.path().join("grape.log");
    let mut process = GrapeProcess::start(spec.clone(), &Programs::default(), &path)?;
    let status = tell(net, &spec, &path, || Ok(process.status()?.map(|status| status.to_string()))).await?;
    Err(GrapesError::Ended { name: spec.name, status, tail: process.tail() })
}

async fn contained(net: &Net, spec: GrapeSpec) -> Result<(), GrapesError> {
    let folder = tempfile::tempdir().map_err(|source| no_log(&std::env::temp_dir(), source))?;
    let path = folder.path().join("grape.log");
    let container = Ended(Container::up(&spec).await?);
    let mut follower = container.0.follow(&path)?;
    let stopped = || Ok(follower.has_ended()?.then(|| "its container stopped".to_owned()));
    let status = tell(net, &spec, &path, stopped).await?;
    Err(GrapesError::Ended { name: spec.name, status, tail: tail(&path) })
}

/// Makes events of a log that grows, until `ended` says how the Grape has ended.
async fn tell(
    net: &Net,
    spec: &GrapeSpec,
    path: &Path,
    mut ended: impl FnMut() -> io::Result<Option<String>>,
) -> Result<String, GrapesError> {
    let mut log = File::open(path).map_err(|source| no_log(path, source))?;
    let mut said = Said::default();
    loop {
        // Before the log is read: nothing is written after the end.
        let status = ended().map_err(|source| no_log(path, source))?;
        let mut more = Vec::new();
        log.read_to_end(&mut more).map_err(|source| no_log(path, source))?;
        said.tell(net, spec, &more);
        if let Some(status) = status {
            return Ok(status);
        }
        sleep(GLANCE).await;
    }
}

fn no_log(path: &Path, source: io::Error) -> GrapesError {
    GrapesError::Log { path: path.to_owned(), source }
}

/// A container that is killed and removed when this is dropped.
struct Ended(Container);

impl Drop for Ended {
    fn drop(&mut self) {
        let container = self.0.clone();
        // A thread of its own, for one that drives tasks cannot wait for others. Nobody is left to tell of an error.
        let end = move || -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(container.kill()).map_err(io::Error::other)
        };
        let _ = thread::spawn(end).join();
    }
}

/// What a Grape has said so far: whole lines become events.
#[derive(Debug, Default)]
struct Said {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl Said {
    fn tell(&mut self, net: &Net, spec: &GrapeSpec, more: &[u8]) {
        self.begun.extend_from_slice(more);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            if let Some(event) = event(spec, String::from_utf8_lossy(&line).trim_end()) {
                net.emit(event);
            }
        }
    }
}

/// What a line of `DEBUG=grenache:grape` says.
fn event(spec: &GrapeSpec, line: &str) -> Option<Event> {
    let (_, said) = line.split_once(" grenache:grape ")?;
    if let Some(lookup) = said.strip_prefix("lookup ") {
        let (name, rest) = lookup.rsplit_once(" found ")?;
        let nodes = rest.strip_suffix(" nodes")?.parse().ok()?;
        return Some(Event::GrapeLookup { name: name.to_owned(), nodes });
    }
    let said = said.strip_prefix(&format!("{} ", spec.dht_port))?;
    if said == "ready" {
        return Some(Event::GrapeReady { dht_port: spec.dht_port, api_port: spec.api_port });
    }
    if let Some(name) = said.strip_prefix("announce ") {
        return Some(Event::PeerStored { name: name.to_owned(), peer: None });
    }
    let (peers, name) = said.strip_prefix("found potential peer ")?.split_once(" for hash: ")?;
    let (peer, through) = match peers.split_once(" through ") {
        Some((peer, through)) => (peer, Some(through.parse().ok()?)),
        None => (peers, None),
    };
    Some(Event::PeerFound { name: name.to_owned(), peer: peer.parse().ok()?, through })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_lines_are_events() {
        let spec = GrapeSpec::new("a", grapes::GrapeKind::Node, 20001, 30001);
        let read = |said: &str| event(&spec, &format!("2026-11-25T10:21:28.361Z grenache:grape {said}"));
        let address = |port| ([127, 0, 0, 1], port).into();
        let name = || "rest:net".to_owned();
        assert_eq!(read("20001 ready"), Some(Event::GrapeReady { dht_port: 20001, api_port: 30001 }));
        assert_eq!(read("20001 announce rest:net"), Some(Event::PeerStored { name: name(), peer: None }));
        assert_eq!(read("lookup rest:net found 2 nodes"), Some(Event::GrapeLookup { name: name(), nodes: 2 }));
        assert_eq!(
            read("20001 found potential peer 127.0.0.1:1337 for hash: rest:net"),
            Some(Event::PeerFound { name: name(), peer: address(1337), through: None })
        );
        assert_eq!(
            read("20001 found potential peer 127.0.0.1:1337 through 127.0.0.1:20002 for hash: rest:net"),
            Some(Event::PeerFound { name: name(), peer: address(1337), through: Some(address(20002)) })
        );
        for other in [
            "20001 listening",
            "20001 node",
            "starting",
            "20002 ready",
            "lookup",
            "20001 found potential peer x for hash: y",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(event(&spec, "Error: listen EADDRINUSE"), None);
    }
}
