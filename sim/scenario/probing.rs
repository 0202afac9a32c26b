//! The programs that find out about NATs and ask things of them: `stun-server`, `nat-probe`, `forward`.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use super::error::Problems;
use super::model::{Name, NatForward, NatProbe, ProgramKind};
use super::nat::raw::{Dependence, PortAssignment, Protocol};
use super::program::endpoint;
use super::raw::Text;
use super::topology::{Topology, defined};
use super::units::{Endpoint, Port, Time};
use crate::probe::{nat_pmp, server};

/// What a forward is asked for, where nothing is said (RFC 6886, 3.3).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(7200);

/// `run = "stun-server"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StunServerTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) port: Option<Spanned<Port>>,
    pub(super) alternate_port: Option<Spanned<Port>>,
    pub(super) partner: Option<Text>,
}

/// `run = "nat-probe"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NatProbeTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) server: Spanned<Endpoint>,
    pub(super) longest_lifetime: Option<Spanned<Time>>,
    pub(super) mapping: Option<Dependence>,
    pub(super) filtering: Option<Dependence>,
    pub(super) ports: Option<PortAssignment>,
}

/// `run = "forward"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ForwardTable {
    pub(super) node: Text,
    #[serde(rename = "run")]
    _run: IgnoredAny,
    pub(super) start: Option<Spanned<Time>>,
    pub(super) port: Spanned<Port>,
    pub(super) external_port: Option<Spanned<Port>>,
    pub(super) protocol: Option<Protocol>,
    pub(super) lifetime: Option<Spanned<Time>>,
}

impl StunServerTable {
    pub(super) fn ports(&self) -> [u16; 2] {
        let port = |written: &Option<Spanned<Port>>, default| {
            written.as_ref().map_or(default, |port: &Spanned<Port>| port.get_ref().port())
        };
        [port(&self.port, server::PORT), port(&self.alternate_port, server::ALTERNATE_PORT)]
    }

    pub(super) fn kind(
        &self,
        problems: &mut Problems,
        topology: &Topology,
        node: Option<&Name>,
    ) -> Option<ProgramKind> {
        let partner = match &self.partner {
            None => None,
            Some(written) => {
                let partner = defined(problems, "node", written, &topology.nodes)?;
                if Some(&partner) == node {
                    problems
                        .add(written.span(), "a STUN server is no partner of itself")
                        .help("name a node with another address, which runs a `stun-server` too");
                }
                Some(topology.address_seen(node?, &partner))
            }
        };
        let [port, alternate_port] = self.ports();
        Some(ProgramKind::StunServer { port, alternate_port, partner })
    }
}

impl NatProbeTable {
    pub(super) fn kind(
        &self,
        problems: &mut Problems,
        topology: &Topology,
        node: Option<&Name>,
    ) -> Option<ProgramKind> {
        let server = endpoint(problems, topology, node, &self.server)?;
        Some(ProgramKind::NatProbe(NatProbe {
            server,
            longest_lifetime: self.longest_lifetime.as_ref().map(|longest| longest.get_ref().0),
            mapping: self.mapping.map(Into::into),
            filtering: self.filtering.map(Into::into),
            ports: self.ports.map(Into::into),
        }))
    }
}

impl ForwardTable {
    pub(super) fn kind(
        &self,
        problems: &mut Problems,
        topology: &Topology,
        node: Option<&Name>,
    ) -> Option<ProgramKind> {
        let nat = topology.nodes.get(node?)?.behind.as_ref().and_then(|nat| topology.nats.get_key_value(nat));
        let Some((name, nat)) = nat else {
            problems
                .add(
                    self.node.span(),
                    format!("`{}` is behind no NAT: nobody could forward a port to it", self.node.get_ref()),
                )
                .help("write `behind` for the node, or leave the program out");
            return None;
        };
        if nat.nat_pmp.is_none() {
            problems
                .add(self.node.span(), format!("`{name}` would not answer: it forwards no ports on request"))
                .help(format!("write `nat-pmp = true` under [nat.{name}]"));
        }
        let lifetime = self.lifetime.as_ref().map_or(DEFAULT_LIFETIME, |lifetime| lifetime.get_ref().0);
        if let Some(written) = &self.lifetime
            && lifetime.as_secs() == 0
        {
            problems
                .add(written.span(), "a forward lives at least a second")
                .help("NAT-PMP counts lifetimes in seconds, and 0 of them ends a forward");
        }
        let internal_port = self.port.get_ref().port();
        Some(ProgramKind::Forward(NatForward {
            gateway: std::net::SocketAddrV4::new(nat.gateway(), nat_pmp::PORT),
            protocol: self.protocol.unwrap_or(Protocol::Udp).into(),
            internal_port,
            external_port: self.external_port.as_ref().map_or(internal_port, |port| port.get_ref().port()),
            lifetime,
        }))
    }
}
