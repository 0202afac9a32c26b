//! Who has a lane, and in which order: who is behind a NAT stands beside it, and what is public in the middle.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::scenario::Scenario;
use crate::scenario::model::Name;

/// The lanes, from left to right.
#[derive(Debug, Clone)]
pub struct Lanes {
    lanes: Vec<Lane>,
    by_name: BTreeMap<Name, usize>,
    /// By the NAT that it is behind, and its address there.
    by_address: BTreeMap<(Option<usize>, IpAddr), usize>,
}

/// A host or a NAT.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lane {
    /// Its name in the file.
    pub name: Name,
    /// What it is.
    pub kind: LaneKind,
    /// Its address: a NAT's outer one.
    pub address: IpAddr,
    /// Its IPv6 address, where it has one.
    pub address6: Option<IpAddr>,
    /// The NAT that it is behind.
    pub behind: Option<usize>,
}

/// What has a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneKind {
    /// A host.
    Host,
    /// A NAT.
    Nat,
}

impl Lanes {
    /// The lanes of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        let mut order = Vec::new();
        let behind = Behind::new(scenario);
        let outermost = behind.nats.get(&None).map_or(&[][..], Vec::as_slice);
        // The first half of the NATs is on the left, with whom they hide on their left; the rest the other way around.
        let (left, right) = outermost.split_at(outermost.len().div_ceil(2));
        for nat in left {
            let mut group = Vec::new();
            behind.add_group(nat, &mut group);
            group.reverse();
            order.extend(group);
        }
        order.extend(behind.nodes.get(&None).into_iter().flatten().copied().cloned());
        for nat in right {
            behind.add_group(nat, &mut order);
        }
        let by_name: BTreeMap<Name, usize> = order.iter().cloned().zip(0..).collect();
        let lanes: Vec<Lane> = order
            .into_iter()
            .map(|name| {
                let index = |nat: &Name| by_name.get(nat).copied();
                match (scenario.nodes.get(&name), scenario.nats.get(&name)) {
                    (Some(node), _) => {
                        let behind = node.behind.as_ref().and_then(index);
                        let address6 = node.address6.map(IpAddr::from);
                        let address = match address6 {
                            Some(address6) if node.address.is_unspecified() => address6,
                            _ => IpAddr::from(node.address),
                        };
                        Lane { name, kind: LaneKind::Host, address, address6, behind }
                    }
                    (None, Some(nat)) => {
                        let behind = nat.behind.as_ref().and_then(index);
                        Lane { name, kind: LaneKind::Nat, address: IpAddr::from(nat.address), address6: None, behind }
                    }
                    (None, None) => unreachable!("names are of nodes and NATs"),
                }
            })
            .collect();
        let by_address = lanes
            .iter()
            .zip(0..)
            .flat_map(|(lane, index)| {
                let addresses = [Some(lane.address), lane.address6];
                addresses.into_iter().flatten().map(move |address| ((lane.behind, address), index))
            })
            .collect();
        Self { lanes, by_name, by_address }
    }

    /// The lanes, from left to right.
    pub fn all(&self) -> &[Lane] {
        &self.lanes
    }

    /// A host's or NAT's lane.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Who a packet at this lane goes to next on its way to an address: who has it in the same network, else the NAT
    /// that leads out of it.
    pub fn toward(&self, lane: usize, address: IpAddr) -> Option<usize> {
        let behind = self.lanes.get(lane)?.behind;
        self.by_address.get(&(behind, address)).copied().or(behind)
    }
}

/// Who is behind which NAT, or behind none.
#[derive(Default)]
struct Behind<'a> {
    nats: BTreeMap<Option<&'a Name>, Vec<&'a Name>>,
    nodes: BTreeMap<Option<&'a Name>, Vec<&'a Name>>,
}

impl<'a> Behind<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut behind = Self::default();
        for (name, nat) in &scenario.nats {
            behind.nats.entry(nat.behind.as_ref()).or_default().push(name);
        }
        for (name, node) in &scenario.nodes {
            behind.nodes.entry(node.behind.as_ref()).or_default().push(name);
        }
        behind
    }

    /// Adds a NAT, and then whom it hides.
    fn add_group(&self, nat: &Name, order: &mut Vec<Name>) {
        order.push(nat.clone());
        for inner in self.nats.get(&Some(nat)).into_iter().flatten() {
            self.add_group(inner, order);
        }
        order.extend(self.nodes.get(&Some(nat)).into_iter().flatten().copied().cloned());
    }
}
