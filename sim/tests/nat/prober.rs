//! RFC 5780's prober tells every NAT as it is configured: the whole product of RFC 4787's axes.

use std::net::SocketAddr;
use std::time::Duration;

use grenache::nat::{Filtering, Mapping, Ports};
use grenache::net::Net;
use grenache_sim::engine::World;
use grenache_sim::probe::prober::{Hairpin, Lifetime, NatReport, ProbeError, ProberConfig, Refreshed, probe};
use grenache_sim::probe::server::{ServerConfig, StunServer};
use grenache_sim::scenario::model::{Dependence, Hairpinning, Nat, Pooling, PortAssignment, Refresh};

use crate::lab::{Lab, address};
use crate::peers::kinds;

const SERVER: &str = "203.0.113.1:3478";

/// A laptop and a phone behind a NAT, and the two addresses of an RFC 5780 server.
fn behind(nat: &Nat) -> Lab {
    let configured = nat.clone();
    Lab::new()
        .nat_with("home", "198.51.100.10", |nat| *nat = Nat { address: nat.address, ..configured })
        .behind("home", "laptop", "192.168.1.2")
        .behind("home", "phone", "192.168.1.3")
        .node("one", "203.0.113.1")
        .node("two", "203.0.113.2")
}

fn servers(world: &World) -> [StunServer; 2] {
    let server = |node, partner: &str| {
        let config = ServerConfig { partner: partner.parse().ok(), ..ServerConfig::default() };
        StunServer::start(&world.network(node), config).unwrap()
    };
    [server("one", "203.0.113.2"), server("two", "203.0.113.1")]
}

fn config() -> ProberConfig {
    ProberConfig::default().sockets(24).longest_lifetime(Some(Duration::from_secs(160)))
}

fn found(lab: &Lab, config: ProberConfig) -> Result<NatReport, ProbeError> {
    let main = async |world: World| {
        let _servers = servers(&world);
        let phone: Net = world.network("phone");
        probe(&world.network("laptop"), Some(&phone), address(SERVER), config).await
    };
    lab.sim().run(Duration::from_secs(24 * 3600), main).expect("the prober ends")
}

/// What is wrong with a report of this NAT; empty where nothing is.
fn disagreements(nat: &Nat, report: &NatReport) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, agrees: bool| {
        if !agrees {
            wrong.push(what.to_owned());
        }
    };
    let overloads = nat.ports == PortAssignment::Overloading;
    let several = !nat.more_addresses.is_empty();
    let arbitrary = several && nat.pooling == Pooling::Arbitrary;
    // Every destination has the same port where ports are overloaded, and so the same endpoint, unless each mapping has
    // an address that was drawn for it: then what is seen is as random as that.
    let drawn = overloads && arbitrary && nat.mapping != Dependence::EndpointIndependent;
    let mapping = match nat.mapping {
        _ if overloads => Mapping::EndpointIndependent,
        Dependence::EndpointIndependent => Mapping::EndpointIndependent,
        Dependence::AddressDependent => Mapping::AddressDependent,
        Dependence::AddressAndPortDependent => Mapping::AddressAndPortDependent,
    };
    check("mapping", drawn || report.mapping == mapping);
    let filtering = match nat.filtering {
        Dependence::EndpointIndependent => Filtering::EndpointIndependent,
        Dependence::AddressDependent => Filtering::AddressDependent,
        Dependence::AddressAndPortDependent => Filtering::AddressAndPortDependent,
    };
    check("filtering", report.filtering == filtering);
    check(
        "ports",
        match nat.ports {
            PortAssignment::Preserving | PortAssignment::Overloading => report.ports == Ports::Preserving,
            // With parity kept, a step is one, two or three ports.
            PortAssignment::Contiguous if nat.parity => matches!(report.ports, Ports::Contiguous(1..=3)),
            PortAssignment::Contiguous => report.ports == Ports::Contiguous(1),
            PortAssignment::Random => report.ports == Ports::Random,
        },
    );
    let parity = match nat.ports {
        PortAssignment::Overloading => None,
        // Two hosts with an address each are never in each other's way.
        PortAssignment::Preserving if several && !arbitrary && nat.mapping == Dependence::EndpointIndependent => None,
        _ => Some(nat.parity),
    };
    check("parity", report.parity == parity);
    let overloading = (!several || arbitrary).then_some(overloads);
    check("overloading", report.overloading == overloading);
    let addresses = if arbitrary { 1 + nat.more_addresses.len() } else { 1 };
    check("public addresses", report.public_addresses.len() == addresses);

    let comes_back = mapping == Mapping::EndpointIndependent || filtering == Filtering::EndpointIndependent;
    let hairpinning = match nat.hairpinning {
        _ if !comes_back => Hairpin::Unknown,
        Hairpinning::None => Hairpin::None,
        Hairpinning::ExternalSource => Hairpin::ExternalSource,
        Hairpinning::InternalSource => Hairpin::InternalSource,
    };
    check("hairpinning", drawn || report.hairpinning == hairpinning);
    let slack = Duration::from_secs(2);
    let within = matches!(report.lifetime, Lifetime::Between(low, high)
        if low < nat.udp_timeout + slack && nat.udp_timeout < high + slack && high - low <= Duration::from_secs(1));
    check("lifetime", within);
    let refresh = match nat.refresh {
        Refresh::Outbound => Refreshed::Outbound,
        Refresh::Inbound => Refreshed::Inbound,
        Refresh::Both => Refreshed::Both,
    };
    check("refresh", report.refresh == refresh);
    wrong
}

fn agree(nat: &Nat, seed: u64) {
    let lab = Lab { seed, ..behind(nat) };
    let report = found(&lab, config()).unwrap();
    let wrong = disagreements(nat, &report);
    assert!(wrong.is_empty(), "{wrong:?} of {nat:?}, seed {seed}, told as\n{report}");
}

/// One address, three of which each host has one, and three of which each mapping has one.
const POOLS: [(usize, Pooling); 3] = [(1, Pooling::Paired), (3, Pooling::Paired), (3, Pooling::Arbitrary)];

/// Every mapping, filtering, port assignment with and without parity, and pooling.
fn nats() -> impl Iterator<Item = Nat> {
    use PortAssignment::{Contiguous, Overloading, Preserving, Random};
    let ports = [
        (Preserving, false),
        (Preserving, true),
        (Contiguous, false),
        (Contiguous, true),
        (Random, false),
        (Random, true),
        (Overloading, false),
    ];
    let more: Vec<_> = [11, 12].map(|host| std::net::Ipv4Addr::new(198, 51, 100, host)).into();
    kinds().flat_map(move |(mapping, filtering)| {
        let more = more.clone();
        ports.into_iter().flat_map(move |(ports, parity)| {
            let more = more.clone();
            POOLS.into_iter().map(move |(addresses, pooling)| Nat {
                mapping,
                filtering,
                ports,
                parity,
                pooling,
                more_addresses: more[..addresses - 1].to_vec(),
                ..Nat::default()
            })
        })
    })
}

const HAIRPINNING: [Hairpinning; 3] = [Hairpinning::None, Hairpinning::ExternalSource, Hairpinning::InternalSource];
const REFRESH: [Refresh; 3] = [Refresh::Outbound, Refresh::Inbound, Refresh::Both];

fn product(timeout: Duration) {
    let mut probed = 0;
    for nat in nats() {
        for hairpinning in HAIRPINNING {
            for refresh in REFRESH {
                agree(&Nat { hairpinning, refresh, udp_timeout: timeout, ..nat.clone() }, probed);
                probed += 1;
            }
        }
    }
    assert_eq!(probed, 3 * 3 * 7 * 3 * 3 * 3);
}

// Two tests, so that two cores share the product.
#[test]
fn rfc_5780_every_nat_whose_mappings_live_30_s_is_told_as_it_is_configured() {
    product(Duration::from_secs(30));
}

#[test]
fn rfc_5780_every_nat_whose_mappings_live_120_s_is_told_as_it_is_configured() {
    product(Duration::from_secs(120));
}

#[test]
fn another_nat_is_not_taken_for_it() {
    // The agreement above says something only if other NATs do not agree.
    let nat = Nat { hairpinning: Hairpinning::ExternalSource, udp_timeout: Duration::from_secs(30), ..Nat::default() };
    let report = found(&behind(&nat), config()).unwrap();
    assert_eq!(disagreements(&nat, &report), [""; 0]);
    type Change = (&'static str, fn(&mut Nat));
    let others: [Change; 8] = [
        ("mapping", |nat| nat.mapping = Dependence::AddressDependent),
        ("filtering", |nat| nat.filtering = Dependence::AddressDependent),
        ("ports", |nat| nat.ports = PortAssignment::Contiguous),
        ("parity", |nat| nat.parity = true),
        ("overloading", |nat| nat.ports = PortAssignment::Overloading),
        ("hairpinning", |nat| nat.hairpinning = Hairpinning::InternalSource),
        ("lifetime", |nat| nat.udp_timeout = Duration::from_secs(35)),
        ("refresh", |nat| nat.refresh = Refresh::Both),
    ];
    for (what, change) in others {
        let mut other = nat.clone();
        change(&mut other);
        assert!(disagreements(&other, &report).iter().any(|wrong| wrong == what), "{what} does not show");
    }
}

#[test]
fn a_one_to_one_nat_and_no_nat_at_all_are_told_too() {
    let pair = |internal: &str, public: &str| (internal.parse().unwrap(), public.parse().unwrap());
    let one_to_one = Nat {
        one_to_one: [pair("192.168.1.2", "198.51.100.10"), pair("192.168.1.3", "198.51.100.11")].into(),
        more_addresses: vec!["198.51.100.11".parse().unwrap()],
        hairpinning: Hairpinning::ExternalSource,
        ..Nat::default()
    };
    let report = found(&behind(&one_to_one), config()).unwrap();
    assert_eq!((report.mapping, report.filtering), (Mapping::EndpointIndependent, Filtering::EndpointIndependent));
    assert_eq!((report.ports, report.hairpinning), (Ports::Preserving, Hairpin::ExternalSource));
    assert_eq!((report.lifetime, report.refresh), (Lifetime::AtLeast(Duration::from_secs(160)), Refreshed::Unknown));

    let open = Lab::new().node("laptop", "198.51.100.7").node("one", "203.0.113.1").node("two", "203.0.113.2");
    let main = async |world: World| {
        let _servers = servers(&world);
        probe(&world.network("laptop"), None, address(SERVER), config().longest_lifetime(None)).await.unwrap()
    };
    let report = open.run(main).0;
    assert_eq!((report.mapping, report.filtering), (Mapping::NoNat, Filtering::EndpointIndependent));
}

#[test]
fn nats_behind_nats_show_their_strictest_side() {
    // Three levels: what the prober sees is what the strictest of them makes of it.
    let lab = |strict: usize| {
        let kind = |level: usize| {
            let strict = level == strict;
            let dependence = if strict { Dependence::AddressAndPortDependent } else { Dependence::EndpointIndependent };
            move |nat: &mut Nat| {
                (nat.mapping, nat.filtering, nat.ports) = (dependence, dependence, PortAssignment::Random);
                nat.udp_timeout = Duration::from_secs(if strict { 30 } else { 120 });
            }
        };
        Lab::new()
            .nat_with("carrier", "198.51.100.10", |nat| {
                kind(0)(nat);
                nat.lan = "100.64.0.0/10".parse().unwrap();
            })
            .nat_with("house", "100.64.0.7", |nat| {
                kind(1)(nat);
                (nat.behind, nat.lan) = (Some("carrier".into()), "10.0.0.0/24".parse().unwrap());
            })
            .nat_with("flat", "10.0.0.7", |nat| {
                kind(2)(nat);
                nat.behind = Some("house".into());
            })
            .behind("flat", "laptop", "192.168.1.2")
            .behind("flat", "phone", "192.168.1.3")
            .node("one", "203.0.113.1")
            .node("two", "203.0.113.2")
    };
    for strict in 0..3 {
        let report = found(&lab(strict), config()).unwrap();
        assert_eq!(report.mapping, Mapping::AddressAndPortDependent, "level {strict}");
        assert_eq!(report.filtering, Filtering::AddressAndPortDependent, "level {strict}");
        let about_30 = matches!(report.lifetime, Lifetime::Between(low, high)
            if low.as_secs() < 32 && high.as_secs() >= 28);
        assert!(about_30, "level {strict}: {}", report.lifetime);
    }
    let report = found(&lab(3), config()).unwrap();
    assert_eq!((report.mapping, report.filtering), (Mapping::EndpointIndependent, Filtering::EndpointIndependent));
}

#[test]
fn lost_packets_are_asked_for_again() {
    let nat = Nat { mapping: Dependence::AddressDependent, udp_timeout: Duration::from_secs(60), ..Nat::default() };
    for seed in 0..10 {
        let lossy = behind(&nat).link(&["home"], Duration::from_millis(10), |link| link.loss = 0.05);
        let report = found(&Lab { seed, ..lossy }, config().longest_lifetime(None)).unwrap();
        assert_eq!(report.mapping, Mapping::AddressDependent, "seed {seed}");
        assert_eq!(report.filtering, Filtering::AddressAndPortDependent, "seed {seed}");
    }
}

#[test]
fn a_server_that_is_not_there_or_has_no_second_address_is_an_error() {
    let nat = Nat::default();
    let alone = behind(&nat).run(async |world: World| {
        let _server = StunServer::start(&world.network("one"), ServerConfig::default()).unwrap();
        let ask = async |at: &str| {
            let at: SocketAddr = address(at);
            probe(&world.network("laptop"), None, at, config()).await.unwrap_err()
        };
        (ask(SERVER).await, ask("203.0.113.2:3478").await)
    });
    assert!(matches!(alone.0.0, ProbeError::NoOtherAddress(_)), "{}", alone.0.0);
    assert!(matches!(alone.0.1, ProbeError::NoAnswer(_)), "{}", alone.0.1);
}
