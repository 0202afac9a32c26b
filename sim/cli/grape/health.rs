//! `grenache grape-health`: asks a Grape whether it works, for containers' health checks and start-up scripts.

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use grenache::net::{HostNetwork, Network};
use thiserror::Error;
use tokio::time::timeout;

use super::bootstrap::HostPort;
use super::process_one;
use crate::cli::Exit;
use crate::cli::terminal::{Causes, Terminal};

/// What `grenache grape-health --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It looks up a name that nobody announces, so that both the HTTP API and the DHT
node have to answer. It works for the Node.js Grape too.

Exit codes:
  0  the Grape answers
  1  it does not
  2  the command line is wrong";

/// The name that is looked up: nobody announces it.
const NAME: &str = "grenache_health";

#[derive(Debug, Args)]
pub(in crate::cli) struct HealthArgs {
    /// The Grape's HTTP API, such as http://127.0.0.1:30001 [default: that of process 1, for containers]
    #[arg(value_name = "URL")]
    url: Option<ApiUrl>,
    /// How long the answer may take
    #[arg(long, value_name = "MS", value_parser = super::args::milliseconds, default_value = "5000")]
    timeout: Duration,
}

/// `http://host:port`, or `host:port` for short.
#[derive(Debug, Clone)]
struct ApiUrl(HostPort);

impl FromStr for ApiUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").unwrap_or(text);
        rest.strip_suffix('/').unwrap_or(rest).parse().map(Self)
    }
}

/// Why a Grape counts as ill.
#[derive(Debug, Error)]
enum HealthError {
    #[error("process 1 is no `grenache grape`, as in its container: write the URL of the Grape to ask")]
    Unnamed(#[source] Option<io::Error>),
    #[error("the Grape at {0} cannot be asked")]
    Unreachable(HostPort, #[source] io::Error),
    #[error("the Grape at {0} has not answered within {1:?}")]
    Late(HostPort, Duration),
    #[error("what answers at {0} is no working Grape: {1}")]
    Wrong(HostPort, String),
}

impl HealthError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unnamed(_) => Exit::WRONG,
            _ => Exit::FAILED,
        }
    }
}

/// Asks, and says what is wrong where something is.
pub(in crate::cli) fn health(terminal: &mut Terminal, args: &HealthArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(format_args!("error: cannot start: {error}"));
            return Exit::FAILED;
        }
    };
    let asked = match &args.url {
        Some(ApiUrl(api)) => runtime.block_on(ask(api, args.timeout)),
        None => match process_one::api() {
            Ok(Some(api)) => runtime.block_on(ask(&api, args.timeout)),
            Ok(None) => Err(HealthError::Unnamed(None)),
            Err(error) => Err(HealthError::Unnamed(Some(error))),
        },
    };
    match asked {
        Ok(()) => Exit::PASSED,
        Err(error) => {
            terminal.error(format_args!("error: {}", Causes(&error)));
            error.exit()
        }
    }
}

async fn ask(api: &HostPort, patience: Duration) -> Result<(), HealthError> {
    let unreachable = |error| HealthError::Unreachable(api.clone(), error);
    let asked = async {
        let address = SocketAddr::from(api.resolve().await.map_err(unreachable)?);
        let http = HostNetwork::new().http();
        let body = Bytes::from(serde_json::json!({ "rid": NAME, "data": NAME }).to_string());
        http.post(address, "/lookup", body).await.map_err(unreachable)
    };
    let (status, body) = timeout(patience, asked).await.map_err(|_| HealthError::Late(api.clone(), patience))??;
    match serde_json::from_slice(&body) {
        Ok(serde_json::Value::Array(_)) if status == 200 => Ok(()),
        _ => {
            let start: String = String::from_utf8_lossy(&body).chars().take(80).collect();
            Err(HealthError::Wrong(api.clone(), format!("status {status}, {start:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_named_by_its_url_or_by_host_and_port() {
        for text in ["http://127.0.0.1:30001", "http://127.0.0.1:30001/", "127.0.0.1:30001"] {
            assert_eq!(text.parse::<ApiUrl>().expect(text).0.to_string(), "127.0.0.1:30001");
        }
        for text in ["", "http://", "https://127.0.0.1:1", "127.0.0.1", "http://127.0.0.1:30001/lookup", "a:0"] {
            assert!(text.parse::<ApiUrl>().is_err(), "{text:?}");
        }
    }
}
