//! What a person reads who made a mistake in a `[nat.NAME]`, and what its kinds and keys come to.

use grenache_sim::event::Protocol;
use grenache_sim::scenario::model::{
    Dependence, Forward, Hairpinning, Nat, Pooling, PortAssignment, Refresh, WhenFull,
};
use grenache_sim::scenario::{self, LoadError, Scenario};
use insta::assert_snapshot;
use miette::GraphicalTheme;

/// A host behind a NAT of this table, and something for it to do.
fn file(nat: &str) -> String {
    format!(
        r#"
[nat.home]
{nat}

[node.laptop]
behind = "home"

[node.phone]
behind = "home"

[[program]]
node = "laptop"
run = "grape"
dht-port = 20001
api-port = 30001
"#
    )
}

fn load(nat: &str) -> Result<Scenario, LoadError> {
    scenario::parse("scenario.toml", &file(nat))
}

fn errors(nat: &str) -> String {
    load(nat).expect_err("the file is wrong").render(GraphicalTheme::none(), 100)
}

fn nat(table: &str) -> Nat {
    load(table).unwrap_or_else(|error| panic!("{error}")).nats.remove("home").expect("it is there")
}

#[test]
fn a_kind_stands_for_what_the_documentation_says() {
    use Dependence::{AddressAndPortDependent as ByPort, AddressDependent as ByAddress, EndpointIndependent as Never};
    use PortAssignment::{Preserving, Random};
    for (kind, mapping, filtering, ports) in [
        ("full-cone", Never, Never, Preserving),
        ("restricted-cone", Never, ByAddress, Preserving),
        ("port-restricted-cone", Never, ByPort, Preserving),
        ("symmetric", ByPort, ByPort, Random),
        ("port-preserving-symmetric", ByPort, ByPort, Preserving),
        ("cgn", Never, Never, Random),
    ] {
        let nat = nat(&format!("kind = {kind:?}"));
        assert_eq!((nat.mapping, nat.filtering, nat.ports), (mapping, filtering, ports), "{kind}");
    }
    assert_eq!(nat("kind = \"port-restricted-cone\""), nat(""), "what a NAT is by default");
    let cgn = nat("kind = \"cgn\"");
    assert_eq!((cgn.lan.to_string(), cgn.mappings_per_host), ("100.64.0.0/10".to_owned(), Some(1024)));
    assert_eq!((cgn.pooling, cgn.hairpinning), (Pooling::Paired, Hairpinning::ExternalSource));
}

#[test]
fn further_keys_override_a_kind() {
    let nat = nat(
        "kind = \"symmetric\"\nports = \"contiguous\"\nfiltering = \"endpoint-independent\"\nudp-timeout = \"30s\"\n\
         hairpinning = \"internal-source\"",
    );
    assert_eq!(nat.mapping, Dependence::AddressAndPortDependent);
    assert_eq!((nat.ports, nat.filtering), (PortAssignment::Contiguous, Dependence::EndpointIndependent));
    assert_eq!((nat.udp_timeout.as_secs(), nat.hairpinning), (30, Hairpinning::InternalSource));
}

#[test]
fn every_key_is_read() {
    let nat = nat(r#"
addresses = ["198.51.100.7", "198.51.100.8"]
pooling = "arbitrary"
ports = "random"
port-range = "20000-29999"
parity = true
tcp-timeout = "1h"
refresh = "both"
hairpinning = "external-source"
mappings-per-host = 100
when-full = "replace-oldest"
port-blocks = { size = 64, per-host = 2 }
forward = [
    { port = 80, to = "laptop:8080", protocol = "tcp" },
    { port = 80, to = "192.168.1.3:5000", protocol = "udp" },
]
nat-pmp = true
forwards-per-host = 3
forward-lifetime = "10min"
"#);
    let addresses: Vec<String> = nat.addresses().map(|address| address.to_string()).collect();
    assert_eq!((addresses, nat.pooling), (vec!["198.51.100.7".into(), "198.51.100.8".into()], Pooling::Arbitrary));
    assert_eq!((nat.port_range, nat.parity, nat.keeps_port_range), (Some(20_000..=29_999), true, false));
    assert_eq!((nat.tcp_timeout.as_secs(), nat.refresh), (3600, Refresh::Both));
    assert_eq!((nat.mappings_per_host, nat.when_full), (Some(100), WhenFull::ReplaceOldest));
    assert_eq!(nat.port_blocks.map(|blocks| (blocks.size, blocks.per_host)), Some((64, 2)));
    let forward = |protocol, to: &str| Forward { protocol, port: 80, to: to.parse().unwrap() };
    let laptop = forward(Protocol::Tcp, "192.168.1.2:8080");
    assert_eq!(nat.forwards, [laptop, forward(Protocol::Udp, "192.168.1.3:5000")]);
    assert_eq!(nat.nat_pmp.map(|pmp| (pmp.per_host, pmp.lifetime.as_secs())), Some((3, 600)));
}

#[test]
fn hosts_behind_a_one_to_one_nat_have_an_address_each_in_the_files_order() {
    let pairs = |table: &str| {
        let nat = nat(table);
        nat.one_to_one.iter().map(|(internal, public)| format!("{internal} {public}")).collect::<Vec<_>>()
    };
    let kind = "kind = \"one-to-one\"";
    assert_eq!(pairs(kind), ["192.168.1.2 198.51.100.2", "192.168.1.3 198.51.100.3"], "the next free ones");
    let written = format!("{kind}\naddresses = [\"198.51.100.9\", \"198.51.100.7\"]");
    assert_eq!(pairs(&written), ["192.168.1.2 198.51.100.9", "192.168.1.3 198.51.100.7"]);
}

#[test]
fn what_contradicts_its_kind() {
    assert_snapshot!(
        [
            errors("kind = \"full-cone\"\nfiltering = \"address-dependent\"\nmapping = \"endpoint-independent\""),
            errors("kind = \"symmetric\"\nmapping = \"endpoint-independent\""),
            errors("kind = \"one-to-one\"\nports = \"random\"\nnat-pmp = true"),
            errors("kind = \"symetric\""),
        ]
        .join("\n")
    );
}

#[test]
fn keys_that_exclude_each_other() {
    assert_snapshot!(
        [
            errors("address = \"198.51.100.1\"\naddresses = [\"198.51.100.2\"]"),
            errors("ports = \"overloading\"\nparity = true\nport-range = \"2000-3000\""),
            errors("keep-port-range = true\nport-blocks = { size = 64 }"),
            errors("kind = \"cgn\"\nports = \"overloading\""),
        ]
        .join("\n")
    );
}

#[test]
fn keys_that_would_do_nothing() {
    assert_snapshot!(errors(
        "pooling = \"arbitrary\"\nwhen-full = \"refuse\"\nforwards-per-host = 3\nforward-lifetime = \"10s\""
    ));
}

#[test]
fn values_out_of_range() {
    assert_snapshot!(
        [
            errors("port-range = \"3000-2000\""),
            errors("port-range = \"1024\""),
            errors("port-range = \"0-100\""),
            errors("addresses = []"),
            errors("tcp-timeout = \"0s\""),
            errors("port-range = \"2000-2009\"\nport-blocks = { size = 16 }"),
            errors("hairpinning = \"sometimes\""),
            errors("nat-pmp = true\nforward-lifetime = \"500ms\""),
            errors("addresses = [\"198.51.100.1\", \"198.51.100.1\"]"),
            errors("kind = \"one-to-one\"\naddress = \"198.51.100.1\""),
        ]
        .join("\n")
    );
}

#[test]
fn forwards_that_lead_nowhere() {
    assert_snapshot!(errors(
        r#"
forward = [
    { port = 80, to = "server:8080", protocol = "udp" },
    { port = 81, to = "203.0.113.1:8080", protocol = "udp" },
    { port = 82, to = "laptop:8080", protocol = "udp" },
    { port = 82, to = "phone:8080", protocol = "udp" },
    { port = 83, to = "laptop:8080", protocol = "udp" },
]
"#
    ));
}

#[test]
fn programs_that_ask_things_of_nats() {
    let programs = r#"
[node.server]
address = "203.0.113.1"

[[program]]
node = "server"
run = "stun-server"
partner = "server"

[[program]]
node = "laptop"
run = "forward"
port = 80

[[program]]
node = "server"
run = "forward"
port = 80

[[program]]
node = "laptop"
run = "nat-probe"
server = "nobody:3478"
mapping = "symmetric"
"#;
    let error = scenario::parse("scenario.toml", &format!("{}{programs}", file(""))).expect_err("the file is wrong");
    let first = error.render(GraphicalTheme::none(), 100);
    let fixed = programs.replace("mapping = \"symmetric\"\n", "");
    let error = scenario::parse("scenario.toml", &format!("{}{fixed}", file(""))).expect_err("the file is wrong");
    assert_snapshot!([first, error.render(GraphicalTheme::none(), 100)].join("\n"));
}
