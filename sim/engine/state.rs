//! The simulated world's state, and what its events do to it. Knows nothing of tasks and tokio.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::task::Waker;

use ipnet::{Ipv4Net, Ipv6Net};

use super::address::Addresses;
use super::capture::Watch;
use super::fault::Ongoing;
use super::hop::{FirewallState, Mapped, NatState, Note};
use super::host::Host;
use super::packet::{HostId, Packet};
use super::queue::Queue;
use super::route::{Attachment, NatId, Owner, Place, Stop};
use super::tcp::ConnectionId;
use crate::event::{Event as Recorded, LabEvent, Record};
use crate::scenario::model::{Link, Name};

/// How long a packet to the sending host itself takes.
pub(crate) const LOOPBACK_NS: u64 = 1_000;

/// What is scheduled.
#[derive(Debug)]
pub(crate) enum Event {
    /// A packet comes out of a link.
    Packet(Packet, Stop),
    /// A NAT's mapping may have been idle for long enough.
    Mapping(NatId, Mapped),
    /// A connection's timer, in the given life of a host.
    TcpTimer(HostId, u32, ConnectionId),
    /// The run's time is up.
    Limit,
}

/// Everything simulated.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) seed: u64,
    pub(crate) queue: Queue<Event>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) nats: Vec<NatNode>,
    pub(crate) addresses4: BTreeMap<(Place, Ipv4Addr), Owner>,
    pub(crate) addresses6: BTreeMap<(Place, Ipv6Addr), Owner>,
    /// The IPv6 networks that are reached through a router on this one, by their first address. None is in another.
    pub(crate) routes6: BTreeMap<(Place, Ipv6Addr), (Ipv6Net, NatId)>,
    pub(crate) host_ids: BTreeMap<Name, HostId>,
    pub(crate) nat_ids: BTreeMap<Name, NatId>,
    /// The faults that go on, by number.
    pub(crate) faults: BTreeMap<u64, Ongoing>,
    pub(crate) faults_begun: u64,
    /// How the event stream calls those that it has told of.
    pub(crate) fault_words: BTreeMap<u64, String>,
    /// How many of them are partitions.
    pub(crate) partitions: u32,
    /// Who has, or once had, which address: a host that comes back has the same one.
    pub(crate) leases4: BTreeMap<(Place, Ipv4Addr), HostId>,
    pub(crate) leases6: BTreeMap<(Place, Ipv6Addr), HostId>,
    /// The kinds of links, for hosts that move.
    pub(crate) links: BTreeMap<Name, Link>,
    /// How many packets were sent.
    pub(crate) packets: u64,
    /// Whether anybody reads the records.
    pub(crate) observed: bool,
    /// What is shown besides.
    pub(crate) watch: Watch,
    /// What the observers have not seen yet.
    pub(crate) records: Vec<Record>,
    /// Whom to wake, once the clock says the time of what happened.
    pub(crate) wakers: Vec<Waker>,
    /// A buffer for what a NAT reports.
    pub(crate) notes: Vec<Note>,
    /// The latest time at which anything happened.
    pub(crate) now_ns: u64,
    /// The driver sleeps until then; an earlier event must wake it.
    pub(crate) sleeping_until_ns: u64,
    /// After the end nothing happens and nothing is recorded.
    pub(crate) ended: bool,
}

/// A NAT with its place in the topology.
#[derive(Debug)]
pub(crate) struct NatNode {
    pub(crate) name: Name,
    pub(crate) lan: Ipv4Net,
    /// It is a router for IPv6, which it does not translate (RFC 4864).
    pub(crate) lan6: Option<Ipv6Net>,
    pub(crate) state: NatState,
    pub(crate) firewall: Option<FirewallState>,
    pub(crate) rng: grenache::net::Rng,
    /// How many faults have it reboot now.
    pub(crate) rebooting: u32,
    pub(crate) attachment: Attachment,
}

impl NatNode {
    /// Whether this is an address of the network behind it.
    pub(crate) fn has_in_lan(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.lan.contains(&ip),
            IpAddr::V6(ip) => self.lan6.is_some_and(|lan| lan.contains(&ip)),
        }
    }
}

impl Engine {
    /// Handles one event; `false` at the end of the run.
    pub(crate) fn handle(&mut self, now_ns: u64, event: Event) -> bool {
        self.now_ns = now_ns;
        match event {
            Event::Packet(packet, stop) => self.arrive(now_ns, stop, packet),
            Event::Mapping(nat, mapped) => {
                let Self { nats, notes, .. } = self;
                if let Some(again_ns) = nats[nat.0 as usize].state.expire(now_ns, mapped, notes) {
                    self.queue.push(again_ns, Event::Mapping(nat, mapped));
                }
                self.apply_notes(now_ns, nat);
            }
            Event::TcpTimer(host, life, connection) => {
                if let Some(alive) = self.hosts[host.0 as usize].life(life) {
                    alive.tcp.on_timer(now_ns, connection);
                    let effects = alive.tcp.drain();
                    self.apply(now_ns, host, life, effects);
                }
            }
            Event::Limit => return false,
        }
        true
    }

    /// Starts a host that is down.
    pub(crate) fn start(&mut self, now_ns: u64, id: HostId) {
        let seed = self.seed;
        let host = &mut self.hosts[id.0 as usize];
        if host.life.is_none() {
            host.start(seed);
            let name = host.name.clone();
            self.record(now_ns, Some(name), LabEvent::NodeStarted);
        }
    }

    /// Ends a host's life; gives its tasks, to be ended outside.
    pub(crate) fn crash(&mut self, now_ns: u64, id: HostId) -> Vec<tokio::task::AbortHandle> {
        let host = &mut self.hosts[id.0 as usize];
        let Some(life) = host.life.take() else { return Vec::new() };
        let name = host.name.clone();
        self.record(now_ns, Some(name), LabEvent::NodeCrashed);
        life.into_tasks().collect()
    }

    /// Lets a NAT forget its mappings.
    pub(crate) fn rebind(&mut self, now_ns: u64, nat: NatId) {
        let Self { nats, notes, .. } = self;
        nats[nat.0 as usize].state.rebind(now_ns, notes);
        self.apply_notes(now_ns, nat);
    }

    pub(crate) fn record(&mut self, now_ns: u64, at: Option<Name>, event: LabEvent) {
        self.record_any(now_ns, at, Recorded::Lab(event));
    }

    /// Appends to the stream of events.
    pub(crate) fn record_any(&mut self, at_ns: u64, at: Option<Name>, event: Recorded) {
        if self.observed && !self.ended {
            self.records.push(Record { at_ns, at, event });
        }
    }

    /// The shared name of a host or NAT, or a new one.
    pub(crate) fn shared_name(&self, name: &str) -> Name {
        let host = self.host_ids.get_key_value(name).map(|(name, _)| name);
        let nat = self.nat_ids.get_key_value(name).map(|(name, _)| name);
        host.or(nat).cloned().unwrap_or_else(|| Arc::from(name))
    }

    pub(crate) fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    pub(crate) fn nat(&self, id: NatId) -> &NatNode {
        &self.nats[id.0 as usize]
    }

    /// A host's addresses in its network.
    pub(crate) fn addresses(&self, id: HostId) -> Addresses {
        self.host(id).addresses
    }

    pub(crate) fn name(&self, owner: Owner) -> Name {
        match owner {
            Owner::Host(id) => self.host(id).name.clone(),
            Owner::Nat(id) => self.nat(id).name.clone(),
        }
    }

    pub(crate) fn attachment(&mut self, owner: Owner) -> &mut Attachment {
        match owner {
            Owner::Host(id) => &mut self.hosts[id.0 as usize].attachment,
            Owner::Nat(id) => &mut self.nats[id.0 as usize].attachment,
        }
    }
}
