//! Many runs of one scenario: over seeds and over values of its keys, on all cores, or shared by several machines.
//!
//! | module | what it does |
//! |---|---|
//! | [`set`] | `KEY=VALUES`, as the command line has it: which values a key takes |
//! | [`document`] | a scenario file's text, in which keys are set before it is read |
//! | [`plan`] | the runs of a sweep in their order, and which of them are a partition's |
//! | [`pool`] | does work on several threads and hands the results over in order |
//! | [`measure`] | what is counted and timed in a run |
//! | [`cause`] | why a run failed, in words that are the same for the same cause |
//! | [`play`] | one run, without anything that a sweep does not need |
//! | [`lines`] | results as JSON Lines, written and read |
//! | [`merge`] | the results of several machines as those of one |
//! | [`summary`] | percentiles and failures by cause |
//! | [`wilson`] | how far a share of some runs may be from that of all |
//!
//! What comes out follows from the file, the seeds and the values alone: neither from how many threads there were
//! nor from which machine did what. Hence there are no wall times in the results.

pub mod cause;
pub mod document;
pub mod lines;
pub mod measure;
pub mod merge;
pub mod plan;
pub mod play;
pub mod pool;
pub mod set;
pub mod summary;
pub mod wilson;
