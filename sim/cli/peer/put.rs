//! `grenache put`: stores a value in the DHT.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use grenache::link::{KeyPair, Link, LinkError};
use grenache::net::{HostNetwork, Net};
use serde_json::json;

use super::common::{GrapesArgs, OutputArgs, text_or_stdin, time, within};
use super::failure::Failure;
use super::keygen::{load, path_or_default};
use crate::cli::Exit;
use crate::cli::terminal::Terminal;

/// What `grenache put --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It prints the hash that `grenache get` finds the value under: that of an
immutable value follows from the value, that of a mutable one from key and salt
(BEP 44). Values expire: put them again to keep them.

Examples:
  grenache put \"$(uname -n)\"
  uptime -p | grenache put --mutable --salt uptime

--json prints {\"hash\"}, and of a mutable value \"public_key\", \"salt\" and \"seq\".

Exit codes: 0 stored; 1 the Grape refused, as for a value that is too large, a
--seq that is too low or a --cas that does not match; 2 wrong usage, or a bad
key; 5 no Grape reached.";

/// The most that is read from standard input, in bytes; a value has less.
const MAX_INPUT: usize = 64 << 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct PutArgs {
    /// A text of fewer than 1000 bytes; `-` or none is standard input without its last newline
    value: Option<String>,
    /// Sign it with the key that `grenache keygen` made, so that it can be changed
    #[arg(short, long)]
    mutable: bool,
    /// Sign it with the key in FILE
    #[arg(short, long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Tells values of one key apart; up to 64 bytes
    #[arg(short, long, value_parser = salt)]
    salt: Option<String>,
    /// The sequence number, which must grow [default: one more than what is stored]
    #[arg(short = 'n', long, visible_alias = "number", value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seq: Option<i64>,
    /// Store it only where this is the sequence number of what is stored
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    cas: Option<i64>,
    /// How long it may take
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Reads a salt (BEP 44).
pub(super) fn salt(text: &str) -> Result<String, String> {
    match text.len() {
        1..=64 => Ok(text.to_owned()),
        _ => Err("a salt has 1 to 64 bytes".to_owned()),
    }
}

pub(super) async fn put(terminal: &mut Terminal, args: &PutArgs) -> Result<Exit, Failure> {
    let keys = match &args.key {
        None if !args.mutable => None,
        file => Some(load(&path_or_default(file.as_deref())?)?),
    };
    if keys.is_none() && (args.salt.is_some() || args.seq.is_some() || args.cas.is_some()) {
        return Err(Failure::wrong("--salt, --seq and --cas are for mutable values")
            .advise("add --mutable or --key FILE, or leave them out"));
    }
    let value = text_or_stdin(args.value.as_deref(), MAX_INPUT)?;
    let net: Net = Arc::new(HostNetwork::new());
    let stored = async {
        // Once: a put whose answer got lost may have been stored, and the next one would be told of a conflict.
        let link = args.grapes.link(&net, args.timeout, 1).await?;
        let stored = match &keys {
            None => link.put(value.as_str()).await.map(|hash| (hash, 0)),
            Some(keys) => put_mutable(&link, args, keys, &value).await,
        };
        stored.map_err(|error| Failure::link(&error, &args.grapes.to_string(), "the value"))
    };
    let (hash, sequence) = within(args.timeout, "it was not stored", stored).await?;
    let mut json = json!({ "hash": hash });
    if let Some(keys) = &keys {
        json["public_key"] = hex::encode(keys.public_key()).into();
        json["salt"] = args.salt.clone().into();
        json["seq"] = sequence.into();
    }
    args.output.on(terminal).result(&hash, &json);
    Ok(Exit::PASSED)
}

async fn put_mutable(link: &Link, args: &PutArgs, keys: &KeyPair, value: &str) -> Result<(String, i64), LinkError> {
    let salt = args.salt.as_deref();
    let sequence = match args.seq {
        Some(sequence) => sequence,
        None => {
            let stored = link.get_mutable(&keys.hash(salt), salt).await?;
            stored.map_or(1, |stored| stored.sequence.saturating_add(1))
        }
    };
    let hash = link.put_mutable(&keys.sign(salt, sequence, value)?, args.cas).await?;
    Ok((hash, sequence))
}
