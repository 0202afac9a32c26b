//! `grenache punch`: opens this side's NAT towards a peer, and waits for the peer to do the same.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, select};
use grenache::net::{HostNetwork, Net};
use grenache::punch::Puncher;
use grenache::transport::Endpoint;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::address::Target;
use super::common::{GrapesArgs, Output, OutputArgs, SocketArgs, close, milliseconds, resolve, signals, time, within};
use super::failure::Failure;
use crate::cli::Exit;
use crate::cli::terminal::Terminal;

/// What `grenache punch --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It punches at once and every half second until somebody punches back, and
prints who that was: the address that requests reach, through both sides' NATs.
With --listen it waits for others, prints each punch, and answers the first 5
of each peer, until SIGTERM or Ctrl-C.

Examples:
  grenache punch --listen --port 7000
  grenache punch 203.0.113.5:7000 --port 7001

Request from the punched port: grenache request --port 7001 …

--json prints {\"from\", \"milliseconds\"}.

Exit codes: 0 punched back, or --listen was ended by a signal; 1 the port is in
use; 2 wrong usage; 4 nobody has announced the name; 5 no punch came back in
time, or no Grape reached.";

/// How often it is punched until somebody punches back.
const AGAIN: Duration = Duration::from_millis(500);

/// How many punches of a peer are answered: as many as a handshake needs, and not more, for else two that listen would
/// never come to an end.
const MAX_ANSWERED: u64 = 5;

#[derive(Debug, Args)]
pub(in crate::cli) struct PunchArgs {
    /// Whom to punch: a name that is looked up, all of whose peers are punched, or an address
    #[arg(value_name = "NAME|HOST:PORT", required_unless_present = "listen")]
    target: Option<Target>,
    /// Wait for others' punches, and answer them
    #[arg(short, long, conflicts_with = "target")]
    listen: bool,
    #[command(flatten)]
    socket: SocketArgs,
    /// How long to wait for a punch back
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s", conflicts_with = "listen")]
    timeout: Duration,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

pub(super) async fn punch(terminal: &mut Terminal, args: &PunchArgs) -> Result<Exit, Failure> {
    let mut output = args.output.on(terminal);
    let net: Net = std::sync::Arc::new(HostNetwork::new());
    match &args.target {
        Some(target) => {
            let deadline = Instant::now() + args.timeout;
            let targets =
                within(args.timeout, "it was not found", resolve(&net, &args.grapes, args.timeout, target)).await?;
            let endpoint = args.socket.bind(&net, targets.first().copied())?;
            let (punched, after) = punch_until_answered(&endpoint, &targets, deadline).await.ok_or_else(|| {
                Failure::late(format_args!("no punch came back from {}", shown(&targets)), args.timeout)
                    .advise("let the peer punch too, at this side's address: where both are behind NATs, ask a broker")
            })?;
            tell(&mut output, punched, after);
            close(&endpoint).await;
        }
        None => listen(&mut output, &args.socket.bind(&net, None)?).await?,
    }
    Ok(Exit::PASSED)
}

/// Punches all again and again; gives who was the first to punch back and how long that took, or `None` at the deadline.
async fn punch_until_answered(
    endpoint: &Endpoint,
    targets: &[SocketAddr],
    deadline: Instant,
) -> Option<(SocketAddr, Duration)> {
    let puncher = Puncher::new(endpoint);
    let mut punches = puncher.punched();
    let began = Instant::now();
    let mut next = began;
    while next < deadline {
        targets.iter().for_each(|target| puncher.punch(*target));
        next = (next + AGAIN).min(deadline);
        while let Ok(Some(from)) = timeout_at(next, punches.next()).await {
            // Its NAT may give the peer another port, but hardly another address: others' punches are no answer.
            if targets.iter().any(|target| target.ip().to_canonical() == from.ip().to_canonical()) {
                return Some((from, began.elapsed()));
            }
        }
    }
    None
}

async fn listen(output: &mut Output<'_>, endpoint: &Endpoint) -> Result<(), Failure> {
    let mut signals = signals()?;
    let puncher = Puncher::new(endpoint);
    let mut punches = puncher.punched();
    let port = endpoint.local_addr().port();
    output
        .log(format_args!("listening for punches at UDP port {port}"), &json!({ "event": "listening", "port": port }));
    let began = Instant::now();
    while let Either::Right((Some(from), _)) = select(pin!(signals.next()), pin!(punches.next())).await {
        if puncher.count(from) <= MAX_ANSWERED {
            puncher.punch(from);
        }
        tell(output, from, began.elapsed());
    }
    Ok(())
}

fn tell(output: &mut Output<'_>, from: SocketAddr, after: Duration) {
    let after = milliseconds(after);
    output.result(format_args!("punched by {from} after {after} ms"), &json!({ "from": from, "milliseconds": after }));
}

fn shown(targets: &[SocketAddr]) -> String {
    match targets {
        [one] => one.to_string(),
        several => format!("any of {} peers", several.len()),
    }
}

#[cfg(test)]
mod tests {
    use grenache::transport::EndpointConfig;

    use super::*;

    #[tokio::test]
    async fn only_a_punch_from_the_targets_address_is_an_answer() {
        let net: Net = std::sync::Arc::new(HostNetwork::new());
        let bind = |at: &str| Endpoint::bind(&net, at.parse().unwrap(), EndpointConfig::default()).unwrap();
        let (own, stranger, peer) = (bind("127.0.0.1:0"), bind("127.0.0.3:0"), bind("127.0.0.2:0"));
        let [others, peers] = [&stranger, &peer].map(Puncher::new);
        let mut punches = peers.punched();
        let answering = async {
            // The peer answers once the stranger has punched.
            let at = punches.next().await.unwrap();
            others.punch(at);
            let seen = Puncher::new(&own).punched().next().await;
            assert_eq!(seen, Some(stranger.local_addr()));
            peers.punch(at);
            std::future::pending::<()>().await;
        };
        let targets = [peer.local_addr()];
        let deadline = Instant::now() + Duration::from_secs(20);
        let punched = punch_until_answered(&own, &targets, deadline);
        match select(pin!(punched), pin!(answering)).await {
            Either::Left((punched, _)) => assert_eq!(punched.map(|(from, _)| from), Some(peer.local_addr())),
            Either::Right(_) => unreachable!(),
        }
    }
}
