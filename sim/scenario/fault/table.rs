//! A `[[fault]]` as it is written.

use serde::Deserialize;
use toml::Spanned;

use crate::scenario::raw::Text;
use crate::scenario::units::{Address, Address6, Count, Drift, Percentage, Rate, Skew, Time};

/// `[[fault]]`: when, and one of the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::scenario) struct FaultTable {
    pub(in crate::scenario) at: Spanned<Time>,
    #[serde(rename = "for")]
    pub(super) lasts: Option<Spanned<Time>>,
    pub(super) every: Option<Spanned<Time>>,
    pub(super) times: Option<Spanned<Count>>,
    pub(super) partition: Option<Spanned<Vec<Spanned<Vec<Text>>>>>,
    pub(super) rebind: Option<Text>,
    pub(super) reboot: Option<Text>,
    pub(super) crash: Option<Text>,
    pub(super) restart: Option<Text>,
    pub(super) pause: Option<Text>,
    pub(super) down: Option<Text>,
    pub(super) degrade: Option<Spanned<DegradeTable>>,
    pub(super) clock: Option<Spanned<ClockTable>>,
    #[serde(rename = "move")]
    pub(super) moves: Option<Spanned<MoveTable>>,
    pub(super) outage: Option<Text>,
}

/// `degrade = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DegradeTable {
    pub(super) node: Option<Text>,
    pub(super) nat: Option<Text>,
    pub(super) latency: Option<Time>,
    pub(super) jitter: Option<Spanned<Time>>,
    pub(super) loss: Option<Percentage>,
    pub(super) rate: Option<Rate>,
}

/// `clock = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ClockTable {
    pub(super) node: Text,
    pub(super) skew: Option<Skew>,
    pub(super) drift: Option<Drift>,
}

/// `move = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MoveTable {
    pub(super) node: Text,
    pub(super) behind: Option<Text>,
    pub(super) address: Option<Spanned<Address>>,
    pub(super) address6: Option<Spanned<Address6>>,
    pub(super) link: Option<Text>,
}
