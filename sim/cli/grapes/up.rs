//! `grenache grapes up`.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select, try_join_all};
use grenache::net::{HostNetwork, Net};
use grenache_sim::grapes::docker::{self, Container};
use grenache_sim::grapes::process::{self, GrapeProcess, Programs};
use grenache_sim::grapes::{GrapeKind, GrapeSpec, GrapesError, answers, mesh, node};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::plan::{PlanError, plan};
use super::state::{Entry, Handle, Locked, StateError};
use super::status::table;
use super::{Place, UpArgs};
use crate::cli::Exit;
use crate::cli::signals::Signals;
use crate::cli::terminal::{Causes, Terminal};

/// How often a container that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Why the Grapes are not up.
#[derive(Debug, Error)]
pub(super) enum UpError {
    #[error("{0} is up already: `grenache grapes down` ends it, and `--name` starts others beside it")]
    AlreadyUp(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Grape(#[from] GrapesError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot start")]
    Io(#[from] io::Error),
    #[error("interrupted by {0}")]
    Interrupted(&'static str),
    #[error("processes cannot be told apart on this system, for it has no /proc: use `--on docker`")]
    NoProc,
}

impl UpError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Plan(_) | Self::NoProc => Exit::WRONG,
            Self::Grape(GrapesError::NoNode(_) | GrapesError::NoDocker(_)) => Exit::WRONG,
            _ => Exit::FAILED,
        }
    }

    /// Itself and its causes, and what became of the other Grapes.
    pub(super) fn to_text(&self) -> String {
        let text = Causes(self).to_string();
        match self {
            Self::Grape(GrapesError::NoNode(_) | GrapesError::NoDocker(_)) => text,
            Self::Grape(_) | Self::Interrupted(_) => format!("{text}\nnone of these Grapes is left running"),
            _ => text,
        }
    }
}

/// A Grape that was started and is not let go yet.
#[derive(Debug)]
enum Started {
    Process(GrapeProcess),
    Container(GrapeSpec, Container),
}

pub(super) async fn up(terminal: &mut Terminal, args: &UpArgs) -> Result<Exit, UpError> {
    let mut signals = Signals::new()?;
    let mut state = Locked::load()?;
    let earlier = state.state().of(Some(&args.name));
    for entry in &earlier {
        if entry.ended().await.is_none() {
            return Err(UpError::AlreadyUp(entry.name.clone()));
        }
    }
    state.remove(&earlier)?;
    if args.on == Place::Process && process::started(std::process::id()).is_none() {
        return Err(UpError::NoProc);
    }
    let specs = plan(args)?;
    if args.on == Place::Docker {
        docker::check(specs.iter().map(|spec| spec.kind)).await?;
    }
    if args.on == Place::Process && specs.iter().any(|spec| spec.kind == GrapeKind::Node) {
        // Before any is started.
        node::find().map_err(GrapesError::from)?;
    }

    let mut started = Vec::new();
    let mut entries = Vec::new();
    let done = {
        let start = async {
            start(&mut state, args, specs, &mut started, &mut entries).await?;
            wait(&mut started, args.timeout).await
        };
        match select(pin!(start), pin!(signals.next())).await {
            Either::Left((done, _)) => done,
            Either::Right((signal, _)) => Err(UpError::Interrupted(signal)),
        }
    };
    if let Err(error) = done {
        // Processes end where they are dropped.
        for started in started {
            if let Started::Container(spec, container) = started
                && let Err(error) = container.down().await
            {
                terminal.error(format_args!("error: cannot end {}: {}", spec.name, Causes(&error)));
            }
        }
        state.remove(&entries)?;
        return Err(error);
    }
    for started in started {
        if let Started::Process(process) = started {
            process.detach();
        }
    }
    let up: Vec<_> = entries.iter().map(|entry| (entry, None)).collect();
    table(terminal, &up, args.json);
    if !args.json {
        let count = entries.len();
        terminal.line(match count {
            1 => "1 Grape is up; `grenache grapes down` ends it".to_owned(),
            _ => format!("{count} Grapes are up and know each other; `grenache grapes down` ends them"),
        });
    }
    Ok(Exit::PASSED)
}

/// Starts all, and notes each: whatever happens to this process, `down` finds them.
async fn start(
    state: &mut Locked,
    args: &UpArgs,
    specs: Vec<GrapeSpec>,
    started: &mut Vec<Started>,
    entries: &mut Vec<Entry>,
) -> Result<(), UpError> {
    for spec in specs {
        let mut entry = Entry {
            set: args.name.clone(),
            name: spec.name.clone(),
            kind: spec.kind,
            dht_port: spec.dht_port,
            api: spec.api(),
            log: None,
            on: Handle::Docker { container: String::new() },
        };
        let grape = match args.on {
            Place::Process => {
                let log = state.state().log(&spec.name);
                let process = GrapeProcess::start_apart(spec, &Programs::default(), &log)?;
                // Where it has ended by now, waiting for it tells how.
                let started = process::started(process.pid()).unwrap_or_default();
                entry.on = Handle::Process { pid: process.pid(), started };
                entry.log = Some(log);
                Started::Process(process)
            }
            Place::Docker => {
                let container = Container::up(&spec).await?;
                entry.on = Handle::Docker { container: container.id.clone() };
                Started::Container(spec, container)
            }
        };
        started.push(grape);
        entries.push(entry.clone());
        state.add(entry)?;
    }
    Ok(())
}

/// Waits until each answers and finds the others.
async fn wait(started: &mut [Started], patience: Duration) -> Result<(), UpError> {
    try_join_all(started.iter_mut().map(|grape| grape.ready(patience))).await?;
    let net: Net = Arc::new(HostNetwork::new());
    let specs: Vec<&GrapeSpec> = started.iter().map(Started::spec).collect();
    // Of its own for every set: what an earlier one announced may still be stored somewhere.
    let name = format!("grenache_grapes_up_{}_{}", std::process::id(), specs[0].dht_port);
    mesh::acquainted(&net, &specs, &name, patience).await?;
    Ok(())
}

impl Started {
    fn spec(&self) -> &GrapeSpec {
        match self {
            Self::Process(process) => process.spec(),
            Self::Container(spec, _) => spec,
        }
    }

    async fn ready(&mut self, patience: Duration) -> Result<(), GrapesError> {
        let (spec, container) = match self {
            Self::Process(process) => return process.ready(patience).await,
            Self::Container(spec, container) => (spec, container),
        };
        let become_ready = async {
            while !answers(spec.api()).await {
                if !container.is_running().await? {
                    let tail = process::last_lines(&container.log().await?);
                    let status = "its container stopped".to_owned();
                    return Err(GrapesError::Ended { name: spec.name.clone(), status, tail });
                }
                sleep(GLANCE).await;
            }
            Ok(())
        };
        match timeout(patience, become_ready).await {
            Ok(ready) => ready,
            Err(_) => {
                let tail = process::last_lines(&container.log().await.unwrap_or_default());
                Err(GrapesError::Late { name: spec.name.clone(), waited: patience, tail })
            }
        }
    }
}
