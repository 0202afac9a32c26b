//! NATs between hosts.

use std::net::SocketAddr;
use std::time::Duration;

use grenache_sim::engine::World;
use grenache_sim::scenario::model::Dependence::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent};
use grenache_sim::scenario::model::{Hairpinning, PortAssignment};
use tokio::time::sleep;

use crate::lab::{Lab, Socket, address, drops, ms, receive, receives, send, udp};

const ALL: [Dependence; 3] = [EndpointIndependent, AddressDependent, AddressAndPortDependent];

fn home(mapping: Dependence, filtering: Dependence) -> Lab {
    let change = |nat: &mut grenache_sim::scenario::model::Nat| {
        (nat.mapping, nat.filtering, nat.ports) = (mapping, filtering, PortAssignment::Random);
    };
    Lab::new()
        .nat_with("home", "198.51.100.1", change)
        .behind("home", "laptop", "192.168.1.2")
        .node("one", "203.0.113.1")
        .node("two", "203.0.113.2")
}

/// Where `to` sees `from` coming from.
async fn seen(from: &Socket, to: &Socket, at: &str) -> SocketAddr {
    send(from, at, b"who am I?").await;
    receive(to).await.1
}

#[test]
fn rfc_4787_all_nine_pairs_as_a_prober_sees_them() {
    for mapping in ALL {
        for filtering in ALL {
            let ((same, reached), _) = home(mapping, filtering).run(async |world: World| {
                let laptop = udp(&world, "laptop", 4000);
                let (one, one_b) = (udp(&world, "one", 80), udp(&world, "one", 81));
                let two = udp(&world, "two", 80);
                // RFC 5780, 4.3 and 4.4, backwards: first who gets in, before anybody else was sent to.
                let external = seen(&laptop, &one, "203.0.113.1:80").await;
                let mut reached = Vec::new();
                for from in [&one, &one_b, &two] {
                    send(from, external, b"hello").await;
                    reached.push(receives(&laptop).await);
                }
                let same = [
                    seen(&laptop, &one_b, "203.0.113.1:81").await == external,
                    seen(&laptop, &two, "203.0.113.2:80").await == external,
                ];
                (same, reached)
            });
            let expected = |dependence| match dependence {
                EndpointIndependent => [true, true],
                AddressDependent => [true, false],
                AddressAndPortDependent => [false, false],
            };
            assert_eq!(same, expected(mapping), "mapping {mapping:?}, filtering {filtering:?}");
            assert!(reached[0]);
            assert_eq!(reached[1..], expected(filtering), "mapping {mapping:?}, filtering {filtering:?}");
        }
    }
}

#[test]
fn rfc_4787_4_3_an_answer_passes_just_before_the_end_of_the_mapping_and_not_just_after() {
    // The NAT last sees it 1 ms after it was sent; an answer is at the NAT 2 ms after it was sent. Timers know only
    // milliseconds, so the server's link makes the difference.
    for (latency, arrives) in [(Duration::from_nanos(999_999), true), (ms(1), false)] {
        let lab = home(EndpointIndependent, EndpointIndependent).link(&["two"], latency, |_| {});
        let (_, records) = lab.run(async |world: World| {
            let (laptop, one, two) = (udp(&world, "laptop", 4000), udp(&world, "one", 80), udp(&world, "two", 80));
            let external = seen(&laptop, &one, "203.0.113.1:80").await;
            assert_eq!(world.now(), ms(3));
            sleep(ms(30_001 - 2 - 3)).await;
            send(&two, external, b"in time?").await;
            assert_eq!(receives(&laptop).await, arrives, "over {latency:?}");
        });
        let rules = drops(&records);
        assert_eq!(rules.is_empty(), arrives);
        assert!(rules.iter().all(|rule| rule.starts_with("nat home: no mapping for port")), "{rules:?}");
    }
}

#[test]
fn an_idle_mapping_is_removed_exactly_when_due() {
    let (_, records) = home(EndpointIndependent, EndpointIndependent).run(async |world: World| {
        let (laptop, one) = (udp(&world, "laptop", 4000), udp(&world, "one", 80));
        seen(&laptop, &one, "203.0.113.1:80").await;
        sleep(ms(10_000)).await;
        seen(&laptop, &one, "203.0.113.1:80").await;
        sleep(ms(60_000)).await;
    });
    let removed = crate::lab::lines(&records).into_iter().filter(|line| line.contains("mapping-removed"));
    let removed: Vec<_> = removed.map(|line| line[..line.find(",\"internal").unwrap()].to_owned()).collect();
    // Created at 1 ms, refreshed at 10,004 ms.
    assert_eq!(removed, [r#"{"at_ns":40004000000,"at":"home","event":"mapping-removed","protocol":"udp""#]);
}

#[test]
fn neighbours_talk_over_their_lan_and_by_hairpin() {
    for hairpinning in [true, false] {
        let lab = Lab::new()
            .nat_with("home", "198.51.100.1", |nat| {
                nat.hairpinning = if hairpinning { Hairpinning::ExternalSource } else { Hairpinning::None };
            })
            .behind("home", "laptop", "192.168.1.2")
            .behind("home", "phone", "192.168.1.3")
            .node("one", "203.0.113.1");
        let (_, records) = lab.run(async |world: World| {
            let (laptop, phone) = (udp(&world, "laptop", 4000), udp(&world, "phone", 5000));
            let one = udp(&world, "one", 80);
            assert_eq!(seen(&laptop, &phone, "192.168.1.3:5000").await, address("192.168.1.2:4000"), "untranslated");
            let laptop_outside = seen(&laptop, &one, "203.0.113.1:80").await;
            let phone_outside = seen(&phone, &one, "203.0.113.1:80").await;
            // Port-restricted: both have to send before one gets through.
            send(&laptop, phone_outside, b"1").await;
            assert!(!receives(&phone).await);
            send(&phone, laptop_outside, b"2").await;
            if hairpinning {
                assert_eq!(receive(&laptop).await, (b"2".to_vec(), phone_outside), "RFC 4787, REQ-9");
            } else {
                assert!(!receives(&laptop).await);
            }
        });
        let expected: &[&str] = if hairpinning {
            &["nat home: filtered: nothing was sent from port 5000 to 198.51.100.1:4000 (address-and-port-dependent)"]
        } else {
            &["nat home: no hairpinning"; 2]
        };
        assert_eq!(drops(&records), expected);
    }
}

#[test]
fn two_homes_may_have_the_same_addresses() {
    let lab = Lab::new()
        .nat("east", "198.51.100.1")
        .nat("west", "198.51.100.2")
        .behind("east", "a", "192.168.1.2")
        .behind("west", "b", "192.168.1.2")
        .node("server", "203.0.113.1");
    lab.run(async |world: World| {
        let (a, b, server) = (udp(&world, "a", 4000), udp(&world, "b", 4000), udp(&world, "server", 80));
        let a_outside = seen(&a, &server, "203.0.113.1:80").await;
        let b_outside = seen(&b, &server, "203.0.113.1:80").await;
        assert_eq!([a_outside, b_outside], [address("198.51.100.1:4000"), address("198.51.100.2:4000")]);
        // Both punch, and are through.
        send(&a, b_outside, b"punch").await;
        send(&b, a_outside, b"punch").await;
        assert_eq!(receive(&a).await.1, b_outside);
        send(&a, b_outside, b"hello").await;
        while receive(&b).await.0 != b"hello" {}
    });
}

#[test]
fn a_nat_may_be_behind_a_nat() {
    let lab = Lab::new()
        .nat_with("carrier", "198.51.100.1", |nat| nat.lan = "100.64.0.0/10".parse().unwrap())
        .nat_with("home", "100.64.0.7", |nat| nat.behind = Some("carrier".into()))
        .behind("home", "laptop", "192.168.1.2")
        .behind("carrier", "phone", "100.64.0.8")
        .node("server", "203.0.113.1");
    let (_, records) = lab.run(async |world: World| {
        let (laptop, phone, server) =
            (udp(&world, "laptop", 4000), udp(&world, "phone", 4000), udp(&world, "server", 80));
        let outside = seen(&laptop, &server, "203.0.113.1:80").await;
        assert_eq!(outside, address("198.51.100.1:4000"));
        // Up three links, down one, and back.
        assert_eq!(world.now(), ms(4));
        send(&server, outside, b"hello").await;
        assert_eq!(receive(&laptop).await.1, address("203.0.113.1:80"));
        // The phone sees the home's address in the carrier's network, and gets back in by it.
        assert_eq!(seen(&laptop, &phone, "100.64.0.8:4000").await, address("100.64.0.7:4000"));
        send(&phone, "100.64.0.7:4000", b"hello").await;
        assert_eq!(receive(&laptop).await.1, address("100.64.0.8:4000"));
    });
    assert_eq!(drops(&records), [""; 0]);
}

#[test]
fn rebinding_breaks_what_was_there() {
    let (_, records) = home(EndpointIndependent, EndpointIndependent).run(async |world: World| {
        let (laptop, one) = (udp(&world, "laptop", 4000), udp(&world, "one", 80));
        let before = seen(&laptop, &one, "203.0.113.1:80").await;
        world.rebind("home");
        send(&one, before, b"lost").await;
        assert!(!receives(&laptop).await);
        let after = seen(&laptop, &one, "203.0.113.1:80").await;
        assert_ne!(before, after);
        send(&one, after, b"found").await;
        assert!(receives(&laptop).await);
    });
    assert_eq!(drops(&records).len(), 1);
    assert!(crate::lab::lines(&records).iter().any(|line| line.contains(r#""reason":"rebinding""#)));
}

#[test]
fn a_partition_separates_who_is_behind_nats_too() {
    let (_, records) = home(EndpointIndependent, EndpointIndependent).run(async |world: World| {
        let laptop = udp(&world, "laptop", 4000);
        let (one, two) = (udp(&world, "one", 80), udp(&world, "two", 80));
        let outside = seen(&laptop, &one, "203.0.113.1:80").await;
        let partition = world.partition(&["one".into()], &["laptop".into()]);
        send(&one, outside, b"lost").await;
        send(&laptop, "203.0.113.1:80", b"lost").await;
        assert!(!receives(&laptop).await && !receives(&one).await);
        send(&two, outside, b"passes").await;
        assert!(receives(&laptop).await);
        world.heal(partition);
        send(&one, outside, b"passes").await;
        assert!(receives(&laptop).await);
    });
    assert_eq!(drops(&records), ["internet: partition"; 2]);
}
