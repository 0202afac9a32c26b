//! `grenache serve`: a service whose answers are its own, fixed, or a command's.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, select};
use grenache::connect::Acceptor;
use grenache::event::Event;
use grenache::net::Net;
use grenache::punch::Puncher;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, Request, Requests, ServerConfig};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::address::name;
use super::announce::{Told, of_announcing};
use super::brokers::BrokersArgs;
use super::common::{GrapesArgs, Output, OutputArgs, SocketArgs, TRIES, close, milliseconds, observed, signals, time};
use super::exec::{Asked, Exec};
use super::failure::Failure;
use crate::cli::Exit;
use crate::cli::printable::printable;
use crate::cli::terminal::Terminal;

/// What `grenache serve --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It serves until SIGTERM or Ctrl-C, and then answers what is in flight for up to
5 s. On standard error it tells where it listens, that it is announced, and of
each request.

CMD is run by /bin/sh for each request, with the payload's JSON on its standard
input and GRENACHE_KEY, GRENACHE_FROM and GRENACHE_RID in its environment. What
it prints is the reply: JSON as it is, anything else as a text. An exit status
other than 0 is an error to the client.

Examples:
  grenache serve rpc_test --echo
  grenache serve rpc_test --reply '\"world\"' --port 1337
  grenache serve adder --exec 'jq add' --broker my_broker

--json logs JSON: objects with \"event\", which is listening, announced, request,
failed or ending.

Exit codes: 0 ended by a signal; 1 the port is in use; 2 wrong usage; 5 the
Grape's name cannot be resolved.";

/// How long the log shows of a payload or a reply, in characters.
const SHOWN: usize = 100;

/// Up to how many bytes a payload or a reply is whole in the JSON log.
const SHOWN_WHOLE: usize = 1000;

/// How long requests in flight may take at the end.
const STOPPING: Duration = Duration::from_secs(5);

/// How long one announce may take before it is tried again.
pub(super) const ANNOUNCE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[group(id = "answer", required = true, multiple = false, args = ["echo", "reply", "exec"])]
pub(in crate::cli) struct ServeArgs {
    /// The service's name
    #[arg(value_parser = name)]
    name: String,
    /// Reply with what is asked
    #[arg(long)]
    echo: bool,
    /// Reply with this JSON
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    reply: Option<Value>,
    /// Reply with what CMD prints
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
    /// What CMD prints is a text, even where it looks like JSON
    #[arg(long, conflicts_with_all = ["echo", "reply"])]
    text: bool,
    /// How long CMD may run
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s", conflicts_with_all = ["echo", "reply"])]
    exec_timeout: Duration,
    /// How many CMDs run at once; further requests wait
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=4096))]
    jobs: u16,
    #[command(flatten)]
    socket: SocketArgs,
    #[command(flatten)]
    brokers: BrokersArgs,
    /// Announce the name about this often
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "2min")]
    every: Duration,
    /// Do not announce the name: clients need the address
    #[arg(long, conflicts_with = "every")]
    no_announce: bool,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

impl ServeArgs {
    fn answer(&self) -> Answer {
        match (&self.reply, &self.exec) {
            (Some(reply), _) => Answer::Reply(reply.clone()),
            (None, Some(command)) => {
                Answer::Exec(Exec { command: command.clone(), text: self.text, timeout: self.exec_timeout })
            }
            (None, None) => Answer::Echo,
        }
    }
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("this is no JSON ({error}): write a text in its quotes"))
}

/// What a request is answered with.
#[derive(Debug, Clone)]
enum Answer {
    Echo,
    Reply(Value),
    Exec(Exec),
}

/// Something to tell.
enum News {
    Announcing(Event),
    Answered(Box<Answered>),
}

/// What became of a request.
#[derive(Debug)]
struct Answered {
    from: SocketAddr,
    rid: String,
    key: String,
    payload: Shown,
    result: Result<Shown, String>,
    took: Duration,
}

/// What the log shows of a payload or a reply.
#[derive(Debug)]
struct Shown {
    text: String,
    bytes: usize,
    /// Where it is small.
    value: Option<Value>,
}

pub(super) async fn serve(terminal: &mut Terminal, args: &ServeArgs) -> Result<Exit, Failure> {
    let mut signals = signals()?;
    let mut output = args.output.on(terminal);
    let (net, sender, mut news) = observed(|event| of_announcing(event).map(News::Announcing));
    // Without announces there may be a broker to look up.
    let link = match args.no_announce && !args.brokers.is_by_name() {
        true => None,
        false => Some(args.grapes.link(&net, ANNOUNCE_WITHIN, TRIES).await?),
    };
    let endpoint = args.socket.bind(&net, None)?;
    let port = endpoint.local_addr().port();
    let (server, requests) = PeerRpcServer::new(&endpoint, ServerConfig::default().stop_timeout(STOPPING));
    let answering = net.spawn(Box::pin(answer_all(net.clone(), requests, args.answer(), args.jobs.into(), sender)));
    output.log(
        format_args!("listening at UDP port {port} as `{}`", args.name),
        &json!({ "event": "listening", "name": args.name, "port": port }),
    );
    let announcing = match &link {
        Some(link) if !args.no_announce => Some(link.start_announcing(&args.name, port, args.every)),
        _ => None,
    };
    let accepting = args.brokers.config(ClientConfig::default()).await?.map(|config| {
        let client = PeerRpcClient::new(&endpoint, link.clone(), ClientConfig::default());
        let puncher = Puncher::new(&endpoint);
        Acceptor::start(&endpoint, &puncher, &client, link, &args.name, config, server.also_on())
    });
    let mut told = Told::default();
    loop {
        match select(pin!(signals.next()), pin!(news.recv())).await {
            Either::Right((Some(News::Announcing(event)), _)) => told.tell(&mut output, &event),
            Either::Right((Some(News::Answered(answered)), _)) => answered.tell(&mut output),
            Either::Left((signal, _)) => {
                output.log(format_args!("ending, for {signal}"), &json!({ "event": "ending", "signal": signal }));
                break;
            }
            Either::Right((None, _)) => break,
        }
    }
    drop(announcing);
    // Callers that came over sockets of their own are answered as well.
    let fresh = accepting.map(Acceptor::stop);
    // What is in flight is answered, unless there is a second signal.
    let _ = select(pin!(signals.next()), pin!(server.stop())).await;
    while let Ok(news) = news.try_recv() {
        if let News::Answered(answered) = news {
            answered.tell(&mut output);
        }
    }
    drop((answering, fresh));
    close(&endpoint).await;
    Ok(Exit::PASSED)
}

async fn answer_all(net: Net, mut requests: Requests, answer: Answer, jobs: usize, news: mpsc::Sender<News>) {
    let jobs = Arc::new(Semaphore::new(jobs));
    // A request is taken when there is somebody to answer it: those that wait slow their clients down.
    while let Ok(job) = jobs.clone().acquire_owned().await {
        let Some(request) = requests.next().await else { return };
        let (answer, news) = (answer.clone(), news.clone());
        let answering = async move {
            let answered = answer.to(request).await;
            // Nobody listens any more where the command is about to end.
            let _ = news.send(News::Answered(Box::new(answered))).await;
            drop(job);
        };
        net.spawn(Box::pin(answering)).detach();
    }
}

impl Answer {
    async fn to(&self, request: Request) -> Answered {
        let began = Instant::now();
        let payload = Shown::new(&request.payload);
        let (from, rid, key) = (request.from, short(&request.rid), short(&request.key));
        let result = match self {
            Self::Echo => Ok(request.payload.clone()),
            Self::Reply(value) => Ok(value.clone()),
            Self::Exec(exec) => {
                let Request { rid, key, payload, from, .. } = &request;
                exec.answer(&Asked { rid, key, payload, from: *from }).await
            }
        };
        let shown = result.as_ref().map(Shown::new).map_err(|error| short(error));
        request.reply(result);
        Answered { from, rid, key, payload, result: shown, took: began.elapsed() }
    }
}

impl Answered {
    fn tell(&self, output: &mut Output<'_>) {
        let Self { from, rid, key, payload, result, took } = self;
        let took = milliseconds(*took);
        let mut json = json!({ "event": "request", "from": from, "rid": rid, "key": key, "milliseconds": took });
        json["payload_bytes"] = payload.bytes.into();
        if let Some(value) = &payload.value {
            json["payload"] = value.clone();
        }
        let answer = match result {
            Ok(reply) => {
                json["reply_bytes"] = reply.bytes.into();
                if let Some(value) = &reply.value {
                    json["reply"] = value.clone();
                }
                reply.text.clone()
            }
            Err(error) => {
                json["error"] = error.clone().into();
                format!("error {error}")
            }
        };
        let line = format!("{from} {key} {} -> {answer} in {took} ms", payload.text);
        output.log(printable(&line), &json);
    }
}

impl Shown {
    fn new(value: &Value) -> Self {
        let text = value.to_string();
        let value = (text.len() <= SHOWN_WHOLE).then(|| value.clone());
        Self { bytes: text.len(), value, text: short(&text) }
    }
}

/// The beginning of a peer's text.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_sends_is_told_in_short() {
        assert_eq!(short(&"é".repeat(SHOWN)), "é".repeat(SHOWN));
        assert_eq!(short(&"é".repeat(SHOWN + 1)), format!("{}…", "é".repeat(SHOWN)));
        let (small, large) = ("x".repeat(SHOWN_WHOLE - 2), "x".repeat(SHOWN_WHOLE - 1));
        assert_eq!(Shown::new(&small.clone().into()).value, Some(small.into()));
        assert_eq!(Shown::new(&large.into()).value, None);
    }
}
