//! Nodes that are behind one NAT or another by chance: `behind = { home = "70%", office = "20%", none = "10%" }`.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use toml::Spanned;

use super::error::{LoadError, Problems};
use super::model::Scenario;
use super::raw::{File, Text};
use super::units::Percentage;
use crate::engine::seed;

/// What stands for the internet where nodes are drawn.
const NONE: &str = "none";

/// Shares are counted in billionths.
const ONE: u64 = 1_000_000_000;

/// What a node is behind, as it is written.
#[derive(Debug, Clone)]
pub(super) enum Behind {
    /// This NAT.
    Nat(String),
    /// One of these, each with its share.
    Drawn(Vec<(Text, Percentage)>),
}

struct BehindVisitor;

impl<'de> Visitor<'de> for BehindVisitor {
    type Value = Behind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a NAT's name in quotes, or a table of NATs with their shares")
    }

    fn visit_str<E: Error>(self, nat: &str) -> Result<Behind, E> {
        Ok(Behind::Nat(nat.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Behind, A::Error> {
        let mut among = Vec::new();
        while let Some(nat) = map.next_key::<Spanned<String>>()? {
            among.push((nat, map.next_value()?));
        }
        Ok(Behind::Drawn(among))
    }
}

impl<'de> Deserialize<'de> for Behind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BehindVisitor)
    }
}

/// The NAT that a node is behind: as it is written, or drawn from a stream of random numbers of the node's own.
pub(super) fn behind(problems: &mut Problems, seed: u64, node: &str, written: &Spanned<Behind>) -> Option<Text> {
    let among = match written.get_ref() {
        Behind::Nat(nat) => return Some(Spanned::new(written.span(), nat.clone())),
        Behind::Drawn(among) => among,
    };
    let share = |share: &Percentage| (share.0 * ONE as f64).round() as u64;
    let sum: u64 = among.iter().map(|(_, written)| share(written)).sum();
    if sum != ONE && !problems.is_told(&written.span()) {
        problems
            .add(written.span(), format!("the shares are {}% together, and not 100%", sum as f64 / 1e7))
            .help("give the rest to `none`, which is the internet");
    }
    let mut point = seed::below(&mut seed::stream(seed, &["node", node, "behind"]), sum.max(1));
    for (nat, written) in among {
        if point < share(written) {
            return (nat.get_ref() != NONE).then(|| nat.clone());
        }
        point -= share(written);
    }
    None
}

/// Tells of NATs that shares name and that are not there, and of one that is called as the internet is.
pub(super) fn check_names(problems: &mut Problems, file: &File) {
    let drawn = file.nodes.iter().any(|(_, node)| is_drawn(node.behind.as_ref()));
    if let Some((nat, _)) = file.nats.iter().find(|(nat, _)| drawn && nat.get_ref() == NONE) {
        problems
            .add(nat.span(), "a NAT cannot be called `none` where nodes are drawn")
            .help("there, `none` is the internet: choose another name");
    }
}

fn is_drawn(behind: Option<&Spanned<Behind>>) -> bool {
    behind.is_some_and(|behind| matches!(behind.get_ref(), Behind::Drawn(_)))
}

/// What a scenario was read from, where chance has a part in it: another seed gives another one.
#[derive(Clone)]
pub struct Draws {
    pub(super) seed: u64,
    pub(super) from: Arc<(File, Problems)>,
}

impl fmt::Debug for Draws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draws").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl PartialEq for Draws {
    fn eq(&self, other: &Self) -> bool {
        self.seed == other.seed && Arc::ptr_eq(&self.from, &other.from)
    }
}

impl Draws {
    /// Of a file in which something is drawn.
    pub(super) fn of(file: &File) -> bool {
        file.nodes.iter().any(|(_, node)| is_drawn(node.behind.as_ref()))
    }
}

impl Scenario {
    /// The scenario as it is with another seed, where that makes a difference: the nodes that are drawn behind their NATs
    /// are drawn anew. What was changed in links and NATs since it was read stays; nodes, programs and expectations are the
    /// file's.
    ///
    /// # Errors
    /// Where what was drawn does not hold together: a NAT's LAN is too small for all who are behind it.
    pub fn drawn(&self, seed: u64) -> Result<Option<Self>, LoadError> {
        let Some(draws) = self.draws.as_ref().filter(|draws| draws.seed != seed) else { return Ok(None) };
        let mut problems = draws.from.1.again();
        let drawn = super::assemble(&mut problems, &draws.from.0, seed)?;
        let (nodes, programs, expectations) = (drawn.nodes, drawn.programs, drawn.expectations);
        let draws = Some(Draws { seed, ..draws.clone() });
        Ok(Some(Self { nodes, programs, expectations, draws, ..self.clone() }))
    }
}
