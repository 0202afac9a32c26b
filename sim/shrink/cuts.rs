//! What can be taken out of a file's tables, with all that names it.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

/// The lists of tables.
pub(super) const LISTS: [&str; 3] = ["fault", "program", "expect"];

/// The kinds of named tables.
pub(super) const KINDS: [&str; 4] = ["node", "nat", "link", "firewall"];

/// How many tables a list has.
pub(super) fn count(tables: &DocumentMut, list: &str) -> usize {
    tables.get(list).and_then(Item::as_array_of_tables).map_or(0, toml_edit::ArrayOfTables::len)
}

/// The names of a kind's tables, in the file's order.
pub(super) fn names(tables: &DocumentMut, kind: &str) -> Vec<String> {
    let named = tables.get(kind).and_then(Item::as_table_like);
    named.map_or_else(Vec::new, |named| named.iter().map(|(name, _)| name.to_owned()).collect())
}

/// Without those tables of a list whose number `goes`.
pub(super) fn without_some(tables: &DocumentMut, list: &str, goes: impl Fn(usize) -> bool) -> DocumentMut {
    let mut cut = tables.clone();
    if let Some(all) = cut.get_mut(list).and_then(Item::as_array_of_tables_mut) {
        for index in (0..all.len()).rev().filter(|index| goes(*index)) {
            all.remove(index);
        }
        if all.is_empty() {
            cut.remove(list);
        }
    }
    cut
}

/// Without a node, NAT, link or firewall, and without what names it: programs and faults go, hosts move to where it was. The
/// expectation `keep` stays as it is.
pub(super) fn without_named(tables: &DocumentMut, kind: &str, name: &str, keep: Option<usize>) -> DocumentMut {
    let mut cut = tables.clone();
    let removed = cut.get_mut(kind).and_then(Item::as_table_like_mut).and_then(|named| named.remove(name));
    if names(&cut, kind).is_empty() {
        cut.remove(kind);
    }
    match kind {
        "link" | "firewall" => drop_references(&mut cut, kind, name, None),
        "nat" => {
            let outer = removed.as_ref().and_then(|nat| nat.get("behind")?.as_str()).map(str::to_owned);
            drop_references(&mut cut, "behind", name, outer.as_deref());
            forget_in_list(&mut cut, "fault", name, None);
        }
        _ => {
            for list in LISTS {
                forget_in_list(&mut cut, list, name, keep.filter(|_| list == "expect"));
            }
        }
    }
    cut
}

/// In nodes and NATs: `key = "name"` becomes `key = "instead"`, or goes. Addresses behind it go with it.
fn drop_references(tables: &mut DocumentMut, key: &str, name: &str, instead: Option<&str>) {
    for kind in ["node", "nat"] {
        for user in names(tables, kind) {
            let Some(table) = tables.get_mut(kind).and_then(|all| all.get_mut(&user)).and_then(Item::as_table_like_mut)
            else {
                continue;
            };
            if table.get(key).and_then(Item::as_str) != Some(name) {
                continue;
            }
            match instead {
                Some(instead) => table.insert(key, toml_edit::value(instead)),
                None => table.remove(key),
            };
            if key == "behind" {
                table.remove("address");
            }
        }
    }
}

/// Takes a node's or NAT's name out of a list's tables: out of arrays, with keys that may be left out, else with the
/// whole table.
fn forget_in_list(tables: &mut DocumentMut, list: &str, name: &str, keep: Option<usize>) {
    let Some(all) = tables.get_mut(list).and_then(Item::as_array_of_tables_mut) else { return };
    for index in (0..all.len()).rev() {
        if keep == Some(index) {
            continue;
        }
        let Some(table) = all.get_mut(index) else { continue };
        let goes = match list {
            "program" => table.get("node").and_then(Item::as_str) == Some(name),
            "expect" => table.iter().any(|(_, item)| mentions(item, name)),
            _ => table.iter().any(|(_, item)| !item.is_array() && mentions(item, name)),
        };
        if goes || !forget(table, name) {
            all.remove(index);
        }
    }
    if all.is_empty() {
        tables.remove(list);
    }
}

/// Keys of programs whose texts are no nodes' names, though they may be the same.
const OTHER_TEXTS: [&str; 9] =
    ["run", "service", "payload", "answer", "reply", "error", "broker", "punches", "announce"];

/// Takes a name out of a table's values; `false` where that leaves an array empty that was not.
fn forget(table: &mut Table, name: &str) -> bool {
    let names_it = |(key, item): &(&str, &Item)| !OTHER_TEXTS.contains(key) && mentions(item, name);
    let keys: Vec<String> = table.iter().filter(names_it).map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        let nested = match table.get_mut(&key).and_then(Item::as_array_mut) {
            Some(array) => forget_in_array(array, name),
            None => {
                table.remove(&key);
                continue;
            }
        };
        // An empty list of Grapes to start from is as none; an empty group of a partition is a mistake.
        match (nested, key.as_str()) {
            (true, _) => {}
            (false, "bootstrap") => {
                table.remove(&key);
            }
            (false, _) => return false,
        }
    }
    true
}

/// `false` where it, or an array in it, is empty then.
fn forget_in_array(array: &mut Array, name: &str) -> bool {
    array.retain(|value| !is_name(value, name));
    let nested = array.iter_mut().filter_map(Value::as_array_mut).all(|inner| forget_in_array(inner, name));
    nested && !array.is_empty()
}

fn is_name(value: &Value, name: &str) -> bool {
    let named = |text: &str| text == name || text.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
    value.as_str().is_some_and(named)
}

fn mentions(item: &Item, name: &str) -> bool {
    item.as_value().is_some_and(|value| value_mentions(value, name))
}

fn value_mentions(value: &Value, name: &str) -> bool {
    match value {
        Value::Array(array) => array.iter().any(|inner| value_mentions(inner, name)),
        Value::InlineTable(table) => table.iter().any(|(_, inner)| value_mentions(inner, name)),
        value => is_name(value, name),
    }
}

/// Where a key is: above the tables, in a named table, or in a table of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Top,
    Named(&'static str, String),
    Listed(&'static str, usize),
}

impl Place {
    /// Every table of a file but the expectation `keep`, in an order that does not change.
    pub(super) fn all(tables: &DocumentMut, keep: Option<usize>) -> Vec<Self> {
        let mut places = vec![Self::Top];
        for kind in KINDS {
            places.extend(names(tables, kind).into_iter().map(|name| Self::Named(kind, name)));
        }
        for list in LISTS {
            let kept = keep.filter(|_| list == "expect");
            places.extend((0..count(tables, list)).filter(|index| kept != Some(*index)).map(|i| Self::Listed(list, i)));
        }
        places
    }

    /// The table; `None` where it is not there any more.
    pub(super) fn table<'a>(&self, tables: &'a mut DocumentMut) -> Option<&'a mut dyn TableLike> {
        match self {
            Self::Top => Some(tables.as_table_mut()),
            Self::Named(kind, name) => tables.get_mut(kind)?.get_mut(name)?.as_table_like_mut(),
            Self::Listed(list, index) => {
                tables.get_mut(list)?.as_array_of_tables_mut()?.get_mut(*index).map(|table| table as &mut dyn TableLike)
            }
        }
    }

    /// The keys with values.
    pub(super) fn keys(&self, tables: &DocumentMut) -> Vec<String> {
        let mut tables = tables.clone();
        let Some(table) = self.table(&mut tables) else { return Vec::new() };
        table.iter().filter(|(_, item)| item.is_value()).map(|(key, _)| key.to_owned()).collect()
    }

    /// What a person calls one of its keys.
    pub(super) fn describe(&self, key: &str) -> String {
        match self {
            Self::Top => key.to_owned(),
            Self::Named(kind, name) => format!("{kind}.{name}.{key}"),
            Self::Listed(list, index) => format!("{list}.{index}.{key}"),
        }
    }
}

/// Smaller values in place of one, the smallest first; none where it is not of a kind that can be smaller.
pub(super) fn smaller(value: &Value) -> Vec<Value> {
    if let Some(number) = value.as_integer() {
        return [1, number / 2, number - 1].into_iter().filter(|n| (1..number).contains(n)).map(Value::from).collect();
    }
    let Some(text) = value.as_str() else { return Vec::new() };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    let (number, unit) = text.split_at(end);
    let Ok(number) = number.parse::<u64>() else { return Vec::new() };
    // Less than a second makes no run noticeably shorter, and says less than the original does.
    let finer = match (number, unit) {
        (1, "h") => Some("30min"),
        (1, "min") => Some("30s"),
        (_, "s" | "min" | "h") => None,
        _ => return Vec::new(),
    };
    let halves = [number / 10, number / 2].into_iter().filter(|part| (1..number).contains(part));
    halves.map(|part| format!("{part}{unit}")).chain(finer.map(str::to_owned)).map(Value::from).collect()
}
