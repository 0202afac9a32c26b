//! Virtual time, packets, hosts, links and NATs; the simulated [`grenache::net::Network`].
//!
//! The public face that the backend is written against:
//!
//! ```text
//! Sim::new(&Scenario topology parts, seed, observer) -> Sim        // builds hosts, links, NATs from scenario::model
//! sim.run(time_limit, |world: World| async move { … }) -> T        // runs `main` until it returns or the limit
//! world.now() -> Duration                                          // since the run began
//! world.network(node) -> Net                                       // the node's Network (valid for its current life)
//! world.spawn(node, future)                                        // a task scope of the node: dropped on crash
//! world.crash(node) / world.start(node)                            // start gives it a new life
//! world.partition(&[Name], &[Name]) -> PartitionId / world.heal(id)
//! world.rebind(nat)
//! observer: FnMut(Record), called synchronously for every event in order
//! ```
