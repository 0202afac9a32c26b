//! `[firewall.NAME]`, and who is behind which.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::error::Problems;
use super::model::{Firewall, Name};
use super::nat::raw::Dependence;
use super::raw::{File, Text};
use super::topology::{Topology, defined, shared};
use super::units::{Port, Time};

/// What a NAT names that has no firewall, not even for IPv6.
const OFF: &str = "off";

/// The most ports that a firewall lets in by name: each packet is compared with them all.
const MAX_ALLOWED: usize = 256;

/// `[firewall.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FirewallTable {
    filtering: Option<Dependence>,
    udp_timeout: Option<Spanned<Time>>,
    tcp_timeout: Option<Spanned<Time>>,
    allow: Option<Spanned<Vec<Port>>>,
    block_udp: Option<bool>,
    ipv4: Option<bool>,
}

/// Gives nodes and NATs the firewalls that they name, and IPv6 networks one where they name none.
pub(super) fn fill_in(problems: &mut Problems, file: &File, topology: &mut Topology) {
    let mut firewalls: BTreeMap<Name, Firewall> = BTreeMap::new();
    for (name, table) in &file.firewalls {
        if name.get_ref() == OFF {
            problems
                .add(name.span(), "`off` cannot be a firewall's name")
                .help("a NAT with `firewall = \"off\"` has none");
        }
        firewalls.insert(shared(name), firewall(problems, table));
    }
    let mut find = |written: &Text| {
        defined(problems, "firewall", written, &firewalls).and_then(|name| firewalls.get(&name).cloned())
    };
    for (name, table) in &file.nodes {
        if let (Some(written), Some(node)) = (&table.firewall, topology.nodes.get_mut(name.get_ref().as_str())) {
            node.firewall = find(written);
        }
    }
    for (name, table) in &file.nats {
        let Some(nat) = topology.nats.get_mut(name.get_ref().as_str()) else { continue };
        nat.firewall = match &table.firewall {
            Some(written) if written.get_ref() == OFF => None,
            Some(written) => find(written),
            None => nat.lan6.map(|_| Firewall { ipv4: false, ..Firewall::default() }),
        };
    }
}

fn firewall(problems: &mut Problems, table: &FirewallTable) -> Firewall {
    let default = Firewall::default();
    let mut timeout = |written: &Option<Spanned<Time>>, default: Duration| {
        let Some(written) = written else { return default };
        if written.get_ref().0.is_zero() {
            problems.add(written.span(), "a firewall whose flows live no time lets no answer in");
        }
        written.get_ref().0
    };
    let (udp_timeout, tcp_timeout) =
        (timeout(&table.udp_timeout, default.udp_timeout), timeout(&table.tcp_timeout, default.tcp_timeout));
    let mut allow = Vec::new();
    if let Some(ports) = &table.allow {
        if ports.get_ref().len() > MAX_ALLOWED {
            problems.add(ports.span(), format!("a firewall allows at most {MAX_ALLOWED} ports"));
        }
        allow = ports.get_ref().iter().map(|port| port.port()).collect();
    }
    Firewall {
        filtering: table.filtering.map_or(default.filtering, Into::into),
        udp_timeout,
        tcp_timeout,
        allow,
        block_udp: table.block_udp.unwrap_or(false),
        ipv4: table.ipv4.unwrap_or(true),
    }
}
