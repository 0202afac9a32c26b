//! `[[expect]]` as it is written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use toml::Spanned;

use super::{Measure, Times, Way};
use crate::scenario::raw::{Json, Text};
use crate::scenario::units::{Endpoint, Percentage, Size, Time};

/// `[[expect]]`, or a part of one: one of the keys from `reply` on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::scenario) struct ExpectTable {
    pub(super) after: Option<Spanned<Time>>,
    /// Required for those that are no part of another.
    pub(in crate::scenario) within: Option<Spanned<Time>>,
    pub(super) reply: Option<Spanned<ReplyTable>>,
    pub(super) reached: Option<Spanned<ReachedTable>>,
    pub(super) failed: Option<Spanned<FailedTable>>,
    pub(super) punched: Option<Spanned<PunchedTable>>,
    pub(super) found: Option<Spanned<FoundTable>>,
    pub(super) percentile: Option<Spanned<PercentileTable>>,
    pub(super) bytes: Option<Spanned<BytesTable>>,
    pub(super) never: Option<Spanned<Box<ExpectTable>>>,
    pub(super) all: Option<Spanned<Vec<Spanned<ExpectTable>>>>,
    pub(super) any: Option<Spanned<Vec<Spanned<ExpectTable>>>>,
}

impl ExpectTable {
    /// The names that must be announced for it, its parts' among them.
    pub(in crate::scenario) fn names_found<'a>(&'a self, names: &mut Vec<&'a Text>) {
        names.extend(self.found.as_ref().map(|found| &found.get_ref().service));
        if let Some(never) = &self.never {
            never.get_ref().names_found(names);
        }
        for part in [&self.all, &self.any].into_iter().flatten().flat_map(|parts| parts.get_ref()) {
            part.get_ref().names_found(names);
        }
    }
}

/// `reply = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ReplyTable {
    pub(super) from: Option<Text>,
    pub(super) to: Text,
    pub(super) value: Option<Json>,
    pub(super) contains: Option<Spanned<Json>>,
    pub(super) path: Option<Path>,
    pub(super) count: Option<Frequency>,
    pub(super) share: Option<Spanned<Percentage>>,
}

/// `reached = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ReachedTable {
    pub(super) at: Option<Text>,
    pub(super) by: Text,
    pub(super) path: Option<Path>,
    pub(super) count: Option<Frequency>,
    pub(super) share: Option<Spanned<Percentage>>,
}

/// `failed = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FailedTable {
    pub(super) to: Text,
    pub(super) error: Option<String>,
    pub(super) count: Option<Frequency>,
    pub(super) share: Option<Spanned<Percentage>>,
}

/// `punched = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PunchedTable {
    pub(super) at: Text,
    pub(super) by: Option<Text>,
    pub(super) count: Option<Frequency>,
    pub(super) share: Option<Spanned<Percentage>>,
}

/// `found = { … }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FoundTable {
    pub(super) at: Text,
    pub(super) service: Text,
    pub(super) address: Option<Spanned<Endpoint>>,
    pub(super) count: Option<Frequency>,
    pub(super) share: Option<Spanned<Percentage>>,
}

/// `percentile = { … }`: at least one of the keys from `p50` on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PercentileTable {
    pub(super) of: Spanned<Of>,
    pub(super) to: Text,
    pub(super) p50: Option<Time>,
    pub(super) p75: Option<Time>,
    pub(super) p90: Option<Time>,
    pub(super) p95: Option<Time>,
    pub(super) p99: Option<Time>,
    pub(super) p999: Option<Time>,
    pub(super) max: Option<Time>,
}

/// `bytes = { … }`: at least one of the last two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct BytesTable {
    pub(super) through: Text,
    pub(super) share: Option<Spanned<Percentage>>,
    pub(super) at_least: Option<Spanned<Size>>,
    pub(super) at_most: Option<Spanned<Size>>,
}

/// By which way.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Path {
    Direct,
    Punched,
    Relayed,
}

impl From<Path> for Way {
    fn from(raw: Path) -> Self {
        match raw {
            Path::Direct => Self::Direct,
            Path::Punched => Self::Punched,
            Path::Relayed => Self::Relayed,
        }
    }
}

/// Which measure.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Of {
    Latency,
    Answer,
    Connect,
}

impl From<Of> for Measure {
    fn from(raw: Of) -> Self {
        match raw {
            Of::Latency => Self::Latency,
            Of::Answer => Self::Answer,
            Of::Connect => Self::Connect,
        }
    }
}

/// How often: `3` and `">=3"` are at least so often, `"=3"` exactly, `"<=3"` at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frequency(pub(super) Times);

/// The most that can be counted.
const MAX_COUNT: u32 = 1_000_000;

impl Frequency {
    fn parse(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let digits = digits.trim();
            let number = digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
            number.filter(|number| *number <= MAX_COUNT).ok_or_else(|| {
                format!("`{text}` is not a count: write 3 or \">=3\" (at least), \"=3\" (exactly) or \"<=3\" (at most)")
            })
        };
        let times = if let Some(digits) = text.strip_prefix(">=") {
            Times { at_least: number(digits)?, at_most: None }
        } else if let Some(digits) = text.strip_prefix("<=") {
            Times { at_least: 0, at_most: Some(number(digits)?) }
        } else if let Some(digits) = text.strip_prefix('=') {
            Times { at_least: number(digits)?, at_most: Some(number(digits)?) }
        } else {
            Times { at_least: number(text)?, at_most: None }
        };
        if times == (Times { at_least: 0, at_most: None }) {
            return Err(format!("`{text}` is always so: write \"=0\" for what must not happen"));
        }
        Ok(Self(times))
    }
}

struct FrequencyVisitor;

impl Visitor<'_> for FrequencyVisitor {
    type Value = Frequency;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a count such as 3, \"=3\" or \"<=3\"")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Frequency, E> {
        match u32::try_from(number) {
            Ok(at_least @ 1..=MAX_COUNT) => Ok(Frequency(Times { at_least, at_most: None })),
            _ => Err(E::custom(format!(
                "{number} is out of range: this is a whole number from 1 to {MAX_COUNT}, or a text such as \"=0\""
            ))),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Frequency, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(format!("{number} is negative: nothing can happen so often"))),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Frequency, E> {
        Frequency::parse(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Frequency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FrequencyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_numbers_or_comparisons() {
        let times = |at_least, at_most| Times { at_least, at_most };
        let cases = [
            ("3", times(3, None)),
            (">=3", times(3, None)),
            (">= 3", times(3, None)),
            ("=3", times(3, Some(3))),
            ("<=3", times(0, Some(3))),
            ("=0", times(0, Some(0))),
        ];
        for (text, times) in cases {
            assert_eq!(Frequency::parse(text).map(|frequency| frequency.0), Ok(times), "{text}");
        }
        for text in ["", "0", ">=0", "three", "-1", "<3", "=+3", "=1000001", "==3", "= 3 4"] {
            assert!(Frequency::parse(text).is_err(), "{text:?}");
        }
    }
}
