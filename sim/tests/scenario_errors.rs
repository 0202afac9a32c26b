//! What a person reads who made a mistake in a scenario file: one snapshot a kind of mistake.

use grenache_sim::scenario::{self, LoadError};
use insta::assert_snapshot;
use miette::GraphicalTheme;

/// A file without mistakes; the tests add theirs.
const GOOD: &str = include_str!("good.toml");

fn errors(text: &str) -> String {
    let error = scenario::parse("scenario.toml", text).expect_err("the file is wrong");
    error.render(GraphicalTheme::none(), 100)
}

/// The errors of a good file with more at its end.
fn errors_with(more: &str) -> String {
    errors(&format!("{GOOD}\n{more}"))
}

/// The errors of a good file with something in it replaced.
fn errors_where(good: &str, bad: &str) -> String {
    assert!(GOOD.contains(good), "{good:?} is not in the good file");
    errors(&GOOD.replacen(good, bad, 1))
}

#[test]
fn the_good_file_is_good() {
    scenario::parse("good.toml", GOOD).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn not_toml() {
    assert_snapshot!(errors("[node.server\naddress = 1.2.3.4\nlink = \"a\" \"b\"\n"));
}

#[test]
fn unknown_keys() {
    assert_snapshot!(errors(
        r#"
tme-limit = "10s"
[nat.home]
maping = "endpoint-independent"
[link.dsl]
latncy = "20ms"
[node.server]
adress = "1.2.3.4"
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
service = "rpc_test"
[[fault]]
when = "3s"
crash = "server"
[[expect]]
reply = { to = "server", vallue = 1 }
within = "5s"
"#
    ));
}

#[test]
fn wrong_types() {
    assert_snapshot!(errors(
        r#"
description = 1
[nat.home]
hairpinning = "yes"
[link.dsl]
latency = 20
[link.wifi]
loss = 0.5
[link.fibre]
rate = 50
[node.server]
address = 1
[[program]]
node = ["server"]
run = "worker"
service = "rpc_test"
[[program]]
node = "server"
run = "client"
service = "rpc_test"
payload = 1979-05-27
"#
    ));
}

#[test]
fn tables_of_the_wrong_shape() {
    assert_snapshot!(errors(
        r#"
nat = 1
[node]
address = "157.81.109.241"
[program]
run = "grape"
[[link]]
latency = "20ms"
"#
    ));
}

#[test]
fn wrong_values() {
    assert_snapshot!(errors(
        r#"
seed = -1
[nat.home]
mapping = "symmetric"
[nat.cafe]
lan = "192.168.1.7/24"
[link.a]
latency = "-20ms"
[link.b]
latency = "20 parsecs"
[link.c]
latency = "20"
[link.d]
loss = "101%"
[link.e]
rate = "0 bit/s"
[link.f]
rate = "10 Mb"
[link.g]
queue = "0.5 B"
[node.server]
address = "157.81.109"
[[program]]
node = "server"
run = "grape"
dht-port = 0
api-port = 30001
[[program]]
node = "server"
run = "grape"
dht-port = 20001
api-port = 30001
kind = "nodejs"
[[program]]
node = "server"
run = "worker"
service = "rpc_test"
port = 65536
"#
    ));
}

#[test]
fn missing_keys() {
    assert_snapshot!(errors(
        r#"
[node.server]
[[program]]
node = "server"
[[program]]
node = "server"
run = "grape"
api-port = 30001
[[program]]
run = "lookup"
service = "rpc_test"
[[expect]]
found = { at = "server", service = "rpc_test" }
[[fault]]
crash = "server"
"#
    ));
}

#[test]
fn undefined_names() {
    assert_snapshot!(errors_with(
        r#"
[node.phone]
behind = "hme"
link = "dls"

[[program]]
node = "sever"
run = "grape"
dht-port = 20002
api-port = 40001
bootstrap = ["srver:20001", "157.81.109.241:20001"]

[[program]]
node = "phone"
run = "lookup"
grape = "nobody"
service = "rpc_test"

[[fault]]
at = "1s"
rebind = "house"

[[fault]]
at = "1s"
crash = "labtop"

[[expect]]
reply = { to = "lapto", value = "world" }
within = "5s"
"#
    ));
}

#[test]
fn no_such_program() {
    assert_snapshot!(errors_where("run = \"worker\"", "run = \"server\""));
}

#[test]
fn an_address_used_twice() {
    assert_snapshot!(errors_with("[node.other]\naddress = \"157.81.109.241\""));
}

#[test]
fn an_address_used_twice_on_a_lan() {
    assert_snapshot!(errors_with(
        r#"
[node.phone]
behind = "home"
address = "192.168.1.7"

[nat.shed]
behind = "home"
address = "192.168.1.7"
lan = "10.0.0.0/24"
"#
    ));
}

#[test]
fn an_address_outside_of_the_lan() {
    assert_snapshot!(errors_where("behind = \"home\"", "behind = \"home\"\naddress = \"198.51.100.10\""));
}

#[test]
fn an_address_that_no_host_can_have() {
    assert_snapshot!(errors_where("\"157.81.109.241\"", "\"127.0.0.1\""));
}

#[test]
fn a_public_address_in_a_lan() {
    assert_snapshot!(errors_where("\"157.81.109.241\"", "\"192.168.1.77\""));
}

#[test]
fn a_full_lan() {
    assert_snapshot!(errors_with(
        r#"
[nat.tiny]
lan = "10.0.0.0/29"
[node.a]
behind = "tiny"
[node.b]
behind = "tiny"
[node.c]
behind = "tiny"
[node.d]
behind = "tiny"
[node.e]
behind = "tiny"
[node.f]
behind = "tiny"
"#
    ));
}

#[test]
fn a_nat_behind_itself() {
    assert_snapshot!(errors_where("[nat.home]", "[nat.home]\nbehind = \"home\"\nlan = \"198.51.100.0/24\""));
}

#[test]
fn nats_behind_each_other() {
    assert_snapshot!(errors_with(
        r#"
[nat.a]
behind = "b"
lan = "10.0.1.0/24"
[nat.b]
behind = "c"
lan = "10.0.2.0/24"
[nat.c]
behind = "a"
lan = "10.0.3.0/24"
"#
    ));
}

#[test]
fn a_nat_with_the_lan_it_is_behind() {
    assert_snapshot!(errors_with("[nat.shed]\nbehind = \"home\""));
}

#[test]
fn a_node_called_like_a_nat() {
    assert_snapshot!(errors_with("[node.home]\naddress = \"203.0.113.1\""));
}

#[test]
fn a_name_that_cannot_be_one() {
    assert_snapshot!(errors_with("[node.\"my laptop\"]\naddress = \"203.0.113.1\""));
}

#[test]
fn no_programs() {
    assert_snapshot!(errors("description = \"nothing runs\"\n\n[node.server]\naddress = \"157.81.109.241\"\n"));
}

#[test]
fn an_empty_file() {
    assert_snapshot!(errors(""));
}

#[test]
fn more_jitter_than_latency() {
    assert_snapshot!(errors_where("latency = \"20ms\"", "latency = \"20ms\"\njitter = \"30ms\""));
}

#[test]
fn a_queue_without_a_rate() {
    assert_snapshot!(errors_where("latency = \"20ms\"", "queue = \"256 KiB\""));
}

#[test]
fn ports_used_twice() {
    assert_snapshot!(errors_with(
        r#"
[[program]]
node = "server"
run = "broker"
service = "fibo_broker"
port = 1337

[[program]]
node = "server"
run = "grape"
dht-port = 20002
api-port = 30001
"#
    ));
}

#[test]
fn no_grape_to_ask() {
    assert_snapshot!(errors_with(
        r#"
[[program]]
node = "laptop"
run = "lookup"
service = "rpc_test"

[[program]]
node = "server"
run = "lookup"
grape = "laptop"
service = "rpc_test"

[[program]]
node = "server"
run = "lookup"
grape = "http://127.0.0.1:30001"
service = "rpc_test"
"#
    ));
}

#[test]
fn keys_that_exclude_each_other() {
    assert_snapshot!(errors_with(
        r#"
[[program]]
node = "server"
run = "worker"
service = "rpc_test"
answer = "echo"
reply = "world"

[[program]]
node = "server"
run = "client"
service = "rpc_test"
punch = true
broker = "fibo_broker"
payload = "hello"
"#
    ));
}

#[test]
fn times_beyond_the_limit() {
    let good = format!("time-limit = \"10s\"\n{GOOD}");
    assert_snapshot!(errors(&format!(
        "{good}{}",
        r#"
[[program]]
node = "server"
run = "lookup"
start = "10s"
service = "rpc_test"

[[fault]]
at = "1min"
crash = "server"

[[expect]]
reply = { to = "laptop", value = "world" }
within = "10.001s"
"#
    )));
}

#[test]
fn faults_that_are_none() {
    assert_snapshot!(errors_with(
        r#"
[[fault]]
at = "1s"

[[fault]]
at = "1s"
crash = "server"
rebind = "home"

[[fault]]
at = "1s"
for = "1s"
rebind = "home"

[[fault]]
at = "1s"
partition = [["server"]]

[[fault]]
at = "1s"
partition = [["server", "laptop"], ["server"]]

[[fault]]
at = "1s"
partition = [["server"], []]

[[fault]]
at = "1s"
for = "1s"
crash = "laptop"

[[fault]]
at = "3s"
restart = "laptop"
"#
    ));
}

#[test]
fn expectations_that_cannot_be_met() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
within = "5s"

[[expect]]
reply = { to = "laptop", value = 1 }
found = { at = "laptop", service = "rpc_test" }
within = "5s"

[[expect]]
reply = { to = "server", value = 1 }
within = "5s"

[[expect]]
reply = { from = "laptop", to = "laptop", value = 1 }
within = "5s"

[[expect]]
failed = { to = "server", error = "ERR_TIMEOUT" }
within = "0s"

[[expect]]
found = { at = "laptop", service = "", address = "server:1337" }
within = "5s"
"#
    ));
}

#[test]
fn services_that_nobody_offers() {
    assert_snapshot!(errors_with(
        r#"
[[program]]
node = "server"
run = "broker"
service = "fibo_broker"

[[program]]
node = "server"
run = "worker"
service = "fibonacci_worker"
announce = false
broker = "fibo_borker"

[[program]]
node = "server"
run = "worker"
service = "other_worker"
punches = "fibonacci_consumer"

[[program]]
node = "laptop"
run = "client"
grape = "server"
service = "rpc_tset"
broker = "rpc_test"
payload = "hello"

[[program]]
node = "server"
run = "lookup"
service = "fibonacci_worker"

[[expect]]
found = { at = "server", service = "rpc_tests" }
within = "5s"
"#
    ));
}

#[test]
fn every_kind_of_offer_counts() {
    let more = r#"
[[program]]
node = "server"
run = "announce"
service = "silent"
port = 1

[[program]]
node = "server"
run = "broker"
service = "fibo_broker"

[[program]]
node = "laptop"
run = "client"
grape = "server"
service = "silent"
announce = "consumer"
payload = 1

[[program]]
node = "server"
run = "worker"
service = "fibonacci_worker"
punches = "consumer"
broker = "fibo_broker"

[[program]]
node = "server"
run = "lookup"
service = "fibo_broker"
"#;
    scenario::parse("good.toml", &format!("{GOOD}{more}")).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_grape_to_bootstrap_from() {
    assert_snapshot!(errors_with(
        r#"
[[program]]
node = "server"
run = "grape"
dht-port = 20002
api-port = 30002
bootstrap = ["server:30001", "server:20001", "laptop:20001", "127.0.0.1:9"]
"#
    ));
}

#[test]
fn a_crash_of_what_is_down() {
    assert_snapshot!(errors_with(
        r#"
[[fault]]
at = "1s"
crash = "server"

[[fault]]
at = "2s"
crash = "server"

[[fault]]
at = "1s"
for = "2s"
crash = "laptop"

[[fault]]
at = "2999ms"
crash = "laptop"
"#
    ));
}

#[test]
fn what_is_up_again_can_crash_again() {
    let more = r#"
[[fault]]
at = "9s"
crash = "server"

[[fault]]
at = "1s"
crash = "server"

[[fault]]
at = "2s"
restart = "server"

[[fault]]
at = "3s"
for = "6s"
crash = "server"
"#;
    scenario::parse("good.toml", &format!("{GOOD}{more}")).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn lists_with_one_bracket() {
    assert_snapshot!(errors(
        r#"
[node.server]
address = "157.81.109.241"
[program]
node = "server"
run = "grape"
[program]
node = "server"
run = "lookup"
[fault]
at = "1s"
[ program ]
node = "server"
[fault]
at = "2s"
[node.server]
address = "157.81.109.242"
"#
    ));
}

#[test]
fn a_partition_of_nodes() {
    assert_snapshot!(errors_with(
        r#"
[[fault]]
at = "1s"
partition = ["server", "laptop"]

[[fault]]
at = "1s"
partition = ["server", ["laptop"]]
"#
    ));
}

#[test]
fn a_fault_after_the_end() {
    assert_snapshot!(errors_with(
        r#"
[[fault]]
at = "5s"
rebind = "home"

[[fault]]
at = "5001ms"
crash = "server"

[[expect]]
reply = { to = "laptop", value = "hello" }
within = "5s"

[[expect]]
reply = { to = "laptop", value = "hello" }
within = "4s"
"#
    ));
}

#[test]
fn addresses_that_are_none() {
    assert_snapshot!(errors_with(
        r#"
[[expect]]
found = { at = "laptop", service = "rpc_test", address = "server" }
within = "5s"

[[expect]]
found = { at = "laptop", service = "rpc_test", address = "server:0" }
within = "5s"

[[program]]
node = "server"
run = "grape"
dht-port = 20002
api-port = 30002
bootstrap = ["1.2.3:20001"]
"#
    ));
}

#[test]
fn an_error_in_a_line_has_its_place() {
    let error = scenario::parse("some/file.toml", "[node.server]\n  adress = \"1.2.3.4\"\n[node.b]\nbehind = 1\n")
        .expect_err("two mistakes");
    assert_snapshot!(error, @r"
    some/file.toml:2:3: unknown key `adress`
    some/file.toml:4:10: expected a NAT's name in quotes, or a table of NATs with their shares, found integer `1`
    ");
}

#[test]
fn a_file_that_is_not_there() {
    let error = scenario::load("no/such/file.toml".as_ref()).expect_err("there is no such file");
    assert!(matches!(error, LoadError::Read { .. }));
    assert!(error.to_string().starts_with("cannot read no/such/file.toml: "), "{error}");
}
