//! What is told of a scenario file whose faults or firewalls make no sense.

use grenache_sim::scenario::{LoadError, parse};
use miette::Diagnostic;

const TOPOLOGY: &str = r#"
[nat.home]
lan6 = "2001:db8:1::/64"
[nat.cafe]
[node.a]
[node.b]
behind = "home"
[[program]]
node = "a"
run = "grape"
dht-port = 1
api-port = 2
"#;

/// Each problem as `line: message; help`, with lines counted from the end of the topology.
fn problems(text: &str) -> Vec<String> {
    let offset = TOPOLOGY.lines().count();
    match parse("t", &format!("{TOPOLOGY}{text}")).expect_err("it is refused") {
        LoadError::Invalid(problems) => {
            let line = |place: String| place.split(':').nth(1).unwrap().parse::<usize>().unwrap() - offset;
            let tell = |problem: &grenache_sim::scenario::Problem| {
                let help = problem.help().map_or_else(String::new, |help| format!("; {help}"));
                format!("{}: {problem}{help}", line(problem.place()))
            };
            problems.iter().map(tell).collect()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn lasts_is_called_for_now() {
    assert_eq!(
        problems("[[fault]]\nat = \"1s\"\nlasts = \"2s\"\ncrash = \"a\"\n"),
        ["3: unknown key `lasts`; how long a fault goes on is its `for`: write for = \"10s\""]
    );
}

#[test]
fn faults_that_repeat_in_no_way_that_can_be() {
    assert_eq!(
        problems(
            r#"[[fault]]
at = "1s"
every = "2s"
pause = "a"
[[fault]]
at = "1s"
for = "2s"
every = "2s"
down = "home"
[[fault]]
at = "1s"
times = 2
rebind = "home"
[[fault]]
at = "1s"
every = "1ms"
reboot = "home"
[[fault]]
at = "1s"
every = "0s"
rebind = "home"
"#
        ),
        [
            "3: a fault that never ends cannot begin again; write `for`, how long it goes on each time",
            "8: the fault begins again after 2s, but lasts 2s; choose an `every` that is longer than `for`",
            "12: `times` needs `every`; write every = \"10s\", from one beginning to the next",
            "16: the fault happens more than 10000 times until 60s; choose a longer `every`, or write `times`",
            "20: a fault cannot happen again after no time",
        ]
    );
}

#[test]
fn faults_of_what_is_not_there() {
    assert_eq!(
        problems(
            r#"[[fault]]
at = "1s"
degrade = { node = "a", nat = "home", loss = "1%" }
[[fault]]
at = "1s"
degrade = { node = "a" }
[[fault]]
at = "1s"
clock = { node = "a" }
[[fault]]
at = "1s"
outage = "b"
[[fault]]
at = "1s"
move = { node = "b", behind = "cafe", address = "10.0.0.1" }
[[fault]]
at = "1s"
move = { node = "a", behind = "cafe", address6 = "2001:db8:1::9" }
[[fault]]
at = "1s"
move = { node = "b", address = "203.0.113.2" }
[[fault]]
at = "1s"
down = "c"
[[fault]]
at = "1s"
reboot = "a"
"#
        ),
        [
            "3: a degradation is of the link of one node or one NAT; write one of `node` and `nat`, such as degrade = { \
             node = \"a\", loss = \"5%\" }",
            "6: this degradation changes nothing; write `latency`, `loss` or `rate`",
            "9: this clock is right; write `skew` or `drift`, such as drift = \"100ppm\"",
            "12: there is no Grape on `b`; an outage is of the Grape on a node: name one with a program that runs \
             \"grape\"",
            "15: 10.0.0.1 is not an address in the LAN 192.168.1.0/24 of the NAT; leave `address` out for the next free \
             one",
            "18: 2001:db8:1::9 is not an address in the NAT's IPv6 network; leave `address6` out for the next free one",
            "21: this address is that of `a`; leave it out for the next free one",
            "24: there is no node `c`; nodes in this file: a, b",
            "27: there is no NAT `a`; NATs in this file: cafe, home",
        ]
    );
    assert_eq!(
        problems("[[fault]]\nat = \"1s\"\nclock = { node = \"a\", drift = \"2000000ppm\" }\n"),
        ["3: `2000000ppm` is more than 1000000ppm: no clock runs at twice the speed"]
    );
}

#[test]
fn firewalls_that_are_none() {
    assert_eq!(
        problems("[firewall.off]\n[firewall.w]\nudp-timeout = \"0s\"\n[node.c]\nfirewall = \"v\"\n"),
        [
            "1: `off` cannot be a firewall's name; a NAT with `firewall = \"off\"` has none",
            "3: a firewall whose flows live no time lets no answer in",
            "5: there is no firewall `v`; firewalls in this file: off, w",
        ]
    );
}
