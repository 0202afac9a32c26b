//! `grenache request`: asks a service.

use std::time::Duration;

use clap::Args;
use grenache::connect::{Connection, Connector};
use grenache::event::Event;
use grenache::link::Link;
use grenache::punch::Puncher;
use grenache::rpc::framing::MAX_TEXT;
use grenache::rpc::{ClientConfig, PeerRpcClient, RequestOptions, RpcError};
use grenache::transport::Endpoint;
use serde_json::Value;
use tokio::time::Instant;

use super::address::{Address, Target};
use super::brokers::BrokersArgs;
use super::common::{
    GrapesArgs, Output, OutputArgs, SocketArgs, TRIES, close, milliseconds, observed, text_or_stdin, time, within,
};
use super::failure::Failure;
use crate::cli::Exit;
use crate::cli::printable::{json, printable};
use crate::cli::terminal::Terminal;

/// What `grenache request --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
What has one colon and a number behind it is an address, all else is a name.
It prints the reply as JSON; with --map, each peer's address and its reply in a
line.

Examples:
  grenache request rpc_test '\"hello\"'
  grenache request rpc_test --text hello --raw
  grenache request rpc_test '{\"action\": \"ping\", \"args\": []}' --at localhost:1337
  grenache request rpc_test - <question.json --map --limit 3
  grenache request rpc_test 1 --broker my_broker

--json prints {\"from\", \"value\", \"milliseconds\"}, with --broker how it was
reached as \"connection\"; with --map {\"from\"} and \"value\" or \"error\".

Exit codes: 0 replied, with --map by all; 1 a peer replied with an error; 2
wrong usage; 4 nobody has announced the name; 5 no peer, or no Grape, was
reached in time.";

#[derive(Debug, Args)]
pub(in crate::cli) struct RequestArgs {
    /// The service's name, which is looked up, or a peer's address
    #[arg(value_name = "NAME|HOST:PORT")]
    target: Target,
    /// What to ask: JSON; `-` is standard input
    payload: String,
    /// The payload is a text, not JSON
    #[arg(short, long)]
    text: bool,
    /// Print a reply that is a text without quotes
    #[arg(short, long)]
    raw: bool,
    /// Ask NAME at this address, without a lookup
    #[arg(short = 'w', long, visible_alias = "worker", value_name = "HOST:PORT", conflicts_with = "map")]
    at: Option<Address>,
    /// Ask every peer that has announced the name
    #[arg(short, long)]
    map: bool,
    /// With --map, ask this many, chosen at random
    #[arg(short, long, value_name = "N", requires = "map")]
    limit: Option<usize>,
    /// How often to try again where a connection fails; with 0 no peer is asked twice
    #[arg(long, value_name = "N", default_value_t = 1)]
    retries: u32,
    /// The peer is of the original implementation: refuse what it could not read
    #[arg(long)]
    reference_peer: bool,
    #[command(flatten)]
    brokers: BrokersArgs,
    #[command(flatten)]
    socket: SocketArgs,
    /// How long it may take, lookup and retries included
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    timeout: Duration,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl RequestArgs {
    fn payload(&self) -> Result<Value, Failure> {
        let text = text_or_stdin(Some(&self.payload), MAX_TEXT)?;
        if self.text {
            return Ok(text.into());
        }
        serde_json::from_str(&text).map_err(|error| {
            Failure::wrong(format!("the payload is no JSON: {error}"))
                .advise("write a text in its quotes, such as '\"hello\"', or add --text")
        })
    }

    fn config(&self) -> ClientConfig {
        let options = RequestOptions::default().timeout(self.timeout).retries(self.retries);
        let config = ClientConfig::default().request(options);
        if self.reference_peer { config.reference_peers() } else { config }
    }
}

pub(super) async fn request(terminal: &mut Terminal, args: &RequestArgs) -> Result<Exit, Failure> {
    let payload = args.payload()?;
    let began = Instant::now();
    let (at, key) = match (&args.at, &args.target) {
        (Some(at), Target::At(target)) => (Some(at), target.to_string()),
        (Some(at), Target::Name(name)) => (Some(at), name.clone()),
        (None, Target::At(target)) => (Some(target), target.to_string()),
        (None, Target::Name(name)) => (None, name.clone()),
    };
    if (args.map || !args.brokers.is_empty()) && at.is_some() {
        return Err(Failure::wrong("--map and --broker ask for those of a name, and this is an address")
            .advise("write a name, or leave the option out"));
    }
    if args.map && !args.brokers.is_empty() {
        return Err(Failure::wrong(
            "--map asks those who can be reached directly, and --broker is for one of those who cannot",
        )
        .advise("leave one of them out"));
    }
    let to = at.map_or_else(|| key.clone(), Address::to_string);
    let (net, _, mut senders) = observed(|event| match event {
        Event::ReplyReceived { from, .. } => Some(*from),
        _ => None,
    });
    let at = match at {
        Some(at) => Some(at.resolve().await?),
        None => None,
    };
    let endpoint = args.socket.bind(&net, at)?;
    let failed = |error: &RpcError, to: &str| Failure::rpc(error, to, &args.grapes.to_string(), args.timeout);
    let link = match at {
        Some(_) => None,
        None => Some(args.grapes.link(&net, args.timeout, TRIES).await?),
    };
    let client = PeerRpcClient::new(&endpoint, link.clone(), args.config());
    let mut output = args.output.on(terminal);
    let done = if args.map {
        map(&mut output, &client, args, &key, &payload).await
    } else if args.brokers.is_empty() {
        let reply = match at {
            Some(at) => client.request_at(at, &key, &payload).await,
            None => client.request(&key, &payload).await,
        };
        reply.map_err(|error| failed(&error, &to)).map(|value| {
            let from = senders.try_recv().ok();
            let json =
                serde_json::json!({ "from": from, "value": value, "milliseconds": milliseconds(began.elapsed()) });
            output.result(shown(&output, &value, args.raw), &json);
            Exit::PASSED
        })
    } else {
        connect(args, &endpoint, &client, link, &key, &payload).await.map(|(value, connection)| {
            let (from, took) = (connection.address(), milliseconds(began.elapsed()));
            let report = connection.report();
            let json = serde_json::json!({ "from": from, "value": value, "milliseconds": took, "connection": report });
            output.result(shown(&output, &value, args.raw), &json);
            Exit::PASSED
        })
    };
    drop(client);
    close(&endpoint).await;
    done
}

/// Reaches the service across NATs, and asks it.
async fn connect(
    args: &RequestArgs,
    endpoint: &Endpoint,
    client: &PeerRpcClient,
    link: Option<Link>,
    key: &str,
    payload: &Value,
) -> Result<(Value, Connection), Failure> {
    let failed = |error: &RpcError| Failure::rpc(error, key, &args.grapes.to_string(), args.timeout);
    let asked = async {
        let config = args.brokers.config(args.config()).await?.unwrap_or_default();
        let connector = Connector::new(endpoint, &Puncher::new(endpoint), client, link, config);
        let connection = connector.connect(key).await.map_err(|error| {
            Failure::unreached(error.to_string())
                .in_lines()
                .advise("see whether the service is registered with this broker (`grenache serve --broker`)")
        })?;
        let value = connection.request(payload).await.map_err(|error| failed(&error))?;
        Ok((value, connection))
    };
    within(args.timeout, &format!("no reply from {key}"), asked).await
}

/// Asks all, and tells each one's outcome as it comes. The exit code is the highest of them.
async fn map(
    output: &mut Output<'_>,
    client: &PeerRpcClient,
    args: &RequestArgs,
    key: &str,
    payload: &Value,
) -> Result<Exit, Failure> {
    let options = RequestOptions::default().timeout(args.timeout).retries(args.retries);
    let failed = |error: &RpcError, to: &str| Failure::rpc(error, to, &args.grapes.to_string(), args.timeout);
    let asking = client.map_each(key, payload, args.limit, options).await;
    let mut replies = asking.map_err(|error| failed(&error, key))?;
    let mut exit = Exit::PASSED;
    while let Some((from, reply)) = replies.next().await {
        match reply {
            Ok(value) => {
                let json = serde_json::json!({ "from": from, "value": value });
                // A text of several lines could look like other peers' replies.
                output.result(format_args!("{from} {}", printable(&shown(output, &value, args.raw))), &json);
            }
            Err(error) => {
                let failure = failed(&error, &from.to_string());
                exit = exit.max(failure.exit());
                match output.json {
                    true => output.result("", &serde_json::json!({ "from": from, "error": error.to_string() })),
                    false => output.failed(&failure),
                }
            }
        }
    }
    Ok(exit)
}

fn shown(output: &Output<'_>, value: &Value, raw: bool) -> String {
    if raw { output.plain(value) } else { json(value) }
}
