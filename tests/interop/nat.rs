//! A Grape behind a NAT: what it announces is stored outside under the NAT's address.

#![cfg_attr(not(target_os = "linux"), allow(unused, reason = "there are namespaces on Linux only"))]

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::grapes::{Kind, Ours, Place, Theirs};
#[cfg(target_os = "linux")]
use crate::namespace::Namespace;

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NAT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// A host behind a NAT, the NAT, and a host outside that has no route to the inside.
#[cfg(target_os = "linux")]
async fn hosts() -> [Namespace; 3] {
    let [inside, nat, outside] = [Namespace::new().await, Namespace::new().await, Namespace::new().await];
    nat.connect("lan", "10.77.0.1/24", &inside, "eth0", &format!("{INSIDE}/24")).await;
    nat.connect("wan", &format!("{NAT}/24"), &outside, "eth0", &format!("{OUTSIDE}/24")).await;
    inside.execute("ip route add default via 10.77.0.1").await;
    nat.run(async { std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap() }).await;
    for line in [
        "nft add table ip nat",
        "nft add chain ip nat postrouting { type nat hook postrouting priority srcnat ; }",
        "nft add rule ip nat postrouting oifname wan masquerade",
    ] {
        nat.execute(line).await;
    }
    [inside, nat, outside]
}

/// One is behind the NAT and starts from the other, outside.
#[cfg(target_os = "linux")]
async fn one_is_behind_a_nat(one: Kind, other: Kind) {
    let [inside, _nat, outside] = hosts().await;
    let other = Arc::new(outside.run(async move { Place::at(OUTSIDE).start(other, &[]).await }).await);
    let bootstrap = [other.dht()];
    let one = Arc::new(inside.run(async move { Place::at(INSIDE).start(one, &bootstrap).await }).await);
    let at = |grape: &Arc<_>| Arc::clone(grape);

    for (name, port, stored) in [("inner", 1337, 1337), ("café", 1338, 1338), ("own port", 0, one.dht().port())] {
        let grape = at(&one);
        assert_eq!(inside.run(async move { grape.announce(name, port).await }).await, 1, "{one:?}");
        for (host, grape) in [(&outside, at(&other)), (&inside, at(&one))] {
            assert_eq!(host.run(async move { grape.lookup(name).await }).await, [format!("{NAT}:{stored}")]);
        }
    }
    // The other way, through the NAT's mapping: the one inside stores it, and answers.
    let grape = at(&other);
    assert_eq!(outside.run(async move { grape.announce("outer", 1339).await }).await, 1, "{other:?}");
    for (host, grape) in [(&outside, at(&other)), (&inside, at(&one))] {
        assert_eq!(host.run(async move { grape.lookup("outer").await }).await, [format!("{OUTSIDE}:1339")]);
    }
}

/// Where there can be a NAT; that there is one at all is for the test below to see to.
pub(crate) async fn in_the_matrix(one: Kind, other: Kind) -> &'static str {
    #[cfg(target_os = "linux")]
    if Namespace::possible() {
        one_is_behind_a_nat(one, other).await;
        return "ok";
    }
    "not run"
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "needs root, iproute2, nftables and Node.js"]
async fn what_is_announced_behind_a_nat_is_stored_under_the_nats_address() {
    for (one, other) in [(Ours, Theirs), (Theirs, Ours)] {
        one_is_behind_a_nat(one, other).await;
    }
}
