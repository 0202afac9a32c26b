//! Tries cuts, the largest first, until none is left that keeps the failure.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, Value};

use super::calm::Calm;
use super::cuts::{self, KINDS, Place};
use super::failure::Failure;
use super::{ShrinkError, Shrunk};
use crate::report::RunResult;
use crate::scenario::{self, Scenario};
use crate::sweep::document::Document;
use crate::sweep::play::play;

/// Durations and numbers that are made smaller where they cannot go. The others are names, or mean something else.
const SHRINKABLE: [&str; 10] =
    ["at", "lasts", "for", "every", "times", "start", "time-limit", "requests", "retries", "count"];

/// Shrinks a scenario that fails with this seed, in at most `runs` runs, or until `stop` says so. `progress` is shown
/// how many runs there were and how many lines are left.
///
/// # Errors
/// Where the file is not right, or the run passes.
pub fn shrink(
    document: &Document,
    seed: u64,
    runs: u64,
    stop: impl Fn() -> bool,
    progress: impl FnMut(u64, usize),
) -> Result<Shrunk, ShrinkError> {
    let scenario = document.scenario()?;
    let file = document.path().display().to_string();
    let failure = match play(&scenario, seed).0 {
        RunResult::Refused(reason) => return Err(ShrinkError::Refused(reason)),
        result => Failure::of(&result).ok_or(ShrinkError::Passes)?,
    };
    let kept = failure.expectation().and_then(|text| position(&scenario, text));
    let mut search = Search {
        file,
        seed,
        failure,
        kept,
        calm: Calm::Never,
        current: document.tables().clone(),
        mended: BTreeMap::new(),
        runs: 1,
        limit: runs,
        stop,
        progress,
        cut: Vec::new(),
    };
    search.find_calm();
    while search.pass() {}
    let bounded = search.is_over();
    let Search { current: tables, failure, calm, runs, cut, .. } = search;
    Ok(Shrunk { tables, cause: failure.cause().to_owned(), calm, runs, cut, bounded })
}

/// Which of a file's expectations it is.
fn position(scenario: &Scenario, text: &str) -> Option<usize> {
    scenario.expectations.iter().position(|expectation| expectation.text == text)
}

struct Search<S, P> {
    file: String,
    seed: u64,
    failure: Failure,
    /// The expectation that is not met: it stays as it is.
    kept: Option<usize>,
    calm: Calm,
    current: DocumentMut,
    /// Calm scenarios by their text, and whether they do what the original should have done.
    mended: BTreeMap<String, bool>,
    runs: u64,
    limit: u64,
    stop: S,
    progress: P,
    cut: Vec<String>,
}

impl<S: Fn() -> bool, P: FnMut(u64, usize)> Search<S, P> {
    /// Finds out without what the original passes.
    fn find_calm(&mut self) {
        for level in Calm::LEVELS {
            if level.of(&self.current).is_some_and(|calm| self.is_mended(&calm)) {
                self.calm = level;
                return;
            }
        }
    }

    /// One round of all cuts; whether any was made.
    fn pass(&mut self) -> bool {
        let before = self.cut.len();
        self.cut_list("fault");
        self.cut_expectations();
        self.cut_list("program");
        for kind in KINDS {
            self.cut_named(kind);
        }
        self.cut_keys();
        self.cut_elements();
        self.cut_values();
        self.cut.len() > before && !self.is_over()
    }

    /// Delta debugging: halves, quarters, … and at last single ones.
    fn cut_list(&mut self, list: &'static str) {
        let mut chunk = cuts::count(&self.current, list);
        while chunk > 0 {
            let mut start = 0;
            while start < cuts::count(&self.current, list) {
                let end = (start + chunk).min(cuts::count(&self.current, list));
                let candidate = cuts::without_some(&self.current, list, |index| (start..end).contains(&index));
                let what = if end - start == 1 { list.to_owned() } else { format!("{} {list}s", end - start) };
                if !self.attempt(candidate, self.kept, &what) {
                    start = end;
                }
            }
            chunk /= 2;
        }
    }

    /// All expectations but the one that matters, together or each on its own.
    fn cut_expectations(&mut self) {
        let Some(kept) = self.kept else { return self.cut_list("expect") };
        let others = cuts::count(&self.current, "expect").saturating_sub(1);
        let all = cuts::without_some(&self.current, "expect", |index| index != kept);
        if others == 0 || self.attempt(all, Some(0), &format!("{others} expects")) {
            return;
        }
        for index in (0..cuts::count(&self.current, "expect")).rev() {
            let Some(kept) = self.kept.filter(|kept| *kept != index) else { continue };
            let one = cuts::without_some(&self.current, "expect", |other| other == index);
            self.attempt(one, Some(kept - usize::from(index < kept)), "expect");
        }
    }

    fn cut_named(&mut self, kind: &'static str) {
        for name in cuts::names(&self.current, kind) {
            let candidate = cuts::without_named(&self.current, kind, &name, self.kept);
            // Expectations that name it go with it.
            let kept = self.kept.map(|kept| {
                let before = |tables: &DocumentMut| cuts::count(tables, "expect");
                kept.min(before(&candidate).saturating_sub(1))
            });
            let kept = kept.and_then(|_| self.find_kept(&candidate));
            self.attempt(candidate, kept, &format!("{kind} {name}"));
        }
    }

    /// The number of the expectation that matters, in another file.
    fn find_kept(&self, candidate: &DocumentMut) -> Option<usize> {
        let scenario = scenario::parse(&self.file, &candidate.to_string()).ok()?;
        position(&scenario, self.failure.expectation()?)
    }

    /// Each key that may be left out.
    fn cut_keys(&mut self) {
        for place in Place::all(&self.current, self.kept) {
            for key in place.keys(&self.current) {
                let mut candidate = self.current.clone();
                let removed = place.table(&mut candidate).and_then(|table| table.remove(&key));
                if removed.is_some() {
                    self.attempt(candidate, self.kept, &place.describe(&key));
                }
            }
        }
    }

    /// Each element of an array, and of the arrays in it.
    fn cut_elements(&mut self) {
        for place in Place::all(&self.current, self.kept) {
            for key in place.keys(&self.current) {
                let mut path = vec![0];
                while !path.is_empty() {
                    let mut candidate = self.current.clone();
                    let item = place.table(&mut candidate).and_then(|table| table.get_mut(&key));
                    match item.and_then(|item| item.as_value_mut()).map(|value| remove_element(value, &path)) {
                        Some(Removed::Yes) => {
                            if !self.attempt(candidate, self.kept, &place.describe(&key)) {
                                path.push(0);
                            }
                        }
                        _ => {
                            path.pop();
                            if let Some(last) = path.last_mut() {
                                *last += 1;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Shorter durations and smaller numbers.
    fn cut_values(&mut self) {
        for place in Place::all(&self.current, self.kept) {
            for key in place.keys(&self.current).into_iter().filter(|key| SHRINKABLE.contains(&key.as_str())) {
                while self.shrink_value(&place, &key) {}
            }
        }
    }

    fn shrink_value(&mut self, place: &Place, key: &str) -> bool {
        let mut tables = self.current.clone();
        let item = place.table(&mut tables).and_then(|table| table.get_mut(key));
        let Some(old) = item.and_then(|item| item.as_value()).cloned() else { return false };
        cuts::smaller(&old).into_iter().any(|value| {
            let mut candidate = self.current.clone();
            if let Some(item) = place.table(&mut candidate).and_then(|table| table.get_mut(key)) {
                *item = toml_edit::value(value.clone());
            }
            let what = format!("{} from {} to {value}", place.describe(key), old.to_string().trim());
            self.attempt(candidate, self.kept, &what)
        })
    }

    /// Takes a candidate for the current one where it fails in the same way.
    fn attempt(&mut self, candidate: DocumentMut, kept: Option<usize>, what: &str) -> bool {
        if self.is_over() || (self.kept.is_some() && kept.is_none()) {
            return false;
        }
        let Ok(scenario) = scenario::parse(&self.file, &candidate.to_string()) else { return false };
        let (fails, calm) = (self.run(&scenario), self.calm.of(&candidate));
        let holds = self.failure.is(&fails) && calm.is_none_or(|calm| self.is_mended(&calm));
        if holds {
            self.current = candidate;
            self.kept = kept;
            self.cut.push(what.to_owned());
        }
        holds
    }

    fn is_mended(&mut self, calm: &DocumentMut) -> bool {
        let text = calm.to_string();
        if let Some(known) = self.mended.get(&text) {
            return *known;
        }
        let Ok(scenario) = scenario::parse(&self.file, &text) else { return false };
        let result = self.run(&scenario);
        let mended = self.failure.is_mended(&result);
        self.mended.insert(text, mended);
        mended
    }

    fn run(&mut self, scenario: &Scenario) -> RunResult {
        self.runs += 1;
        (self.progress)(self.runs, super::file::lines(&self.current));
        play(scenario, self.seed).0
    }

    fn is_over(&self) -> bool {
        self.runs >= self.limit || (self.stop)()
    }
}

enum Removed {
    Yes,
    /// There is no such element.
    No,
}

/// Removes the element that `path` leads to.
fn remove_element(value: &mut Value, path: &[usize]) -> Removed {
    let (Some(array), Some((&index, rest))) = (value.as_array_mut(), path.split_first()) else { return Removed::No };
    let Some(element) = array.get_mut(index) else { return Removed::No };
    if !rest.is_empty() {
        return remove_element(element, rest);
    }
    array.remove(index);
    Removed::Yes
}
