//! What holds of every NAT, whatever hosts do.

use proptest::prelude::*;

use super::*;
use crate::probe::nat_pmp::Request;
use crate::scenario::model::{NatPmp, Pooling, PortBlocks, Refresh, WhenFull};

#[derive(Debug, Clone)]
enum Step {
    /// A host sends from one of its ports to one of a server's.
    Out(u8, u16, u8),
    /// Somebody sends to a public port.
    In(u8, u16),
    /// A host asks for a forward, with a lifetime.
    Ask(u8, u16, u64),
    Wait(u64),
    Rebind,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (2..6_u8, 5000..5006_u16, 0..4_u8).prop_map(|(host, port, to)| Step::Out(host, port, to)),
        4 => (0..4_u8, 4998..5012_u16).prop_map(|(from, port)| Step::In(from, port)),
        2 => (2..6_u8, 5000..5006_u16, 0..60_u64).prop_map(|(host, port, life)| Step::Ask(host, port, life)),
        3 => (1..25_u64).prop_map(Step::Wait),
        1 => Just(Step::Rebind),
    ]
}

fn dependence() -> impl Strategy<Value = Dependence> {
    prop::sample::select(ALL.to_vec())
}

prop_compose! {
    fn nat()(
        (mapping, filtering) in (dependence(), dependence()),
        ports in prop::sample::select(vec![
            PortAssignment::Preserving, PortAssignment::Contiguous, PortAssignment::Random, PortAssignment::Overloading,
        ]),
        refresh in prop::sample::select(vec![Refresh::Outbound, Refresh::Inbound, Refresh::Both]),
        arbitrary: bool,
        addresses in 1..3_u8,
        small: bool,
        parity: bool,
        limit in prop::option::of(1..5_u32),
        replace: bool,
        blocks in prop::option::of((1..5_u16, 1..3_u16)),
    ) -> Nat {
        let overloads = ports == PortAssignment::Overloading;
        Nat {
            address: "198.51.100.10".parse().unwrap(),
            more_addresses: (1..addresses).map(|n| Ipv4Addr::new(198, 51, 100, 10 + n)).collect(),
            mapping,
            filtering,
            ports,
            refresh,
            pooling: if arbitrary { Pooling::Arbitrary } else { Pooling::Paired },
            port_range: (small && !overloads).then_some(5000..=5011),
            parity: parity && !overloads,
            mappings_per_host: limit,
            when_full: if replace { WhenFull::ReplaceOldest } else { WhenFull::Refuse },
            port_blocks: blocks.filter(|_| !overloads).map(|(size, per_host)| PortBlocks { size, per_host }),
            nat_pmp: Some(NatPmp { per_host: 2, lifetime: Duration::from_secs(40) }),
            udp_timeout: Duration::from_secs(30),
            ..Nat::default()
        }
    }
}

fn server(n: u8) -> String {
    format!("203.0.113.{}:{}", 1 + n / 2, 80 + n % 2)
}

proptest! {
    #[test]
    fn who_sends_gets_the_answer_and_the_books_balance(
        nat in nat(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut rig = Rig::with(|of| *of = nat.clone());
        let mut now_ns = 0;
        for step in steps {
            match step {
                Step::Out(host, port, to) => {
                    let internal = format!("192.168.1.{host}:{port}");
                    if let Ok(external) = rig.out(now_ns, &internal, &server(to)) {
                        prop_assert!(nat.addresses().any(|address| address == *external.ip()));
                        let back = rig.back(now_ns, &server(to), external);
                        prop_assert_eq!(back, Ok(internal.parse().unwrap()), "an answer comes back at once");
                    }
                }
                Step::In(from, port) => {
                    let _ = rig.back(now_ns, &server(from), SocketAddrV4::new(nat.address, port));
                }
                Step::Ask(host, port, life) => {
                    let (protocol, lifetime) = (Protocol::Udp, Duration::from_secs(life));
                    let ask = Request::Forward { protocol, internal_port: port, external_port: port, lifetime };
                    let from = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, host), 9);
                    prop_assert!(
                        rig.nat.on_request(now_ns, from, &ask.encode(), &mut rig.rng, &mut rig.notes).is_some()
                    );
                }
                Step::Wait(seconds) => now_ns += seconds * S,
                Step::Rebind => rig.nat.rebind(now_ns, &mut rig.notes),
            }
            rig.nat.table.assert_consistent();
            if let Some(limit) = nat.mappings_per_host {
                prop_assert!(rig.nat.table.hosts.values().all(|host| host.mappings <= limit && host.forwards <= 2));
            }
            if let Some(blocks) = nat.port_blocks {
                let most = usize::from(blocks.per_host);
                prop_assert!(rig.nat.table.hosts.values().all(|host| host.blocks.len() <= most));
            }
        }
    }
}
