//! Answering other nodes' queries (BEP 5, BEP 44).

use std::net::SocketAddrV4;
use std::time::Instant;

use super::{MAX_PEERS_LISTED, Node, NodeEvent};
use crate::grape::krpc::{Answer, DecodeError, Key, Query};
use crate::grape::table::K;
use crate::grape::values::MAX_VALUE;
use crate::net::Rng;

/// BEP 5: malformed, bad arguments or a bad token.
const PROTOCOL_ERROR: i64 = 203;
/// BEP 5: no such method.
const METHOD_UNKNOWN: i64 = 204;
/// BEP 44: the value is too big.
const TOO_BIG: i64 = 205;
/// The reference's, for mutable values at a Grape that cannot check signatures.
const NOT_SUPPORTED: i64 = 400;

impl Node {
    pub(super) fn serve(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        from: SocketAddrV4,
        transaction: Vec<u8>,
        query: Query,
    ) {
        let mut answer = Answer::new(self.id);
        match query {
            Query::Ping => {}
            Query::FindNode { target } => answer.nodes = Some(self.table.closest(target.as_bytes(), K)),
            Query::GetPeers { info_hash } => {
                answer.token = Some(self.tokens.token(*from.ip()).to_vec());
                // Either peers or nodes, not both, as the reference does: BEP 5 allows it.
                let peers = self.peers.peers(now, rng, &info_hash, MAX_PEERS_LISTED);
                if peers.is_empty() {
                    answer.nodes = Some(self.table.closest(info_hash.as_bytes(), K));
                } else {
                    answer.values = Some(peers);
                }
            }
            Query::AnnouncePeer { info_hash, port, implied_port, token } => {
                if !self.tokens.accepts(*from.ip(), &token) {
                    return self.refuse(from, transaction, PROTOCOL_ERROR, "cannot `announce_peer` with bad token");
                }
                let port = if implied_port { from.port() } else { port };
                self.store(now, info_hash, SocketAddrV4::new(*from.ip(), port));
            }
            Query::Get { target } => {
                answer.token = Some(self.tokens.token(*from.ip()).to_vec());
                answer.value = self.values.value(&target);
                if answer.value.is_none() {
                    answer.nodes = Some(self.table.closest(target.as_bytes(), K));
                }
            }
            Query::Put { token, value, mutable } => {
                let refusal = if !self.tokens.accepts(*from.ip(), &token) {
                    Some((PROTOCOL_ERROR, "cannot `put` with bad token"))
                } else if value.size() > MAX_VALUE {
                    Some((TOO_BIG, "data payload too large"))
                } else if mutable.is_some() {
                    Some((NOT_SUPPORTED, "verification not supported"))
                } else {
                    None
                };
                if let Some((code, text)) = refusal {
                    return self.refuse(from, transaction, code, text);
                }
                self.values.insert(value);
            }
        }
        self.answer(from, transaction, answer);
    }

    /// Counts a malformed datagram, and answers it where BEP 5 has an answer.
    pub(super) fn malformed(&mut self, from: SocketAddrV4, error: DecodeError) {
        self.counters.malformed += 1;
        match &error {
            DecodeError::MissingArgument { transaction, .. } => {
                self.refuse(from, transaction.clone(), PROTOCOL_ERROR, &error.to_string());
            }
            DecodeError::UnknownMethod { transaction } => {
                self.refuse(from, transaction.clone(), METHOD_UNKNOWN, "Method Unknown");
            }
            _ => {}
        }
        self.events.push_back(NodeEvent::Malformed { from, error });
    }

    pub(super) fn store(&mut self, now: Instant, name: Key, peer: SocketAddrV4) {
        self.peers.insert(now, &name, peer);
        self.events.push_back(NodeEvent::PeerStored { name, peer });
    }
}
