//! How values are written that have a type of their own: by what they say they expect.

use serde_json::{Value, json};

/// A digit, or the number of a population's member, as a pattern.
const D: &str = r"([0-9]|\{n\})";

/// The units of quantities, as patterns.
const TIME: &str = "us|µs|ms|s|min|h";
const RATE: &str = "bit/s|kbit/s|Mbit/s|Gbit/s";
const SIZE: &str = "B|kB|MB|GB|KiB|MiB|GiB";

/// The schema of a value that is read by a visitor that expects this. What is not known here may be anything.
pub(super) fn schema(expected: &str) -> Value {
    if let Some((from, to)) = expected.strip_prefix("a whole number from ").and_then(|range| range.split_once(" to ")) {
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        return json!({ "type": "integer", "minimum": number(from), "maximum": number(to) });
    }
    let example = expected.split('"').nth(1).unwrap_or_default();
    let quantity = |units: &str| text(&format!(r"^{D}+(\.{D}+)? *({units})$"), example);
    match expected.split(" such as ").next().unwrap_or_default() {
        "a duration" => quantity(TIME),
        "a percentage" => quantity("%"),
        "a rate" => quantity(RATE),
        "a size" => quantity(SIZE),
        "an IPv4 address" => text(&format!(r"^{D}+(\.{D}+){{3}}$"), example),
        "an IPv4 network" => text(&format!(r"^{D}+(\.{D}+){{3}}/{D}+$"), example),
        "a range of ports" => text(&format!("^{D}+-{D}+$"), example),
        r#"true, false, "external-source" or "internal-source""# => {
            json!({ "enum": [true, false, "external-source", "internal-source"] })
        }
        "an address with a port" => text(&format!("^.+:{D}+$"), example),
        "a count" => json!({
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
                { "type": "string", "pattern": "^(>=|<=|=)? *[0-9]+ *$" },
            ],
            "examples": [1],
        }),
        "a NAT's name in quotes, or a table of NATs with their shares" => json!({
            "anyOf": [
                { "type": "string" },
                { "type": "object", "additionalProperties": schema("a percentage such as \"60%\"") },
            ],
            "examples": ["home"],
        }),
        "u8" | "u16" | "u32" | "u64" | "usize" => json!({ "type": "integer", "minimum": 0 }),
        "i64" => json!({ "type": "integer" }),
        "f64" => json!({ "type": "number" }),
        _ if example.is_empty() => json!({}),
        // A text of a kind that is not known here, or a number where one may stand for it.
        _ => json!({ "examples": [example] }),
    }
}

fn text(pattern: &str, example: &str) -> Value {
    json!({ "type": "string", "pattern": pattern, "examples": [example] })
}

/// A value that a schema admits.
pub(super) fn example(schema: &Value) -> Value {
    let first = |key: &str| schema[key].get(0).cloned();
    if let Some(example) = first("examples").or_else(|| first("enum")) {
        return example;
    }
    if let Some(inner) = first("allOf") {
        return example(&inner);
    }
    match schema["type"].as_str() {
        Some("integer") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_written_so() {
        let duration = schema("a duration such as \"20ms\"");
        assert_eq!((&duration["examples"][0], &duration["type"]), (&json!("20ms"), &json!("string")));
        assert_eq!(
            schema("a whole number from 0 to 65535"),
            json!({ "type": "integer", "minimum": 0, "maximum": 65535 })
        );
        assert_eq!(schema("something else"), json!({}));
        assert_eq!(example(&duration), json!("20ms"));
    }
}
