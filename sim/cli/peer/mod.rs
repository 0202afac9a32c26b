//! The commands for daily use: a Grape's client, a peer, a broker.

use clap::Subcommand;

use self::common::OutputArgs;
use self::failure::Failure;
use super::Exit;
use super::printable::json;
use super::terminal::Terminal;

mod address;
mod announce;
mod broker;
mod brokers;
mod common;
mod exec;
mod failure;
mod get;
mod keygen;
mod lookup;
mod nat_check;
mod punch;
mod put;
mod request;
mod serve;

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Announces a service: its name, and the port that it listens on
    #[command(after_help = announce::AFTER_HELP)]
    Announce(announce::AnnounceArgs),
    /// Looks up where a service is
    #[command(after_help = lookup::AFTER_HELP)]
    Lookup(lookup::LookupArgs),
    /// Asks a service, or each peer that offers it, and prints the reply
    #[command(after_help = request::AFTER_HELP)]
    Request(request::RequestArgs),
    /// Serves: replies with what it is asked, with something fixed, or with what a command prints
    #[command(after_help = serve::AFTER_HELP)]
    Serve(serve::ServeArgs),
    /// Stores a value in the DHT
    #[command(after_help = put::AFTER_HELP)]
    Put(put::PutArgs),
    /// Finds a value in the DHT
    #[command(after_help = get::AFTER_HELP)]
    Get(get::GetArgs),
    /// Makes the key that signs values that can be changed
    #[command(after_help = keygen::AFTER_HELP)]
    Keygen(keygen::KeygenArgs),
    /// Runs a broker, which introduces peers behind NATs to each other
    #[command(after_help = broker::AFTER_HELP)]
    Broker(broker::BrokerArgs),
    /// Punches a hole into this side's NAT, and waits for a peer's punch
    #[command(after_help = punch::AFTER_HELP)]
    Punch(punch::PunchArgs),
    /// Finds out what the NAT in front of this host does, by asking brokers
    #[command(after_help = nat_check::AFTER_HELP)]
    NatCheck(nat_check::NatCheckArgs),
}

/// Does what is asked, and says what went wrong.
pub(super) fn peer(terminal: &mut Terminal, command: &PeerCommand) -> Exit {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(run(terminal, command)));
    done.unwrap_or_else(|failure| {
        match command.output().json {
            true => terminal.error(json(&failure.to_json())),
            false => terminal.error(&failure),
        }
        failure.exit()
    })
}

impl PeerCommand {
    fn output(&self) -> &OutputArgs {
        match self {
            Self::Announce(args) => &args.output,
            Self::Lookup(args) => &args.output,
            Self::Request(args) => &args.output,
            Self::Serve(args) => &args.output,
            Self::Put(args) => &args.output,
            Self::Get(args) => &args.output,
            Self::Keygen(args) => &args.output,
            Self::Broker(args) => &args.output,
            Self::Punch(args) => &args.output,
            Self::NatCheck(args) => &args.output,
        }
    }
}

async fn run(terminal: &mut Terminal, command: &PeerCommand) -> Result<Exit, Failure> {
    match command {
        PeerCommand::Announce(args) => announce::announce(terminal, args).await,
        PeerCommand::Lookup(args) => lookup::lookup(terminal, args).await,
        PeerCommand::Request(args) => request::request(terminal, args).await,
        PeerCommand::Serve(args) => serve::serve(terminal, args).await,
        PeerCommand::Put(args) => put::put(terminal, args).await,
        PeerCommand::Get(args) => get::get(terminal, args).await,
        PeerCommand::Keygen(args) => keygen::keygen(terminal, args),
        PeerCommand::Broker(args) => broker::broker(terminal, args).await,
        PeerCommand::Punch(args) => punch::punch(terminal, args).await,
        PeerCommand::NatCheck(args) => nat_check::nat_check(terminal, args).await,
    }
}
