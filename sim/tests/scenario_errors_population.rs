//! What a person reads who made a mistake with populations.

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
fn counts_out_of_range() {
    assert_snapshot!(errors_with(
        "[node.a]\ncount = 0\n[node.b]\ncount = 60001\n[node.c]\ncount = \"5\"\n[nat.d]\ncount = -1\n[link.e]\ncount = 2\n"
    ));
}

#[test]
fn names_that_are_members() {
    assert_snapshot!(errors_with(
        "[node.peer]\ncount = 5\n[node.peer-3]\n[nat.peer-5]\n[node.peer-6]\n[nat.twice]\ncount = 2\n[node.twice]\ncount = 2\n"
    ));
}

#[test]
fn pairs_of_unequal_populations() {
    assert_snapshot!(errors_with(
        r#"
[nat.few]
count = 3
[node.peer]
count = 5
behind = "few"
[node.drawn]
count = 5
behind = { few = "50%", none = "50%" }
"#
    ));
    assert_snapshot!(errors_with(
        r#"
[nat.few]
count = 3
[node.single]
behind = "few"
[[fault]]
at = "1s"
crash = "few"
"#
    ));
}

#[test]
fn shares_that_are_no_whole() {
    assert_snapshot!(errors_with(
        r#"
[nat.none]
[node.peer]
count = 5
behind = { home = "50%", none = "40%" }
[node.lost]
behind = { hom = "100%" }
"#
    ));
    assert_snapshot!(errors_with(
        r#"
[node.drawn]
behind = { home = 50, none = "50%" }
[node.list]
behind = ["home"]
"#
    ));
}

#[test]
fn one_is_meant_and_not_many() {
    assert_snapshot!(errors_with(
        r#"
[node.peer]
count = 500
[[program]]
node = "peer"
run = "lookup"
grape = "peer"
service = "rpc_test"
[[program]]
node = "server"
run = "grape"
dht-port = 20002
api-port = 30002
bootstrap = ["peer:20001"]
[[program]]
node = "peer"
run = "worker"
service = "rpc_test_{n}"
"#
    ));
}

#[test]
fn a_lan_too_small_for_all() {
    assert_snapshot!(errors_with("[node.peer]\ncount = 300\nbehind = \"home\"\n"));
    assert_snapshot!(errors_with("[node.peer]\ncount = 40000\n[node.guest]\ncount = 40000\n"));
}

#[test]
fn a_mistake_is_told_once_and_not_of_each_member() {
    let error = errors_with(
        r#"
[node.peer]
count = 10000
link = "dls"
[node.friend]
count = 10000
link = "dls"
[[program]]
node = "friend"
run = "client"
grape = "sever"
service = "rpc_tset"
payload = 1
[[expect]]
reply = { to = "friends", share = "5%" }
within = "5s"
[[expect]]
reply = { to = "friend", share = "0%" }
within = "5s"
"#,
    );
    assert_snapshot!(error);
    assert_snapshot!(errors_with("[node.peer]\ncount = 10000\nadress = \"1.2.3.{n}\"\n"));
}

#[test]
fn a_lan_too_small_for_those_that_a_seed_draws() {
    let text = format!("{GOOD}\n[node.peer]\ncount = 400\nbehind = {{ home = \"60%\", none = \"40%\" }}\n");
    let scenario = scenario::parse("scenario.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    let refused = (0..200).find_map(|seed| scenario.drawn(seed).err()).expect("one in six seeds draws more than 252");
    assert_snapshot!(refused.render(GraphicalTheme::none(), 100));
}
