//! Which values rows and columns have.

use std::str::FromStr;

use thiserror::Error;
use toml_edit::Item;

use crate::sweep::document::Document;
use crate::sweep::set::{Setting, SettingError};

/// RFC 4787's three kinds of mapping and filtering, and what they are called in a table.
pub(super) const KINDS: [(&str, &str); 3] =
    [("ei", "endpoint-independent"), ("ad", "address-dependent"), ("apd", "address-and-port-dependent")];

/// The familiar names, with mapping, filtering and, where the name says it, ports.
const FAMILIAR: [(&str, &str, &str, Option<&str>); 5] = [
    ("full-cone", "ei", "ei", None),
    ("restricted-cone", "ei", "ad", None),
    ("port-restricted-cone", "ei", "apd", None),
    ("symmetric", "apd", "apd", Some("random")),
    ("port-preserving-symmetric", "apd", "apd", Some("preserving")),
];

/// The most values of an axis.
const MAX_VALUES: usize = 100;

/// The rows or the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// What varies: a key, or a NAT as `nat.NAME`.
    pub key: String,
    /// Its values, at least one.
    pub values: Vec<AxisValue>,
}

/// A row or a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxisValue {
    /// What it is called.
    pub label: String,
    /// What is set for it.
    pub set: Vec<(String, String)>,
}

/// Why a text is no axis.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AxisError {
    /// It is no setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A NAT's kind is not known.
    #[error(
        "`{0}` is no kind of NAT: write MAPPING/FILTERING, each ei, ad or apd, such as ei/apd, or full-cone, \
         restricted-cone, port-restricted-cone, symmetric, port-preserving-symmetric"
    )]
    Kind(String),
    /// The file has not two NATs.
    #[error("{0} NATs are in the file: name rows and columns, as in --rows link.dsl.loss=0%..10% --columns nat.home")]
    NotTwo(usize),
    /// There are too many values.
    #[error("{0} values for one axis: at most {MAX_VALUES}")]
    TooMany(usize),
}

impl FromStr for Axis {
    type Err = AxisError;

    /// `KEY=VALUES` as [`Setting`] has it, `nat.NAME=MAPPING/FILTERING,…`, or `nat.NAME` for all nine of these.
    fn from_str(text: &str) -> Result<Self, AxisError> {
        if !text.contains('=') && is_nat(text) {
            return Ok(nat_axis(text));
        }
        let Setting { key, values } = text.parse()?;
        if values.len() > MAX_VALUES {
            return Err(AxisError::TooMany(values.len()));
        }
        let value = |value: String| match is_nat(&key) {
            true => nat_value(&key, &value).ok_or(AxisError::Kind(value)),
            false => Ok(AxisValue { label: value.clone(), set: vec![(key.clone(), value)] }),
        };
        let values = values.into_iter().map(value).collect::<Result<_, _>>()?;
        Ok(Self { key, values })
    }
}

/// The axes of a file's two NATs: rows are the one that is written first.
///
/// # Errors
/// Where it has not two.
pub fn nats(document: &Document) -> Result<(Axis, Axis), AxisError> {
    let nats = document.tables().get("nat").and_then(Item::as_table_like);
    let names: Vec<String> = nats.map_or_else(Vec::new, |nats| nats.iter().map(|(name, _)| name.to_owned()).collect());
    match names.as_slice() {
        [rows, columns] => Ok((nat_axis(&format!("nat.{rows}")), nat_axis(&format!("nat.{columns}")))),
        other => Err(AxisError::NotTwo(other.len())),
    }
}

/// Whether a key is a whole NAT.
pub(super) fn is_nat(key: &str) -> bool {
    key.strip_prefix("nat.").is_some_and(|name| !name.is_empty() && !name.contains('.'))
}

fn nat_axis(key: &str) -> Axis {
    let pairs =
        KINDS.iter().flat_map(|(mapping, _)| KINDS.iter().map(move |(filtering, _)| format!("{mapping}/{filtering}")));
    Axis { key: key.to_owned(), values: pairs.filter_map(|pair| nat_value(key, &pair)).collect() }
}

fn nat_value(key: &str, label: &str) -> Option<AxisValue> {
    let familiar = FAMILIAR.iter().find(|(name, ..)| *name == label);
    let (mapping, filtering, ports) = match familiar {
        Some((_, mapping, filtering, ports)) => (*mapping, *filtering, *ports),
        None => label.split_once('/').map(|(mapping, filtering)| (mapping, filtering, None))?,
    };
    let long = |short: &str| KINDS.iter().find(|(name, long)| *name == short || *long == short).map(|(_, long)| *long);
    let set = [("mapping", Some(long(mapping)?)), ("filtering", Some(long(filtering)?)), ("ports", ports)];
    let set = set.into_iter().filter_map(|(name, value)| Some((format!("{key}.{name}"), value?.to_owned())));
    Some(AxisValue { label: label.to_owned(), set: set.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_has_nine_kinds() {
        let axis: Axis = "nat.home".parse().expect("an axis");
        assert_eq!(axis.values.len(), 9);
        assert_eq!(axis.values[5].label, "ad/apd");
        let expected =
            [("nat.home.mapping", "address-dependent"), ("nat.home.filtering", "address-and-port-dependent")];
        assert_eq!(axis.values[5].set, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let two: Axis = "nat.home=ei/ei,apd/apd".parse().expect("an axis");
        assert_eq!(two.values.iter().map(|value| value.label.as_str()).collect::<Vec<_>>(), ["ei/ei", "apd/apd"]);
    }

    #[test]
    fn familiar_names_are_kinds() {
        let axis: Axis = "nat.home=port-restricted-cone,symmetric".parse().expect("an axis");
        assert_eq!(axis.values[0].set, "nat.home=ei/apd".parse::<Axis>().expect("an axis").values[0].set);
        assert_eq!(axis.values[1].set[2], ("nat.home.ports".to_owned(), "random".to_owned()));
    }

    #[test]
    fn any_key_is_an_axis() {
        let axis: Axis = "link.dsl.loss=0%..10%/3".parse().expect("an axis");
        assert_eq!(axis.values[1].set, [("link.dsl.loss".to_owned(), "5%".to_owned())]);
        assert!(matches!("nat.home=cone".parse::<Axis>(), Err(AxisError::Kind(_))));
        assert!(matches!("link.dsl.loss".parse::<Axis>(), Err(AxisError::Setting(_))));
    }
}
