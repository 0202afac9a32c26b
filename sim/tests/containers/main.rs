//! Grapes in real containers. `docker/build` makes the images; the tests that need them are ignored by default, and
//! `.ci/containers` runs them all.

mod command;
mod compose;
mod dht;
mod image;
mod lab;
mod refusals;
mod scenario;
