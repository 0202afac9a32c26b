//! `grenache lookup`: where a service is.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use grenache::net::{HostNetwork, Net};
use rand::seq::IndexedRandom as _;
use serde_json::json;

use super::address::name;
use super::common::{GrapesArgs, OutputArgs, TRIES, time, within};
use super::failure::Failure;
use crate::cli::Exit;
use crate::cli::terminal::Terminal;

/// What `grenache lookup --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It prints an address a line, in the Grape's order.

Examples:
  grenache lookup rest:util:net
  curl \"http://$(grenache lookup --random rest:util:net)/\"

--json prints {\"name\", \"addresses\"}.

Exit codes: 0 found; 1 the Grape refused; 2 wrong usage; 4 nobody has announced
it; 5 no Grape reached.";

#[derive(Debug, Args)]
pub(in crate::cli) struct LookupArgs {
    /// The service's name
    #[arg(value_parser = name)]
    name: String,
    /// Print all addresses, which is the default
    #[arg(short, long, conflicts_with_all = ["first", "random"])]
    all: bool,
    /// Print the first address only
    #[arg(short, long, conflicts_with = "random")]
    first: bool,
    /// Print one of the addresses, chosen at random
    #[arg(short, long)]
    random: bool,
    /// How long it may take
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

pub(super) async fn lookup(terminal: &mut Terminal, args: &LookupArgs) -> Result<Exit, Failure> {
    let net: Net = Arc::new(HostNetwork::new());
    let found = async {
        let link = args.grapes.link(&net, args.timeout, TRIES).await?;
        let found = link.lookup(&args.name).await;
        found.map_err(|error| Failure::link(&error, &args.grapes.to_string(), &args.name))
    };
    let mut addresses = within(args.timeout, "it was not looked up", found).await?;
    if args.first {
        addresses.truncate(1);
    } else if args.random {
        addresses = addresses.choose(&mut net.rng("lookup")).copied().into_iter().collect();
    }
    let lines: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    args.output.on(terminal).result(lines.join("\n"), &json!({ "name": args.name, "addresses": addresses }));
    Ok(Exit::PASSED)
}
