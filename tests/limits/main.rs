//! What peers can make grow, each at its limit. `grenache::limits` has the table.

mod datagrams;
mod http;
mod requests;
mod sockets;
mod syns;
mod table;
mod wire;
