//! Limits for each host, and blocks of ports (RFC 6888).

use super::*;
use crate::scenario::model::{PortBlocks, WhenFull};

fn out(rig: &mut Rig, now_ns: u64, host: u8, port: u16) -> Result<SocketAddrV4, Rule> {
    rig.out(now_ns, &format!("192.168.1.{host}:{port}"), SERVER)
}

#[test]
fn rfc_6888_req_4_a_host_has_as_many_mappings_as_it_may_and_takes_nothing_from_others() {
    let mut rig = Rig::with(|nat| nat.mappings_per_host = Some(3));
    for port in [5000, 5001, 5002] {
        assert!(out(&mut rig, 0, 2, port).is_ok());
    }
    assert_eq!(out(&mut rig, 1, 2, 5003), Err(Rule::TooManyMappings(3)));
    assert!(out(&mut rig, 1, 2, 5001).is_ok(), "what it has, it has");
    assert!(out(&mut rig, 1, 3, 5003).is_ok(), "another host has a limit of its own");
    assert!(out(&mut rig, 30 * S, 2, 5001).is_ok());
    // The two that are idle end at 30 s.
    rig.nat.expire(30 * S, mapped(5000), &mut rig.notes);
    assert!(out(&mut rig, 30 * S, 2, 5003).is_ok());
}

#[test]
fn where_the_oldest_is_replaced_it_is_the_one_that_would_have_ended_first() {
    let mut rig = Rig::with(|nat| (nat.mappings_per_host, nat.when_full) = (Some(2), WhenFull::ReplaceOldest));
    let first = out(&mut rig, 0, 2, 5000).unwrap();
    let second = out(&mut rig, S, 2, 5001).unwrap();
    out(&mut rig, 2 * S, 2, 5000).unwrap();
    rig.notes.clear();
    let third = out(&mut rig, 3 * S, 2, 5002).unwrap();
    assert!(matches!(&rig.notes[0], Note::Removed { mapped, reason, .. }
        if mapped.external() == second && reason == "limit of 2 mappings"));
    assert_eq!(rig.back(4 * S, SERVER, second), Err(Rule::NoMapping(5001)));
    assert!(rig.back(4 * S, SERVER, first).is_ok() && rig.back(4 * S, SERVER, third).is_ok());
}

fn blocks(size: u16, per_host: u16) -> impl Fn(&mut Nat) {
    move |nat| {
        nat.port_blocks = Some(PortBlocks { size, per_host });
        nat.port_range = Some(2000..=2015);
        nat.ports = PortAssignment::Random;
    }
}

#[test]
fn rfc_6888_req_14_a_hosts_ports_are_of_its_blocks() {
    let mut rig = Rig::with(blocks(4, 2));
    let of = |rig: &mut Rig, host| (0..4).map(|n| out(rig, 0, host, 100 + n).unwrap().port()).collect::<BTreeSet<_>>();
    let (first, second) = (of(&mut rig, 2), of(&mut rig, 3));
    for ports in [&first, &second] {
        let low = *ports.first().unwrap();
        assert_eq!(*ports, (low..low + 4).collect(), "one block, all of it");
        assert_eq!((low - 2000) % 4, 0);
    }
    assert!(first.is_disjoint(&second));
    let allocated = |rig: &Rig| rig.notes.iter().filter(|note| matches!(note, Note::BlockAllocated { .. })).count();
    assert_eq!(allocated(&rig), 2, "a block is one event, whatever number of mappings");
    // The second block is the last that a host may have.
    for n in 4..8 {
        assert!(out(&mut rig, 0, 2, 100 + n).is_ok());
    }
    assert_eq!(allocated(&rig), 3);
    assert_eq!(out(&mut rig, 0, 2, 108), Err(Rule::BlocksFull(2)));
    // The last of four blocks goes to the third host, and the fourth gets nothing.
    assert!(out(&mut rig, 0, 4, 100).is_ok());
    assert_eq!(out(&mut rig, 0, 5, 100), Err(Rule::NoFreePort));
}

#[test]
fn a_block_without_mappings_is_free_for_others() {
    let mut rig = Rig::with(blocks(16, 1));
    let external = out(&mut rig, 0, 2, 100).unwrap();
    assert_eq!(out(&mut rig, 29 * S, 3, 100), Err(Rule::NoFreePort));
    rig.notes.clear();
    let idle = Mapped { protocol: Protocol::Udp, address: *external.ip(), port: external.port(), sharer: 0 };
    rig.nat.expire(30 * S, idle, &mut rig.notes);
    assert!(matches!(&rig.notes[..], [Note::Removed { .. }, Note::BlockReleased { internal, block }]
        if internal.to_string() == "192.168.1.2" && (block.first, block.last) == (2000, 2015)));
    assert!(out(&mut rig, 30 * S, 3, 100).is_ok());
}

#[test]
fn blocks_are_of_the_address_that_the_host_is_paired_with() {
    let mut rig = Rig::with(|nat| {
        blocks(16, 1)(nat);
        nat.more_addresses = vec!["198.51.100.11".parse().unwrap()];
    });
    let addresses: Vec<_> = (2..4).map(|host| *out(&mut rig, 0, host, 100).unwrap().ip()).collect();
    assert_ne!(addresses[0], addresses[1]);
    assert_eq!(out(&mut rig, 0, 4, 100), Err(Rule::NoFreePort), "one block an address, and both are taken");
}
