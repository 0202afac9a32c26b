//! Which external address and port a new mapping gets: pooling, port assignment, blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;

use grenache::net::Rng;

use super::super::Rule;
use super::Note;
use super::mapping::{Host, Mapped, Table};
use crate::engine::seed;
use crate::event::Protocol;
use crate::scenario::model::{Nat, Pooling, PortAssignment, PortBlocks};

/// External ports are assigned from here up, unless an internal port below is preserved (RFC 4787, 4.2.2).
pub(super) const LOWEST_PORT: u16 = 1024;

/// A block of external ports that one host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) address: Ipv4Addr,
    pub(crate) first: u16,
    pub(crate) last: u16,
    /// Mappings in it.
    pub(super) used: u32,
}

impl Block {
    pub(super) fn has(&self, mapped: Mapped) -> bool {
        self.address == mapped.address && (self.first..=self.last).contains(&mapped.port)
    }
}

/// Gives out external endpoints.
#[derive(Debug)]
pub(super) struct Ports {
    addresses: Vec<Ipv4Addr>,
    assignment: PortAssignment,
    range: Option<RangeInclusive<u16>>,
    parity: bool,
    keeps_range: bool,
    pooling: Pooling,
    blocks: Option<PortBlocks>,
    /// The port given out last of each series of contiguous ones: an address's, or a block's.
    pub(super) last_given: BTreeMap<(Protocol, Ipv4Addr, u16), u16>,
    /// The first ports of the blocks that hosts have.
    taken: BTreeSet<(Ipv4Addr, u16)>,
    /// What chooses among addresses, and among blocks: streams of their own, so that they change no port.
    address_rng: Rng,
    block_rng: Rng,
}

impl Ports {
    pub(super) fn new(nat: &Nat, stream: impl Fn(&str) -> Rng) -> Self {
        Self {
            addresses: nat.addresses().collect(),
            assignment: nat.ports,
            range: nat.port_range.clone(),
            parity: nat.parity,
            keeps_range: nat.keeps_port_range,
            pooling: nat.pooling,
            blocks: nat.port_blocks,
            last_given: BTreeMap::new(),
            taken: BTreeSet::new(),
            address_rng: stream("addresses"),
            block_rng: stream("blocks"),
        }
    }

    /// An external endpoint for a new mapping of a host, which gets what it needs for it: an address that it is paired
    /// with, a block.
    pub(super) fn assign(
        &mut self,
        table: &mut Table,
        protocol: Protocol,
        internal: SocketAddrV4,
        rng: &mut Rng,
        notes: &mut Vec<Note>,
    ) -> Result<Mapped, Rule> {
        let own = self.pair(table, *internal.ip());
        let assigned = match self.pooling {
            Pooling::Paired => self.at(table, protocol, own, internal, rng, notes),
            Pooling::Arbitrary => {
                // Where the address drawn has no free port, the next one that has.
                let n = self.addresses.len();
                let drawn = if n > 1 { seed::below(&mut self.address_rng, n as u64) as usize } else { 0 };
                let mut tried = Err(Rule::NoFreePort);
                for step in 0..n {
                    let at = self.addresses[(drawn + step) % n];
                    tried = self.at(table, protocol, at, internal, rng, notes);
                    if tried.is_ok() {
                        break;
                    }
                }
                tried
            }
        };
        if assigned.is_err() {
            table.forget_idle(*internal.ip());
        }
        assigned
    }

    /// The endpoint for a forward: the port asked for where it is free, else another one.
    pub(super) fn assign_forward(
        &mut self,
        table: &mut Table,
        protocol: Protocol,
        internal: SocketAddrV4,
        wanted: u16,
        rng: &mut Rng,
        notes: &mut Vec<Note>,
    ) -> Result<Mapped, Rule> {
        let address = self.pair(table, *internal.ip());
        let mapped = Mapped { protocol, address, port: wanted, sharer: 0 };
        let allowed = self.blocks.is_none() && self.range.as_ref().is_none_or(|range| range.contains(&wanted));
        // Who asks for a port gets it back after a rebinding.
        if wanted != 0 && allowed && table.is_unused(&mapped) {
            return Ok(mapped);
        }
        let assigned = if self.blocks.is_some() {
            self.at(table, protocol, address, internal, rng, notes)
        } else {
            let span = self.span(internal.port());
            self.find(table, mapped, internal.port(), span, 0, rng).ok_or(Rule::NoFreePort)
        };
        if assigned.is_err() {
            table.forget_idle(*internal.ip());
        }
        assigned
    }

    /// The public address that a host is paired with. For its first mapping, that with the fewest hosts.
    pub(super) fn pair(&self, table: &mut Table, host: Ipv4Addr) -> Ipv4Addr {
        if let Some(host) = table.hosts.get(&host) {
            return host.address;
        }
        let hosts = |address: &Ipv4Addr| table.paired.get(address).copied().unwrap_or(0);
        let address = match &self.addresses[..] {
            [only] => *only,
            several => several.iter().copied().min_by_key(hosts).unwrap_or(Ipv4Addr::UNSPECIFIED),
        };
        *table.paired.entry(address).or_default() += 1;
        table.hosts.insert(host, Host { address, mappings: 0, forwards: 0, blocks: Vec::new() });
        address
    }

    /// A block is for others now.
    pub(super) fn release(&mut self, block: &Block) {
        self.taken.remove(&(block.address, block.first));
    }

    fn at(
        &mut self,
        table: &mut Table,
        protocol: Protocol,
        address: Ipv4Addr,
        internal: SocketAddrV4,
        rng: &mut Rng,
        notes: &mut Vec<Note>,
    ) -> Result<Mapped, Rule> {
        let port = internal.port();
        let mapped = Mapped { protocol, address, port, sharer: 0 };
        if self.assignment == PortAssignment::Overloading {
            return share(table, mapped).ok_or(Rule::NoFreePort);
        }
        let Some(PortBlocks { per_host, .. }) = self.blocks else {
            let span = self.span(port);
            return self.find(table, mapped, port, span, 0, rng).ok_or(Rule::NoFreePort);
        };
        let blocks = table.hosts.get(internal.ip()).map(|host| host.blocks.clone()).unwrap_or_default();
        for block in blocks.iter().filter(|block| block.address == address) {
            if let Some(found) = self.find(table, mapped, port, block.first..=block.last, block.first, rng) {
                return Ok(found);
            }
        }
        if blocks.len() >= usize::from(per_host) {
            return Err(Rule::BlocksFull(per_host));
        }
        let block = self.free_block(address).ok_or(Rule::NoFreePort)?;
        let found = self.find(table, mapped, port, block.first..=block.last, block.first, rng);
        let found = found.ok_or(Rule::NoFreePort)?;
        self.taken.insert((address, block.first));
        if let Some(host) = table.hosts.get_mut(internal.ip()) {
            host.blocks.push(block);
        }
        notes.push(Note::BlockAllocated { internal: *internal.ip(), block });
        Ok(found)
    }

    /// A random one of an address's blocks that nobody has.
    fn free_block(&mut self, address: Ipv4Addr) -> Option<Block> {
        let size = self.blocks?.size.max(1);
        let (low, high) = self.range.clone().unwrap_or(LOWEST_PORT..=u16::MAX).into_inner();
        let all = (u32::from(high) - u32::from(low) + 1) / u32::from(size);
        let firsts = (0..all).filter_map(|nth| u16::try_from(u32::from(low) + nth * u32::from(size)).ok());
        let free: Vec<u16> = firsts.filter(|first| !self.taken.contains(&(address, *first))).collect();
        if free.is_empty() {
            return None;
        }
        let first = free[seed::below(&mut self.block_rng, free.len() as u64) as usize];
        Some(Block { address, first, last: first + (size - 1), used: 0 })
    }

    /// The ports that an internal one may be mapped to.
    fn span(&self, internal: u16) -> RangeInclusive<u16> {
        match &self.range {
            Some(range) => range.clone(),
            None if self.keeps_range && internal < LOWEST_PORT => 1..=LOWEST_PORT - 1,
            None => LOWEST_PORT..=u16::MAX,
        }
    }

    /// The first free port of the span, from the one on that the assignment begins with. `wanted` names the protocol
    /// and the address.
    fn find(
        &mut self,
        table: &Table,
        wanted: Mapped,
        internal: u16,
        span: RangeInclusive<u16>,
        series: u16,
        rng: &mut Rng,
    ) -> Option<Mapped> {
        let (low, high) = span.clone().into_inner();
        let count = u32::from(high) - u32::from(low) + 1;
        let mut random = || low + u16::try_from(seed::below(rng, u64::from(count))).unwrap_or(0);
        let series = (wanted.protocol, wanted.address, series);
        let first = match self.assignment {
            PortAssignment::Preserving | PortAssignment::Overloading => internal,
            // Where it begins is as random as where a NAT's counter stands that one comes upon.
            PortAssignment::Contiguous => match self.last_given.get(&series) {
                Some(last) if *last == high => low,
                Some(last) => last.saturating_add(1),
                None => random(),
            },
            PortAssignment::Random => random(),
        };
        let begin = if span.contains(&first) { u32::from(first - low) } else { 0 };
        let next = (0..count).map(|step| low + u16::try_from((begin + step) % count).unwrap_or(0));
        // A low port is preserved where nothing is said of ranges, but not handed out.
        let outside = self.range.is_none() && self.blocks.is_none() && !self.keeps_range && first != 0;
        let free = std::iter::once(first)
            .filter(|port| outside || span.contains(port))
            .chain(next)
            .filter(|port| !self.parity || port % 2 == internal % 2)
            .map(|port| Mapped { port, ..wanted })
            .find(|mapped| table.is_free(mapped))?;
        if self.assignment == PortAssignment::Contiguous {
            self.last_given.insert(series, free.port);
        }
        Some(free)
    }
}

/// A name for one more mapping at an overloaded port.
fn share(table: &Table, mapped: Mapped) -> Option<Mapped> {
    let mut sharer = 0;
    for (other, _) in table.at(mapped.protocol, mapped.external()) {
        if other.sharer > sharer {
            break;
        }
        sharer = other.sharer.checked_add(1)?;
    }
    Some(Mapped { sharer, ..mapped })
}
