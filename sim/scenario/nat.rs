//! `[nat.NAME]`: from the table as it is written to the NAT that is made of it.
//!
//! | module | what it does |
//! |---|---|
//! | `raw` | the keys and their types |
//! | `preset` | the familiar kinds |
//! | `networks` | which NAT may be behind which |
//! | `hosts` | what concerns the hosts behind it: forwards, one-to-one addresses |

use std::ops::Range;

use ipnet::Ipv4Net;
use toml::Spanned;

use super::error::Problems;
use super::model::{Nat, NatPmp, PortAssignment, PortBlocks};
use super::topology::is_usable;
use super::units::Time;

mod hosts;
mod networks;
mod preset;
pub(super) mod raw;

pub(super) use hosts::{forwards, one_to_one};
pub(super) use networks::{break_cycles, check_lans};
pub(super) use raw::NatTable;

/// The most public addresses of a NAT.
const MAX_ADDRESSES: usize = 256;

/// The ports that blocks are cut from where no range is written.
const ALL_PORTS: u32 = 65_536 - 1024;

/// A NAT as its table says it, with what it does not say as its kind or the default has it; nothing else of the file
/// is looked at.
pub(super) fn nat(problems: &mut Problems, table: &NatTable) -> Nat {
    let preset = table.kind.as_ref().map_or_else(Nat::default, |kind| kind.get_ref().preset());
    preset::check_nature(problems, table);
    check_time(problems, table.udp_timeout.as_ref(), "a NAT whose mappings live no time lets nothing in or out");
    check_time(problems, table.tcp_timeout.as_ref(), "a NAT whose mappings live no time lets nothing in or out");
    let mut written = table.written_addresses().map(|address| address.get_ref().0);
    let address = written.next().unwrap_or(preset.address);
    let more_addresses: Vec<_> = written.collect();
    check_addresses(problems, table);
    let nat = Nat {
        address,
        lan: lan(problems, table.lan.as_ref().map(|lan| (lan.get_ref().0, lan.span())), preset.lan),
        mapping: value(&table.mapping).map_or(preset.mapping, Into::into),
        filtering: value(&table.filtering).map_or(preset.filtering, Into::into),
        ports: value(&table.ports).map_or(preset.ports, Into::into),
        port_range: table.port_range.as_ref().map(|range| range.get_ref().0.clone()).or(preset.port_range),
        parity: value(&table.parity).unwrap_or(preset.parity),
        keeps_port_range: value(&table.keep_port_range).unwrap_or(preset.keeps_port_range),
        pooling: value(&table.pooling).map_or(preset.pooling, Into::into),
        udp_timeout: value(&table.udp_timeout).map_or(preset.udp_timeout, |timeout| timeout.0),
        tcp_timeout: value(&table.tcp_timeout).map_or(preset.tcp_timeout, |timeout| timeout.0),
        refresh: value(&table.refresh).map_or(preset.refresh, Into::into),
        hairpinning: table.hairpinning.map_or(preset.hairpinning, |written| written.0),
        mappings_per_host: value(&table.mappings_per_host).map(|limit| limit.count()).or(preset.mappings_per_host),
        when_full: value(&table.when_full).map_or(preset.when_full, Into::into),
        port_blocks: value(&table.port_blocks)
            .map(|blocks| PortBlocks {
                size: blocks.size.port(),
                per_host: blocks.per_host.map_or(1, |blocks| blocks.port()),
            })
            .or(preset.port_blocks),
        nat_pmp: nat_pmp(problems, table),
        more_addresses,
        ..preset
    };
    check_ports(problems, table, &nat);
    check_unused(problems, table, &nat);
    nat
}

fn value<T: Copy>(written: &Option<Spanned<T>>) -> Option<T> {
    written.as_ref().map(|written| *written.get_ref())
}

fn check_time(problems: &mut Problems, written: Option<&Spanned<Time>>, zero: &str) {
    if let Some(written) = written
        && written.get_ref().0.is_zero()
    {
        problems.add(written.span(), zero);
    }
}

fn check_addresses(problems: &mut Problems, table: &NatTable) {
    let Some(all) = &table.addresses else { return };
    if let Some(one) = &table.address {
        problems
            .add(all.span(), "`address` and `addresses` exclude each other")
            .also(one.span(), "the other")
            .help("write all of them as `addresses`");
    }
    match all.get_ref().len() {
        0 => {
            problems
                .add(all.span(), "a NAT needs a public address")
                .help("leave `addresses` out for the next free one");
        }
        1..=MAX_ADDRESSES => {}
        many => {
            problems.add(all.span(), format!("{many} addresses are too many: a NAT has up to {MAX_ADDRESSES}"));
        }
    }
}

/// Which ports may be given out is said in one way only.
fn check_ports(problems: &mut Problems, table: &NatTable, nat: &Nat) {
    let range = table.port_range.as_ref().map(|range| ("port-range", range.span()));
    let keeps =
        table.keep_port_range.as_ref().filter(|keeps| *keeps.get_ref()).map(|keeps| ("keep-port-range", keeps.span()));
    let parity = table.parity.as_ref().filter(|parity| *parity.get_ref()).map(|parity| ("parity", parity.span()));
    let blocks = table.port_blocks.as_ref().map(|blocks| ("port-blocks", blocks.span()));
    if nat.ports == PortAssignment::Overloading {
        for (key, span) in [&range, &keeps, &parity, &blocks].into_iter().flatten() {
            problems
                .add(span.clone(), format!("`{key}` has no say where ports are overloaded"))
                .help("an overloaded port is always the internal one: choose other `ports`, or leave the key out");
        }
        if let (Some(_), None, Some(ports)) = (nat.port_blocks, &blocks, &table.ports) {
            problems.add(ports.span(), "ports that come in blocks cannot be overloaded").help("choose other `ports`");
        }
    }
    if let Some((_, keeps)) = keeps
        && let Some((key, span)) = range.clone().or(blocks)
    {
        problems
            .add(span, format!("`{key}` and `keep-port-range` exclude each other"))
            .also(keeps, "the other")
            .help("with `keep-port-range`, external ports are below 1024 where the internal ones are, and only there");
    }
    if let Some(blocks) = nat.port_blocks {
        let ports = nat.port_range.as_ref().map_or(ALL_PORTS, |range| range.len() as u32);
        if u32::from(blocks.size) > ports {
            let span =
                table.port_blocks.as_ref().map(Spanned::span).or(range.map(|(_, span)| span)).unwrap_or_default();
            problems
                .add(span, format!("no block of {} ports can be cut from {ports} ports", blocks.size))
                .help("make the blocks smaller, or the range larger");
        }
    }
}

/// Keys that do nothing without another one.
fn check_unused(problems: &mut Problems, table: &NatTable, nat: &Nat) {
    let mut unused = |span: Range<usize>, key: &str, without: &str| {
        problems
            .add(span, format!("`{key}` without {without} is never used"))
            .help(format!("add {without}, or leave `{key}` out"));
    };
    if let Some(pooling) = &table.pooling
        && nat.more_addresses.is_empty()
    {
        unused(pooling.span(), "pooling", "several `addresses`");
    }
    if let (Some(when_full), None) = (&table.when_full, nat.mappings_per_host) {
        unused(when_full.span(), "when-full", "`mappings-per-host`");
    }
    if nat.nat_pmp.is_none() {
        for (key, span) in [
            ("forwards-per-host", table.forwards_per_host.as_ref().map(Spanned::span)),
            ("forward-lifetime", table.forward_lifetime.as_ref().map(Spanned::span)),
        ] {
            if let Some(span) = span {
                unused(span, key, "`nat-pmp = true`");
            }
        }
    }
}

fn nat_pmp(problems: &mut Problems, table: &NatTable) -> Option<NatPmp> {
    if let Some(lifetime) = &table.forward_lifetime
        && lifetime.get_ref().0.as_secs() == 0
    {
        problems
            .add(lifetime.span(), "a forward lives at least a second")
            .help("NAT-PMP counts lifetimes in seconds, and 0 of them ends a forward");
    }
    let default = NatPmp::default();
    value(&table.nat_pmp).unwrap_or(false).then(|| NatPmp {
        per_host: value(&table.forwards_per_host).map_or(default.per_host, |limit| limit.count()),
        lifetime: value(&table.forward_lifetime).map_or(default.lifetime, |lifetime| lifetime.0),
    })
}

fn lan(problems: &mut Problems, written: Option<(Ipv4Net, Range<usize>)>, default: Ipv4Net) -> Ipv4Net {
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
