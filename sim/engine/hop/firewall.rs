//! A stateful firewall: what was asked for from the inside may come in.
//!
//! It keeps flows as RFC 6092 (3.2, 3.3) describes and as Linux's connection tracking does: every packet from the
//! inside makes or refreshes one, and so does every packet that is let in by it. It knows no TCP states: a flow ends
//! when it has been idle for its timeout.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::engine::packet::Packet;
use crate::event::Protocol;
use crate::scenario::model::{Dependence, Firewall};

/// Flows that are kept at most. One beyond is not made, and its packet is dropped, as Linux does with a full table.
const MAX_FLOWS: usize = 65_536;

/// A firewall's state.
#[derive(Debug)]
pub(crate) struct FirewallState {
    rules: Firewall,
    /// When each flow ends, unless it is used before.
    flows: BTreeMap<Flow, u64>,
    /// Until then no flow ends, as far as was known when the table was full the last time.
    full_until_ns: u64,
}

/// What is told apart: with fewer details about the remote side where the filtering depends on less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    protocol: Protocol,
    inside: SocketAddr,
    remote: Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remote {
    All,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

/// Why a firewall dropped a packet. Its `Display` is the event log's wording.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FirewallRule {
    /// Nothing was sent the other way lately.
    NoFlow { inside: SocketAddr, remote: Option<String>, timeout: Duration },
    /// It lets no UDP through.
    BlocksUdp,
    /// Its table of flows is full.
    Full,
}

impl fmt::Display for FirewallRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFlow { inside, remote, timeout } => {
                write!(f, "no flow: nothing was sent from {inside}")?;
                if let Some(remote) = remote {
                    write!(f, " to {remote}")?;
                }
                write!(f, " in the last {timeout:?}, and port {} is not allowed", inside.port())
            }
            Self::BlocksUdp => f.write_str("UDP is blocked"),
            Self::Full => write!(f, "no room for another flow ({MAX_FLOWS})"),
        }
    }
}

impl FirewallState {
    pub(crate) fn new(rules: &Firewall) -> Self {
        Self { rules: rules.clone(), flows: BTreeMap::new(), full_until_ns: 0 }
    }

    /// A packet from the inside: it passes, and opens the way for answers.
    pub(crate) fn outbound(&mut self, now_ns: u64, packet: &Packet) -> Result<(), FirewallRule> {
        if !self.concerns(packet) {
            return Ok(());
        }
        self.refuse_udp(packet)?;
        let flow = self.flow(packet.protocol(), packet.source, packet.destination);
        let until_ns = now_ns.saturating_add(self.timeout_ns(flow.protocol));
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&flow) {
            self.make_room(now_ns)?;
        }
        self.flows.insert(flow, until_ns);
        Ok(())
    }

    /// A packet from the outside: it passes where it belongs to a flow, or its port is allowed.
    pub(crate) fn inbound(&mut self, now_ns: u64, packet: &Packet) -> Result<(), FirewallRule> {
        if !self.concerns(packet) {
            return Ok(());
        }
        self.refuse_udp(packet)?;
        let flow = self.flow(packet.protocol(), packet.destination, packet.source);
        let until_ns = now_ns.saturating_add(self.timeout_ns(flow.protocol));
        // A flow ends at the very moment at which it has been idle for the timeout.
        if let Some(ends_ns) = self.flows.get_mut(&flow).filter(|ends_ns| **ends_ns > now_ns) {
            *ends_ns = until_ns;
            return Ok(());
        }
        if self.rules.allow.contains(&flow.inside.port()) {
            return Ok(());
        }
        let remote = match flow.remote {
            Remote::All => None,
            Remote::Address(address) => Some(address.to_string()),
            Remote::Endpoint(endpoint) => Some(endpoint.to_string()),
        };
        Err(FirewallRule::NoFlow { inside: flow.inside, remote, timeout: self.timeout(flow.protocol) })
    }

    /// Forgets every flow.
    pub(crate) fn forget(&mut self) {
        self.flows.clear();
        self.full_until_ns = 0;
    }

    fn concerns(&self, packet: &Packet) -> bool {
        self.rules.ipv4 || packet.destination.is_ipv6()
    }

    fn refuse_udp(&self, packet: &Packet) -> Result<(), FirewallRule> {
        if self.rules.block_udp && packet.protocol() == Protocol::Udp { Err(FirewallRule::BlocksUdp) } else { Ok(()) }
    }

    fn flow(&self, protocol: Protocol, inside: SocketAddr, remote: SocketAddr) -> Flow {
        let remote = match self.rules.filtering {
            Dependence::EndpointIndependent => Remote::All,
            Dependence::AddressDependent => Remote::Address(remote.ip()),
            Dependence::AddressAndPortDependent => Remote::Endpoint(remote),
        };
        Flow { protocol, inside, remote }
    }

    fn timeout(&self, protocol: Protocol) -> Duration {
        match protocol {
            Protocol::Udp => self.rules.udp_timeout,
            Protocol::Tcp => self.rules.tcp_timeout,
        }
    }

    fn timeout_ns(&self, protocol: Protocol) -> u64 {
        u64::try_from(self.timeout(protocol).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes out what is over. Looked for at most once between two moments at which something may be.
    fn make_room(&mut self, now_ns: u64) -> Result<(), FirewallRule> {
        if now_ns >= self.full_until_ns {
            self.flows.retain(|_, ends_ns| *ends_ns > now_ns);
            self.full_until_ns = self.flows.values().copied().min().unwrap_or(0);
        }
        if self.flows.len() >= MAX_FLOWS { Err(FirewallRule::Full) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::packet::{Body, HostId};

    const S: u64 = 1_000_000_000;

    fn packet(source: &str, destination: &str) -> Packet {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Packet { id: 1, origin: HostId(0), source, destination, body: Body::Udp(Bytes::new()) }
    }

    const INSIDE: &str = "[2001:db8:1::2]:5000";

    fn rig(change: impl FnOnce(&mut Firewall)) -> FirewallState {
        let mut rules = Firewall::default();
        change(&mut rules);
        FirewallState::new(&rules)
    }

    #[test]
    fn rfc_6092_filtering_by_nothing_by_address_and_by_port() {
        let remotes = ["[2001:db8::6]:1", "[2001:db8::6]:2", "[2001:db8::7]:1"];
        for (filtering, expected) in [
            (Dependence::EndpointIndependent, [true, true, true]),
            (Dependence::AddressDependent, [true, true, false]),
            (Dependence::AddressAndPortDependent, [true, false, false]),
        ] {
            let mut wall = rig(|rules| rules.filtering = filtering);
            assert!(remotes.iter().all(|remote| wall.inbound(0, &packet(remote, INSIDE)).is_err()), "nothing was sent");
            wall.outbound(0, &packet(INSIDE, remotes[0])).unwrap();
            let passes = remotes.map(|remote| wall.inbound(1, &packet(remote, INSIDE)).is_ok());
            assert_eq!(passes, expected, "{filtering:?}");
            assert!(wall.inbound(1, &packet(remotes[0], "[2001:db8:1::2]:5001")).is_err(), "another port inside");
            assert!(wall.inbound(1, &packet(remotes[0], "[2001:db8:1::3]:5000")).is_err(), "another host inside");
        }
    }

    #[test]
    fn a_flow_ends_after_its_timeout_which_both_directions_refresh() {
        let mut wall = rig(|rules| rules.udp_timeout = Duration::from_secs(30));
        let (out, back) = (packet(INSIDE, "[2001:db8::6]:1"), packet("[2001:db8::6]:1", INSIDE));
        wall.outbound(0, &out).unwrap();
        wall.inbound(30 * S - 1, &back).unwrap();
        wall.inbound(60 * S - 2, &back).unwrap();
        let error = wall.inbound(90 * S - 2, &back).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no flow: nothing was sent from [2001:db8:1::2]:5000 to [2001:db8::6]:1 in the last 30s, and port 5000 is \
             not allowed"
        );
        wall.outbound(100 * S, &out).unwrap();
        wall.forget();
        assert!(wall.inbound(100 * S, &back).is_err());
    }

    #[test]
    fn ports_are_allowed_udp_is_blocked_and_ipv4_is_left_alone() {
        let mut open = rig(|rules| rules.allow = vec![5000]);
        open.inbound(0, &packet("[2001:db8::6]:1", INSIDE)).unwrap();
        assert!(open.inbound(0, &packet("[2001:db8::6]:1", "[2001:db8:1::2]:5001")).is_err());
        let mut strict = rig(|rules| {
            rules.block_udp = true;
            rules.allow = vec![5000];
        });
        assert_eq!(strict.outbound(0, &packet(INSIDE, "[2001:db8::6]:1")), Err(FirewallRule::BlocksUdp));
        assert_eq!(strict.inbound(0, &packet("[2001:db8::6]:1", INSIDE)), Err(FirewallRule::BlocksUdp));
        let mut six = rig(|rules| rules.ipv4 = false);
        six.inbound(0, &packet("203.0.113.1:1", "192.168.1.2:5000")).unwrap();
        assert!(six.inbound(0, &packet("[2001:db8::6]:1", INSIDE)).is_err());
    }

    #[test]
    fn a_full_table_takes_no_more_until_flows_end() {
        let mut wall = rig(|_| {});
        let out = |n: usize| {
            packet(&format!("10.0.{}.{}:5000", n >> 8 & 255, n & 255), &format!("203.0.113.1:{}", 1 + (n >> 16)))
        };
        for n in 0..MAX_FLOWS {
            wall.outbound(if n == 7 { 0 } else { S }, &out(n)).unwrap();
        }
        assert_eq!(wall.outbound(S, &out(MAX_FLOWS)), Err(FirewallRule::Full));
        assert!(wall.outbound(S, &out(9)).is_ok(), "a flow that is there goes on");
        assert_eq!(wall.outbound(120 * S - 1, &out(MAX_FLOWS)), Err(FirewallRule::Full));
        assert!(wall.outbound(120 * S, &out(MAX_FLOWS)).is_ok(), "one has ended");
        assert_eq!(wall.outbound(120 * S, &out(MAX_FLOWS + 1)), Err(FirewallRule::Full));
    }
}
