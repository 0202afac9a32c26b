//! Scenario files of any text: each is read or refused, and nothing crashes.

use grenache_sim::scenario;
use miette::GraphicalTheme;
use proptest::prelude::*;

/// A file without mistakes.
const GOOD: &str = include_str!("good.toml");

/// Reads a text that may be anything; what is wrong with it can be shown.
fn read_anything(text: &str) {
    if let Err(error) = scenario::parse("any.toml", text) {
        assert!(!error.to_string().is_empty());
        assert!(!error.render(GraphicalTheme::none(), 100).is_empty());
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        read_anything(&text);
    }

    #[test]
    fn any_lines_of_toml_are_read_or_refused(
        lines in proptest::collection::vec(
            "(\\[{1,2}(node|nat|link|program|expect|fault)(\\.[a-c])?\\]{1,2}|(node|run|behind|lan|address|grape|at|within|reply|partition) = (\"[a-c]\"|\"10.0.0.[0-9]/2[0-9]\"|[-0-9.]{1,4}|\\[\\[?\"a\"\\]?\\]|\\{ to = \"a\" \\}))",
            0..16,
        ),
    ) {
        read_anything(&lines.join("\n"));
    }

    #[test]
    fn a_good_file_that_is_damaged_is_read_or_refused(at in 0..GOOD.len(), len in 0_usize..40, with in "[\\PC\\n]{0,8}") {
        let mut text = GOOD.to_owned();
        text.replace_range(at..(at + len).min(GOOD.len()), &with);
        read_anything(&text);
    }
}

#[test]
fn deep_nesting_is_refused_without_a_crash() {
    for open in ["[", "{a="] {
        let text = format!("description = {}", open.repeat(200_000));
        read_anything(&text);
    }
    read_anything(&format!("[{}]", "a.".repeat(100_000) + "a"));
}
