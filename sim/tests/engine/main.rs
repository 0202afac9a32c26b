//! The engine, from outside: what programs on its hosts see, and what the event stream says.

mod captures;
mod determinism;
mod faults;
mod firewall;
mod hosts;
mod lab;
mod lockstep;
mod nats;
mod nats_beyond;
mod packets;
mod six;
mod streams;
mod tcp;
mod timeline;
