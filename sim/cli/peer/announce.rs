//! `grenache announce`: says that a service is at a port of this host.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, select};
use grenache::event::Event;
use grenache::net::{HostNetwork, Net};
use serde_json::json;

use super::address::name;
use super::common::{GrapesArgs, Output, OutputArgs, TRIES, observed, signals, time, within};
use super::failure::{Failure, brief};
use crate::cli::Exit;
use crate::cli::terminal::Terminal;

/// What `grenache announce --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It is announced at the address that the Grape sees this host at. Names expire 2
to 4 minutes after their last announce: --every keeps one there. With --every,
failures are told on standard error and tried again after a second.

Examples:
  grenache announce rest:util:net 31337
  grenache announce rest:util:net,31337
  grenache announce rest:util:net 31337 --every 2min

--json prints {\"name\", \"port\", \"nodes\"}; nodes are those that stored it.

Exit codes: 0 announced, or --every was ended by SIGTERM or Ctrl-C; 1 the Grape
refused; 2 wrong usage; 5 no Grape reached.";

#[derive(Debug, Args)]
pub(in crate::cli) struct AnnounceArgs {
    /// The service's name, or NAME,PORT
    #[arg(value_parser = name)]
    name: String,
    /// The port that it listens on
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Announce again and again, about this often, until SIGTERM or Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = time)]
    every: Option<Duration>,
    /// How long it may take [with --every, each time]
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl AnnounceArgs {
    /// Name and port, however they are written.
    fn service(&self) -> Result<(&str, u16), Failure> {
        if let Some(port) = self.port {
            return Ok((&self.name, port));
        }
        let (name, port) = self.name.rsplit_once(',').unwrap_or((&self.name, ""));
        match port.parse() {
            Ok(port @ 1..) if !name.is_empty() => Ok((name, port)),
            _ => Err(Failure::wrong(format!("which port does `{name}` listen on?"))
                .advise("write NAME PORT, such as `rest:util:net 31337`")),
        }
    }
}

pub(super) async fn announce(terminal: &mut Terminal, args: &AnnounceArgs) -> Result<Exit, Failure> {
    let (name, port) = args.service()?;
    let mut output = args.output.on(terminal);
    if let Some(every) = args.every {
        return again_and_again(&mut output, args, name, port, every).await;
    }
    let net: Net = Arc::new(HostNetwork::new());
    let announced = async {
        let link = args.grapes.link(&net, args.timeout, TRIES).await?;
        let nodes = link.announce(name, port).await;
        nodes.map_err(|error| Failure::link(&error, &args.grapes.to_string(), name))
    };
    let nodes = within(args.timeout, "it was not announced", announced).await?;
    tell(&mut output, name, port, nodes);
    Ok(Exit::PASSED)
}

async fn again_and_again(
    output: &mut Output<'_>,
    args: &AnnounceArgs,
    name: &str,
    port: u16,
    every: Duration,
) -> Result<Exit, Failure> {
    let mut signals = signals()?;
    let (net, _, mut events) = observed(of_announcing);
    let link = args.grapes.link(&net, args.timeout, TRIES).await?;
    let announcing = link.start_announcing(name, port, every);
    let mut told = Told::default();
    while let Either::Right((Some(event), _)) = select(pin!(signals.next()), pin!(events.recv())).await {
        match event {
            Event::Announced { nodes, .. } => {
                told = Told::default();
                tell(output, name, port, nodes);
            }
            event => told.tell(output, &event),
        }
    }
    announcing.stop().await;
    Ok(Exit::PASSED)
}

/// The events that tell how announcing goes.
pub(super) fn of_announcing(event: &Event) -> Option<Event> {
    matches!(event, Event::Announced { .. } | Event::LinkFailed { .. }).then(|| event.clone())
}

/// Tells how announcing goes: each success, and of failures each that is new, for they come every second.
#[derive(Debug, Default)]
pub(super) struct Told(Option<String>);

impl Told {
    pub(super) fn tell(&mut self, output: &mut Output<'_>, event: &Event) {
        match event {
            Event::Announced { name, port, nodes } => {
                self.0 = None;
                output.log(
                    format_args!("announced `{name}` at port {port}, stored by {nodes}"),
                    &json!({ "event": "announced", "name": name, "port": port, "nodes": nodes }),
                );
            }
            Event::LinkFailed { call, error } if self.0.as_ref() != Some(error) => {
                let failure = Failure::refused(format!("{call} failed, trying again: {}", brief(error)));
                output.failed(&failure);
                self.0 = Some(error.clone());
            }
            _ => {}
        }
    }
}

fn tell(output: &mut Output<'_>, name: &str, port: u16, nodes: u64) {
    let s = if nodes == 1 { "" } else { "s" };
    output.result(
        format_args!("{name} announced at port {port}, stored by {nodes} node{s}"),
        &json!({ "name": name, "port": port, "nodes": nodes }),
    );
}
