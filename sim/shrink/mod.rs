//! From a scenario that fails to the least of it that still fails the same way.
//!
//! | module | what it does |
//! |---|---|
//! | `search` | tries cuts, the largest first, until none is left that keeps the failure |
//! | `cuts` | what can be taken out of a file's tables, with all that names it |
//! | `failure` | whether a run fails in the same way |
//! | `calm` | the same scenario without what goes wrong: it must go on to pass |
//! | `file` | the file that is written |
//!
//! "The same way" is the same expectation, not met for the same reason ([`cause`](crate::sweep::cause)), the same panic
//! or the same program that failed. That alone is met too easily: a client whose worker was cut has no reply either. So
//! where the scenario passes once its faults are taken out, what is left of it has to pass without them as well; where
//! it takes ideal links for that, or NATs that let everything in, without those. [`Calm`] says which it was.
//!
//! Each candidate is a file that is read like any other, with the same seed. The search is deterministic: the same file
//! and seed give the same result, unless time was the bound.

mod calm;
mod cuts;
mod failure;
mod file;
mod search;

use thiserror::Error;
use toml_edit::DocumentMut;

use crate::scenario::LoadError;

pub use calm::Calm;
pub use file::{Origin, count_lines, text};
pub use search::shrink;

/// The most runs of a search that is not told otherwise.
pub const DEFAULT_RUNS: u64 = 5_000;

/// What came of a search.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// What is left.
    pub tables: DocumentMut,
    /// Why it fails, as the original did.
    pub cause: String,
    /// Without what it passes.
    pub calm: Calm,
    /// How many runs it took.
    pub runs: u64,
    /// What was cut, in order.
    pub cut: Vec<String>,
    /// Whether the search ended because of its bound, and more might be cut.
    pub bounded: bool,
}

/// Why nothing is shrunk.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShrinkError {
    /// The file is not right.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The run passes.
    #[error("the run passes: there is nothing to shrink; `grenache sweep` finds seeds that fail")]
    Passes,
    /// The run was refused.
    #[error("the simulator cannot run it: {0}")]
    Refused(String),
}
