//! Firewalls on hosts and in routers: what the stream tells of them.

use grenache_sim::scenario::model::Firewall;

use crate::lab::{Lab, address, bind, drops, ms, receive, receives, send, udp};

fn lab() -> Lab {
    let mut lab = Lab::new()
        .node("server", "203.0.113.1")
        .six("server", "2001:db8::1")
        .node("other", "203.0.113.2")
        .six("other", "2001:db8::2")
        .nat_with("home", "198.51.100.1", |nat| {
            nat.lan6 = Some("2001:db8:1::/64".parse().unwrap());
            nat.firewall = Some(Firewall { ipv4: false, ..Firewall::default() });
        })
        .behind("home", "laptop", "192.168.1.2")
        .six("laptop", "2001:db8:1::2");
    lab.nodes.get_mut("server").unwrap().firewall = Some(Firewall { allow: vec![80], ..Firewall::default() });
    lab
}

#[test]
fn a_public_host_lets_in_answers_and_allowed_ports_alone() {
    let (_, records) = lab().run(async |world| {
        let (server, allowed) = (udp(&world, "server", 5000), udp(&world, "server", 80));
        let (other, elsewhere) = (udp(&world, "other", 6000), udp(&world, "other", 6001));
        send(&other, "203.0.113.1:5000", b"in").await;
        assert!(!receives(&server).await);
        send(&other, "203.0.113.1:80", b"in").await;
        assert!(receives(&allowed).await);
        send(&server, "203.0.113.2:6000", b"out").await;
        assert!(receives(&other).await);
        send(&other, "203.0.113.1:5000", b"answer").await;
        assert!(receives(&server).await);
        send(&elsewhere, "203.0.113.1:5000", b"in").await;
        assert!(!receives(&server).await);
        // Itself it always reaches.
        send(&allowed, "203.0.113.1:5000", b"own").await;
        assert!(receives(&server).await);
        // TCP is refused without a word.
        let refused = tokio::time::timeout(ms(900), world.network("other").connect_tcp(address("203.0.113.1:81")));
        assert!(refused.await.is_err());
    });
    assert_eq!(
        drops(&records),
        [
            "firewall of server: no flow: nothing was sent from 203.0.113.1:5000 to 203.0.113.2:6000 in the last 120s, \
             and port 5000 is not allowed",
            "firewall of server: no flow: nothing was sent from 203.0.113.1:5000 to 203.0.113.2:6001 in the last 120s, \
             and port 5000 is not allowed",
            &format!(
                "firewall of server: no flow: nothing was sent from 203.0.113.1:81 to 203.0.113.2:{} in the last \
                 7440s, and port 81 is not allowed",
                syn_port(&records)
            ),
        ]
    );
}

fn syn_port(records: &[grenache_sim::event::Record]) -> u16 {
    use grenache_sim::event::{Event, LabEvent};
    let port = records.iter().find_map(|record| match &record.event {
        Event::Lab(LabEvent::PacketSent { summary, source, .. }) if summary.starts_with("tcp SYN") => {
            Some(source.port())
        }
        _ => None,
    });
    port.expect("a SYN was sent")
}

#[test]
fn rfc_6092_a_home_router_keeps_strangers_out_of_its_ipv6_network() {
    let (_, records) = lab().run(async |world| {
        let laptop = bind(&world.network("laptop"), "[::]:5000");
        let other = bind(&world.network("other"), "[::]:6000");
        send(&other, "[2001:db8:1::2]:5000", b"in").await;
        assert!(!receives(&laptop).await);
        // Both send, as in hole punching: each opens its own firewall.
        send(&laptop, "[2001:db8::2]:6000", b"punch").await;
        assert!(receives(&other).await);
        send(&other, "[2001:db8:1::2]:5000", b"answer").await;
        assert_eq!(receive(&laptop).await.1, address("[2001:db8::2]:6000"));
        // IPv4 is the NAT's matter.
        send(&laptop, "203.0.113.2:6000", b"out").await;
        assert!(receives(&other).await);
    });
    assert_eq!(
        drops(&records),
        ["firewall of home: no flow: nothing was sent from [2001:db8:1::2]:5000 to [2001:db8::2]:6000 in the last \
          120s, and port 5000 is not allowed"]
    );
}

#[test]
fn a_network_that_blocks_udp_lets_tcp_through() {
    let mut lab = lab();
    lab.nats.get_mut("home").unwrap().firewall = Some(Firewall { block_udp: true, ..Firewall::default() });
    let (_, records) = lab.run(async |world| {
        let (laptop, other) = (udp(&world, "laptop", 5000), udp(&world, "other", 6000));
        send(&laptop, "203.0.113.2:6000", b"out").await;
        assert!(!receives(&other).await);
        let mut listener = world.network("other").listen_tcp(address("0.0.0.0:80")).await.unwrap();
        let stream = world.network("laptop").connect_tcp(address("203.0.113.2:80")).await.unwrap();
        listener.accept().await.unwrap();
        drop(stream);
    });
    assert_eq!(drops(&records), ["firewall of home: UDP is blocked"]);
}
