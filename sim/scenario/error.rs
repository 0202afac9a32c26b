//! What is wrong with a scenario file, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use thiserror::Error;

/// Why a scenario file could not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a scenario: at least one problem, in the file's order. Displayed one a line, as
    /// `file:line:column: message`.
    #[error("{}", one_a_line(.0))]
    Invalid(Vec<Problem>),
}

impl LoadError {
    /// The error as a person wants to see it: each problem with its place in the file marked, lines of `width`
    /// columns, in `theme`.
    pub fn render(&self, theme: GraphicalTheme, width: usize) -> String {
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width).without_cause_chain();
        let mut text = String::new();
        match self {
            Self::Read { .. } => text = format!("{self}\n"),
            Self::Invalid(problems) => {
                for problem in problems {
                    text.push_str(if text.is_empty() { "" } else { "\n" });
                    handler.render_report(&mut text, problem).expect("a String takes any text");
                }
            }
        }
        text
    }
}

fn one_a_line(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{}: {problem}", problem.place())).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong with a scenario file. Its `Display` is the message without the place.
#[derive(Debug, Clone)]
pub struct Problem {
    source: Arc<NamedSource<String>>,
    /// Where the file's spans begin.
    start: usize,
    message: String,
    help: Option<String>,
    label: Option<String>,
    span: Range<usize>,
    also: Option<(Range<usize>, String)>,
}

impl Problem {
    /// `file:line:column`, from 1, columns in characters.
    pub fn place(&self) -> String {
        let (line, column) = position(self.source.inner(), self.span.start - self.start);
        format!("{}:{line}:{column}", self.source.name())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let here = |span: &Range<usize>| span.start - self.start..span.end - self.start;
        let main = LabeledSpan::new_primary_with_span(self.label.clone(), here(&self.span));
        let also = self.also.iter().map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), here(span)));
        let also: Vec<LabeledSpan> = also.collect();
        Some(Box::new(std::iter::once(main).chain(also)))
    }
}

/// Line and column of a byte, from 1; the column counts characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Collects what is wrong with a file and those that it extends.
///
/// A span is a place in all of their texts, one after the other: each file's begins where the one before ends.
#[derive(Debug)]
pub(super) struct Problems {
    sources: Vec<Source>,
    found: Vec<Problem>,
    /// Where there is a problem already.
    places: BTreeSet<(usize, usize)>,
    /// Whether a table stands for many things, which all have its problems.
    many: bool,
}

/// A file's text.
#[derive(Debug, Clone)]
struct Source {
    named: Arc<NamedSource<String>>,
    /// Where its spans begin.
    start: usize,
    /// Its place in the order in which files add to a scenario: what is extended goes before what extends it.
    rank: usize,
}

/// The most problems of one file that are told; more are seldom read.
const MAX_PROBLEMS: usize = 20;

impl Problems {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let mut problems = Self { sources: Vec::new(), found: Vec::new(), places: BTreeSet::new(), many: false };
        problems.add_source(name, text);
        problems
    }

    /// For the same files, without problems.
    pub(super) fn again(&self) -> Self {
        Self { sources: self.sources.clone(), found: Vec::new(), places: BTreeSet::new(), many: self.many }
    }

    /// Takes a further file in; gives its number and where its spans begin. The first is the scenario's own, 0.
    pub(super) fn add_source(&mut self, name: &str, text: &str) -> (usize, usize) {
        let start = self.sources.last().map_or(0, |last| last.start + last.named.inner().len() + 1);
        let named = Arc::new(NamedSource::new(name, text.to_owned()).with_language("toml"));
        let number = self.sources.len();
        self.sources.push(Source { named, start, rank: number });
        (number, start)
    }

    /// How many files there are.
    pub(super) fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Says where a file is in the order in which files add to a scenario.
    pub(super) fn rank(&mut self, number: usize, rank: usize) {
        self.sources[number].rank = rank;
    }

    /// From now on, only one problem is told of each place.
    pub(super) fn once_a_place(&mut self) {
        self.many = true;
    }

    /// The text of a file, and where its spans begin.
    pub(super) fn text(&self, number: usize) -> (&str, usize) {
        let source = &self.sources[number];
        (source.named.inner(), source.start)
    }

    /// Where a span stands in the order in which files add to a scenario.
    pub(super) fn order(&self, span: &Range<usize>) -> (usize, usize) {
        (self.source(span.start).rank, span.start)
    }

    /// The line of a span in its file, from 1, and the file's name where it is not the scenario's own.
    pub(super) fn line(&self, span: &Range<usize>) -> (usize, Option<Arc<str>>) {
        let source = self.source(span.start);
        let (line, _) = position(source.named.inner(), span.start - source.start);
        (line, (source.start > 0).then(|| source.named.name().into()))
    }

    /// Whether a problem of this place would not be told.
    pub(super) fn is_told(&self, span: &Range<usize>) -> bool {
        self.many && self.places.contains(&(span.start, span.end))
    }

    fn source(&self, at: usize) -> &Source {
        let after = self.sources.partition_point(|source| source.start <= at);
        &self.sources[after.saturating_sub(1)]
    }

    /// Adds a problem; the result lets more be said about it.
    pub(super) fn add(&mut self, span: Range<usize>, message: impl Into<String>) -> &mut Problem {
        let source = self.source(span.start).clone();
        self.places.insert((span.start, span.end));
        let problem = Problem {
            source: source.named,
            start: source.start,
            message: message.into(),
            help: None,
            label: None,
            span,
            also: None,
        };
        self.found.push(problem);
        self.found.last_mut().expect("just pushed")
    }

    /// The problems so far as an error, in the file's order; `Ok` where there are none.
    pub(super) fn check(&mut self) -> Result<(), LoadError> {
        if self.found.is_empty() {
            return Ok(());
        }
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|problem| problem.span.start);
        if self.many {
            found.dedup_by_key(|problem| problem.span.clone());
        }
        found.truncate(MAX_PROBLEMS);
        found.iter_mut().for_each(|problem| self.settle(problem));
        Err(LoadError::Invalid(found))
    }

    /// A second place that is in another file cannot be shown beside the first: it is told in the help.
    fn settle(&self, problem: &mut Problem) {
        let Some((span, label)) = problem.also.take() else { return };
        let source = self.source(span.start);
        if source.start == problem.start {
            problem.also = Some((span, label));
            return;
        }
        let (line, column) = position(source.named.inner(), span.start - source.start);
        let place = format!("{label}: {}:{line}:{column}", source.named.name());
        problem.help = Some(problem.help.take().map_or_else(|| place.clone(), |help| format!("{help}\n{place}")));
    }
}

impl Problem {
    /// Says what to do.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Says what is at the marked place.
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = Some(label.into());
        self
    }

    /// Marks a second place.
    pub(super) fn also(&mut self, span: Range<usize>, label: impl Into<String>) -> &mut Self {
        self.also = Some((span, label.into()));
        self
    }
}

/// How many numbered names a suggestion lists one by one.
const FEW: u32 = 3;

/// The most names that a suggestion lists.
const MAX_SUGGESTED: usize = 40;

/// `allowed: a, b, c`, with `did you mean` where `got` is close to one.
pub(super) fn suggestion(heading: &str, got: &str, allowed: &[&str]) -> String {
    if allowed.is_empty() {
        return format!("{heading}: none");
    }
    let (members, singles) = populations(allowed);
    let mut labels: Vec<String> = singles.iter().map(|name| (*name).to_owned()).collect();
    labels.extend(members.iter().map(|(name, count)| format!("{name}-1 to {name}-{count}")));
    let allowed: Vec<&str> = singles.into_iter().chain(members.into_keys()).collect();
    let (allowed, more) = (&allowed[..], labels.len().saturating_sub(MAX_SUGGESTED));
    let mut list = format!("{heading}: {}", labels[..labels.len() - more].join(", "));
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    match nearest(got, allowed) {
        Some(near) => format!("did you mean `{near}`? {list}"),
        None => list,
    }
}

/// Names that are those of populations, with how many there are, and the others in their order.
fn populations<'a>(names: &[&'a str]) -> (BTreeMap<&'a str, u32>, Vec<&'a str>) {
    let number = |name: &'a str| {
        let (base, number) = name.rsplit_once('-')?;
        Some((base, number.parse::<u32>().ok().filter(|_| !number.starts_with(['0', '+']))?))
    };
    let mut all: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (base, number) in names.iter().filter_map(|name| number(name)) {
        let (count, largest) = all.entry(base).or_default();
        (*count, *largest) = (*count + 1, number.max(*largest));
    }
    // All from the first to the last are there, and are more than are read with pleasure.
    all.retain(|_, (count, largest)| count == largest && *count > FEW);
    let single = |name: &&&'a str| number(name).is_none_or(|(base, _)| !all.contains_key(base));
    let singles = names.iter().filter(single).copied().collect();
    (all.into_iter().map(|(base, (count, _))| (base, count)).collect(), singles)
}

/// The one of `allowed` that `got` is probably a slip of.
fn nearest<'a>(got: &str, allowed: &[&'a str]) -> Option<&'a str> {
    // Names longer than this are not typed by hand, and the distance is quadratic.
    if got.chars().count() > 64 {
        return None;
    }
    let length = got.chars().count();
    let close = length.div_ceil(3).min(length.saturating_sub(1));
    allowed
        .iter()
        .map(|name| (distance(&got.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(distance, _)| *distance <= close)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from `a` to `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("ab\ncd", 4), (2, 2));
        assert_eq!(position("µs\n", 2), (1, 2));
        assert_eq!(position("µs\n", 1), (1, 1), "inside of a character");
        assert_eq!(position("a\n", 99), (2, 1));
    }

    #[test]
    fn numbered_names_are_told_together() {
        let names: Vec<String> = (1..=500).map(|number| format!("peer-{number}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.extend(["a-2", "server"]);
        assert_eq!(suggestion("nodes", "pear", &names), "did you mean `peer`? nodes: a-2, server, peer-1 to peer-500");
        assert_eq!(suggestion("nodes", "x", &["a-1", "a-2"]), "nodes: a-1, a-2");
    }

    #[test]
    fn slips_are_recognised() {
        assert_eq!(nearest("latncy", &["jitter", "latency"]), Some("latency"));
        assert_eq!(nearest("Home", &["home", "office"]), Some("home"));
        assert_eq!(nearest("x", &["home", "office"]), None);
        assert_eq!(nearest("x", &["a", "b"]), None, "nothing of it is left");
        assert_eq!(nearest("", &["a"]), None);
        assert_eq!(nearest("dls", &["dsl"]), Some("dsl"));
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
