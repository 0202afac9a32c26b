//! Tables that stand for many: `[node.peer]` with `count = 500` is `peer-1` to `peer-500`.
//!
//! Tables are multiplied before they are read, so that all of their keys are: `{n}` in a text is the member's number, and a
//! name of another population of the same size is that of its member with the same number.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::error::Problems;
use super::read::{Entry, in_words};
use super::units::Members;

/// The populations of a file, by name.
#[derive(Debug, Default)]
pub(super) struct Populations(BTreeMap<String, Population>);

/// A node or NAT that stands for many.
#[derive(Debug)]
pub(super) struct Population {
    /// `node` or `nat`.
    kind: &'static str,
    pub(super) count: u32,
    span: Range<usize>,
}

impl Population {
    /// The names of its members, in their order.
    pub(super) fn members(&self, name: &str) -> impl Iterator<Item = String> {
        let name = name.to_owned();
        (1..=self.count).map(move |number| member(&name, number))
    }
}

/// A member's name.
fn member(name: &str, number: u32) -> String {
    format!("{name}-{number}")
}

impl Populations {
    /// Finds the nodes and NATs with a `count`.
    pub(super) fn of(problems: &mut Problems, document: &mut DeTable<'_>) -> Self {
        let mut all = Self::default();
        for kind in ["nat", "node"] {
            let Some(DeValue::Table(tables)) = document.get_mut(kind).map(Spanned::get_mut) else { continue };
            for (name, table) in tables {
                let DeValue::Table(table) = table.get_mut() else { continue };
                let Some(written) = table.remove("count") else { continue };
                let span = written.span();
                match Members::deserialize(written.into_deserializer()) {
                    Ok(count) => {
                        let population = Population { kind, count: count.members(), span: name.span() };
                        if let Some(other) = all.0.insert(name.get_ref().to_string(), population) {
                            problems
                                .add(name.span(), format!("`{}` is a population of NATs already", name.get_ref()))
                                .also(other.span, "the NATs");
                        }
                    }
                    Err(error) => {
                        problems.add(span, in_words(error.message()).0);
                    }
                }
            }
        }
        all.check_members(problems, document);
        if !all.0.is_empty() {
            problems.once_a_place();
        }
        all
    }

    pub(super) fn get(&self, name: &str) -> Option<&Population> {
        self.0.get(name)
    }

    /// The population that a name is a member's of.
    pub(super) fn of_member(&self, name: &str) -> Option<&Population> {
        let (population, number) = name.rsplit_once('-')?;
        let all = self.0.get(population)?;
        let number = number.parse::<u32>().ok().filter(|number| (1..=all.count).contains(number))?;
        (member(population, number) == name).then_some(all)
    }

    /// A member has no table of its own.
    fn check_members(&self, problems: &mut Problems, document: &DeTable<'_>) {
        for kind in ["nat", "node"] {
            let tables = document.get(kind).and_then(|tables| tables.get_ref().as_table());
            for (name, _) in tables.into_iter().flatten() {
                let Some(all) = self.of_member(name.get_ref()) else { continue };
                problems
                    .add(name.span(), format!("`{}` is one of a population of {} already", name.get_ref(), all.count))
                    .help("choose another name: members of a population have no table of their own")
                    .also(all.span.clone(), "the population");
            }
        }
    }

    /// What a `[kind.NAME]` table comes to: itself, or the tables of all members. `read` makes something of each; where it
    /// cannot, the others would fail alike.
    pub(super) fn multiply<'i, T>(
        &self,
        problems: &mut Problems,
        kind: &str,
        name: Spanned<String>,
        table: Entry<'i>,
        mut read: impl FnMut(&mut Problems, Entry<'i>) -> Option<T>,
    ) -> Vec<(Spanned<String>, T)> {
        let Some(population) = self.0.get(name.get_ref()).filter(|population| population.kind == kind) else {
            return read(problems, table).map(|read| (name, read)).into_iter().collect();
        };
        if !self.pairs(problems, population, name.get_ref(), &table) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for number in 1..=population.count {
            let mut table = table.clone();
            self.fill(&mut table, number);
            let Some(read) = read(problems, table) else { break };
            all.push((Spanned::new(name.span(), member(name.get_ref(), number)), read));
        }
        all
    }

    /// Whether what a population is behind has as many members, where it is a population too.
    fn pairs(&self, problems: &mut Problems, population: &Population, name: &str, table: &Entry<'_>) -> bool {
        let behind = table.get_ref().get("behind");
        let names: Vec<(&str, Range<usize>)> = match behind.map(|behind| (behind.get_ref(), behind.span())) {
            Some((DeValue::String(nat), span)) => vec![(nat, span)],
            Some((DeValue::Table(nats), _)) => {
                nats.iter().map(|(nat, _)| (nat.get_ref().as_ref(), nat.span())).collect()
            }
            _ => Vec::new(),
        };
        let mut all = true;
        for (nat, span) in names {
            let Some(other) = self.0.get(nat) else { continue };
            if other.count != population.count {
                problems
                    .add(span, format!("there are {} of `{name}` and {} of `{nat}`", population.count, other.count))
                    .help(
                        "the first of the one is behind the first of the other, and so on: give both the same `count`",
                    );
                all = false;
            }
        }
        all
    }

    /// Makes a table that of a member: its number in texts, and its partner for what it is behind.
    fn fill(&self, table: &mut Entry<'_>, number: u32) {
        substitute(table.get_mut(), number);
        let DeValue::Table(table) = table.get_mut() else { return };
        let Some(behind) = table.get_mut("behind") else { return };
        let paired = |nat: &str| self.0.get(nat).filter(|nats| nats.kind == "nat").map(|_| member(nat, number));
        match behind.get_mut() {
            DeValue::String(nat) => {
                if let Some(paired) = paired(nat) {
                    *nat = paired.into();
                }
            }
            DeValue::Table(nats) => {
                *nats = std::mem::take(nats)
                    .into_iter()
                    .map(|(nat, share)| match paired(nat.get_ref()) {
                        Some(paired) => (Spanned::new(nat.span(), paired.into()), share),
                        None => (nat, share),
                    })
                    .collect();
            }
            _ => {}
        }
    }

    /// A `[[kind]]` table for each member of the populations that some of its keys name; itself where they name none.
    pub(super) fn each<'i>(&self, problems: &mut Problems, keys: &[&str], table: Entry<'i>) -> Vec<Entry<'i>> {
        let DeValue::Table(entries) = table.get_ref() else { return vec![table] };
        let named = entries.iter().filter(|(key, _)| keys.contains(&&**key.get_ref()));
        let named: Vec<(String, Range<usize>, &Population)> = named
            .filter_map(|(key, value)| {
                let population = self.0.get(value.get_ref().as_str()?)?;
                Some((key.get_ref().to_string(), value.span(), population))
            })
            .collect();
        let Some((_, _, first)) = named.first() else { return vec![table] };
        if let Some((_, span, other)) = named.iter().find(|(_, _, other)| other.count != first.count) {
            problems
                .add(span.clone(), format!("there are {} of these, and {} of the others", other.count, first.count))
                .help("populations in one table go member by member: give both the same `count`");
            return Vec::new();
        }
        let fill = |number| {
            let mut table = table.clone();
            substitute(table.get_mut(), number);
            if let DeValue::Table(entries) = table.get_mut() {
                for (key, _, _) in &named {
                    if let Some(DeValue::String(name)) = entries.get_mut(key.as_str()).map(Spanned::get_mut) {
                        *name = member(name, number).into();
                    }
                }
            }
            table
        };
        (1..=first.count).map(fill).collect()
    }

    /// Puts the members of populations in their place in a list of names.
    pub(super) fn spread(&self, names: &mut Entry<'_>) {
        let DeValue::Array(names) = names.get_mut() else { return };
        let spread: Vec<Entry<'_>> = std::mem::replace(names, DeArray::new())
            .into_iter()
            .flat_map(|name| {
                let population = name.get_ref().as_str().and_then(|text| Some((text.to_owned(), self.0.get(text)?)));
                match population {
                    Some((text, population)) => population
                        .members(&text)
                        .map(|member| Spanned::new(name.span(), DeValue::String(DeString::from(member))))
                        .collect(),
                    None => vec![name],
                }
            })
            .collect();
        *names = spread.into_iter().collect();
    }
}

/// Puts a member's number for each `{n}`.
fn substitute(value: &mut DeValue<'_>, number: u32) {
    match value {
        DeValue::String(text) if text.contains("{n}") => *text = text.replace("{n}", &number.to_string()).into(),
        DeValue::Array(values) => values.iter_mut().for_each(|value| substitute(value.get_mut(), number)),
        DeValue::Table(values) => values.into_iter().for_each(|(_, value)| substitute(value.get_mut(), number)),
        _ => {}
    }
}
