//! What NATs do, as peers find it out, and the ways through them.

#[path = "../engine/lab.rs"]
#[allow(dead_code, reason = "the engine's tests use all of it")]
mod lab;

mod abuse;
mod bounds;
mod check;
mod crashed;
mod oracle;
mod pairs;
mod peers;
mod prober;
mod relay;
