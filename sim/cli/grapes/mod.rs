//! `grenache grapes`: several Grapes that know each other, in the background.

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Exit;
use super::terminal::{Causes, Terminal};

mod down;
mod plan;
mod state;
mod status;
mod up;

const UP_HELP: &str = "\
It waits until each Grape answers and finds what is announced at the others. On
a failure, or on Ctrl-C, it ends what it started. Logs and what is up are kept
in $XDG_STATE_HOME/grenache or ~/.local/state/grenache.

Exit codes:
  0  all are up
  1  one did not come up, or Grapes of this name are up already
  2  the command line is wrong, a port is in use, or Node.js, the npm package
     grenache-grape or Docker is missing";

const STATUS_HELP: &str = "\
Exit codes:
  0  all that were started are up
  1  one is down, or none was started
  2  the command line is wrong";

const DOWN_HELP: &str = "\
Each is asked to end (SIGTERM) and killed where it does not within 5 seconds.
What is down already is no error.

Exit codes:
  0  none is up any more
  1  one could not be ended
  2  the command line is wrong";

#[derive(Debug, Args)]
pub(super) struct GrapesArgs {
    #[command(subcommand)]
    command: GrapesCommand,
}

#[derive(Debug, Subcommand)]
enum GrapesCommand {
    /// Starts Grapes that know each other; they go on when this command ends
    #[command(after_help = UP_HELP)]
    Up(UpArgs),
    /// Shows which of the Grapes that were started are up
    #[command(after_help = STATUS_HELP)]
    Status(WhichArgs),
    /// Ends the Grapes that were started
    #[command(after_help = DOWN_HELP)]
    Down(WhichArgs),
}

#[derive(Debug, Args)]
struct UpArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    count: u16,
    /// Whose: ours (rust), the original's (node), or both by turns (mixed)
    #[arg(long, value_enum, default_value_t = Kinds::Rust, hide_possible_values = true)]
    kind: Kinds,
    /// What they run in: process or docker
    #[arg(long, value_enum, default_value_t = Place::Process, hide_possible_values = true)]
    on: Place,
    /// UDP port of the first one's DHT node, and the next ports for the others [default: from 20001 on, what is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    dht_port: Option<u16>,
    /// TCP port of the first one's HTTP API, and the next ports for the others [default: 30001, 40001, 50001,
    /// 50002 and so on, what is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,
    /// The only address that they listen on; 0.0.0.0 for every address
    #[arg(long, value_name = "ADDR", default_value_t = Ipv4Addr::LOCALHOST)]
    bind: Ipv4Addr,
    /// What they are called: NAME-1, NAME-2 and so on. Grapes of other names can be up beside them
    #[arg(long, value_name = "NAME", default_value = "grape", value_parser = name)]
    name: String,
    /// How long they may take, in seconds
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    /// Print JSON: an array of what the table shows, and the logs' paths
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct WhichArgs {
    /// Only those of this name [default: all]
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `--kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kinds {
    Rust,
    Node,
    Mixed,
}

/// `--on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Place {
    Process,
    Docker,
}

/// Names go into those of files and containers.
fn name(text: &str) -> Result<String, String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !text.is_empty() && text.len() <= 40 && text.chars().all(letters) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("write up to 40 letters, digits, `-` and `_`".to_owned())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
        _ => Err("write a whole number of seconds, from 1 to 3600".to_owned()),
    }
}

/// Does what is asked.
pub(super) fn grapes(terminal: &mut Terminal, args: &GrapesArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(format_args!("error: cannot start: {error}"));
            return Exit::FAILED;
        }
    };
    let done = runtime.block_on(async {
        match &args.command {
            GrapesCommand::Up(args) => up::up(terminal, args).await.map_err(|error| (error.exit(), error.to_text())),
            GrapesCommand::Status(args) => status::status(terminal, args).await.map_err(told),
            GrapesCommand::Down(args) => down::down(terminal, args).await.map_err(told),
        }
    });
    done.unwrap_or_else(|(exit, text)| {
        terminal.error(format_args!("error: {text}"));
        exit
    })
}

fn told(error: state::StateError) -> (Exit, String) {
    (Exit::FAILED, Causes(&error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_those_of_files_and_containers() {
        for good in ["grape", "a", "A_b-3"] {
            assert_eq!(name(good), Ok(good.to_owned()));
        }
        for bad in ["", "../x", "a b", "-a", "é", &"x".repeat(41)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
