//! What goes wrong in the engine, and what ends it. Each fault is kept on its own, so that its end takes back nothing
//! but itself: a link is up when no fault holds it down, a node is where its latest move that goes on has it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use grenache::net::Rng;
use tokio::task::AbortHandle;

use super::address::Addresses;
use super::hop::{LinkState, Rule};
use super::packet::HostId;
use super::route::{Attachment, Line, NatId, Owner, Place};
use super::seed;
use super::state::Engine;
use super::topology::{NODE_POOL, free_address, free_address6};
use crate::scenario::model::{Degradation, FaultKind, Link, Move, Name};

/// A fault that goes on.
#[derive(Debug)]
pub(crate) enum Ongoing {
    Partition(BTreeSet<HostId>, BTreeSet<HostId>),
    /// The host is started again at the end.
    Crash(HostId),
    Down(Owner),
    Degraded(Owner),
    Pause(HostId),
    Clock(HostId),
    Reboot(NatId),
    Move(HostId),
    /// Of a moment, or nothing that the engine does.
    Over,
}

/// Both directions of a degraded link, and what they draw from.
#[derive(Debug)]
pub(crate) struct Degraded {
    fault: u64,
    up: (LinkState, Rng),
    down: (LinkState, Rng),
}

/// What a fault of a host's clock adds to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockFault {
    fault: u64,
    since_ns: u64,
    skew_us: i64,
    drift_ppm: i64,
}

/// Where a host is: at home, or where it moved to.
#[derive(Debug)]
pub(crate) struct Stay {
    /// 0 is home.
    fault: u64,
    place: Place,
    addresses: Addresses,
    /// The link there, kept while it is not used.
    link: Option<(Line, Line)>,
}

/// Whether a host's tasks run: what they look at before they do.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    paused: AtomicU32,
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    /// Ready where tasks run; else whoever asks is woken when they do.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.paused.load(Relaxed) == 0 {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        // A task that is woken again and again while it waits is kept once.
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn close(&self) {
        self.paused.fetch_add(1, Relaxed);
    }

    /// Whom to wake.
    fn open(&self) -> Vec<Waker> {
        if self.paused.fetch_sub(1, Relaxed) == 1 { std::mem::take(&mut self.waiting()) } else { Vec::new() }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Lets a fault begin; gives its number, and the tasks to be ended outside.
    ///
    /// # Panics
    /// Where a name is not defined, or a move's address is taken or not of the network.
    pub(crate) fn begin_fault(&mut self, now_ns: u64, kind: &FaultKind) -> (u64, Vec<AbortHandle>) {
        self.faults_begun += 1;
        let fault = self.faults_begun;
        let mut tasks = Vec::new();
        let ongoing = match kind {
            FaultKind::Partition(a, b) => {
                let group = |names: &[Name]| names.iter().map(|name| self.host_named(name)).collect();
                let (a, b) = (group(a), group(b));
                self.partitions += 1;
                Ongoing::Partition(a, b)
            }
            FaultKind::Rebind(nat) => {
                self.rebind(now_ns, self.nat_named(nat));
                Ongoing::Over
            }
            FaultKind::Crash(node) => {
                let id = self.host_named(node);
                // A crash of what is down already starts nothing at its end: that is for the one that brought it down.
                let up = self.host(id).life.is_some();
                tasks = self.crash(now_ns, id);
                if up { Ongoing::Crash(id) } else { Ongoing::Over }
            }
            FaultKind::Restart(node) => {
                self.start(now_ns, self.host_named(node));
                Ongoing::Over
            }
            FaultKind::Down(name) => {
                let owner = self.owner_named(name);
                self.attachment(owner).down_faults += 1;
                Ongoing::Down(owner)
            }
            FaultKind::Degrade(name, change) => {
                let owner = self.owner_named(name);
                self.degrade(owner, fault, change);
                Ongoing::Degraded(owner)
            }
            FaultKind::Pause(node) => {
                let id = self.host_named(node);
                self.host(id).gate.close();
                Ongoing::Pause(id)
            }
            FaultKind::Clock { node, skew_us, drift_ppm } => {
                let id = self.host_named(node);
                let clock = ClockFault { fault, since_ns: now_ns, skew_us: *skew_us, drift_ppm: *drift_ppm };
                self.hosts[id.0 as usize].clock.push(clock);
                Ongoing::Clock(id)
            }
            FaultKind::Reboot(nat) => {
                let id = self.nat_named(nat);
                self.reboot(now_ns, id);
                self.nats[id.0 as usize].rebooting += 1;
                Ongoing::Reboot(id)
            }
            FaultKind::Move(to) => {
                let id = self.host_named(&to.node);
                self.move_host(id, fault, to);
                Ongoing::Move(id)
            }
            // A matter of whoever runs the program.
            FaultKind::GrapeOutage(_) => Ongoing::Over,
        };
        if !matches!(ongoing, Ongoing::Over) {
            self.faults.insert(fault, ongoing);
        }
        (fault, tasks)
    }

    /// Ends a fault; gives the node that this starts. Nothing where it has ended.
    pub(crate) fn end_fault(&mut self, now_ns: u64, fault: u64) -> Option<Name> {
        match self.faults.remove(&fault) {
            Some(Ongoing::Partition(..)) => self.partitions -= 1,
            Some(Ongoing::Crash(id)) => {
                let was_down = self.host(id).life.is_none();
                self.start(now_ns, id);
                return was_down.then(|| self.host(id).name.clone());
            }
            Some(Ongoing::Down(owner)) => self.attachment(owner).down_faults -= 1,
            Some(Ongoing::Degraded(owner)) => self.attachment(owner).degraded.retain(|each| each.fault != fault),
            Some(Ongoing::Pause(id)) => {
                let wakers = self.host(id).gate.open();
                self.wakers.extend(wakers);
            }
            Some(Ongoing::Clock(id)) => self.hosts[id.0 as usize].clock.retain(|each| each.fault != fault),
            Some(Ongoing::Reboot(id)) => self.nats[id.0 as usize].rebooting -= 1,
            Some(Ongoing::Move(id)) => self.move_back(id, fault),
            Some(Ongoing::Over) | None => {}
        }
        None
    }

    pub(crate) fn is_partitioned(&self, a: HostId, b: HostId) -> bool {
        self.partitions > 0
            && self.faults.values().any(|fault| match fault {
                Ongoing::Partition(left, right) => {
                    (left.contains(&a) && right.contains(&b)) || (left.contains(&b) && right.contains(&a))
                }
                _ => false,
            })
    }

    fn degrade(&mut self, owner: Owner, fault: u64, change: &Degradation) {
        let model = Link {
            latency: change.latency,
            jitter: change.jitter,
            loss: change.loss,
            rate: change.rate,
            ..Link::default()
        };
        let name = self.name(owner);
        let attachment = self.attachments(owner);
        // The same numbers whatever else goes wrong: by how often this link was degraded.
        attachment.1.degraded_times += 1;
        let nth = attachment.1.degraded_times.to_string();
        let seed = attachment.0;
        let line =
            |direction: &str| (LinkState::new(&model), seed::stream(seed, &["degradation", &name, &nth, direction]));
        attachment.1.degraded.push(Degraded { fault, up: line("up"), down: line("down") });
    }

    fn reboot(&mut self, now_ns: u64, id: NatId) {
        let Self { nats, notes, .. } = self;
        let nat = &mut nats[id.0 as usize];
        nat.state.reboot(now_ns, notes);
        if let Some(firewall) = &mut nat.firewall {
            firewall.forget();
        }
        self.apply_notes(now_ns, id);
    }

    /// # Panics
    /// Where a name is not defined, or the address is taken or not of the network.
    fn move_host(&mut self, id: HostId, fault: u64, to: &Move) {
        let place = to.behind.as_ref().map_or(Place::Internet, |nat| Place::Lan(self.nat_named(nat)));
        // A host without IPv4 has none elsewhere, unless it is named. Behind a router with IPv6 every host has that.
        let v4 = (self.host(id).home.v4.is_some() || to.address.is_some()).then(|| self.lease4(id, place, to.address));
        let v6 = self.lease6(id, place, to.address6);
        let addresses = Addresses { v4, v6 };
        let link = to.link.as_ref().map(|name| {
            let model = self.links.get(name).unwrap_or_else(|| panic!("there is no link named {name}"));
            let node = self.host(id).name.clone();
            let nth = self.host(id).stays.len().to_string();
            let line = |direction: &str| Line {
                state: LinkState::new(model),
                rng: seed::stream(self.seed, &["link", &format!("node {node}"), direction, "moved", name, &nth]),
                name: format!("link {name} of {node}, {direction}"),
                sample_due_ns: 0,
            };
            (line("up"), line("down"))
        });
        self.leave(id);
        self.hosts[id.0 as usize].stays.push(Stay { fault, place, addresses, link });
        self.settle(id);
    }

    fn move_back(&mut self, id: HostId, fault: u64) {
        let stays = &self.host(id).stays;
        let is_here = stays.last().is_some_and(|stay| stay.fault == fault);
        if is_here {
            self.leave(id);
            self.hosts[id.0 as usize].stays.pop();
            self.settle(id);
        } else {
            self.hosts[id.0 as usize].stays.retain(|stay| stay.fault != fault);
        }
    }

    /// Takes a host off the network that it is on, with the link that it had there.
    fn leave(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0 as usize];
        let place = host.attachment.place;
        if let Some(v4) = host.addresses.v4 {
            self.addresses4.remove(&(place, v4));
        }
        if let Some(v6) = host.addresses.v6 {
            self.addresses6.remove(&(place, v6));
        }
        if let Some((up, down)) = host.stays.last_mut().and_then(|stay| stay.link.as_mut()) {
            std::mem::swap(up, &mut host.attachment.up);
            std::mem::swap(down, &mut host.attachment.down);
        }
    }

    /// Puts a host where its latest stay, or its home, is.
    fn settle(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0 as usize];
        let (place, addresses) =
            host.stays.last().map_or((host.home_place, host.home), |stay| (stay.place, stay.addresses));
        host.attachment.place = place;
        host.addresses = addresses;
        if let Some((up, down)) = host.stays.last_mut().and_then(|stay| stay.link.as_mut()) {
            std::mem::swap(up, &mut host.attachment.up);
            std::mem::swap(down, &mut host.attachment.down);
        }
        if let Some(v4) = addresses.v4 {
            self.addresses4.insert((place, v4), Owner::Host(id));
        }
        if let Some(v6) = addresses.v6 {
            self.addresses6.insert((place, v6), Owner::Host(id));
        }
    }

    /// An address that nobody else ever had: the one asked for, that of an earlier stay, or the next free one.
    fn lease4(&mut self, id: HostId, place: Place, wanted: Option<Ipv4Addr>) -> Ipv4Addr {
        let pool = match place {
            Place::Internet => NODE_POOL,
            Place::Lan(nat) => self.nat(nat).lan,
        };
        let taken = |address: Ipv4Addr| {
            let lease = self.leases4.get(&(place, address));
            lease.is_some_and(|owner| *owner != id)
                || matches!(self.addresses4.get(&(place, address)), Some(Owner::Nat(_)))
        };
        let address = match wanted {
            Some(wanted) => {
                assert!(!taken(wanted), "{wanted} is another's address: move the node to a free one");
                assert!(
                    place == Place::Internet || pool.contains(&wanted),
                    "{wanted} is not in {pool}: choose another"
                );
                wanted
            }
            None => {
                let earlier = self.leases4.iter().find(|((at, _), owner)| *at == place && **owner == id);
                earlier
                    .map(|((_, address), _)| *address)
                    .or_else(|| free_address(pool, taken))
                    .expect("the network has a free address")
            }
        };
        self.leases4.insert((place, address), id);
        address
    }

    fn lease6(&mut self, id: HostId, place: Place, wanted: Option<Ipv6Addr>) -> Option<Ipv6Addr> {
        let earlier = self.leases6.iter().find(|((at, _), owner)| *at == place && **owner == id);
        let earlier = earlier.map(|((_, address), _)| *address);
        let taken = |address: Ipv6Addr| {
            let lease = self.leases6.get(&(place, address));
            lease.is_some_and(|owner| *owner != id) || self.router(place, address).is_some()
        };
        let lan6 = match place {
            Place::Internet => None,
            Place::Lan(nat) => self.nat(nat).lan6,
        };
        let address = match wanted {
            Some(wanted) => {
                assert!(!taken(wanted), "{wanted} is another's address: move the node to a free one");
                let inside = place == Place::Internet || lan6.is_some_and(|lan6| lan6.contains(&wanted));
                assert!(inside, "{wanted} is not of the IPv6 network there: choose another");
                Some(wanted)
            }
            None => earlier.or_else(|| free_address6(lan6?, taken)),
        }?;
        self.leases6.insert((place, address), id);
        Some(address)
    }

    pub(crate) fn host_named(&self, node: &str) -> HostId {
        *self.host_ids.get(node).unwrap_or_else(|| panic!("there is no node named {node}"))
    }

    pub(crate) fn nat_named(&self, nat: &str) -> NatId {
        *self.nat_ids.get(nat).unwrap_or_else(|| panic!("there is no nat named {nat}"))
    }

    fn owner_named(&self, name: &str) -> Owner {
        match (self.host_ids.get(name), self.nat_ids.get(name)) {
            (Some(host), _) => Owner::Host(*host),
            (None, Some(nat)) => Owner::Nat(*nat),
            (None, None) => panic!("there is no node or nat named {name}"),
        }
    }

    /// The seed, and what connects a host or NAT.
    fn attachments(&mut self, owner: Owner) -> (u64, &mut Attachment) {
        (self.seed, self.attachment(owner))
    }
}

impl Attachment {
    /// When a packet that leaves the link now comes out behind its degradations, or why it never does.
    pub(crate) fn degrade(&mut self, up: bool, mut at_ns: u64, size: usize) -> Result<u64, Rule> {
        for each in &mut self.degraded {
            let (state, rng) = if up { &mut each.up } else { &mut each.down };
            at_ns = state.on_packet(at_ns, size, rng)?;
        }
        Ok(at_ns)
    }
}

/// How far a host's clock is ahead now, in microseconds as µTP counts them: modulo 2³².
pub(crate) fn clock_ahead(faults: &[ClockFault], now_ns: u64) -> u32 {
    let mut ahead = 0_i128;
    for fault in faults {
        let gained_us = i128::from(now_ns - fault.since_ns) * i128::from(fault.drift_ppm) / 1_000_000_000;
        ahead += i128::from(fault.skew_us) + gained_us;
    }
    ahead.rem_euclid(1 << 32) as u32
}
