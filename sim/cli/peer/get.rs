//! `grenache get`: finds a value in the DHT.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use grenache::link::{Link, LinkError, SignedValue, mutable_hash};
use grenache::net::{HostNetwork, Net};
use serde_json::{Value, json};

use super::common::{GrapesArgs, OutputArgs, TRIES, time, within};
use super::failure::Failure;
use super::put::salt;
use crate::cli::Exit;
use crate::cli::terminal::Terminal;

/// What `grenache get --help` ends with.
pub(in crate::cli) const AFTER_HELP: &str = "\
It prints the value, a text as it is, once hash and signature are checked.

Examples:
  grenache get 81c2a8157780989af9a16661324fafbd7803877d
  grenache get --salt uptime \"$(grenache keygen --show)\"

--json prints {\"hash\", \"value\"}, and of a mutable value \"public_key\", \"salt\",
\"seq\" and \"signature\".

Exit codes: 0 found; 1 the Grape refused, or gave what is forged; 2 wrong
usage; 4 there is no such value; 5 no Grape reached.";

#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    /// The hash that `grenache put` gave, or the public key of a mutable value
    #[arg(value_name = "HASH")]
    place: Place,
    /// The salt that it was put with
    #[arg(short, long, value_parser = salt)]
    salt: Option<String>,
    /// How long it may take
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    timeout: Duration,
    #[command(flatten)]
    grapes: GrapesArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Hash(String),
    PublicKey([u8; 32]),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut hash, mut key) = ([0; 20], [0; 32]);
        if hex::decode_to_slice(text, &mut hash).is_ok() {
            Ok(Self::Hash(hex::encode(hash)))
        } else if hex::decode_to_slice(text, &mut key).is_ok() {
            Ok(Self::PublicKey(key))
        } else {
            Err("write a hash of 40 hex digits, or a public key of 64".to_owned())
        }
    }
}

pub(super) async fn get(terminal: &mut Terminal, args: &GetArgs) -> Result<Exit, Failure> {
    let (hash, mutable) = match &args.place {
        Place::Hash(hash) => (hash.clone(), args.salt.is_some()),
        Place::PublicKey(key) => (mutable_hash(key, args.salt.as_deref()), true),
    };
    let net: Net = Arc::new(HostNetwork::new());
    let found = async {
        let link = args.grapes.link(&net, args.timeout, TRIES).await?;
        let found = find(&link, &hash, args.salt.as_deref(), mutable, args.output.json).await;
        found.map_err(|error| Failure::link(&error, &args.grapes.to_string(), "the value"))
    };
    let found = within(args.timeout, "it was not found", found).await?;
    let (value, json) = found.ok_or_else(|| {
        Failure::not_found(format!("there is no value under {hash}"))
            .advise("values expire: put it again, or see whether it was put with a --salt")
    })?;
    let mut output = args.output.on(terminal);
    output.result(output.plain(&value), &json);
    Ok(Exit::PASSED)
}

/// The value, and what is known of it.
async fn find(
    link: &Link,
    hash: &str,
    salt: Option<&str>,
    mutable: bool,
    details: bool,
) -> Result<Option<(Value, Value)>, LinkError> {
    // What is told beside a value is what only a mutable one has: that is asked for first.
    if mutable || details {
        match link.get_mutable(hash, salt).await {
            Ok(found) => return Ok(found.map(|signed| (signed.value.clone(), told(hash, &signed)))),
            Err(LinkError::Forged) if !mutable => {}
            Err(error) => return Err(error),
        }
    }
    let found = link.get(hash).await?;
    Ok(found.map(|value| (value.clone(), json!({ "hash": hash, "value": value }))))
}

fn told(hash: &str, signed: &SignedValue) -> Value {
    json!({
        "hash": hash,
        "value": signed.value,
        "public_key": hex::encode(signed.key),
        "salt": signed.salt,
        "seq": signed.sequence,
        "signature": hex::encode(signed.signature),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_hash_or_a_public_key() {
        assert_eq!("AB".repeat(20).parse(), Ok(Place::Hash("ab".repeat(20))));
        assert_eq!("ab".repeat(32).parse(), Ok(Place::PublicKey([0xab; 32])));
        for text in ["", "ab", &"a".repeat(41), &"xy".repeat(20)] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }
}
