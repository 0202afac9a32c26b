//! The engine, from outside: what programs on its hosts see, and what the event stream says.

mod determinism;
mod hosts;
mod lab;
mod nats;
mod nats_beyond;
mod packets;
mod six;
mod tcp;
