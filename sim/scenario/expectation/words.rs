//! Expectations as reports say them.

use super::{Each, ExpectationKind, Part, ReplyValue, Times, Way};
use crate::scenario::model::Name;

/// The longest value that reports show, in characters.
const SHOWN: usize = 120;

/// A value as reports show it: its beginning, where it is long.
fn cut(value: impl ToString) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// An expectation as reports say it.
pub(super) fn in_words(kind: &ExpectationKind) -> String {
    match kind {
        ExpectationKind::Reply { from, to, value, path, count } => {
            let value = match value {
                ReplyValue::Any => "a reply".to_owned(),
                ReplyValue::Is(value) => format!("the reply {}", cut(value)),
                ReplyValue::Contains(value) => format!("a reply with {} in it", cut(value)),
            };
            format!("{} gets {value}{}{}{}", subject(to), whom(" from ", from), way(*path), times(*count))
        }
        ExpectationKind::Reached { at, by, path, count } => {
            let at = if at.is_empty() { " a service".to_owned() } else { whom(" ", at) };
            format!("{} reaches{at}{}{}", subject(by), way(*path), times(*count))
        }
        ExpectationKind::Failed { to, error, count } => {
            let error = if error.is_empty() { String::new() } else { format!(" with {}", cut(format!("{error:?}"))) };
            format!("a request of {} fails{error}{}", subject(to), times(*count))
        }
        ExpectationKind::Punched { at, by, count } => {
            format!("{} is punched{}{}", subject(at), whom(" by ", by), times(*count))
        }
        ExpectationKind::Found { at, service, address, count } => {
            let address = address.map_or_else(String::new, |address| format!(" at {address}"));
            format!("{} finds {}{address}{}", subject(at), cut(service), times(*count))
        }
        ExpectationKind::Percentile { of, to, limits, .. } => {
            let limits: Vec<String> =
                limits.iter().map(|(percentile, limit)| format!("{} ≤ {limit:?}", percentile.as_str())).collect();
            format!("the {} of {} has {}", of.as_str(), range(to), limits.join(", "))
        }
        ExpectationKind::Bytes { through, at_least, at_most } => {
            let bounds = match (at_least, at_most) {
                (Some(least), Some(most)) => format!("{least} to {most} bytes"),
                (Some(least), None) => format!("at least {least} bytes"),
                (None, Some(most)) => format!("at most {most} bytes"),
                (None, None) => "any bytes".to_owned(),
            };
            format!("{bounds} pass through {}", subject(through))
        }
        ExpectationKind::Never(part) => format!("never: {}", in_words(&part.kind)),
        ExpectationKind::All(parts) => joined(parts, " and "),
        ExpectationKind::Any(parts) => joined(parts, " or "),
    }
}

fn joined(parts: &[Part], with: &str) -> String {
    let words: Vec<String> = parts
        .iter()
        .map(|part| match part.kind {
            ExpectationKind::All(_) | ExpectationKind::Any(_) => format!("({})", in_words(&part.kind)),
            _ => in_words(&part.kind),
        })
        .collect();
    words.join(with)
}

fn subject(each: &Each) -> String {
    match each.names.as_slice() {
        [one] => one.to_string(),
        all if all.len() == each.needed => format!("each of {}", range(each)),
        _ => format!("{} of {}", each.needed, range(each)),
    }
}

/// A population as its members are called: `client-1 to client-200`.
fn range(each: &Each) -> String {
    match each.names.len() {
        1 => each.called.to_string(),
        count => format!("{0}-1 to {0}-{count}", each.called),
    }
}

fn whom(preposition: &str, names: &[Name]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("{preposition}{one}"),
        // A population, whose first one is called NAME-1.
        [first, ..] => format!("{preposition}one of {}", first.rsplit_once('-').map_or(&**first, |(name, _)| name)),
    }
}

fn way(way: Option<Way>) -> String {
    way.map_or_else(String::new, |way| format!(", {}", way.as_str()))
}

fn times(count: Times) -> String {
    match (count.at_least, count.at_most) {
        (1, None) => String::new(),
        (least, None) => format!(" {least} times"),
        (least, Some(most)) if least == most => format!(" exactly {most} times"),
        (0, Some(most)) => format!(" at most {most} times"),
        (least, Some(most)) => format!(" {least} to {most} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut() {
        let short = "é".repeat(SHOWN);
        assert_eq!(cut(&short), short);
        assert_eq!(cut(format!("{short}é")), format!("{short}…"));
        let value = ReplyValue::Is(serde_json::Value::from("x".repeat(1 << 20)));
        let to = Each { called: "client".into(), names: vec!["client".into()], needed: 1 };
        let kind = ExpectationKind::Reply { from: Vec::new(), to, value, path: None, count: Times::ONCE };
        assert_eq!(in_words(&kind), format!("client gets the reply \"{}…", "x".repeat(SHOWN - 1)));
    }
}
