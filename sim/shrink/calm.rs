//! The same scenario without what goes wrong.

use std::fmt;

use toml_edit::{DocumentMut, TableLike, value};

/// Without what the original passes; what is left of it has to pass without the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calm {
    /// Its faults.
    Faults,
    /// Its faults, and all that its links do but take time.
    Links,
    /// Those, and what its NATs and firewalls keep out.
    Nats,
    /// It fails even so: nothing but the cause tells that a smaller one fails in the same way.
    Never,
}

impl Calm {
    /// From the least that is taken out to the most.
    pub(super) const LEVELS: [Self; 3] = [Self::Faults, Self::Links, Self::Nats];

    /// A scenario without it; `None` where nothing is to pass.
    pub(super) fn of(self, tables: &DocumentMut) -> Option<DocumentMut> {
        let mut calm = tables.clone();
        if self == Self::Never {
            return None;
        }
        calm.remove("fault");
        if matches!(self, Self::Links | Self::Nats) {
            each(&mut calm, "link", |link| keep_only(link, &["latency"]));
        }
        if self == Self::Nats {
            calm.remove("firewall");
            each(&mut calm, "node", |node| {
                node.remove("firewall");
            });
            each(&mut calm, "nat", |nat| {
                keep_only(nat, &["address", "addresses", "address6", "lan", "lan6", "behind", "link", "count"]);
                for key in ["mapping", "filtering"] {
                    nat.insert(key, value("endpoint-independent"));
                }
            });
        }
        Some(calm)
    }
}

impl fmt::Display for Calm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faults => "it passes without its faults",
            Self::Links => "it passes without its faults and over links that lose and delay nothing",
            Self::Nats => "it passes without its faults, over ideal links, and with NATs that let everything in",
            Self::Never => "it does not pass without its faults either: check that what is left is what you look for",
        })
    }
}

fn each(tables: &mut DocumentMut, kind: &str, change: impl Fn(&mut dyn TableLike)) {
    let Some(all) = tables.get_mut(kind).and_then(|item| item.as_table_like_mut()) else { return };
    for (_, item) in all.iter_mut() {
        if let Some(table) = item.as_table_like_mut() {
            change(table);
        }
    }
}

fn keep_only(table: &mut dyn TableLike, keys: &[&str]) {
    let others: Vec<String> =
        table.iter().map(|(key, _)| key.to_owned()).filter(|key| !keys.contains(&key.as_str())).collect();
    for key in others {
        table.remove(&key);
    }
}
