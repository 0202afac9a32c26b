//! Forwards that hosts ask for: NAT-PMP (RFC 6886), answered by the NAT itself.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use grenache::net::Rng;

use super::mapping::{Key, Mapped, Mapping, Remote};
use super::{NatState, Note, nanos};
use crate::event::Protocol;
pub(crate) use crate::probe::nat_pmp::PORT;
use crate::probe::nat_pmp::{Granted, Refusal, Request, Response};
use crate::scenario::model::NatPmp;

impl NatState {
    /// Answers a request from behind it; `None` where there is nothing to answer.
    pub(crate) fn on_request(
        &mut self,
        now_ns: u64,
        from: SocketAddrV4,
        payload: &[u8],
        rng: &mut Rng,
        notes: &mut Vec<Note>,
    ) -> Option<Vec<u8>> {
        let limits = self.pmp?;
        let result = Request::parse(payload)?.and_then(|request| match request {
            Request::PublicAddress => Ok(Granted::PublicAddress(self.public_address(*from.ip()))),
            Request::Forward { protocol, internal_port, lifetime, .. } if lifetime.is_zero() => {
                self.end_forwards(protocol, SocketAddrV4::new(*from.ip(), internal_port), notes);
                Ok(Granted::Forward { protocol, internal_port, external_port: 0, lifetime: Duration::ZERO })
            }
            Request::Forward { protocol, internal_port, external_port, lifetime } => {
                let internal = SocketAddrV4::new(*from.ip(), internal_port);
                let lifetime = lifetime.min(limits.lifetime);
                let wanted = Wanted { protocol, internal, external_port, lifetime };
                let external_port = self.forward(now_ns, wanted, limits, rng, notes)?;
                Ok(Granted::Forward { protocol, internal_port, external_port, lifetime })
            }
        });
        let epoch = u32::try_from(now_ns.saturating_sub(self.epoch_ns) / 1_000_000_000).unwrap_or(u32::MAX);
        Some(Response { epoch, result }.encode(payload))
    }

    fn public_address(&self, host: Ipv4Addr) -> Ipv4Addr {
        self.table.hosts.get(&host).map_or(self.addresses[0], |host| host.address)
    }

    /// RFC 6886, 3.3: the same forward again where there is one, else a new one.
    fn forward(
        &mut self,
        now_ns: u64,
        wanted: Wanted,
        limits: NatPmp,
        rng: &mut Rng,
        notes: &mut Vec<Note>,
    ) -> Result<u16, Refusal> {
        let Wanted { protocol, internal, external_port, lifetime } = wanted;
        if internal.port() == 0 {
            return Err(Refusal::NotAuthorized);
        }
        let expires_ns = now_ns.saturating_add(nanos(lifetime));
        if let Some(mapped) = self.table.forward(protocol, internal)
            && !self.remove_if_idle(now_ns, mapped, notes)
        {
            let mapping = self.table.get_mut(&mapped).expect("the index names mappings that exist");
            if mapping.expires_ns != u64::MAX {
                mapping.expires_ns = expires_ns;
                // Sooner than it was due, so that nobody would look in time.
                if expires_ns < mapping.due_ns {
                    mapping.due_ns = expires_ns;
                    notes.push(Note::ForwardCreated { mapped, internal, lifetime, expires_ns });
                }
            }
            return Ok(mapped.port);
        }
        if self.table.hosts.get(internal.ip()).is_some_and(|host| host.forwards >= limits.per_host) {
            return Err(Refusal::OutOfResources);
        }
        self.give_way(protocol, internal, external_port, notes);
        let mapped = self
            .ports
            .assign_forward(&mut self.table, protocol, internal, external_port, rng, notes)
            .map_err(|_| Refusal::OutOfResources)?;
        let key = Key { protocol, internal, remote: Remote::All };
        self.table.insert(mapped, Mapping::new(key, true, expires_ns));
        notes.push(Note::ForwardCreated { mapped, internal, lifetime, expires_ns });
        Ok(mapped.port)
    }

    /// A mapping of the same internal endpoint does not keep it from the port that it has already.
    fn give_way(&mut self, protocol: Protocol, internal: SocketAddrV4, port: u16, notes: &mut Vec<Note>) {
        let address = self.public_address(*internal.ip());
        let here: Vec<Mapped> = self
            .table
            .at(protocol, SocketAddrV4::new(address, port))
            .filter(|(_, mapping)| mapping.key.internal == internal)
            .map(|(mapped, _)| *mapped)
            .collect();
        for mapped in here {
            self.remove(mapped, "forwarded".to_owned(), notes);
        }
    }

    /// RFC 6886, 3.4. Port 0 is all of the host's; what is for ever stays.
    fn end_forwards(&mut self, protocol: Protocol, internal: SocketAddrV4, notes: &mut Vec<Note>) {
        let all = match internal.port() {
            0 => self.table.forwards_of(protocol, *internal.ip()),
            _ => self.table.forward(protocol, internal).into_iter().collect(),
        };
        for mapped in all {
            if self.table.get(&mapped).is_some_and(|mapping| mapping.expires_ns != u64::MAX) {
                self.remove(mapped, "ended by its host".to_owned(), notes);
            }
        }
    }
}

/// A forward that a host asks for.
struct Wanted {
    protocol: Protocol,
    internal: SocketAddrV4,
    external_port: u16,
    lifetime: Duration,
}
