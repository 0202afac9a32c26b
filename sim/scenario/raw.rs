//! A scenario file as it is written: every key and its type, and where it stands, but not yet whether it makes sense.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use toml::Spanned;

use super::fault::table::FaultTable;
use super::firewall::FirewallTable;
use super::nat::NatTable;
use super::probing::{ForwardTable, NatProbeTable, StunServerTable};
use super::units::{
    Address, Address6, AnyEndpoint, Count, CountOrNone, Endpoint, Percentage, Port, PortOrAny, Rate, Seed, Size, Time,
};
use crate::scenario::draw::Behind;
use crate::scenario::expectation::table::ExpectTable;
use crate::scenario::model;
use crate::scenario::population::Populations;

/// A text with its place in the file.
pub(super) type Text = Spanned<String>;

/// A whole file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) head: Head,
    pub(super) nats: Vec<(Text, NatTable)>,
    pub(super) links: Vec<(Text, LinkTable)>,
    pub(super) nodes: Vec<(Text, NodeTable)>,
    pub(super) firewalls: Vec<(Text, FirewallTable)>,
    pub(super) programs: Vec<Spanned<ProgramTable>>,
    pub(super) faults: Vec<Spanned<FaultTable>>,
    pub(super) expects: Vec<Spanned<ExpectTable>>,
    pub(super) populations: Populations,
}

/// The keys above the first table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Head {
    pub(super) description: Option<String>,
    pub(super) seed: Option<Seed>,
    pub(super) time_limit: Option<Spanned<Time>>,
    /// Of expectations that have none of their own.
    pub(super) within: Option<Spanned<Time>>,
    /// The link of those on the internet that name none.
    pub(super) uplink: Option<Text>,
}

/// `[link.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LinkTable {
    pub(super) latency: Option<Spanned<Time>>,
    pub(super) jitter: Option<Spanned<Time>>,
    pub(super) loss: Option<Percentage>,
    pub(super) rate: Option<Spanned<Rate>>,
    pub(super) queue: Option<Spanned<Size>>,
}

/// `[node.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NodeTable {
    pub(super) address: Option<Spanned<Address>>,
    pub(super) behind: Option<Spanned<Behind>>,
    pub(super) link: Option<Text>,
    pub(super) address6: Option<Spanned<Address6>>,
    pub(super) firewall: Option<Text>,
}

/// `[[program]]`, by its `run`.
#[derive(Debug)]
pub(super) enum ProgramTable {
    Grape(GrapeTable),
    Announce(AnnounceTable),
    Lookup(LookupTable),
    Broker(BrokerTable),
    Worker(WorkerTable),
    Client(ClientTable),
    StunServer(StunServerTable),
    NatProbe(NatProbeTable),
    Forward(ForwardTable),
}

impl ProgramTable {
    /// What `run` can be.
    pub(super) const KINDS: &[&str] =
        &["grape", "announce", "lookup", "broker", "worker", "client", "stun-server", "nat-probe", "forward"];

    pub(super) fn node(&self) -> &Text {
        match self {
            Self::Grape(table) => &table.node,
            Self::Announce(table) => &table.node,
            Self::Lookup(table) => &table.node,
            Self::Broker(table) => &table.node,
            Self::Worker(table) => &table.node,
            Self::Client(table) => &table.node,
            Self::StunServer(table) => &table.node,
            Self::NatProbe(table) => &table.node,
            Self::Forward(table) => &table.node,
        }
    }

    pub(super) fn start(&self) -> Option<&Spanned<Time>> {
        match self {
            Self::Grape(table) => table.start.as_ref(),
            Self::Announce(table) => table.start.as_ref(),
            Self::Lookup(table) => table.start.as_ref(),
            Self::Broker(table) => table.start.as_ref(),
            Self::Worker(table) => table.start.as_ref(),
            Self::Client(table) => table.start.as_ref(),
            Self::StunServer(table) => table.start.as_ref(),
            Self::NatProbe(table) => table.start.as_ref(),
            Self::Forward(table) => table.start.as_ref(),
        }
    }
}

/// `run = "grape"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct GrapeTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) dht_port: Spanned<Port>,
    pub(super) api_port: Spanned<Port>,
    #[serde(default)]
    pub(super) bootstrap: Vec<Spanned<Endpoint>>,
    #[serde(default)]
    pub(super) kind: GrapeKind,
}

/// Whose Grape it is.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GrapeKind {
    #[default]
    Rust,
    Node,
    Container,
}

impl From<GrapeKind> for model::GrapeKind {
    fn from(raw: GrapeKind) -> Self {
        match raw {
            GrapeKind::Rust => Self::Rust,
            GrapeKind::Node => Self::Node,
            GrapeKind::Container => Self::Container,
        }
    }
}

/// `run = "announce"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AnnounceTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) grape: Option<Text>,
    pub(super) service: Text,
    pub(super) port: Port,
}

/// `run = "lookup"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LookupTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) grape: Option<Text>,
    pub(super) service: Text,
    pub(super) every: Option<Spanned<Time>>,
}

/// `run = "broker"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct BrokerTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) grape: Option<Text>,
    pub(super) service: Text,
    pub(super) port: Option<Spanned<PortOrAny>>,
    #[serde(rename = "alternate-port")]
    pub(super) alternate_port: Option<Spanned<Port>>,
    pub(super) relay: Option<bool>,
}

/// `run = "worker"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WorkerTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) grape: Option<Text>,
    pub(super) service: Text,
    pub(super) port: Option<Spanned<PortOrAny>>,
    pub(super) answer: Option<Spanned<Answer>>,
    pub(super) reply: Option<Spanned<Json>>,
    pub(super) error: Option<Text>,
    pub(super) announce: Option<bool>,
    pub(super) punches: Option<Text>,
    pub(super) broker: Option<Text>,
    pub(super) connect: Option<Spanned<bool>>,
    pub(super) ipv6: Option<Spanned<bool>>,
}

/// A worker's way to compute an answer.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    Echo,
    Fibonacci,
}

/// `run = "client"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ClientTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) grape: Option<Text>,
    pub(super) service: Text,
    pub(super) port: Option<Spanned<PortOrAny>>,
    pub(super) punch: Option<Spanned<bool>>,
    pub(super) announce: Option<Text>,
    pub(super) broker: Option<Text>,
    pub(super) connect: Option<Spanned<bool>>,
    pub(super) payload: Json,
    pub(super) requests: Option<Count>,
    pub(super) timeout: Option<Spanned<Time>>,
    pub(super) retries: Option<CountOrNone>,
    pub(super) at: Option<Spanned<AnyEndpoint>>,
}

/// A JSON value, written as TOML.
#[derive(Debug, Clone)]
pub(super) struct Json(pub(super) Value);

/// How toml hands a date to serde: a map with this key.
const DATETIME_KEY: &str = "$__toml_private_datetime";

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too: a text, a number, true, false, an array or a table")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(|number| Json(number.into())).ok_or_else(|| E::custom(format!("JSON has no number `{value}`")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(Json(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Json(values.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut values = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == DATETIME_KEY {
                return Err(A::Error::custom("JSON has no dates: write the date in quotes"));
            }
            let Json(value) = map.next_value()?;
            values.insert(key, value);
        }
        Ok(Json(values.into()))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}
