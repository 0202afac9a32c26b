//! What is seen at each side of each hop.

use std::cell::RefCell;
use std::rc::Rc;

use grenache_sim::engine::{Direction, Side, Sighting, Sim};

use crate::lab::{Lab, bind, ms, receive, send};

/// Two at home behind a NAT that hairpins and routes IPv6, and one on the internet.
fn lab() -> Lab {
    let nat = Lab::new().nat_with("home", "198.51.100.1", |nat| {
        nat.hairpinning = grenache_sim::scenario::model::Hairpinning::ExternalSource;
        nat.lan6 = Some("2001:db8:1::/56".parse().unwrap());
    });
    let homes =
        nat.behind("home", "laptop", "192.168.1.2").six("laptop", "2001:db8:1::2").behind("home", "tv", "192.168.1.3");
    homes.node("server", "203.0.113.1").six("server", "2001:db8::1")
}

/// Sends a datagram from the laptop's port 5000, and gives what was seen of it.
fn seen(to: &str, receiver: &str) -> Vec<Sighting> {
    let sightings = Rc::new(RefCell::new(Vec::new()));
    let keep = sightings.clone();
    let lab = lab();
    let sim = Sim::new(lab.seed, &lab.nats, &lab.links, &lab.nodes).unwrap();
    let sim = sim.capture(move |sighting: &Sighting| keep.borrow_mut().push(sighting.clone()));
    sim.run(ms(60_000), async |world| {
        let (from, at) = (bind(&world.network("laptop"), "[::]:5000"), bind(&world.network(receiver), "[::]:6000"));
        if receiver == "tv" {
            // So that its NAT has a mapping for it.
            send(&at, "198.51.100.1:5000", b"hi").await;
            tokio::time::sleep(ms(5)).await;
        }
        send(&from, to, b"hello").await;
        receive(&at).await;
    });
    let all = sightings.borrow();
    let packet = all.iter().rfind(|sighting| sighting.side == Side::Host(receiver.into())).unwrap().packet;
    all.iter().filter(|sighting| sighting.packet == packet).cloned().collect()
}

/// In a line each: where, which way, from whom to whom.
fn told(sightings: &[Sighting]) -> Vec<String> {
    let line = |sighting: &Sighting| {
        let side = match &sighting.side {
            Side::Host(name) => name.to_string(),
            Side::Inside(name) => format!("{name} inside"),
            Side::Outside(name) => format!("{name} outside"),
        };
        let way = if sighting.direction == Direction::In { "in" } else { "out" };
        format!("{} ms {side} {way}: {} > {}", sighting.at_ns / 1_000_000, sighting.source, sighting.destination)
    };
    sightings.iter().map(line).collect()
}

#[test]
fn a_packet_is_seen_at_each_side_as_it_is_there() {
    let sightings = seen("203.0.113.1:6000", "server");
    assert_eq!(
        told(&sightings),
        [
            "0 ms laptop out: 192.168.1.2:5000 > 203.0.113.1:6000",
            "1 ms home inside in: 192.168.1.2:5000 > 203.0.113.1:6000",
            "1 ms home outside out: 198.51.100.1:5000 > 203.0.113.1:6000",
            "3 ms server in: 198.51.100.1:5000 > 203.0.113.1:6000",
        ]
    );
    assert!(sightings.iter().all(|sighting| sighting.to_bytes().len() == 20 + 8 + 5));
}

#[test]
fn a_router_forwards_ipv6_as_it_is() {
    let sightings = seen("[2001:db8::1]:6000", "server");
    assert_eq!(
        told(&sightings),
        [
            "0 ms laptop out: [2001:db8:1::2]:5000 > [2001:db8::1]:6000",
            "1 ms home inside in: [2001:db8:1::2]:5000 > [2001:db8::1]:6000",
            "1 ms home outside out: [2001:db8:1::2]:5000 > [2001:db8::1]:6000",
            "3 ms server in: [2001:db8:1::2]:5000 > [2001:db8::1]:6000",
        ]
    );
    assert!(sightings.iter().all(|sighting| sighting.to_bytes().len() == 40 + 8 + 5));
}

#[test]
fn what_is_turned_around_at_a_nat_is_not_seen_outside() {
    let sightings = seen("198.51.100.1:6000", "tv");
    assert_eq!(
        told(&sightings),
        [
            "5 ms laptop out: 192.168.1.2:5000 > 198.51.100.1:6000",
            "6 ms home inside in: 192.168.1.2:5000 > 198.51.100.1:6000",
            "6 ms home inside out: 198.51.100.1:5000 > 192.168.1.3:6000",
            "7 ms tv in: 198.51.100.1:5000 > 192.168.1.3:6000",
        ]
    );
}
