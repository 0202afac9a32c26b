//! `grenache grape`: one Grape in the foreground, with the original's flags.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use grenache::grape::{Grape, GrapeError};
use grenache::net::{HostNetwork, Net};
use thiserror::Error;
use tracing_subscriber::filter::LevelFilter;

use self::debug::DebugLines;
use self::state::StateError;
use super::Exit;
use super::signals::Signals;
use super::terminal::{Causes, Terminal};

mod args;
mod bootstrap;
mod debug;
mod health;
mod log;
mod metrics;
mod process_one;
mod state;

pub(super) use args::{AFTER_HELP, GrapeArgs};
pub(super) use health::{AFTER_HELP as HEALTH_AFTER_HELP, HealthArgs, health};

/// Why `grenache grape` ended other than by being asked to.
#[derive(Debug, Error)]
enum RunError {
    #[error("cannot resolve the name {host} to listen on")]
    Bind { host: bootstrap::HostName, source: io::Error },
    #[error("cannot serve metrics on TCP {address}: choose another address or port, or end what uses it")]
    Metrics { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Grape(#[from] GrapeError),
    #[error("the Grape has ended by itself, for its UDP socket broke: start it again")]
    Ended,
    #[error("cannot start")]
    Io(#[from] io::Error),
}

impl RunError {
    fn exit(&self) -> Exit {
        match self {
            Self::Bind { .. } | Self::State(_) => Exit::WRONG,
            _ => Exit::FAILED,
        }
    }
}

/// Runs a Grape until SIGTERM or SIGINT.
pub(super) fn grape(terminal: &mut Terminal, args: &GrapeArgs) -> Exit {
    let debug = DebugLines::from_env(args.dht_port).map(Arc::new);
    // Whoever asks for the original's lines wants to see these, not ours between them.
    log::start(args, if debug.is_some() { LevelFilter::WARN } else { LevelFilter::INFO });
    let ran = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::from)
        .and_then(|runtime| runtime.block_on(run(args, debug)));
    match ran {
        Ok(()) => Exit::PASSED,
        Err(error) => {
            terminal.error(format_args!("error: {}", Causes(&error)));
            error.exit()
        }
    }
}

async fn run(args: &GrapeArgs, debug: Option<Arc<DebugLines>>) -> Result<(), RunError> {
    // Before anything takes time: the first process of a container has no other way to end.
    let mut signals = Signals::new()?;
    let kept = args.state.as_deref().map(state::load).transpose()?.flatten();
    let host = match &args.bind {
        Some(host) => Some(host.resolve().await.map_err(|source| RunError::Bind { host: host.clone(), source })?),
        None => None,
    };
    let (known, unknown) = args.bootstrap.resolve().await;
    let mut config = args.config(host).bootstrap(known);
    if let Some(kept) = kept {
        config = config.state(kept);
    }

    if let Some(debug) = &debug {
        debug.starting();
    }
    let net = network(debug.as_ref())?;
    let metrics = match args.metrics {
        Some(address) => {
            let listener = net.listen_tcp(address).await;
            Some(listener.map_err(|source| RunError::Metrics { address, source })?)
        }
        None => None,
    };
    let grape = Arc::new(Grape::start(&net, config).await?);
    // Its tasks run once this one waits: no event is before this line.
    if let Some(debug) = &debug {
        debug.listening();
    }
    tracing::info!(dht = %grape.dht_addr(), api = %grape.api_addr(), id = %grape.node_id(), "listening");

    let mut tasks = vec![net.spawn(Box::pin(args.bootstrap.clone().follow(unknown, grape.clone())))];
    tasks.push(net.spawn(Box::pin(tell_ready(grape.clone()))));
    if let Some(path) = &args.state {
        let watched = grape.state();
        state::save(path, &watched.borrow())?;
        tasks.push(net.spawn(Box::pin(state::keep(path.clone(), watched))));
    }
    if let Some(listener) = metrics {
        tracing::info!(address = ?listener.local_addr(), "serving metrics");
        tasks.push(net.spawn(Box::pin(metrics::serve(net.clone(), listener, grape.clone()))));
    }
    let (asked, ended) = (pin!(signals.next()), pin!(grape.until(|_| false)));
    match select(asked, ended).await {
        Either::Left((name, _)) => tracing::info!(signal = name, "asked to end"),
        Either::Right(_) => return Err(RunError::Ended),
    }
    Ok(())
}

async fn tell_ready(grape: Arc<Grape>) {
    grape.ready().await;
    tracing::info!(nodes = grape.stats().nodes, "ready");
}

/// The operating system's network, whose events are printed where that is asked for.
fn network(debug: Option<&Arc<DebugLines>>) -> io::Result<Net> {
    let host = HostNetwork::new();
    Ok(match debug.cloned() {
        Some(debug) => Arc::new(host.observe(move |event| debug.observe(event))),
        None => Arc::new(host),
    })
}
