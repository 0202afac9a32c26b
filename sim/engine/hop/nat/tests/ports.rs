//! Port assignment and pooling.

use super::*;
use crate::scenario::model::Pooling;

const NEIGHBOUR: &str = "192.168.1.3:5000";

fn two_hosts(rig: &mut Rig, to: &str) -> [Result<SocketAddrV4, Rule>; 2] {
    [rig.out(0, HOST, to), rig.out(0, NEIGHBOUR, to)]
}

#[test]
fn rfc_4787_4_2_1_an_overloaded_port_is_told_apart_by_the_remote_endpoint() {
    for mapping in ALL {
        for filtering in ALL {
            let mut rig = Rig::with(|nat| {
                (nat.mapping, nat.filtering, nat.ports) = (mapping, filtering, PortAssignment::Overloading);
            });
            let first = rig.out(0, HOST, SERVER).unwrap();
            assert_eq!(rig.back(0, OTHER_HOST, first).is_ok(), filtering == EndpointIndependent, "alone on the port");
            assert_eq!(rig.out(0, NEIGHBOUR, OTHER_PORT).unwrap(), first, "one external port for both");
            assert_eq!(rig.back(1, SERVER, first), Ok(HOST.parse().unwrap()));
            assert_eq!(rig.back(1, OTHER_PORT, first), Ok(NEIGHBOUR.parse().unwrap()));
            let strange = rig.back(1, OTHER_HOST, first).unwrap_err();
            assert!(matches!(strange, Rule::Filtered { .. }), "whose is it? {strange}");
            // What makes overloading fail: both want the same remote endpoint.
            let clash = rig.out(2, NEIGHBOUR, SERVER);
            assert_eq!(clash, Err(Rule::PortOverloaded { port: 5000, remote: SERVER.parse().unwrap() }));
            assert_eq!(rig.back(3, SERVER, first), Ok(HOST.parse().unwrap()), "the first one is not disturbed");
            // Once that mapping has ended, the other host may.
            assert_eq!(rig.out(40 * S, NEIGHBOUR, SERVER), Ok(first));
            assert_eq!(rig.back(40 * S, SERVER, first), Ok(NEIGHBOUR.parse().unwrap()));
        }
    }
}

#[test]
fn an_overloaded_port_of_one_host_is_the_same_for_all_destinations_whatever_the_mapping() {
    let mut rig = Rig::with(|nat| {
        (nat.mapping, nat.ports) = (AddressAndPortDependent, PortAssignment::Overloading);
    });
    for to in [SERVER, OTHER_PORT, OTHER_HOST] {
        let external = rig.out(0, HOST, to).unwrap();
        assert_eq!(external.port(), 5000);
        assert_eq!(rig.back(0, to, external), Ok(HOST.parse().unwrap()));
    }
    let created = rig.notes.iter().filter(|note| matches!(note, Note::Created { .. })).count();
    assert_eq!(created, 3, "a mapping each, with a lifetime of its own");
}

#[test]
fn rfc_4787_4_2_2_parity_is_kept_by_every_assignment() {
    for ports in [PortAssignment::Preserving, PortAssignment::Contiguous, PortAssignment::Random] {
        let mut rig = Rig::with(|nat| (nat.ports, nat.parity) = (ports, true));
        for host in 2..40 {
            for internal in [6000, 6001] {
                let external = rig.out(0, &format!("192.168.1.{host}:{internal}"), SERVER).unwrap().port();
                assert_eq!(external % 2, internal % 2, "{ports:?}");
            }
        }
    }
    // Without it, the neighbour's port is simply the next one.
    let mut without = Rig::with(|_| {});
    assert_eq!(two_hosts(&mut without, SERVER).map(|port| port.unwrap().port()), [5000, 5001]);
    let mut with = Rig::with(|nat| nat.parity = true);
    assert_eq!(two_hosts(&mut with, SERVER).map(|port| port.unwrap().port()), [5000, 5002]);
}

#[test]
fn rfc_4787_4_2_1_a_port_range_bounds_what_is_given_out() {
    for ports in [PortAssignment::Preserving, PortAssignment::Contiguous, PortAssignment::Random] {
        let mut rig = Rig::with(|nat| (nat.ports, nat.port_range) = (ports, Some(5000..=5009)));
        let mut given = BTreeSet::new();
        for internal in [5009, 80, 5003, 9, 65535, 6, 7, 8, 5000, 10] {
            let external = rig.out(0, &format!("192.168.1.2:{internal}"), SERVER).unwrap().port();
            assert!((5000..=5009).contains(&external) && given.insert(external), "{ports:?}: {external}");
            if ports == PortAssignment::Preserving && internal == 5009 {
                assert_eq!(external, 5009, "preserved where the range has it");
            }
        }
        assert_eq!(rig.out(0, "192.168.1.2:11", SERVER), Err(Rule::NoFreePort), "{ports:?}");
    }
}

#[test]
fn rfc_4787_req_3_a_low_port_stays_low_and_a_high_one_high_where_ranges_are_kept() {
    for ports in [PortAssignment::Preserving, PortAssignment::Contiguous, PortAssignment::Random] {
        let mut rig = Rig::with(|nat| (nat.ports, nat.keeps_port_range) = (ports, true));
        for host in 2..20 {
            let mut external = |port: u16| rig.out(0, &format!("192.168.1.{host}:{port}"), SERVER).unwrap().port();
            assert!((1..1024).contains(&external(80)), "{ports:?}");
            assert!(external(8080) >= 1024, "{ports:?}");
        }
    }
}

fn pool(rig: &mut Nat, pooling: Pooling) {
    rig.more_addresses = vec!["198.51.100.11".parse().unwrap(), "198.51.100.12".parse().unwrap()];
    rig.pooling = pooling;
}

#[test]
fn rfc_4787_4_1_paired_pooling_gives_a_host_one_address_and_spreads_the_hosts() {
    let mut rig = Rig::with(|nat| pool(nat, Pooling::Paired));
    let mut addresses = Vec::new();
    for host in 2..8 {
        let mut of = |port: u16| *rig.out(0, &format!("192.168.1.{host}:{port}"), SERVER).unwrap().ip();
        let first = of(5000);
        assert!((5001..5010).all(|port| of(port) == first), "a host has one");
        addresses.push(first.octets()[3]);
    }
    assert_eq!(addresses, [10, 11, 12, 10, 11, 12]);
    // A host without mappings is forgotten, and gets the address with the fewest hosts.
    assert_eq!(rig.out(20 * S, "192.168.1.2:5000", SERVER).unwrap().ip().octets()[3], 10);
    assert_eq!(rig.out(40 * S, "192.168.1.2:5000", SERVER).unwrap().ip().octets()[3], 10, "still paired");
}

#[test]
fn rfc_4787_4_1_arbitrary_pooling_uses_all_addresses_for_one_host() {
    let mut rig = Rig::with(|nat| pool(nat, Pooling::Arbitrary));
    let of = |rig: &mut Rig, port: u16| rig.out(0, &format!("192.168.1.2:{port}"), SERVER).unwrap();
    let all: BTreeSet<Ipv4Addr> = (5000..5030).map(|port| *of(&mut rig, port).ip()).collect();
    assert_eq!(all.len(), 3);
    // Answers come back in at the address that was used.
    let external = of(&mut rig, 5003);
    assert_eq!(rig.back(1, SERVER, external), Ok("192.168.1.2:5003".parse().unwrap()));
    let elsewhere = ["198.51.100.10", "198.51.100.11", "198.51.100.12"].map(|ip| ip.parse::<Ipv4Addr>().unwrap());
    let elsewhere = elsewhere.into_iter().find(|ip| ip != external.ip()).unwrap();
    let wrong = rig.back(1, SERVER, SocketAddrV4::new(elsewhere, external.port()));
    assert_eq!(wrong, Err(Rule::NoMapping(5003)));
}

#[test]
fn a_full_address_gives_way_to_the_next_where_pooling_is_arbitrary_and_not_where_it_is_paired() {
    for pooling in [Pooling::Paired, Pooling::Arbitrary] {
        let mut rig = Rig::with(|nat| {
            pool(nat, pooling);
            nat.port_range = Some(5000..=5003);
        });
        let given =
            (0..20).take_while(|port| rig.out(0, &format!("192.168.1.2:{}", 100 + port), SERVER).is_ok()).count();
        assert_eq!(given, if pooling == Pooling::Paired { 4 } else { 12 }, "{pooling:?}");
    }
}

#[test]
fn choosing_an_address_or_a_block_draws_from_streams_of_its_own() {
    let ports = |change: fn(&mut Nat)| {
        let mut rig = Rig::with(|nat| {
            nat.ports = PortAssignment::Random;
            change(nat);
        });
        (0..8)
            .map(|port| rig.out(0, &format!("192.168.1.2:{}", 100 + port), SERVER).unwrap().port())
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(|_| {}), ports(|nat| pool(nat, Pooling::Arbitrary)));
}
