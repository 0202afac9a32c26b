//! NATs as networks: none is behind itself, and none has the addresses of a network that it is behind.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use toml::Spanned;

use super::super::error::Problems;
use super::super::model::{Name, Nat};
use super::super::raw::File;
use super::super::topology::shared;

/// Tells every cycle of NATs once, and cuts it.
pub(in super::super) fn break_cycles(problems: &mut Problems, file: &File, nats: &mut BTreeMap<Name, Nat>) {
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
pub(in super::super) fn check_lans(problems: &mut Problems, file: &File, nats: &BTreeMap<Name, Nat>) {
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
