//! What peers and brokers of ours say to each other beyond the original: opt-in, and nothing of it goes to others.
//!
//! A peer opts in with `"wait"` in its registration: for how many milliseconds the broker may hold the answer back until
//! there is something new. A broker that knows the extension adds one key to the answer, [`EXTENSION`]:
//!
//! ```text
//! → {"service": "fibo", "server": true, "nat": {…}, "wait": 1500}
//! ← {"fibo": {key: entry, …}, "grenache:broker":
//!       {"key": "9f0c…", "you": "198.51.100.7:40123", "relay": true, "signals": [{"from": key, "address": …, "data": …}]}}
//! ```
//!
//! With `"do": "signal", "to": key, "data": …` a registered peer leaves another one a note; with `"do": "relay",
//! "to": key` it asks for a [relay](super::relay) between them. Brokers of the original take both for registrations.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::registry::{MalformedRegistration, Registration};

/// The key in an answer that holds what goes beyond the original. A service of that very name cannot be extended.
pub const EXTENSION: &str = "grenache:broker";

/// The longest time that an answer is held back. A peer's entry outlives it.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// The largest signal, in bytes of JSON.
pub const MAX_SIGNAL: usize = 1024;

/// What a peer asks of a broker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) registration: Registration,
    pub(super) action: Action,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// As the original's peers do.
    Register,
    /// Register, and be answered after this time at the latest.
    Wait(Duration),
    /// Leave a note.
    Signal { to: String, data: Value },
    /// Open a relay.
    Relay { to: String },
}

impl TryFrom<&Value> for Asked {
    type Error = MalformedRegistration;

    fn try_from(payload: &Value) -> Result<Self, Self::Error> {
        let malformed = |reason: &str| Err(MalformedRegistration(reason.to_owned()));
        let registration = Registration::try_from(payload)?;
        let to = || payload.get("to").and_then(Value::as_str).filter(|to| to.len() <= 64).map(str::to_owned);
        let action = match (payload.get("do").and_then(Value::as_str), payload.get("wait")) {
            _ if registration.service == EXTENSION => Action::Register,
            (Some("signal"), _) => {
                let (Some(to), Some(data)) = (to(), payload.get("data")) else {
                    return malformed("a signal needs `to`, a peer's key, and `data`");
                };
                if data.get("relay").is_some() {
                    return malformed("a signal cannot speak of a relay: the broker does");
                }
                if data.to_string().len() > MAX_SIGNAL {
                    return malformed("a signal has at most 1024 bytes");
                }
                Action::Signal { to, data: data.clone() }
            }
            (Some("relay"), _) => match to() {
                Some(to) => Action::Relay { to },
                None => return malformed("a relay needs `to`, a peer's key"),
            },
            (_, Some(wait)) => match wait.as_u64() {
                Some(ms) => Action::Wait(Duration::from_millis(ms).min(MAX_WAIT)),
                None => return malformed("wait must be a number of milliseconds"),
            },
            (_, None) => Action::Register,
        };
        Ok(Self { registration, action })
    }
}

/// What a broker offers beyond introductions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) relay: bool,
}

impl Offers {
    pub(super) fn told(&self, key: &str, you: Option<SocketAddr>, signals: Vec<Value>) -> Value {
        json!({ "key": key, "you": you, "relay": self.relay, "signals": signals })
    }
}

/// What a broker of ours says beyond the original.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Extension {
    /// The asker's own key.
    pub(crate) key: String,
    /// Where the broker sees the asker.
    pub(crate) you: Option<SocketAddr>,
    /// Whether it relays.
    pub(crate) relay: bool,
    /// What others have for the asker.
    #[serde(default)]
    pub(crate) signals: Vec<Signal>,
}

impl Extension {
    /// Reads an answer; `None` where the broker does not know the extension.
    pub(crate) fn of(answer: &Value) -> Option<Self> {
        Self::deserialize(answer.get(EXTENSION)?).ok()
    }
}

/// A note that one peer left for another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Signal {
    /// The sender's key.
    pub(crate) from: String,
    /// Where the broker sees the sender.
    pub(crate) address: SocketAddr,
    /// What it says.
    pub(crate) data: Value,
}

impl Signal {
    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("texts and JSON can be written as JSON")
    }
}

/// A relay that was opened for the asker. The other side is signalled the same with a token of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayOffer {
    /// The broker's port for it.
    #[serde(deserialize_with = "some_port")]
    pub(crate) port: u16,
    /// What proves that a datagram comes from this side: [`TOKEN_DIGITS`] hex digits.
    #[serde(deserialize_with = "token")]
    pub(crate) token: String,
}

/// The length of a relay's token: whoever is offered one sends it again and again.
pub(crate) const TOKEN_DIGITS: usize = 32;

fn some_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    NonZeroU16::deserialize(deserializer).map(NonZeroU16::get)
}

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let token = String::deserialize(deserializer)?;
    if token.len() == TOKEN_DIGITS && token.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(token)
    } else {
        Err(D::Error::custom("a relay's token has 32 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(payload: Value) -> Option<Action> {
        Asked::try_from(&payload).ok().map(|asked| asked.action)
    }

    #[test]
    fn the_originals_peers_ask_for_nothing_more() {
        assert_eq!(action(json!({"service": "fibo", "server": true})), Some(Action::Register));
        assert_eq!(action(json!({"service": "fibo", "server": true, "nat": 5, "more": 1})), Some(Action::Register));
        assert_eq!(action(json!({"service": EXTENSION, "server": true, "wait": 5})), Some(Action::Register));
        assert_eq!(Extension::of(&json!({"fibo": {}})), None);
        assert_eq!(Extension::of(&json!({EXTENSION: {"key": 1}})), None);
    }

    #[test]
    fn an_offer_of_a_relay_is_read_only_where_it_can_be_one() {
        let offer = |port: u32, token: &str| RelayOffer::deserialize(&json!({"port": port, "token": token})).is_ok();
        let token = "5f3a".repeat(TOKEN_DIGITS / 4);
        assert!(offer(40_000, &token));
        assert!(!offer(0, &token) && !offer(65_536, &token));
        assert!(
            !offer(1, "") && !offer(1, &token[1..]) && !offer(1, &token.repeat(100)) && !offer(1, &"\"".repeat(32))
        );
    }

    #[test]
    fn what_is_asked_is_read_or_refused() {
        let ask = |more: Value| {
            let mut payload = json!({"service": "fibo", "server": false});
            payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            action(payload)
        };
        assert_eq!(ask(json!({"wait": 1500})), Some(Action::Wait(Duration::from_millis(1500))));
        assert_eq!(ask(json!({"wait": 60_000})), Some(Action::Wait(MAX_WAIT)), "no longer than that");
        assert_eq!(ask(json!({"wait": -1})), None);
        assert_eq!(ask(json!({"do": "relay", "to": "k"})), Some(Action::Relay { to: "k".into() }));
        assert_eq!(ask(json!({"do": "relay"})), None);
        assert_eq!(ask(json!({"do": "signal", "to": "k"})), None);
        assert_eq!(ask(json!({"do": "signal", "to": "k", "data": {"relay": {"port": 1, "token": ""}}})), None);
        let signal = |text: String| ask(json!({"do": "signal", "to": "k", "data": text}));
        assert!(signal("x".repeat(MAX_SIGNAL - 2)).is_some(), "with its quotes it just fits");
        assert_eq!(signal("x".repeat(MAX_SIGNAL - 1)), None);
    }
}
