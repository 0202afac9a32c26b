//! `KEY=VALUES`: which values a key of a scenario takes.
//!
//! | written | values |
//! |---|---|
//! | `link.dsl.loss=2%` | one |
//! | `link.dsl.loss=0%,1%,5%` | these, in this order |
//! | `link.dsl.loss=0%..10%` | five, evenly spaced, both ends among them: 0%, 2.5%, 5%, 7.5%, 10% |
//! | `link.dsl.loss=0%..10%/11` | eleven |
//! | `program.client.requests=1..4` | whole numbers stay whole: 1, 2, 3, 4 |
//!
//! A range's ends have the same unit, which the first may leave out: `0..10%`. [`document`](super::document) says what
//! a key is.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How many values a range has that does not say.
pub const DEFAULT_STEPS: usize = 5;

/// The most values of one key.
pub const MAX_VALUES: usize = 1_000;

/// Decimals are counted in billionths, so that 0.1 is exact.
const ONE: i128 = 1_000_000_000;

/// A key and the values that it takes, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key as it was written.
    pub key: String,
    /// The values as the file would have them, without the quotes of texts.
    pub values: Vec<String>,
}

/// Why a text is no setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no `=`, or nothing before or after it.
    #[error("write KEY=VALUE, such as link.dsl.loss=2%")]
    NoValue,
    /// An item of a list is empty.
    #[error("a value of `{0}` is empty: write KEY=A,B,C")]
    Empty(String),
    /// The ends of a range have units, and not the same.
    #[error("the ends of `{0}` have different units: write both in the same one, such as 500ms..2000ms")]
    Units(String),
    /// The number of steps is none, or too many.
    #[error("`{0}` is not a number of values: A..B/N has from 2 to {MAX_VALUES}")]
    Steps(String),
    /// An end of a range is no number with a unit.
    #[error("`{0}` is not a range: write A..B with numbers and their unit, such as 0%..10%")]
    Range(String),
    /// A list is too long.
    #[error("{0} values for one key: at most {MAX_VALUES}")]
    TooMany(usize),
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (key, values) = text.split_once('=').ok_or(SettingError::NoValue)?;
        let (key, values) = (key.trim(), values.trim());
        if key.is_empty() || values.is_empty() {
            return Err(SettingError::NoValue);
        }
        let items = list(values);
        let mut all = Vec::new();
        for item in &items {
            let item = item.trim();
            if item.is_empty() {
                return Err(SettingError::Empty(key.to_owned()));
            }
            match item.split_once("..") {
                Some((from, to)) if item.starts_with(|c: char| c.is_ascii_digit()) => {
                    all.extend(range(item, from, to)?)
                }
                _ => all.push(item.to_owned()),
            }
        }
        if all.len() > MAX_VALUES {
            return Err(SettingError::TooMany(all.len()));
        }
        Ok(Self { key: key.to_owned(), values: all })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.values.join(","))
    }
}

/// Parts at commas that are in no brackets and no quotes.
fn list(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// `FROM..TO` and `FROM..TO/STEPS`.
fn range(whole: &str, from: &str, to: &str) -> Result<Vec<String>, SettingError> {
    let not_a_range = || SettingError::Range(whole.to_owned());
    // Rates have a slash too: `10 Mbit/s`.
    let (to, steps) = match to.rsplit_once('/') {
        Some((to, steps)) if steps.trim().starts_with(|c: char| c.is_ascii_digit()) => (to, Some(steps.trim())),
        _ => (to, None),
    };
    let count = match steps {
        None => DEFAULT_STEPS,
        Some(text) => match text.parse() {
            Ok(steps) if (2..=MAX_VALUES).contains(&steps) => steps,
            _ => return Err(SettingError::Steps(text.to_owned())),
        },
    };
    let (from, from_unit) = quantity(from.trim()).ok_or_else(not_a_range)?;
    let (to, unit) = quantity(to.trim()).ok_or_else(not_a_range)?;
    if !from_unit.is_empty() && from_unit != unit {
        return Err(SettingError::Units(whole.to_owned()));
    }
    // There is no half of a byte, a bit or a request.
    let name = unit.trim_start();
    let whole_only =
        from % ONE == 0 && to % ONE == 0 && (name.is_empty() || name.ends_with('B') || name.ends_with("bit/s"));
    let last = count as i128 - 1;
    let mut values: Vec<i128> = (0..=last)
        .map(|step| {
            let value = from + (to - from) * step / last;
            if whole_only { (value + ONE / 2) / ONE * ONE } else { value }
        })
        .collect();
    values.dedup();
    Ok(values.into_iter().map(|value| format!("{}{unit}", decimal(value))).collect())
}

/// A number in billionths, and the unit after it.
fn quantity(text: &str) -> Option<(i128, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.len() > 18 || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    Some((whole.parse::<i128>().ok()? * ONE + fraction, unit))
}

fn decimal(billionths: i128) -> String {
    let (whole, fraction) = (billionths / ONE, billionths % ONE);
    if fraction == 0 {
        return whole.to_string();
    }
    format!("{whole}.{fraction:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        text.parse::<Setting>().unwrap_or_else(|error| panic!("{text}: {error}")).values
    }

    #[test]
    fn ranges_have_both_ends() {
        assert_eq!(values("l=0%..10%"), ["0%", "2.5%", "5%", "7.5%", "10%"]);
        assert_eq!(values("l=0..10%/3"), ["0%", "5%", "10%"]);
        assert_eq!(values("l=0%..1%/4"), ["0%", "0.333333333%", "0.666666666%", "1%"]);
        assert_eq!(values("l=20ms..10ms/2"), ["20ms", "10ms"]);
        assert_eq!(values("l=1 Mbit/s..3 Mbit/s/3"), ["1 Mbit/s", "2 Mbit/s", "3 Mbit/s"]);
        assert_eq!(values("l=1 Mbit/s..2 Mbit/s").len(), 2, "no half of a Mbit/s: write kbit/s");
        assert_eq!(values("l=7%..7%"), ["7%"]);
    }

    #[test]
    fn whole_numbers_stay_whole() {
        assert_eq!(values("l=1..4"), ["1", "2", "3", "4"]);
        assert_eq!(values("l=1..101"), ["1", "26", "51", "76", "101"]);
        assert_eq!(values("l=0.5..1/2"), ["0.5", "1"]);
    }

    #[test]
    fn lists_are_split_where_nothing_is_open() {
        assert_eq!(values("l=a, b ,c"), ["a", "b", "c"]);
        assert_eq!(values("l=[1, 2],{ a = 3, b = 4 },\"x,y\""), ["[1, 2]", "{ a = 3, b = 4 }", "\"x,y\""]);
        assert_eq!(values("l=0%..2%/3,50%"), ["0%", "1%", "2%", "50%"]);
        assert_eq!(values("l=a..b"), ["a..b"], "a text, not a range");
    }

    #[test]
    fn what_is_none_says_how_to_write_it() {
        let wrong = |text: &str| text.parse::<Setting>().expect_err(text).to_string();
        for text in ["", "x", "=1", "x="] {
            assert!(wrong(text).contains("KEY=VALUE"), "{text}");
        }
        assert!(wrong("x=1,,2").contains("empty"));
        assert!(wrong("x=1s..20ms").contains("the same one"));
        assert!(wrong("x=0..10/1").contains("from 2 to"));
        assert!(wrong("x=0..10/99999").contains("from 2 to"));
        assert!(wrong("x=0..ten").contains("not a range"));
        assert!(wrong(&format!("x={}1", "1,".repeat(MAX_VALUES))).contains("at most"));
    }
}
