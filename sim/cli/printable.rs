//! Texts of others, such that they command no terminal and look like what they are.

use std::fmt::Write as _;

use serde::Serialize;

/// Whether a terminal would obey the character rather than show it, or show other text in another order for it: C0, DEL
/// and C1 (ECMA-48), the bidirectional controls (UAX #9), and the separators that end a line.
fn commands(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in a line, with what commands a terminal written out: `\n`, `\u{1b}`.
pub(super) fn printable(text: &str) -> String {
    escape(text, |_| false)
}

/// A text in as many lines as it has, otherwise as [`printable`].
pub(super) fn printable_lines(text: &str) -> String {
    escape(text, |c| c == '\n' || c == '\t')
}

fn escape(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if commands(c) && !kept(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The same JSON as ever, on one line, with what commands a terminal escaped as JSON does it: `\u009b`.
pub(super) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("plain data can be written as JSON");
    let mut escaped = String::with_capacity(text.len());
    // Such characters are only in its texts, where JSON has an escape for each; all of them are in the first plane.
    for c in text.chars() {
        match commands(c) {
            true => _ = write!(escaped, "\\u{:04x}", u32::from(c)),
            false => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_commands_a_terminal_is_written_out_and_all_else_is_as_it_was() {
        for (text, told) in [
            ("plain, ünïcode, 日本, 🦀 and \\n", "plain, ünïcode, 日本, 🦀 and \\n"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\\u{1b}[2J\\u{1b}]0;title\\u{7}"),
            ("\u{9b}2J\u{85}\u{7f}", "\\u{9b}2J\\u{85}\\u{7f}"),
            ("one\r\nerror: two\t", "one\\r\\nerror: two\\t"),
            ("a\u{202e}b\u{2066}c\u{200f}d\u{61c}e\u{2028}", "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{61c}e\\u{2028}"),
        ] {
            assert_eq!(printable(text), told);
        }
        assert_eq!(printable_lines("one\n\ttwo\r\u{9b}"), "one\n\ttwo\\r\\u{9b}");
    }

    #[test]
    fn json_says_the_same_and_commands_nothing() {
        let value = serde_json::json!({ "a\u{9b}": "\u{1b}[2J\u{7f}\u{202e}é\n" });
        let text = json(&value);
        assert_eq!(text, r#"{"a\u009b":"\u001b[2J\u007f\u202eé\n"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    proptest! {
        #[test]
        fn any_text_is_harmless_and_any_json_the_same(text: String) {
            prop_assert!(!printable(&text).chars().any(commands));
            let told = json(&text);
            prop_assert!(!told.chars().any(commands));
            prop_assert_eq!(serde_json::from_str::<String>(&told).unwrap(), text);
        }
    }
}
