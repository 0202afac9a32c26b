//! The command line of `grenache grape`: the original's flags and defaults, and options of our own.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use grenache::grape::GrapeConfig;
use tracing_subscriber::filter::LevelFilter;

use super::bootstrap::{Bootstrap, HostName, HostPort};

const ORIGINAL: &str = "The original's options";
const OURS: &str = "Options of our own";

/// What `grenache grape --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It takes the place of the npm package grenache-grape's `grape`: same flags, same
DHT messages, same HTTP API.

Examples:
  grenache grape --dp 20001 --aph 30001 --bn 127.0.0.1:20002
  grenache grape --dp 20002 --aph 40001 --bn 127.0.0.1:20001
  grenache grape --dp 20001 --aph 30001 --bn ''         the first of all

With DEBUG=grenache:grape, it prints the original's lines on standard error.

Exit codes:
  0  it was asked to end, by SIGTERM or SIGINT
  1  it could not start, such as for a port that is in use, or its socket broke
  2  the command line or the state file is wrong";

#[derive(Debug, Args)]
pub(in crate::cli) struct GrapeArgs {
    /// UDP port of the DHT node
    #[arg(long = "dp", visible_alias = "dht_port", value_name = "PORT", help_heading = ORIGINAL)]
    pub(super) dht_port: u16,
    /// TCP port of the HTTP API
    #[arg(long = "aph", visible_alias = "api_port", value_name = "PORT", help_heading = ORIGINAL)]
    api_port: u16,
    /// Grapes to start from, host:port with commas between, or '' for none
    #[arg(long = "bn", visible_alias = "bootstrap", value_name = "NODES", help_heading = ORIGINAL)]
    pub(super) bootstrap: Bootstrap,
    /// Listen on this address only, and store what is announced here under it
    #[arg(short = 'b', long = "bind", visible_alias = "b", value_name = "HOST", help_heading = ORIGINAL)]
    pub(super) bind: Option<HostName>,
    /// Queries that one announce, lookup, put or get keeps in flight [default: 24]
    #[arg(long = "dc", visible_alias = "dht_concurrency", value_name = "N", help_heading = ORIGINAL)]
    concurrency: Option<NonZeroUsize>,
    /// Names whose peers are stored [default: 5000]
    #[arg(long = "dht_maxTables", value_name = "N", help_heading = ORIGINAL)]
    max_tables: Option<NonZeroUsize>,
    /// Values that are stored [default: 5000]
    #[arg(long = "dht_maxValues", value_name = "N", help_heading = ORIGINAL)]
    max_values: Option<NonZeroUsize>,
    /// How long a peer is stored after its last announce: one to two times this [default: 120000]
    #[arg(long = "dht_peer_maxAge", visible_alias = "dpa", value_name = "MS", value_parser = milliseconds, help_heading = ORIGINAL)]
    peer_max_age: Option<Duration>,
    /// How long what lookups here found is given again [default: half of --dpa]
    #[arg(long = "cache_maxAge", value_name = "MS", value_parser = milliseconds, help_heading = ORIGINAL)]
    cache_max_age: Option<Duration>,
    /// After how much silence another node is pinged [default: 300000]
    #[arg(long = "dnl", visible_alias = "dht_nodeLiveness", value_name = "MS", value_parser = milliseconds, help_heading = ORIGINAL)]
    liveness: Option<Duration>,
    /// The longest body of an HTTP request [default: 8192]
    #[arg(long = "check_maxPayloadSize", value_name = "BYTES", help_heading = ORIGINAL)]
    max_payload: Option<NonZeroUsize>,
    /// Keep the node's id and token secrets in FILE, so that after a restart other nodes know it again
    #[arg(long, value_name = "FILE", help_heading = OURS)]
    pub(super) state: Option<PathBuf>,
    /// Serve metrics for Prometheus at http://ADDR:PORT/metrics
    #[arg(long, value_name = "ADDR:PORT", help_heading = OURS)]
    pub(super) metrics: Option<SocketAddr>,
    /// How our own logs look on standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, help_heading = OURS)]
    pub(super) log_format: LogFormat,
    /// What is logged: off, error, warn, info, debug or trace [default: info, or warn with DEBUG=grenache:grape]
    #[arg(long, value_name = "LEVEL", value_parser = level, help_heading = OURS)]
    pub(super) log: Option<LevelFilter>,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl GrapeArgs {
    /// The Grape that is asked for, without its addresses to start from. `host` is what `--bind` stands for.
    pub(super) fn config(&self, host: Option<Ipv4Addr>) -> GrapeConfig {
        let address = |port| SocketAddr::from((host.unwrap_or(Ipv4Addr::UNSPECIFIED), port));
        let mut config = GrapeConfig::default().dht_address(address(self.dht_port)).api_address(address(self.api_port));
        if let Some(host) = host {
            config = config.store_own(host);
        }
        if let Some(queries) = self.concurrency {
            config = config.concurrency(queries.get());
        }
        if let Some(tables) = self.max_tables {
            config = config.max_tables(tables);
        }
        if let Some(values) = self.max_values {
            config = config.max_values(values);
        }
        if let Some(age) = self.peer_max_age {
            config = config.peer_max_age(age);
        }
        if let Some(age) = self.cache_max_age {
            config = config.cache_max_age(age);
        }
        if let Some(silence) = self.liveness {
            config = config.liveness(silence);
        }
        if let Some(bytes) = self.max_payload {
            config = config.max_payload(bytes.get());
        }
        config
    }

    /// Where this machine finds the API; `None` for a port that the system has chosen.
    pub(super) fn local_api(self) -> Option<HostPort> {
        let host = self.bind.unwrap_or_else(HostName::loopback);
        (self.api_port != 0).then_some(HostPort { host, port: self.api_port })
    }
}

pub(super) fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a whole number of milliseconds, 1 or more".to_owned()),
        Ok(milliseconds) => Ok(Duration::from_millis(milliseconds)),
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "write off, error, warn, info, debug or trace".to_owned())
}
