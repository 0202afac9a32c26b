//! `grenache broker`: introduces peers behind NATs to each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, select};
use grenache::broker::registry::{ENTRY_LIFETIME, MAX_ENTRIES};
use grenache::broker::{Broker, BrokerConfig, MAX_REQUEST, RelayConfig};
use grenache::event::Event;
use grenache::rpc::ServerConfig;
use serde_json::json;
use tokio::time::Instant;

use super::address::name;
use super::announce::{Told, of_announcing};
use super::common::{GrapesArgs, Output, OutputArgs, SocketArgs, TRIES, close, observed, signals, time};
use super::failure::Failure;
use super::serve::ANNOUNCE_WITHIN;
use crate::cli::Exit;
use crate::cli::printable::printable;
use crate::cli::terminal::Terminal;

/// What `grenache broker --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It runs until SIGTERM or Ctrl-C, where peers can reach it from outside. They
register by its name, again and again, and are told of each other for 15 s; it
holds 500 of them. On standard error it tells who is new.

Examples:
  grenache broker fibo_broker --port 7070
  grenache broker fibo_broker --port 7070 --alternate-port 7071 --relay

--json logs JSON: objects with \"event\", which is listening, announced,
registered or failed.

Exit codes: 0 ended by a signal; 1 the port is in use; 2 wrong usage; 5 the
Grape's name cannot be resolved.";

#[derive(Debug, Args)]
pub(in crate::cli) struct BrokerArgs {
    /// The broker's name
    #[arg(value_parser = name)]
    name: String,
    #[command(flatten)]
    socket: SocketArgs,
    /// The most connections at a time; further peers are turned away
    #[arg(long, value_name = "N", default_value_t = 4096)]
    max_connections: usize,
    /// The largest registration, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = MAX_REQUEST)]
    max_message: usize,
    /// A second UDP port, by which `grenache nat-check` learns more
    #[arg(long, value_name = "PORT")]
    alternate_port: Option<u16>,
    /// Relay for peers that cannot reach each other in another way
    #[arg(long)]
    relay: bool,
    /// How many pairs of peers are relayed for at a time
    #[arg(long, value_name = "N", default_value_t = 64, requires = "relay")]
    relay_sessions: usize,
    /// How many bytes are relayed for a pair in a second
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, requires = "relay")]
    relay_rate: u64,
    /// How many bytes are relayed for a pair in all
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20, requires = "relay")]
    relay_total: u64,
    /// Announce the name about this often
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2min")]
    every: Duration,
    /// Do not announce the name: peers need the address
    #[arg(long, conflicts_with = "every")]
    no_announce: bool,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Something to tell.
enum News {
    Announcing(Event),
    Registered(Peer),
}

/// Who has registered: the service, whether it offers it, and its address.
type Peer = (String, bool, SocketAddr);

pub(super) async fn broker(terminal: &mut Terminal, args: &BrokerArgs) -> Result<Exit, Failure> {
    let mut signals = signals()?;
    let mut output = args.output.on(terminal);
    let (net, _, mut news) = observed(|event| match event {
        Event::Registered { service, server, address } => Some(News::Registered((service.clone(), *server, *address))),
        event => of_announcing(event).map(News::Announcing),
    });
    let link = match args.no_announce {
        true => None,
        false => Some(args.grapes.link(&net, ANNOUNCE_WITHIN, TRIES).await?),
    };
    let endpoint = args.socket.bind(&net, None)?;
    let port = endpoint.local_addr().port();
    let server = ServerConfig::default().max_connections(args.max_connections).max_message(args.max_message);
    let mut config = BrokerConfig::new(&args.name).announce_interval(args.every).server(server);
    let alternate = match args.alternate_port {
        Some(port) => Some(args.socket.bind_port(&net, port, None)?),
        None => None,
    };
    if let Some(alternate) = &alternate {
        config = config.alternate(alternate);
    }
    if args.relay {
        let relay = RelayConfig::default().sessions(args.relay_sessions);
        config = config.relay(relay.bytes_per_second(args.relay_rate).total_bytes(args.relay_total));
    }
    let broker = Broker::start(&endpoint, link.as_ref(), config);
    output.log(
        format_args!("listening at UDP port {port} as `{}`", args.name),
        &json!({ "event": "listening", "name": args.name, "port": port }),
    );
    let (mut known, mut told) = (Known::default(), Told::default());
    while let Either::Right((Some(news), _)) = select(pin!(signals.next()), pin!(news.recv())).await {
        match news {
            News::Announcing(event) => told.tell(&mut output, &event),
            News::Registered(peer) => {
                if known.is_new(Instant::now(), &peer) {
                    registered(&mut output, &peer);
                }
            }
        }
    }
    drop(broker);
    close(&endpoint).await;
    Ok(Exit::PASSED)
}

fn registered(output: &mut Output<'_>, (service, server, address): &Peer) {
    let role = if *server { "offers" } else { "wants" };
    output.log(
        format_args!("{address} {role} `{}`", printable(service)),
        &json!({ "event": "registered", "service": service, "server": server, "address": address }),
    );
}

/// The peers that have been told of, with when they last registered: they do every 2 s. There are no more than the
/// broker holds; with more at a time some are told of again.
#[derive(Debug, Default)]
struct Known(BTreeMap<Peer, Instant>);

impl Known {
    fn is_new(&mut self, now: Instant, peer: &Peer) -> bool {
        if let Some(last) = self.0.get_mut(peer) {
            let gone = now >= *last + ENTRY_LIFETIME;
            *last = now;
            return gone;
        }
        if self.0.len() >= MAX_ENTRIES.get() {
            self.0.retain(|_, last| now < *last + ENTRY_LIFETIME);
        }
        if self.0.len() >= MAX_ENTRIES.get() {
            self.0.pop_first();
        }
        self.0.insert(peer.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_new_once_and_again_when_it_was_gone() {
        let (mut known, now) = (Known::default(), Instant::now());
        let peer = |port| ("a".to_owned(), true, SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(known.is_new(now, &peer(1)));
        assert!(!known.is_new(now + Duration::from_secs(2), &peer(1)));
        assert!(known.is_new(now + Duration::from_secs(2), &peer(2)));
        assert!(known.is_new(now + Duration::from_secs(2) + ENTRY_LIFETIME, &peer(1)));
        for port in 1..=2000 {
            known.is_new(now, &peer(port));
        }
        assert_eq!(known.0.len(), MAX_ENTRIES.get());
    }
}
