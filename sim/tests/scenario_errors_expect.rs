//! What a person reads who made a mistake in an expectation.

use grenache_sim::scenario;
use insta::assert_snapshot;
use miette::GraphicalTheme;

/// A file without mistakes; the tests add theirs.
const GOOD: &str = include_str!("good.toml");

fn errors_with(more: &str) -> String {
    let text = format!("{GOOD}\n{more}");
    let error = scenario::parse("scenario.toml", &text).expect_err("the file is wrong");
    error.render(GraphicalTheme::none(), 100)
}

#[test]
fn counts_that_are_none() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
reply = { to = "laptop", count = 0 }
within = "5s"
[[expect]]
reply = { to = "laptop", count = "few" }
within = "5s"
[[expect]]
reply = { to = "laptop", count = ">=0" }
within = "5s"
[[expect]]
reply = { to = "laptop", count = -1 }
within = "5s"
[[expect]]
reply = { to = "laptop", count = 1.5 }
within = "5s"
"#
    ));
}

#[test]
fn times_that_leave_nothing() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
reply = { to = "laptop" }
after = "5s"
within = "5s"
[[expect]]
never = { reply = { to = "laptop" }, within = "7s" }
within = "5s"
[[expect]]
all = [{ reply = { to = "laptop" }, after = "1s" }]
after = "2s"
within = "5s"
"#
    ));
}

#[test]
fn values_and_ways_that_are_wrong() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
reply = { to = "laptop", value = 1, contains = 2 }
within = "5s"
[[expect]]
reached = { by = "server" }
within = "5s"
[[expect]]
reply = { to = "laptop", share = "95%" }
within = "5s"
"#
    ));
}

#[test]
fn measures_without_a_limit_or_a_client() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
percentile = { of = "latency", to = "laptop" }
within = "5s"
[[expect]]
percentile = { of = "connect", to = "laptop", p50 = "1s" }
within = "5s"
[[expect]]
percentile = { of = "latency", to = "server", p50 = "1s" }
within = "5s"
"#
    ));
}

#[test]
fn bytes_without_a_bound_or_a_place() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
bytes = { through = "server" }
within = "5s"
[[expect]]
bytes = { through = "nobody", at-most = "1 kB" }
within = "5s"
[[expect]]
bytes = { through = "server", at-most = "1 kB", at-least = "2 kB" }
within = "5s"
"#
    ));
}

#[test]
fn combinations_of_nothing() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
all = []
within = "5s"
[[expect]]
any = [{ within = "3s" }]
within = "5s"
[[expect]]
never = { reply = { to = "laptop" }, found = { at = "laptop", service = "rpc_test" } }
within = "5s"
[[expect]]
all = [{ never = { any = [{ reply = { to = "lap" } }] } }]
within = "5s"
[[expect]]
all = [{ found = { at = "laptop", service = "rpc_tset" } }]
within = "5s"
"#
    ));
}

#[test]
fn words_that_are_none() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
bytes = { through = "server", at-most = 1000 }
within = "5s"
[[expect]]
reply = { to = "laptop", path = "relay" }
within = "5s"
[[expect]]
percentile = { of = "speed", to = "laptop", p50 = "1s" }
within = "5s"
[[expect]]
percentile = { of = "latency", to = "laptop", p42 = "1s" }
within = "5s"
[[expect]]
reply = { to = "laptop" }
"#
    ));
}
