//! The routing table (BEP 5): nodes in buckets by how many leading bits their ids share with ours.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::krpc::{Contact, NodeId};

/// How many nodes a bucket holds, and how many close ones an answer lists: BEP 5 says 8, Grapes say 20.
pub(super) const K: usize = 20;

/// How many nodes of one IP address a bucket takes, so that no single host can fill it.
const MAX_SAME_HOST: usize = K / 2;

/// After so many queries in a row without an answer a node is dropped (BEP 5: "bad").
const MAX_FAILURES: u8 = 2;

/// How close an id is to a key: the smaller, the closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Distance([u8; 20]);

impl Distance {
    /// XOR over what key and id have in common: the first min(length, 20) bytes.
    pub(super) fn new(key: &[u8], id: &NodeId) -> Self {
        let mut distance = [0; 20];
        for ((out, a), b) in distance.iter_mut().zip(key).zip(&id.0) {
            *out = a ^ b;
        }
        Self(distance)
    }
}

/// The nodes we know, each address and each id once.
#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    /// By shared leading bits; a bucket that holds [`K`] takes no newcomers until one of its nodes is dropped.
    buckets: BTreeMap<u32, Vec<Entry>>,
    ids: BTreeMap<SocketAddrV4, NodeId>,
}

#[derive(Debug)]
struct Entry {
    contact: Contact,
    seen: Instant,
    failures: u8,
    /// Where a node of the same id was heard of since: it moves there if it no longer answers here.
    elsewhere: Option<SocketAddrV4>,
}

/// What it means to the table that a node spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing new, or nothing that there is room for.
    Known,
    /// It was taken in.
    New,
    /// A node of this id is known elsewhere, at this contact: ping it to see which of the two addresses is right.
    Doubtful(Contact),
}

impl Table {
    pub(super) fn new(own: NodeId) -> Self {
        Self { own, buckets: BTreeMap::new(), ids: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Takes note that `contact` spoke to us.
    pub(super) fn heard(&mut self, now: Instant, contact: Contact) -> Heard {
        if contact.id == self.own || !is_reachable(contact.address) {
            return Heard::Known;
        }
        // A node that restarted has another id at the same address.
        if self.ids.get(&contact.address).is_some_and(|id| *id != contact.id) {
            self.remove(contact.address);
        }
        let bucket = self.buckets.entry(shared_bits(&self.own, &contact.id)).or_default();
        if let Some(entry) = bucket.iter_mut().find(|entry| entry.contact.id == contact.id) {
            if entry.contact.address == contact.address {
                (entry.seen, entry.failures, entry.elsewhere) = (now, 0, None);
                return Heard::Known;
            }
            return match entry.elsewhere.replace(contact.address) {
                None => Heard::Doubtful(entry.contact),
                Some(_) => Heard::Known,
            };
        }
        let same_host = bucket.iter().filter(|entry| entry.contact.address.ip() == contact.address.ip()).count();
        if bucket.len() < K && same_host < MAX_SAME_HOST {
            bucket.push(Entry { contact, seen: now, failures: 0, elsewhere: None });
            self.ids.insert(contact.address, contact.id);
            return Heard::New;
        }
        Heard::Known
    }

    /// Takes note that a query to `address` was not answered.
    pub(super) fn failed(&mut self, address: SocketAddrV4) {
        let Some(entry) = self.entry(address) else { return };
        entry.failures += 1;
        if let Some(elsewhere) = entry.elsewhere.take() {
            let moved = Contact { address: elsewhere, ..entry.contact };
            let seen = entry.seen;
            self.remove(address);
            self.heard(seen, moved);
        } else if entry.failures >= MAX_FAILURES {
            self.remove(address);
        }
    }

    /// The nodes that have not been heard of for `silence`.
    pub(super) fn silent(&self, now: Instant, silence: Duration) -> Vec<Contact> {
        let silent = |entry: &&Entry| now.saturating_duration_since(entry.seen) >= silence;
        self.buckets.values().flatten().filter(silent).map(|entry| entry.contact).collect()
    }

    /// Up to `most` nodes, the closest to `key` first.
    pub(super) fn closest(&self, key: &[u8], most: usize) -> Vec<Contact> {
        let mut contacts: Vec<_> = self.buckets.values().flatten().map(|entry| entry.contact).collect();
        contacts.sort_by_cached_key(|contact| (Distance::new(key, &contact.id), contact.id));
        contacts.truncate(most);
        contacts
    }

    fn entry(&mut self, address: SocketAddrV4) -> Option<&mut Entry> {
        let id = self.ids.get(&address)?;
        self.buckets.get_mut(&shared_bits(&self.own, id))?.iter_mut().find(|entry| entry.contact.address == address)
    }

    fn remove(&mut self, address: SocketAddrV4) {
        let Some(id) = self.ids.remove(&address) else { return };
        let index = shared_bits(&self.own, &id);
        if let Some(bucket) = self.buckets.get_mut(&index) {
            bucket.retain(|entry| entry.contact.address != address);
            if bucket.is_empty() {
                self.buckets.remove(&index);
            }
        }
    }
}

/// Whether a datagram to this address can reach one node: what is learnt from others is not to be trusted.
pub(super) fn is_reachable(address: SocketAddrV4) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
}

fn shared_bits(a: &NodeId, b: &NodeId) -> u32 {
    let mut bits = 0;
    for (a, b) in a.0.iter().zip(&b.0) {
        let same = (a ^ b).leading_zeros();
        bits += same;
        if same < u8::BITS {
            break;
        }
    }
    bits
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const OWN: NodeId = NodeId([0; 20]);

    fn contact(id: u8, host: u8, port: u16) -> Contact {
        let mut bytes = [0; 20];
        (bytes[0], bytes[19]) = (0x80, id);
        Contact { id: NodeId(bytes), address: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), port) }
    }

    #[test]
    fn distance_is_over_the_first_bytes_of_a_key_of_any_length() {
        let near = NodeId(*b"rpc_test............");
        let far = NodeId(*b"rpc_tesu............");
        for key in ["rpc_test", "rpc_test and then some more than twenty bytes"] {
            assert!(Distance::new(key.as_bytes(), &near) < Distance::new(key.as_bytes(), &far));
        }
        assert_eq!(Distance::new(b"rpc_test", &near), Distance([0; 20]));
        assert_eq!(Distance::new(&[b"rpc_test............", &b"x"[..]].concat(), &near), Distance([0; 20]));
    }

    #[test]
    fn a_full_bucket_takes_no_newcomer() {
        let (now, mut table) = (Instant::now(), Table::new(OWN));
        for host in 1..=21 {
            table.heard(now, contact(host, host, 1));
        }
        assert_eq!(table.len(), K);
        assert!(!table.closest(&[0; 20], K).contains(&contact(21, 21, 1)));
    }

    #[test]
    fn one_host_fills_half_a_bucket_at_most() {
        let (now, mut table) = (Instant::now(), Table::new(OWN));
        for port in 1..=100 {
            table.heard(now, contact(u8::try_from(port).unwrap(), 1, port));
        }
        assert_eq!(table.len(), MAX_SAME_HOST);
        table.heard(now, contact(200, 2, 1));
        assert_eq!(table.len(), MAX_SAME_HOST + 1);
    }

    #[test]
    fn a_node_goes_after_two_failures_in_a_row() {
        let (now, mut table) = (Instant::now(), Table::new(OWN));
        let node = contact(1, 1, 1);
        table.heard(now, node);
        table.failed(node.address);
        table.heard(now, node);
        table.failed(node.address);
        assert_eq!(table.len(), 1);
        table.failed(node.address);
        assert!(table.is_empty());
    }

    #[test]
    fn a_restarted_node_replaces_its_former_self() {
        let (now, mut table) = (Instant::now(), Table::new(OWN));
        table.heard(now, contact(1, 1, 1));
        table.heard(now, contact(2, 1, 1));
        assert_eq!(table.closest(&[0; 20], K), [contact(2, 1, 1)]);
    }

    #[test]
    fn a_node_moves_only_once_its_old_address_is_silent() {
        let (now, mut table) = (Instant::now(), Table::new(OWN));
        let (here, there) = (contact(1, 1, 1), contact(1, 1, 2));
        table.heard(now, here);
        assert_eq!(table.heard(now, there), Heard::Doubtful(here));
        assert_eq!(table.heard(now, there), Heard::Known, "one ping is enough");
        assert_eq!(table.closest(&[0; 20], K), [here]);
        table.failed(here.address);
        assert_eq!(table.closest(&[0; 20], K), [there]);
    }

    #[test]
    fn nobody_is_at_a_port_or_address_that_cannot_be() {
        let (now, mut table) = (Instant::now(), Table::new(OWN));
        table.heard(now, contact(1, 1, 0));
        table.heard(now, Contact { id: OWN, ..contact(1, 1, 1) });
        for ip in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
            table.heard(now, Contact { address: SocketAddrV4::new(ip, 1), ..contact(1, 1, 1) });
        }
        assert!(table.is_empty());
    }
}
