//! What a host finds out about the NAT in front of it, and asks of it.
//!
//! | module | what it does |
//! |---|---|
//! | [`stun`] | RFC 5780's messages: STUN Binding requests, responses and indications |
//! | [`server`] | a STUN server; two of them, on two addresses, answer everything that RFC 5780 asks |
//! | [`prober`] | asks them, and concludes what the NAT does in RFC 4787's terms |
//! | [`nat_pmp`] | NAT-PMP's messages (RFC 6886) |
//! | [`forward`] | asks the NAT for a forward, and keeps it |
//!
//! All of it runs over any [`Network`](grenache::net::Network): nothing here knows of the simulator.

pub mod forward;
pub mod nat_pmp;
pub mod prober;
pub mod server;
mod socket;
pub mod stun;
