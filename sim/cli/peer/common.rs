//! What the commands have in common: options, how results are written, how values are read.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use grenache::event::Event;
use grenache::link::{CallOptions, Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache::transport::{Endpoint, EndpointConfig};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::address::{Address, Target, grape};
use super::failure::Failure;
use crate::cli::printable::{self, printable_lines};
use crate::cli::signals::Signals;
use crate::cli::terminal::Terminal;

/// How many events may wait to be told; those after them are not told.
const MAX_UNTOLD: usize = 1024;

/// How long a command waits at its end for peers to acknowledge that connections are closed.
const CLOSING: Duration = Duration::from_millis(500);

/// How often a Grape is asked that is not reached.
pub(super) const TRIES: u32 = 3;

/// Which Grapes to ask.
#[derive(Debug, Args)]
pub(super) struct GrapesArgs {
    /// A Grape's HTTP API; of several, the first that is reached is asked
    #[arg(
        short,
        long = "grape",
        value_name = "HOST:PORT",
        env = "GRENACHE_GRAPE",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:30001",
        value_parser = grape
    )]
    grapes: Vec<Address>,
}

impl GrapesArgs {
    /// A link whose calls take `within` at most, in all of their tries.
    pub(super) async fn link(&self, net: &Net, within: Duration, tries: u32) -> Result<Link, Failure> {
        // The others do where one cannot be resolved.
        let (mut resolved, mut failed) = (Vec::new(), None);
        for grape in &self.grapes {
            match grape.resolve().await {
                Ok(address) => resolved.push(address),
                Err(failure) => failed = Some(failure),
            }
        }
        let mut grapes = resolved.into_iter();
        let Some(first) = grapes.next() else {
            return Err(failed.unwrap_or_else(|| Failure::wrong("there is no Grape to ask")));
        };
        let calls = u32::try_from(self.grapes.len()).unwrap_or(u32::MAX).saturating_mul(tries);
        let calls = CallOptions::default().tries(tries).value_tries(tries).timeout(within / calls.max(1));
        Ok(Link::new(net, grapes.fold(LinkConfig::new(first), LinkConfig::fallback).calls(calls)))
    }
}

impl fmt::Display for GrapesArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grapes: Vec<String> = self.grapes.iter().map(Address::to_string).collect();
        f.write_str(&grapes.join(", "))
    }
}

/// The UDP socket that peers are spoken to from.
#[derive(Debug, Args)]
pub(super) struct SocketArgs {
    /// The UDP port, from which all is sent too [default: any]
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// The only address of this host to use [default: every]
    #[arg(short, long, value_name = "ADDR")]
    bind: Option<IpAddr>,
}

impl SocketArgs {
    /// Binds it; where no address is asked for, on every one of the family of `towards`, else of IPv4.
    pub(super) fn bind(&self, net: &Net, towards: Option<SocketAddr>) -> Result<Endpoint, Failure> {
        self.bind_port(net, self.port, towards)
    }

    /// Binds another port.
    pub(super) fn bind_port(&self, net: &Net, port: u16, towards: Option<SocketAddr>) -> Result<Endpoint, Failure> {
        let local = match (self.bind, towards) {
            (Some(address), _) => address,
            (None, Some(SocketAddr::V6(_))) => Ipv6Addr::UNSPECIFIED.into(),
            (None, _) => Ipv4Addr::UNSPECIFIED.into(),
        };
        let local = SocketAddr::new(local, port);
        Endpoint::bind(net, local, EndpointConfig::default()).map_err(|error| {
            Failure::refused(format!("cannot bind UDP {local}: {error}"))
                .advise("choose another --port or --bind, or leave them out for any")
        })
    }
}

/// How results look.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Print JSON: an object a result, each in a line of its own
    #[arg(long)]
    pub(super) json: bool,
}

impl OutputArgs {
    pub(super) fn on<'a>(&self, terminal: &'a mut Terminal) -> Output<'a> {
        Output { terminal, json: self.json }
    }
}

/// Where results go: standard output. What is said beside them goes to standard error.
#[derive(Debug)]
pub(super) struct Output<'a> {
    terminal: &'a mut Terminal,
    pub(super) json: bool,
}

impl Output<'_> {
    /// One result.
    pub(super) fn result(&mut self, text: impl fmt::Display, json: &Value) {
        match self.json {
            true => self.terminal.line(printable::json(json)),
            false => self.terminal.line(text),
        }
    }

    /// One thing that has happened.
    pub(super) fn log(&mut self, text: impl fmt::Display, json: &Value) {
        match self.json {
            true => self.terminal.error(printable::json(json)),
            false => self.terminal.error(text),
        }
    }

    /// One failure that is not the command's end.
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.log(failure, &serde_json::json!({ "event": "failed", "error": failure.problem() }));
    }

    /// A value for people: a text as it is, or, where it would go to a terminal, as [`printable_lines`]; else JSON.
    pub(super) fn plain(&self, value: &Value) -> String {
        match value.as_str() {
            Some(text) if self.terminal.is_watched() => printable_lines(text),
            Some(text) => text.to_owned(),
            None => printable::json(value),
        }
    }
}

/// The signals that ask the command to end, from now on.
pub(super) fn signals() -> Result<Signals, Failure> {
    Signals::new().map_err(|error| Failure::refused(format!("cannot start: {error}")))
}

/// The operating system's network, and what `news` makes of its events. What else is news can be sent beside them.
pub(super) fn observed<T: Send + 'static>(news: fn(&Event) -> Option<T>) -> (Net, mpsc::Sender<T>, mpsc::Receiver<T>) {
    let (sender, events) = mpsc::channel(MAX_UNTOLD);
    let observer = sender.clone();
    let net = HostNetwork::new().observe(move |event| {
        if let Some(news) = news(event) {
            // Those that nobody has taken are older, and as good.
            let _ = observer.try_send(news);
        }
    });
    (Arc::new(net), sender, events)
}

/// Where a target is: an address as it is, a name by asking Grapes.
pub(super) async fn resolve(
    net: &Net,
    grapes: &GrapesArgs,
    within: Duration,
    target: &Target,
) -> Result<Vec<SocketAddr>, Failure> {
    match target {
        Target::At(address) => Ok(vec![address.resolve().await?]),
        Target::Name(name) => {
            let found = grapes.link(net, within, TRIES).await?.lookup(name).await;
            found.map_err(|error| Failure::link(&error, &grapes.to_string(), name))
        }
    }
}

/// Closes connections so that peers know of it.
pub(super) async fn close(endpoint: &Endpoint) {
    // Who does not answer in time finds out by himself.
    let _ = timeout(CLOSING, endpoint.close()).await;
}

/// Bounds a call in time; `what` has not happened by then.
pub(super) async fn within<T>(
    time: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(time, call).await.unwrap_or_else(|_| Err(Failure::late(what, time)))
}

/// Reads a time, such as `500ms`, `10s` or `2min`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("write a time with its unit, such as 500ms, 10s or 2min".to_owned()),
    }
}

/// The text itself, or standard input where it is `-` or there is none.
pub(super) fn text_or_stdin(text: Option<&str>, limit: usize) -> Result<String, Failure> {
    match text {
        Some(text) if text != "-" => Ok(text.to_owned()),
        _ => read(io::stdin().lock(), limit),
    }
}

/// Reads all there is. A newline at the end is the last line's, not the text's.
fn read(from: impl io::Read, limit: usize) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = from.take(most).read_to_end(&mut bytes);
    read.map_err(|error| Failure::wrong(format!("cannot read standard input: {error}")))?;
    if bytes.len() > limit {
        return Err(Failure::wrong(format!(
            "standard input has more than {limit} bytes, which are the most there may be"
        )));
    }
    let text = String::from_utf8(bytes).map_err(|_| Failure::wrong("standard input is no UTF-8 text"))?;
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

/// A time in milliseconds, to the microsecond.
pub(super) fn milliseconds(time: Duration) -> f64 {
    // Rounded so that its digits are all meant.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2min"), Ok(Duration::from_secs(120)));
        for text in ["", "5", "0s", "-1s", "soon"] {
            assert!(time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn input_is_text_within_a_limit_and_ends_before_its_last_newline() {
        for (input, text) in [("", ""), ("a", "a"), ("a\n", "a"), ("a\n\n", "a\n"), ("\n", "")] {
            assert_eq!(read(input.as_bytes(), 3).as_deref(), Ok(text), "{input:?}");
        }
        assert_eq!(read(&b"abcd"[..], 3).expect_err("4 of 3 bytes").exit(), crate::cli::Exit::WRONG);
        assert_eq!(read(&b"\xff"[..], 3).expect_err("no UTF-8").exit(), crate::cli::Exit::WRONG);
    }

    #[test]
    fn times_are_told_to_the_microsecond() {
        assert_eq!(milliseconds(Duration::from_nanos(1_234_567)), 1.235);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000.0);
    }
}
