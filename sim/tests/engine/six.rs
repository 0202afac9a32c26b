//! IPv6: sockets, routes, TCP, and the stack over it.

use std::io::ErrorKind;

use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use grenache_sim::engine::{Sim, SimError};
use grenache_sim::event::{Event, LabEvent, Record};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Lab, address, bind, drops, ms, receive, receives, send};

/// Two dual-stack hosts on the internet, one for IPv6 only, and one at home behind an IPv6 router.
fn lab() -> Lab {
    Lab::new()
        .node("a", "203.0.113.1")
        .six("a", "2001:db8::1")
        .node("b", "203.0.113.2")
        .six("b", "2001:db8::2")
        .node("six", "0.0.0.0")
        .six("six", "2001:db8::6")
        .nat_with("home", "198.51.100.1", |nat| nat.lan6 = Some("2001:db8:1::/56".parse().unwrap()))
        .behind("home", "laptop", "192.168.1.2")
        .six("laptop", "2001:db8:1::2")
}

fn sizes(records: &[Record]) -> Vec<usize> {
    let size = |record: &Record| match record.event {
        Event::Lab(LabEvent::PacketSent { size, .. }) => Some(size),
        _ => None,
    };
    records.iter().filter_map(size).collect()
}

#[test]
fn rfc_3493_a_socket_for_all_addresses_takes_both_families_and_tells_ipv4_as_mapped() {
    let (_, records) = lab().run(async |world| {
        let (a, b) = (bind(&world.network("a"), "[::]:5000"), bind(&world.network("b"), "[::]:5000"));
        send(&a, "[2001:db8::2]:5000", b"six").await;
        assert_eq!(receive(&b).await, (b"six".to_vec(), address("[2001:db8::1]:5000")));
        send(&a, "203.0.113.2:5000", b"four").await;
        let (_, mapped) = receive(&b).await;
        assert_eq!(mapped, address("[::ffff:203.0.113.1]:5000"));
        // The mapped address is good for an answer.
        send(&b, mapped, b"back").await;
        assert_eq!(receive(&a).await, (b"back".to_vec(), address("[::ffff:203.0.113.2]:5000")));
    });
    // A header of 40 bytes, then two of 20 (RFC 8200, 3; RFC 791, 3.1).
    assert_eq!(sizes(&records), [40 + 8 + 3, 20 + 8 + 4, 20 + 8 + 4]);
}

#[test]
fn a_socket_for_ipv4_takes_and_sends_no_ipv6() {
    let (_, records) = lab().run(async |world| {
        let (a, b) = (bind(&world.network("a"), "[::]:5000"), bind(&world.network("b"), "0.0.0.0:5000"));
        send(&a, "[2001:db8::2]:5000", b"six").await;
        assert!(!receives(&b).await);
        let local_ip = world.network("b").local_ip(address("[2001:db8::1]:1")).unwrap();
        assert_eq!(local_ip.to_string(), "2001:db8::2");
        let refused = |node: &str, to: &str| world.network(node).local_ip(address(to)).unwrap_err().kind();
        assert_eq!(refused("six", "203.0.113.1:1"), ErrorKind::NetworkUnreachable);
    });
    assert_eq!(drops(&records), ["host b: no socket on port 5000"]);
}

#[test]
fn ports_are_shared_between_families_as_linux_does() {
    lab().run(async |world| {
        let net = world.network("a");
        let taken = |local: &str| net.bind_udp(address(local)).unwrap_err().kind();
        let both = net.bind_udp(address("[::]:5000")).unwrap();
        assert_eq!(taken("0.0.0.0:5000"), ErrorKind::AddrInUse);
        assert_eq!(taken("[2001:db8::1]:5000"), ErrorKind::AddrInUse);
        drop(both);
        let _four = net.bind_udp(address("0.0.0.0:5000")).unwrap();
        let _six = net.bind_udp(address("[2001:db8::1]:5000")).unwrap();
        assert_eq!(taken("[::]:5000"), ErrorKind::AddrInUse);
        assert_eq!(taken("[2001:db8::2]:5001"), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn rfc_4864_a_router_forwards_ipv6_without_translating_it() {
    let (_, records) = lab().run(async |world| {
        let laptop = bind(&world.network("laptop"), "[::]:5000");
        let six = bind(&world.network("six"), "[::]:6000");
        send(&laptop, "[2001:db8::6]:6000", b"out").await;
        assert_eq!(receive(&six).await.1, address("[2001:db8:1::2]:5000"), "its own address");
        send(&six, "[2001:db8:1::2]:5000", b"in").await;
        assert_eq!(receive(&laptop).await.1, address("[2001:db8::6]:6000"));
        // Nobody there, in the home's network and outside of any.
        send(&six, "[2001:db8:1::99]:5000", b"in").await;
        send(&six, "[2001:db8:f::1]:5000", b"in").await;
        tokio::time::sleep(ms(100)).await;
    });
    assert_eq!(
        drops(&records),
        ["internet: no host at 2001:db8:f::1", "lan of home: no host at 2001:db8:1::99"],
        "{:?}",
        crate::lab::lines(&records)
    );
    assert!(!records.iter().any(|record| matches!(record.event, Event::Lab(LabEvent::MappingCreated { .. }))));
}

#[test]
fn rfc_8415_a_router_behind_a_router_has_a_part_of_its_network() {
    let lab = lab()
        .nat_with("shed", "192.168.1.9", |nat| {
            nat.behind = Some("home".into());
            nat.lan = "10.0.0.0/24".parse().unwrap();
            nat.lan6 = Some("2001:db8:1:80::/64".parse().unwrap());
        })
        .behind("shed", "camera", "10.0.0.2")
        .six("camera", "2001:db8:1:80::2");
    lab.run(async |world| {
        let camera = bind(&world.network("camera"), "[::]:5000");
        for (node, from) in [("six", "[2001:db8::6]:6000"), ("laptop", "[2001:db8:1::2]:6000")] {
            let other = bind(&world.network(node), "[::]:6000");
            send(&other, "[2001:db8:1:80::2]:5000", b"in").await;
            assert_eq!(receive(&camera).await.1, address(from));
            send(&camera, from, b"out").await;
            assert_eq!(receive(&other).await.1, address("[2001:db8:1:80::2]:5000"));
        }
    });
}

#[test]
fn tcp_goes_over_ipv6_with_segments_of_1440_bytes() {
    let (_, records) = lab().run(async |world| {
        let mut listener = world.network("b").listen_tcp(address("[::]:80")).await.unwrap();
        for (to, peer) in [("[2001:db8::2]:80", "2001:db8::1"), ("203.0.113.2:80", "::ffff:203.0.113.1")] {
            let mut stream = world.network("a").connect_tcp(address(to)).await.unwrap();
            let (mut accepted, from) = listener.accept().await.unwrap();
            assert_eq!(from.ip().to_string(), peer);
            stream.write_all(&[7; 50_000]).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            accepted.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, [7; 50_000]);
        }
    });
    // Both fill the MTU: 40 + 20 + 1440 and 20 + 20 + 1460.
    assert_eq!(sizes(&records).into_iter().max(), Some(1500));
}

#[test]
fn a_client_reaches_a_worker_over_ipv6() {
    let (_, records) = lab().run(async |world| {
        let server = Endpoint::bind(&world.network("laptop"), address("[::]:5000"), EndpointConfig::default()).unwrap();
        let _serving =
            PeerRpcServer::serve(&server, ServerConfig::default(), |request| async move { Ok(request.payload) });
        let client = Endpoint::bind(&world.network("six"), address("[::]:0"), EndpointConfig::default()).unwrap();
        let client = PeerRpcClient::new(&client, None, ClientConfig::default());
        let answer = client.request_at(address("[2001:db8:1::2]:5000"), "echo", &json!("héllo")).await.unwrap();
        assert_eq!(answer, json!("héllo"));
    });
    let utp = records.iter().filter(|record| {
        matches!(&record.event, Event::Lab(LabEvent::PacketSent { summary, source, .. })
            if summary.starts_with("utp ") && source.is_ipv6())
    });
    assert!(utp.count() >= 4);
}

#[test]
fn networks_that_cannot_be_routed_are_refused() {
    let refused = |lab: Lab| Sim::new(0, &lab.nats, &lab.links, &lab.nodes).unwrap_err();
    let told = |lab: Lab| refused(lab).to_string();
    let lan6 = |lab: Lab, nat: &str, lan6: &str| {
        let mut lab = lab;
        lab.nats.get_mut(nat).unwrap().lan6 = Some(lan6.parse().unwrap());
        lab
    };
    assert_eq!(
        told(lan6(lab().nat("flat", "198.51.100.2"), "flat", "2001:db8:1:1::/64")),
        "the IPv6 network 2001:db8:1::/56 of nat home overlaps 2001:db8:1:1::/64, that of another nat: give it one of \
         its own"
    );
    assert_eq!(
        told(lab().behind("home", "tv", "192.168.1.3").six("tv", "2001:db8:2::1")),
        "node tv is behind the nat home, but its address 2001:db8:2::1 is not in 2001:db8:1::/56: give it one that is"
    );
    assert_eq!(
        told(lab().node("c", "203.0.113.3").six("c", "2001:db8:1::3")),
        "node c has the address 2001:db8:1::3 of the network 2001:db8:1::/56 behind nat home: give it another one"
    );
    assert_eq!(
        told(lab().nat("flat", "198.51.100.2").behind("flat", "tv", "192.168.1.3").six("tv", "2001:db8:2::1")),
        "node tv has IPv6, but the nat flat that it is behind has not: give the nat an IPv6 network"
    );
    assert!(matches!(refused(lab().node("c", "0.0.0.0")), SimError::NoAddress { user } if user == "node c"));
    assert!(matches!(refused(lab().node("c", "203.0.113.3").six("c", "2001:db8::1")), SimError::AddressTaken { .. }));
}
