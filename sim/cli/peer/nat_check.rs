//! `grenache nat-check`: finds out what the NAT in front of this host does.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use grenache::nat::{CheckConfig, CheckError, MAX_BROKERS, check};
use grenache::net::{HostNetwork, Net};
use serde_json::json;

use super::address::Target;
use super::common::{GrapesArgs, OutputArgs, resolve, time, within};
use super::failure::Failure;
use crate::cli::Exit;
use crate::cli::terminal::Terminal;

/// What `grenache nat-check --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It asks brokers of this project how they see this host (RFC 5780). Two brokers
at different IP addresses, one of them with --alternate-port, make the answer
complete; without them it is unknown in part, and says what would help. Its
words are those of RFC 4787.

Example:
  grenache nat-check --broker 203.0.113.1:7070 --broker fibo_broker

--json prints {\"mapping\", \"filtering\", \"ports\", \"public_address\", \"brokers\",
\"alternate_port\", \"advice\"}.

Exit codes: 0 told, even if in part; 1 no socket can be opened; 2 wrong usage;
4 nobody has announced a broker's name; 5 no broker answers, or no Grape.";

#[derive(Debug, Args)]
pub(in crate::cli) struct NatCheckArgs {
    /// A broker: its name, which is looked up, or its address; up to 8, and the first 8 addresses of them
    #[arg(long = "broker", value_name = "NAME|HOST:PORT", required = true)]
    brokers: Vec<Target>,
    /// How long to wait for an answer before it counts as filtered
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1200ms")]
    wait: Duration,
    /// How long it may take
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s")]
    timeout: Duration,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

pub(super) async fn nat_check(terminal: &mut Terminal, args: &NatCheckArgs) -> Result<Exit, Failure> {
    let net: Net = Arc::new(HostNetwork::new());
    if args.brokers.len() > MAX_BROKERS {
        let given = args.brokers.len();
        return Err(Failure::wrong(format!("these are {given} brokers: {MAX_BROKERS} at most are asked")));
    }
    let checked = async {
        let mut brokers = Vec::new();
        for broker in &args.brokers {
            brokers.extend(resolve(&net, &args.grapes, args.timeout, broker).await?);
        }
        // A name may have many addresses.
        brokers.truncate(MAX_BROKERS);
        check(&net, &brokers, CheckConfig::default().timeout(args.wait)).await.map_err(|error| match error {
            CheckError::NoAnswer(_) => Failure::unreached(error.to_string())
                .advise("run some with `grenache broker`, where this host can reach them over UDP"),
            error => Failure::refused(error.to_string()),
        })
    };
    let report = within(args.timeout, "the NAT was not found out about", checked).await?;
    let mut json = json!(report);
    json["advice"] = report.advice().into();
    args.output.on(terminal).result(&report, &json);
    Ok(Exit::PASSED)
}
