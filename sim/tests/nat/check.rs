//! What a host finds out about its NAT is what the NAT is configured to do.

use std::net::SocketAddr;
use std::time::Duration;

use grenache::nat::{Behaviour, CheckConfig, CheckError, Filtering, MAX_BROKERS, Mapping, Ports, Report, check};
use grenache_sim::engine::World;
use grenache_sim::scenario::model::{Dependence, PortAssignment};

use crate::lab::{Lab, address, ms};
use crate::peers::{Kind, ONE, PORTS, TWO, broker, endpoint, internet, kinds};

fn behind((mapping, filtering): Kind, ports: PortAssignment) -> Lab {
    internet()
        .nat_with("home", "198.51.100.10", |nat| (nat.mapping, nat.filtering, nat.ports) = (mapping, filtering, ports))
        .behind("home", "laptop", "192.168.1.2")
        .link(&["home"], ms(10), |link| link.jitter = ms(2))
}

fn configured((mapping, filtering): Kind, ports: PortAssignment) -> Behaviour {
    Behaviour {
        mapping: match mapping {
            Dependence::EndpointIndependent => Mapping::EndpointIndependent,
            Dependence::AddressDependent => Mapping::AddressDependent,
            Dependence::AddressAndPortDependent => Mapping::AddressAndPortDependent,
        },
        filtering: match filtering {
            Dependence::EndpointIndependent => Filtering::EndpointIndependent,
            Dependence::AddressDependent => Filtering::AddressDependent,
            Dependence::AddressAndPortDependent => Filtering::AddressAndPortDependent,
        },
        ports: match ports {
            PortAssignment::Preserving | PortAssignment::Overloading => Ports::Preserving,
            PortAssignment::Contiguous => Ports::Contiguous(1),
            PortAssignment::Random => Ports::Random,
        },
    }
}

/// What `laptop` finds out, asking these brokers.
fn found(lab: &Lab, brokers: &[&str]) -> Result<Report, CheckError> {
    let brokers: Vec<SocketAddr> = brokers.iter().map(|at| address(at)).collect();
    let main = async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        check(&world.network("laptop"), &brokers, CheckConfig::default()).await
    };
    lab.run(main).0
}

#[test]
fn every_nat_is_told_as_it_is_configured() {
    for kind in kinds() {
        for ports in PORTS {
            for seed in 0..10 {
                let lab = Lab { seed, ..behind(kind, ports) };
                let report = found(&lab, &[ONE, TWO]).unwrap();
                assert_eq!(report.behaviour, configured(kind, ports), "{kind:?}, {ports:?}, seed {seed}");
                assert_eq!(report.public_address.to_string(), "198.51.100.10");
                assert!(report.advice().is_empty(), "{report}");
            }
        }
    }
}

#[test]
fn lost_packets_are_asked_for_again() {
    for seed in 0..10 {
        let kind = (Dependence::AddressDependent, Dependence::AddressDependent);
        let lossy = behind(kind, PortAssignment::Contiguous).link(&["home"], ms(10), |link| link.loss = 0.1);
        let report = found(&Lab { seed, ..lossy }, &[ONE, TWO]).unwrap();
        assert_eq!(report.behaviour.mapping, Mapping::AddressDependent, "seed {seed}");
    }
}

#[test]
fn without_a_nat_there_is_none() {
    let lab = internet().node("laptop", "198.51.100.7");
    assert_eq!(found(&lab, &[ONE, TWO]).unwrap().behaviour, Behaviour::OPEN);
}

#[test]
fn one_broker_alone_leaves_open_what_depends_on_the_address() {
    let of = |mapping, filtering| {
        let report = found(&behind((mapping, filtering), PortAssignment::Preserving), &[ONE]).unwrap();
        assert_eq!(report.advice().len(), usize::from(report.behaviour.to_string().contains("unknown")), "{report}");
        (report.behaviour.mapping, report.behaviour.filtering)
    };
    use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    let by_port = (Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    assert_eq!(of(AddressAndPortDependent, AddressAndPortDependent), by_port);
    for less in [EndpointIndependent, AddressDependent] {
        assert_eq!(of(less, less), (Mapping::Unknown, Filtering::Unknown), "either of two");
    }
}

#[test]
fn who_does_not_answer_is_passed_over_and_nobody_is_an_error() {
    let lab = behind((Dependence::EndpointIndependent, Dependence::EndpointIndependent), PortAssignment::Random);
    let report = found(&lab, &["203.0.113.1:9", TWO, ONE]).unwrap();
    assert_eq!(report.brokers, [address(TWO), address(ONE)]);
    assert!(matches!(found(&lab, &["203.0.113.1:9", "203.0.113.9:1"]), Err(CheckError::NoAnswer(2))));
    assert!(matches!(found(&lab, &[]), Err(CheckError::NoBroker)));
}

#[test]
fn a_broker_sends_no_more_than_it_is_sent() {
    let lab =
        behind((Dependence::AddressAndPortDependent, Dependence::AddressAndPortDependent), PortAssignment::Random);
    let main = async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let brokers = [address(ONE), address(TWO)];
        check(&world.network("laptop"), &brokers, CheckConfig::default()).await.unwrap();
    };
    let ((), records) = lab.run(main);
    let sent = |node: &str| -> usize {
        let by_node = records.iter().filter(|record| record.at.as_deref() == Some(node));
        let sizes = by_node.filter_map(|record| {
            let json = serde_json::to_value(record).ok()?;
            (json["event"] == "packet-sent").then(|| json["size"].as_u64())?
        });
        usize::try_from(sizes.sum::<u64>()).unwrap()
    };
    let (asked, answered) = (sent("laptop"), sent("one") + sent("two"));
    assert!(answered > 0 && answered < asked, "{answered} bytes for {asked}");
}

#[test]
fn the_original_answers_nothing() {
    let lab = behind((Dependence::EndpointIndependent, Dependence::EndpointIndependent), PortAssignment::Random);
    let (outcome, _) = lab.run(async |world: World| {
        // An endpoint that takes probes for messages, as the original's peers do.
        let _plain = endpoint(&world.network("one"), "0.0.0.0:8000");
        check(&world.network("laptop"), &[address(ONE)], CheckConfig::default()).await
    });
    assert!(matches!(outcome, Err(CheckError::NoAnswer(1))));
}

#[test]
fn a_check_takes_no_longer_than_is_said() {
    let kind = (Dependence::EndpointIndependent, Dependence::AddressAndPortDependent);
    let lab = behind(kind, PortAssignment::Random);
    let silent: Vec<String> = (1..MAX_BROKERS).map(|port| format!("203.0.113.9:{port}")).collect();
    let took = |answering: &[&str]| {
        let brokers: Vec<SocketAddr> =
            silent.iter().map(String::as_str).chain(answering.iter().copied()).map(address).collect();
        let took = async |world: World| {
            let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
            let began = world.now();
            let found = check(&world.network("laptop"), &brokers, CheckConfig::default()).await;
            (found.is_ok(), world.now() - began)
        };
        lab.run(took).0
    };
    let within = |(found, took): (bool, Duration), expected: bool, least, most| {
        assert!(found == expected && (least..=most).contains(&took), "{found}, {took:?}");
    };
    // 1.2 s for each that does not answer; then less than a second, and 1.2 s for the silence of the NAT's filter.
    within(took(&["203.0.113.9:99"]), false, ms(9600), ms(9610));
    within(took(&[ONE]), true, ms(7 * 1200 + 1200), ms(7 * 1200 + 1500));
    let few = async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let began = world.now();
        check(&world.network("laptop"), &[address(ONE), address(TWO)], CheckConfig::default()).await.unwrap();
        world.now() - began
    };
    within((true, lab.run(few).0), true, ms(1200), ms(1500));
}

#[test]
fn the_longest_times_are_no_panic() {
    let lab = behind((Dependence::EndpointIndependent, Dependence::EndpointIndependent), PortAssignment::Random);
    let main = async |world: World| {
        let _brokers = [broker(&world, "one", None), broker(&world, "two", None)];
        let config = CheckConfig::default().timeout(Duration::MAX).interval(Duration::MAX).sockets(usize::MAX);
        check(&world.network("laptop"), &[address(ONE), address(TWO)], config).await.map(|report| report.behaviour)
    };
    assert_eq!(lab.run(main).0.unwrap().filtering, Filtering::EndpointIndependent);
}
