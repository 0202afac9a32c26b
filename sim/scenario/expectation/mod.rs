//! What must happen: the expectations of a scenario that holds together.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::model::Name;

mod measure;
mod read;
pub(super) mod table;
mod words;

pub use measure::{Limits, Measure, Percentile};
pub(super) use read::expectations;

/// What must happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// What.
    pub kind: ExpectationKind,
    /// From when on, from the beginning of the run: what happened before does not count.
    pub after: Duration,
    /// By when, from the beginning of the run.
    pub within: Duration,
    /// In words, in a line: what reports say.
    pub text: String,
    /// Its line in the file, from 1.
    pub line: usize,
    /// The file that it is written in, where that is one that the scenario's extends.
    pub file: Option<Arc<str>>,
}

/// A part of a combined expectation.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What.
    pub kind: ExpectationKind,
    /// From when on.
    pub after: Duration,
    /// By when.
    pub within: Duration,
}

/// The kinds of expectations.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpectationKind {
    /// A client got a reply.
    Reply {
        /// The nodes one of which answered, where it matters; else empty.
        from: Vec<Name>,
        /// The client's node.
        to: Each,
        /// The result.
        value: ReplyValue,
        /// By which way, where it matters.
        path: Option<Way>,
        /// How often.
        count: Times,
    },
    /// A client's request was answered, be it with an error.
    Reached {
        /// The nodes one of which answered, where it matters; else empty.
        at: Vec<Name>,
        /// The client's node.
        by: Each,
        /// By which way, where it matters.
        path: Option<Way>,
        /// How often.
        count: Times,
    },
    /// A client's request ended in this error.
    Failed {
        /// The client's node.
        to: Each,
        /// The error's text, or a part of it.
        error: String,
        /// How often.
        count: Times,
    },
    /// A node was punched.
    Punched {
        /// The punched node.
        at: Each,
        /// The nodes one of which punched it, where it matters; else empty.
        by: Vec<Name>,
        /// How often.
        count: Times,
    },
    /// A node found a name.
    Found {
        /// The node.
        at: Each,
        /// The service's name.
        service: String,
        /// An address that must be among those found, where it matters: for a population, as its first node sees it.
        address: Option<SocketAddrV4>,
        /// How often.
        count: Times,
    },
    /// A measure of the clients' requests has these percentiles.
    Percentile {
        /// Of what.
        of: Measure,
        /// The clients' nodes, taken together.
        to: Each,
        /// How many requests they make in all; those that are never answered are slower than all others.
        requests: usize,
        /// The most that each percentile may be.
        limits: Limits,
    },
    /// So many bytes passed through a node or a NAT.
    Bytes {
        /// The node or NAT.
        through: Each,
        /// The least.
        at_least: Option<u64>,
        /// The most.
        at_most: Option<u64>,
    },
    /// This does not happen.
    Never(Box<Part>),
    /// All of these.
    All(Vec<Part>),
    /// At least one of these.
    Any(Vec<Part>),
}

/// A node or NAT, or several: each is judged on its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Each {
    /// What the file calls them.
    pub called: Name,
    /// Their names.
    pub names: Vec<Name>,
    /// How many of them it must be so for.
    pub needed: usize,
}

/// How often something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// At least so often.
    pub at_least: u32,
    /// At most so often, up to the expectation's end.
    pub at_most: Option<u32>,
}

impl Times {
    /// At least once.
    pub const ONCE: Self = Self { at_least: 1, at_most: None };
}

/// What a reply's value must be.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyValue {
    /// Anything.
    Any,
    /// This.
    Is(Value),
    /// Of this at least: of a table these keys, of an array these items, of a text this part.
    Contains(Value),
}

impl ReplyValue {
    /// Whether a value is as it must be.
    pub fn admits(&self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Is(wanted) => wanted == value,
            Self::Contains(wanted) => contains(value, wanted),
        }
    }
}

fn contains(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| value.get(key).is_some_and(|value| contains(value, wanted)))
        }
        (Value::Array(value), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| value.iter().any(|value| contains(value, wanted)))
        }
        (Value::String(value), Value::String(wanted)) => value.contains(wanted.as_str()),
        (value, wanted) => value == wanted,
    }
}

/// By which way a client's request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Straight to the service, without a punch from it.
    Direct,
    /// Straight to the service, over a punched hole: a punch from its address had arrived before.
    Punched,
    /// Through a broker's relay.
    Relayed,
}

impl Way {
    /// As files and reports say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Punched => "punched",
            Self::Relayed => "relayed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_part_of_a_value_is_found_in_it() {
        let value = json!({ "status": "ok, served", "hosts": [{ "name": "a", "port": 1 }, { "name": "b" }], "n": 2 });
        let parts = [json!({}), json!({ "n": 2 }), json!({ "status": "ok" }), json!({ "hosts": [{ "name": "b" }] })];
        for part in parts {
            assert!(ReplyValue::Contains(part.clone()).admits(&value), "{part}");
        }
        for part in [json!({ "m": 2 }), json!({ "n": 3 }), json!({ "hosts": [{ "port": 2 }] }), json!([]), json!(2)] {
            assert!(!ReplyValue::Contains(part.clone()).admits(&value), "{part}");
        }
        assert!(ReplyValue::Any.admits(&value) && ReplyValue::Is(value.clone()).admits(&value));
        assert!(!ReplyValue::Is(json!({ "n": 2 })).admits(&value));
    }
}
