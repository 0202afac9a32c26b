//! The laboratory for `grenache`: a deterministic simulator of NATs, loss and latency, scenario files, and the
//! command line.
//!
//! | module | what it does |
//! |---|---|
//! | [`engine`] | virtual time, packets, hosts, links and NATs; the simulated [`grenache::net::Network`] |
//! | [`scenario`] | scenario files: from TOML to a validated [`scenario::Scenario`] |
//! | [`backend`] | where a scenario runs: simulated, or on this machine's loopback addresses |
//! | [`report`] | verdicts, the event log, what a person sees |
//! | [`runner`] | one run: its event log, its verdict, its replay command |
//! | [`matrix`] | two parameters against each other, and against theory |
//! | [`shrink`] | from a scenario that fails to the least of it that does |
//! | [`sweep`] | many runs: over seeds and values, percentiles, failures by cause |
//! | [`grapes`] | Grapes outside of this process: ours or the original's, as processes or in containers |
//! | [`probe`] | what hosts find out about the NATs in front of them and ask of them, over any network |
//! | [`event`] | what happened in a run: the one stream that everything else reads |

pub mod backend;
pub mod engine;
pub mod event;
pub mod grapes;
pub mod matrix;
pub mod probe;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod shrink;
pub mod sweep;
