mod forwards;
mod limits;
mod ports;
mod refresh;

use std::collections::BTreeSet;

use super::Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use super::mapping::MAX_REMOTES;
use super::ports::LOWEST_PORT;
use super::*;
use crate::engine::seed;

const S: u64 = 1_000_000_000;
const ALL: [Dependence; 3] = [EndpointIndependent, AddressDependent, AddressAndPortDependent];
const HOST: &str = "192.168.1.2:5000";
/// The server, another port of it, and another server.
const SERVER: &str = "203.0.113.1:80";
const OTHER_PORT: &str = "203.0.113.1:81";
const OTHER_HOST: &str = "203.0.113.2:80";

struct Rig {
    nat: NatState,
    rng: Rng,
    notes: Vec<Note>,
}

impl Rig {
    fn new(mapping: Dependence, filtering: Dependence) -> Self {
        Self::with(|nat| {
            nat.mapping = mapping;
            nat.filtering = filtering;
        })
    }

    fn with(change: impl FnOnce(&mut Nat)) -> Self {
        let address = "198.51.100.10".parse().unwrap();
        let mut nat = Nat { address, udp_timeout: Duration::from_secs(30), ..Nat::default() };
        change(&mut nat);
        let nat = NatState::new(&nat, |purpose| seed::stream(1, &["nat", purpose]));
        Self { nat, rng: seed::stream(1, &["nat"]), notes: Vec::new() }
    }

    /// The port that contiguous ones go on from.
    fn given_last(&mut self, port: u16) {
        let address = "198.51.100.10".parse().unwrap();
        self.nat.ports.last_given.insert((Protocol::Udp, address, 0), port);
    }

    /// Sends from the inside; gives the external source.
    fn out(&mut self, now_ns: u64, from: &str, to: &str) -> Result<SocketAddrV4, Rule> {
        let mut packet = packet(from, to);
        self.nat.outbound(now_ns, &mut packet, &mut self.rng, &mut self.notes).map(|_| packet.source)
    }

    /// Sends from the outside; gives the internal destination.
    fn back(&mut self, now_ns: u64, from: &str, to: SocketAddrV4) -> Result<SocketAddrV4, Rule> {
        let mut packet = packet(from, &to.to_string());
        self.nat.inbound(now_ns, &mut packet, &mut self.notes).map(|()| packet.destination)
    }
}

fn packet(from: &str, to: &str) -> Headers {
    Headers { protocol: Protocol::Udp, source: from.parse().unwrap(), destination: to.parse().unwrap() }
}

/// The name of the mapping with this external port, of the only address.
fn mapped(port: u16) -> Mapped {
    Mapped { protocol: Protocol::Udp, address: "198.51.100.10".parse().unwrap(), port, sharer: 0 }
}

#[test]
fn rfc_4787_4_1_and_5_all_nine_pairs_of_mapping_and_filtering() {
    for mapping in ALL {
        for filtering in ALL {
            let mut rig = Rig::new(mapping, filtering);
            let to_server = rig.out(0, HOST, SERVER).unwrap();
            assert_eq!(to_server.to_string(), "198.51.100.10:5000", "the port is preserved");
            // 5: who may answer through a mapping that was made towards SERVER.
            let passes = [
                rig.back(1, SERVER, to_server).is_ok(),
                rig.back(1, OTHER_PORT, to_server).is_ok(),
                rig.back(1, OTHER_HOST, to_server).is_ok(),
            ];
            let expected = match filtering {
                EndpointIndependent => [true, true, true],
                AddressDependent => [true, true, false],
                AddressAndPortDependent => [true, false, false],
            };
            assert_eq!(passes, expected, "filtering {filtering:?} under mapping {mapping:?}");
            // 4.1: which destinations share the mapping.
            let shared = [
                rig.out(2, HOST, SERVER).unwrap() == to_server,
                rig.out(2, HOST, OTHER_PORT).unwrap() == to_server,
                rig.out(2, HOST, OTHER_HOST).unwrap() == to_server,
            ];
            let expected = match mapping {
                EndpointIndependent => [true, true, true],
                AddressDependent => [true, true, false],
                AddressAndPortDependent => [true, false, false],
            };
            assert_eq!(shared, expected, "mapping {mapping:?} under filtering {filtering:?}");
            // Having sent there opens the filter of the mapping that was used, and only of that.
            let to_other = rig.out(3, HOST, OTHER_HOST).unwrap();
            assert_eq!(rig.back(4, OTHER_HOST, to_other), Ok(HOST.parse().unwrap()));
            let through_first = rig.back(4, OTHER_HOST, to_server).is_ok();
            assert_eq!(through_first, mapping == EndpointIndependent || filtering == EndpointIndependent);
        }
    }
}

#[test]
fn a_refusal_names_its_rule() {
    let mut rig = Rig::new(EndpointIndependent, AddressAndPortDependent);
    assert_eq!(rig.back(0, SERVER, "198.51.100.10:4000".parse().unwrap()), Err(Rule::NoMapping(4000)));
    let external = rig.out(0, HOST, SERVER).unwrap();
    assert_eq!(
        rig.back(0, OTHER_PORT, external).unwrap_err().to_string(),
        "filtered: nothing was sent from port 5000 to 203.0.113.1:81 (address-and-port-dependent)"
    );
}

#[test]
fn rfc_4787_4_3_a_mapping_lives_its_lifetime_and_outbound_refreshes_it() {
    let mut rig = Rig::new(EndpointIndependent, EndpointIndependent);
    let external = rig.out(0, HOST, SERVER).unwrap();
    let mapped = mapped(external.port());
    let remote = None;
    let internal: SocketAddrV4 = HOST.parse().unwrap();
    assert_eq!(rig.notes, [Note::Created { mapped, internal, remote, expires_ns: 30 * S }]);
    // Inbound does not refresh, outbound does.
    assert!(rig.back(10 * S, SERVER, external).is_ok());
    rig.out(20 * S, HOST, SERVER).unwrap();
    rig.notes.clear();
    assert_eq!(rig.nat.expire(30 * S, mapped, &mut rig.notes), Some(50 * S), "look again");
    assert!(rig.back(50 * S - 1, SERVER, external).is_ok(), "just before");
    assert_eq!(rig.notes, []);
    assert_eq!(rig.back(50 * S, SERVER, external), Err(Rule::NoMapping(5000)), "just after");
    let reason = "idle for 30s".to_owned();
    assert_eq!(rig.notes, [Note::Removed { mapped, internal, reason }]);
    assert_eq!(rig.nat.expire(50 * S, mapped, &mut rig.notes), None, "it is reported once");
    assert_eq!(rig.notes.len(), 1);
}

#[test]
fn rfc_4787_4_2_a_taken_port_gives_the_next_one_and_none_is_shared() {
    let mut rig = Rig::new(EndpointIndependent, EndpointIndependent);
    assert_eq!(rig.out(0, "192.168.1.2:65535", SERVER).unwrap().port(), 65535);
    assert_eq!(rig.out(0, "192.168.1.3:65535", SERVER).unwrap().port(), 1024);
    assert_eq!(rig.out(0, "192.168.1.4:65535", SERVER).unwrap().port(), 1025);
    assert_eq!(rig.out(0, "192.168.1.2:80", SERVER).unwrap().port(), 80, "a low port is preserved too");
    assert_eq!(rig.out(0, "192.168.1.3:80", SERVER).unwrap().port(), 1026, "but not handed out");
}

#[test]
fn random_ports_are_random_and_run_out() {
    let mut rig = Rig::with(|nat| {
        nat.ports = PortAssignment::Random;
        nat.mapping = AddressAndPortDependent;
    });
    let mut ports = BTreeSet::new();
    for port in 1024..=u16::MAX {
        let external = rig.out(0, HOST, &format!("203.0.113.1:{port}")).unwrap();
        assert!(external.port() >= LOWEST_PORT && ports.insert(external.port()), "{external}");
    }
    assert_eq!(rig.out(0, HOST, OTHER_HOST), Err(Rule::NoFreePort));
    let first_two = |seed| {
        let mut rig = Rig::with(|nat| nat.ports = PortAssignment::Random);
        rig.rng = seed::stream(seed, &["nat"]);
        [rig.out(0, HOST, SERVER).unwrap(), rig.out(0, "192.168.1.2:5001", SERVER).unwrap()]
    };
    assert_eq!(first_two(1), first_two(1));
    assert_ne!(first_two(1), first_two(2));
}

#[test]
fn contiguous_ports_follow_each_other_whatever_the_internal_port() {
    for mapping in ALL {
        let mut rig = Rig::with(|nat| (nat.ports, nat.mapping) = (PortAssignment::Contiguous, mapping));
        let first = rig.out(0, HOST, SERVER).unwrap().port();
        assert!(first >= LOWEST_PORT);
        let after = |steps: u16| LOWEST_PORT + (first - LOWEST_PORT + steps) % (u16::MAX - LOWEST_PORT + 1);
        assert_eq!(rig.out(1, HOST, SERVER).unwrap().port(), first, "the mapping is kept");
        let next = [(HOST, OTHER_PORT), (HOST, OTHER_HOST), ("192.168.1.3:7", SERVER)];
        let expected = match mapping {
            EndpointIndependent => [0, 0, 1],
            AddressDependent => [0, 1, 2],
            AddressAndPortDependent => [1, 2, 3],
        };
        let ports = next.map(|(from, to)| rig.out(2, from, to).unwrap().port());
        assert_eq!(ports, expected.map(after), "mapping {mapping:?}");
    }
}

#[test]
fn contiguous_ports_wrap_at_the_top_skip_those_in_use_and_do_not_come_back_when_freed() {
    let mut rig = Rig::with(|nat| nat.ports = PortAssignment::Contiguous);
    rig.given_last(65533);
    let mut out = |now_ns, host: u8| rig.out(now_ns, &format!("192.168.1.{host}:9"), SERVER).unwrap().port();
    assert_eq!([out(0, 1), out(20 * S, 2), out(0, 3)], [65534, 65535, 1024]);
    // The mappings of 1 and 3 have ended: their ports are free, and yet not the next.
    assert_eq!(out(31 * S, 4), 1025);
    for port in [65534, 1024] {
        assert_eq!(rig.nat.expire(31 * S, mapped(port), &mut rig.notes), None);
    }
    rig.given_last(65533);
    let mut out = |now_ns, host: u8| rig.out(now_ns, &format!("192.168.1.{host}:9"), SERVER).unwrap().port();
    assert_eq!([out(32 * S, 5), out(32 * S, 6), out(32 * S, 7)], [65534, 1024, 1026], "65535 and 1025 are in use");
}

#[test]
fn where_contiguous_ports_begin_follows_from_the_seed() {
    let begin = |seed| {
        let mut rig = Rig::with(|nat| nat.ports = PortAssignment::Contiguous);
        rig.rng = seed::stream(seed, &["nat"]);
        rig.out(0, HOST, SERVER).unwrap().port()
    };
    assert_eq!(begin(1), begin(1));
    assert_ne!(begin(1), begin(2));
}

#[test]
fn rfc_4787_6_a_hairpinned_packet_has_the_external_source() {
    let mut rig = Rig::with(|nat| nat.hairpinning = Hairpinning::ExternalSource);
    let other = "192.168.1.3:6000";
    let (external, other_external) =
        (rig.out(0, HOST, SERVER).unwrap(), rig.out(0, other, SERVER).unwrap().to_string());
    let mut turned = packet(HOST, &other_external);
    assert_eq!(rig.nat.outbound(1, &mut turned, &mut rig.rng, &mut rig.notes), Ok(true));
    assert_eq!(turned.source, external);
    assert!(rig.nat.inbound(1, &mut turned, &mut rig.notes).is_err(), "the other has not sent there yet");
    rig.out(2, other, &external.to_string()).unwrap();
    assert_eq!(rig.nat.inbound(3, &mut turned, &mut rig.notes), Ok(()));
    assert_eq!(turned.destination, other.parse().unwrap());

    let mut without = Rig::new(EndpointIndependent, EndpointIndependent);
    let external = without.out(0, HOST, SERVER).unwrap().to_string();
    assert_eq!(without.out(1, other, &external), Err(Rule::NoHairpinning));
}

#[test]
fn rebinding_forgets_everything_and_changes_the_ports() {
    let mut rig = Rig::new(EndpointIndependent, EndpointIndependent);
    let before = rig.out(0, HOST, SERVER).unwrap();
    rig.notes.clear();
    rig.nat.rebind(0, &mut rig.notes);
    assert!(matches!(&rig.notes[..], [Note::Removed { reason, .. }] if reason == "rebinding"));
    assert_eq!(rig.back(1, SERVER, before), Err(Rule::NoMapping(5000)));
    let after = rig.out(2, HOST, SERVER).unwrap();
    assert_ne!(after, before);
    assert_eq!(rig.back(3, SERVER, after), Ok(HOST.parse().unwrap()));
}

#[test]
fn a_filter_that_is_full_forgets_whom_it_met_first() {
    let mut rig = Rig::new(EndpointIndependent, AddressAndPortDependent);
    let external = rig.out(0, HOST, SERVER).unwrap();
    for port in 1..MAX_REMOTES {
        rig.out(0, HOST, &format!("203.0.113.9:{port}")).unwrap();
    }
    assert!(rig.back(1, SERVER, external).is_ok(), "just full");
    rig.out(1, HOST, OTHER_HOST).unwrap();
    assert!(rig.back(2, SERVER, external).is_err(), "one too many");
    assert!(rig.back(2, OTHER_HOST, external).is_ok());
}
