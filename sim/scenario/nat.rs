//! `[nat.NAME]`: the table as it is written, and the NAT that is made of it.

use std::collections::BTreeMap;
use std::ops::Range;

use ipnet::Ipv4Net;
use serde::Deserialize;
use toml::Spanned;

use super::error::Problems;
use super::model::{self, Name, Nat};
use super::raw::{File, Text};
use super::topology::{is_usable, shared};
use super::units::{Address, Lan, Time};

/// `[nat.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NatTable {
    pub(super) address: Option<Spanned<Address>>,
    pub(super) lan: Option<Spanned<Lan>>,
    pub(super) behind: Option<Text>,
    pub(super) link: Option<Text>,
    pub(super) mapping: Option<Dependence>,
    pub(super) filtering: Option<Dependence>,
    pub(super) ports: Option<PortAssignment>,
    pub(super) udp_timeout: Option<Spanned<Time>>,
    pub(super) hairpinning: Option<bool>,
}

/// RFC 4787's words for what a mapping or a filter depends on.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Dependence {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

impl From<Dependence> for model::Dependence {
    fn from(raw: Dependence) -> Self {
        match raw {
            Dependence::EndpointIndependent => Self::EndpointIndependent,
            Dependence::AddressDependent => Self::AddressDependent,
            Dependence::AddressAndPortDependent => Self::AddressAndPortDependent,
        }
    }
}

/// How external ports are picked.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PortAssignment {
    Preserving,
    Contiguous,
    Random,
}

impl From<PortAssignment> for model::PortAssignment {
    fn from(raw: PortAssignment) -> Self {
        match raw {
            PortAssignment::Preserving => Self::Preserving,
            PortAssignment::Contiguous => Self::Contiguous,
            PortAssignment::Random => Self::Random,
        }
    }
}

/// A NAT as its table says it, with what it does not say as by default; nothing else of the file is looked at.
pub(super) fn nat(problems: &mut Problems, table: &NatTable) -> Nat {
    let default = Nat::default();
    if let Some(timeout) = &table.udp_timeout
        && timeout.get_ref().0.is_zero()
    {
        problems.add(timeout.span(), "a NAT whose mappings live no time lets nothing in or out");
    }
    Nat {
        address: table.address.as_ref().map_or(default.address, |address| address.get_ref().0),
        lan: lan(problems, table.lan.as_ref().map(|lan| (lan.get_ref().0, lan.span()))),
        mapping: table.mapping.map_or(default.mapping, Into::into),
        filtering: table.filtering.map_or(default.filtering, Into::into),
        ports: table.ports.map_or(default.ports, Into::into),
        udp_timeout: table.udp_timeout.as_ref().map_or(default.udp_timeout, |timeout| timeout.get_ref().0),
        hairpinning: table.hairpinning.unwrap_or(default.hairpinning),
        ..default
    }
}

fn lan(problems: &mut Problems, written: Option<(Ipv4Net, Range<usize>)>) -> Ipv4Net {
    let default = Nat::default().lan;
    let Some((lan, span)) = written else { return default };
    if !(8..=29).contains(&lan.prefix_len()) {
        problems.add(span, format!("{lan} cannot be a LAN: its prefix must be from /8 to /29"));
        return default;
    }
    if !is_usable(lan.addr()) {
        problems.add(span, format!("{lan} cannot be a LAN: no host can have these addresses"));
        return default;
    }
    lan
}

/// Tells every cycle of NATs once, and cuts it.
pub(super) fn break_cycles(problems: &mut Problems, file: &File, nats: &mut BTreeMap<Name, Nat>) {
    for (name, table) in &file.nats {
        let start = shared(name);
        let mut path = vec![start.clone()];
        let mut next = nats.get(&start).and_then(|nat| nat.behind.clone());
        while let Some(behind) = next
            && path.len() <= nats.len()
        {
            path.push(behind.clone());
            next = if behind == start { None } else { nats.get(&behind).and_then(|nat| nat.behind.clone()) };
        }
        if path.len() > 1
            && path.last() == Some(&start)
            && let Some(behind) = &table.behind
        {
            let way: Vec<String> = path.iter().map(|name| format!("`{name}`")).collect();
            problems
                .add(behind.span(), format!("the NAT `{start}` is behind itself: {}", way.join(" behind ")))
                .label("leads back")
                .help("leave `behind` out for the NAT that is on the internet");
            if let Some(nat) = nats.get_mut(&start) {
                nat.behind = None;
            }
        }
    }
}

/// A NAT's LAN must differ from the networks that it is behind: it could not route to them.
pub(super) fn check_lans(problems: &mut Problems, file: &File, nats: &BTreeMap<Name, Nat>) {
    for (name, table) in &file.nats {
        let Some(nat) = nats.get(name.get_ref().as_str()) else { continue };
        let mut outer = nat.behind.as_ref();
        while let Some(outer_name) = outer
            && let Some(outer_nat) = nats.get(outer_name)
        {
            if overlap(nat.lan, outer_nat.lan) {
                let span = table.lan.as_ref().map_or(name.span(), Spanned::span);
                problems
                    .add(
                        span,
                        format!(
                            "the LAN {} of `{}` overlaps the LAN {} of `{outer_name}`, which it is behind",
                            nat.lan,
                            name.get_ref(),
                            outer_nat.lan
                        ),
                    )
                    .help("give it a `lan` of its own, such as \"10.0.0.0/24\"");
            }
            outer = outer_nat.behind.as_ref();
        }
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}
