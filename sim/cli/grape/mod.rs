//! `grenache grape`: one Grape in the foreground, with the original's flags.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};
use grenache::grape::{Grape, GrapeError};
use grenache::net::{HostNetwork, Net};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use super::Exit;
use super::terminal::{Causes, Terminal};

mod args;
mod bootstrap;
mod health;
mod log;

pub(super) use args::{AFTER_HELP, GrapeArgs};
pub(super) use health::{AFTER_HELP as HEALTH_AFTER_HELP, HealthArgs, health};

/// Why `grenache grape` ended other than by being asked to.
#[derive(Debug, Error)]
enum RunError {
    #[error("cannot resolve the name {host} to listen on")]
    Bind { host: bootstrap::HostName, source: io::Error },
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
            Self::Bind { .. } => Exit::WRONG,
            _ => Exit::FAILED,
        }
    }
}

/// Runs a Grape until SIGTERM or SIGINT.
pub(super) fn grape(terminal: &mut Terminal, args: &GrapeArgs) -> Exit {
    log::start(args, LevelFilter::INFO);
    let ran = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::from)
        .and_then(|runtime| runtime.block_on(run(args)));
    match ran {
        Ok(()) => Exit::PASSED,
        Err(error) => {
            terminal.error(format_args!("error: {}", Causes(&error)));
            error.exit()
        }
    }
}

async fn run(args: &GrapeArgs) -> Result<(), RunError> {
    // Before anything takes time: the first process of a container has no other way to end.
    let mut signals = Signals::new()?;
    let host = match &args.bind {
        Some(host) => Some(host.resolve().await.map_err(|source| RunError::Bind { host: host.clone(), source })?),
        None => None,
    };
    let net: Net = Arc::new(HostNetwork::new()?);
    let (known, _unknown) = args.bootstrap.resolve().await;
    let config = args.config(host).bootstrap(known);
    let grape = Grape::start(&net, config).await?;
    tracing::info!(dht = %grape.dht_addr(), api = %grape.api_addr(), id = %grape.node_id(), "listening");

    {
        let (asked, ended) = (pin!(signals.next()), pin!(grape.until(|_| false)));
        match select(asked, ended).await {
            Either::Left((name, _)) => tracing::info!(signal = name, "asked to end"),
            Either::Right(_) => return Err(RunError::Ended),
        }
    }
    grape.close().await;
    Ok(())
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        match select(pin!(self.terminate.recv()), pin!(self.interrupt.recv())).await {
            Either::Left(_) => "SIGTERM",
            Either::Right(_) => "SIGINT",
        }
    }
}
