//! What NATs do beyond mapping and filtering, as hosts see it: hairpinning's source, forwards, static translation,
//! carriers' NATs, and NATs behind NATs behind NATs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use grenache_sim::engine::World;
use grenache_sim::event::Protocol;
use grenache_sim::probe::forward::{Forward, ForwardError, ask};
use grenache_sim::probe::nat_pmp::Refusal;
use grenache_sim::scenario::model::Dependence::EndpointIndependent;
use grenache_sim::scenario::model::{self, Hairpinning, Nat, NatPmp, PortAssignment, PortBlocks};
use tokio::time::sleep;

use crate::lab::{Lab, Socket, address, drops, lines, ms, receive, receives, send, udp};

fn home(change: impl FnOnce(&mut Nat)) -> Lab {
    Lab::new()
        .nat_with("home", "198.51.100.1", change)
        .behind("home", "laptop", "192.168.1.2")
        .behind("home", "phone", "192.168.1.3")
        .node("one", "203.0.113.1")
}

async fn seen(from: &Socket, to: &Socket, at: &str) -> SocketAddr {
    send(from, at, b"who am I?").await;
    receive(to).await.1
}

#[test]
fn rfc_4787_6_a_hairpinned_packet_has_the_source_that_is_configured() {
    for (hairpinning, source) in
        [(Hairpinning::ExternalSource, "198.51.100.1:4000"), (Hairpinning::InternalSource, "192.168.1.2:4000")]
    {
        let lab = home(|nat| (nat.hairpinning, nat.filtering) = (hairpinning, EndpointIndependent));
        lab.run(async |world: World| {
            let (laptop, phone) = (udp(&world, "laptop", 4000), udp(&world, "phone", 5000));
            let one = udp(&world, "one", 80);
            let phone_outside = seen(&phone, &one, "203.0.113.1:80").await;
            send(&laptop, phone_outside, b"hello").await;
            let (payload, from) = receive(&phone).await;
            assert_eq!((payload, from), (b"hello".to_vec(), address(source)));
            // The answer goes where it came from: past the NAT, where that is the LAN.
            send(&phone, from, b"hello back").await;
            let back =
                if hairpinning == Hairpinning::InternalSource { "192.168.1.3:5000" } else { "198.51.100.1:5000" };
            assert_eq!(receive(&laptop).await.1, address(back));
        });
    }
}

#[test]
fn a_static_forward_lets_a_stranger_in() {
    let to = "192.168.1.2:8080".parse().unwrap();
    let lab = home(|nat| nat.forwards = vec![model::Forward { protocol: Protocol::Udp, port: 80, to }]);
    let (_, records) = lab.run(async |world: World| {
        let (laptop, one) = (udp(&world, "laptop", 8080), udp(&world, "one", 9));
        send(&one, "198.51.100.1:80", b"hello").await;
        let (_, from) = receive(&laptop).await;
        assert_eq!(from, address("203.0.113.1:9"));
        send(&laptop, from, b"hello back").await;
        assert_eq!(receive(&one).await.1, address("198.51.100.1:80"));
        send(&one, "198.51.100.1:81", b"closed").await;
        assert!(!receives(&laptop).await);
    });
    assert_eq!(drops(&records), ["nat home: no mapping for port 81"]);
}

/// Asks the NAT in front of a node.
async fn forward(world: &World, node: &str, port: u16, lifetime_s: u64) -> Result<(u16, u64), ForwardError> {
    let gateway = SocketAddr::new(IpAddr::V4(world.gateway(node).expect("a NAT that listens")), 5351);
    let lifetime = Duration::from_secs(lifetime_s);
    let wanted = Forward { protocol: Protocol::Udp, internal_port: port, external_port: port, lifetime };
    let granted = ask(&world.network(node), gateway, wanted).await?;
    Ok((granted.external_port, granted.lifetime.as_secs()))
}

#[test]
fn rfc_6886_a_host_asks_its_nat_for_a_forward_over_the_wire() {
    let lab = home(|nat| nat.nat_pmp = Some(NatPmp { per_host: 2, lifetime: Duration::from_secs(60) }));
    let (_, records) = lab.run(async |world: World| {
        let (laptop, one) = (udp(&world, "laptop", 8080), udp(&world, "one", 9));
        send(&one, "198.51.100.1:8080", b"too early").await;
        assert!(!receives(&laptop).await);
        assert_eq!(forward(&world, "laptop", 8080, 7200).await.unwrap(), (8080, 60), "the NAT's longest");
        send(&one, "198.51.100.1:8080", b"hello").await;
        assert_eq!(receive(&laptop).await.0, b"hello");
        // The limit is each host's own, and what is refused is told.
        assert!(forward(&world, "laptop", 8081, 60).await.is_ok());
        let refused = forward(&world, "laptop", 8082, 60).await.unwrap_err();
        assert!(matches!(refused, ForwardError::Refused(Refusal::OutOfResources)), "{refused}");
        let (port, _) = forward(&world, "phone", 8080, 60).await.unwrap();
        assert_ne!(port, 8080, "it is the laptop's");
        sleep(Duration::from_secs(61)).await;
        send(&one, "198.51.100.1:8080", b"too late").await;
        assert!(!receives(&laptop).await);
        // Ended by hand.
        forward(&world, "laptop", 8080, 60).await.unwrap();
        assert_eq!(forward(&world, "laptop", 8080, 0).await.unwrap(), (0, 0));
        send(&one, "198.51.100.1:8080", b"closed").await;
        assert!(!receives(&laptop).await);
    });
    assert_eq!(drops(&records), ["nat home: no mapping for port 8080"; 3]);
    let lines = lines(&records);
    let created = lines.iter().filter(|line| line.contains(r#""event":"forward-created""#)).count();
    let over = lines.iter().filter(|line| line.contains("its lifetime is over")).count();
    assert_eq!((created, over), (4, 3));
}

#[test]
fn a_nat_that_forwards_nothing_on_request_has_nobody_at_its_inner_address() {
    let (_, records) = home(|_| {}).run(async |world: World| {
        assert_eq!(world.gateway("laptop"), None);
        let laptop = udp(&world, "laptop", 4000);
        send(&laptop, "192.168.1.1:5351", &[0, 0]).await;
        assert!(!receives(&laptop).await);
    });
    assert_eq!(drops(&records), ["lan of home: no host at 192.168.1.1"]);
}

#[test]
fn one_to_one_translation_makes_a_host_public() {
    let pair = |internal: &str, public: &str| (internal.parse().unwrap(), public.parse().unwrap());
    let lab = home(|nat| {
        nat.one_to_one = [pair("192.168.1.2", "198.51.100.1"), pair("192.168.1.3", "198.51.100.2")].into();
    });
    lab.run(async |world: World| {
        let (phone, one) = (udp(&world, "phone", 5000), udp(&world, "one", 80));
        send(&one, "198.51.100.2:5000", b"hello").await;
        assert_eq!(receive(&phone).await.0, b"hello", "nobody has sent from there yet");
        assert_eq!(seen(&phone, &one, "203.0.113.1:80").await, address("198.51.100.2:5000"));
        // A day later, nothing has ended.
        sleep(Duration::from_secs(3000)).await;
        send(&one, "198.51.100.2:5000", b"still here?").await;
        assert!(receives(&phone).await);
    });
}

/// Flat behind house behind carrier, with a host on each level.
fn three_levels() -> Lab {
    Lab::new()
        .nat_with("carrier", "198.51.100.1", |nat| nat.lan = "100.64.0.0/10".parse().unwrap())
        .nat_with("house", "100.64.0.7", |nat| {
            (nat.behind, nat.lan) = (Some("carrier".into()), "10.0.0.0/24".parse().unwrap());
        })
        .nat_with("flat", "10.0.0.7", |nat| nat.behind = Some("house".into()))
        .behind("flat", "laptop", "192.168.1.2")
        .behind("house", "phone", "10.0.0.8")
        .behind("carrier", "neighbour", "100.64.0.8")
        .node("server", "203.0.113.1")
}

#[test]
fn nats_may_be_behind_nats_to_any_depth() {
    let (_, records) = three_levels().run(async |world: World| {
        let laptop = udp(&world, "laptop", 4000);
        let others = [
            ("phone", "10.0.0.8", "10.0.0.7"),
            ("neighbour", "100.64.0.8", "100.64.0.7"),
            ("server", "203.0.113.1", "198.51.100.1"),
        ];
        for (node, at, outside) in others {
            let socket = udp(&world, node, 80);
            let from = seen(&laptop, &socket, &format!("{at}:80")).await;
            assert_eq!(from.ip().to_string(), outside, "as {node} sees it");
            send(&socket, from, node.as_bytes()).await;
            assert_eq!(receive(&laptop).await, (node.as_bytes().to_vec(), address(&format!("{at}:80"))));
        }
        // Every link on the way takes its millisecond.
        let begin = world.now();
        let server = udp(&world, "server", 81);
        let from = seen(&laptop, &server, "203.0.113.1:81").await;
        assert_eq!(world.now() - begin, ms(5), "three uplinks, the laptop's and the server's link");
        send(&server, from, b"back").await;
        receive(&laptop).await;
        assert_eq!(world.now() - begin, ms(10));
    });
    assert_eq!(drops(&records), [""; 0]);
}

#[test]
fn the_middle_one_of_three_nats_may_forget_its_mappings() {
    let (_, records) = three_levels().run(async |world: World| {
        let (laptop, server) = (udp(&world, "laptop", 4000), udp(&world, "server", 80));
        let before = seen(&laptop, &server, "203.0.113.1:80").await;
        world.rebind("house");
        send(&server, before, b"lost").await;
        assert!(!receives(&laptop).await);
        let after = seen(&laptop, &server, "203.0.113.1:80").await;
        assert_ne!(after, before, "the carrier's NAT sees another host's port");
        send(&server, after, b"found").await;
        assert!(receives(&laptop).await);
    });
    assert_eq!(drops(&records), ["nat house: no mapping for port 4000"]);
}

#[test]
fn rfc_6888_a_carriers_nat_logs_a_block_and_not_each_mapping_of_a_subscriber() {
    let lab = Lab::new()
        .nat_with("carrier", "198.51.100.1", |nat| {
            nat.lan = "100.64.0.0/10".parse().unwrap();
            nat.ports = PortAssignment::Random;
            nat.port_blocks = Some(PortBlocks { size: 16, per_host: 2 });
            nat.more_addresses = vec!["198.51.100.2".parse().unwrap()];
        })
        .behind("carrier", "a", "100.64.0.2")
        .behind("carrier", "b", "100.64.0.3")
        .node("server", "203.0.113.1");
    let (ports, records) = lab.run(async |world: World| {
        let server = udp(&world, "server", 80);
        let mut all = Vec::new();
        for node in ["a", "b"] {
            let mut ports = Vec::new();
            for port in 5000..5016 {
                ports.push(seen(&udp(&world, node, port), &server, "203.0.113.1:80").await);
            }
            ports.sort();
            all.push(ports);
        }
        // Both blocks full, the next mapping is refused.
        for port in 5016..5033 {
            send(&udp(&world, "a", port), "203.0.113.1:80", b"more").await;
        }
        sleep(ms(200)).await;
        sleep(Duration::from_secs(60)).await;
        all
    });
    for ports in &ports {
        assert!(ports.windows(2).all(|pair| pair[1].port() == pair[0].port() + 1), "a block: {ports:?}");
    }
    assert_ne!(ports[0][0].ip(), ports[1][0].ip(), "each subscriber has an address of its own");
    assert_eq!(drops(&records).iter().filter(|rule| rule.contains("no free port in the host's 2 blocks")).count(), 1);
    let count = |what: &str| lines(&records).iter().filter(|line| line.contains(what)).count();
    assert_eq!((count("port-block-allocated"), count("port-block-released")), (3, 3));
}
