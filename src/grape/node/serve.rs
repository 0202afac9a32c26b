//! Answering other nodes' queries (BEP 5, BEP 44).

use std::net::SocketAddrV4;
use std::time::Instant;

use super::{MAX_PEERS_LISTED, Node, NodeEvent};
use crate::grape::krpc::{Answer, DecodeError, Key, MAX_SALT, Mutable, Query, Value};
use crate::grape::table::K;
use crate::grape::values::{Conflict, MAX_VALUE, Stored};
use crate::net::Rng;

/// BEP 5: malformed, bad arguments or a bad token.
const PROTOCOL_ERROR: i64 = 203;
/// BEP 5: no such method.
const METHOD_UNKNOWN: i64 = 204;
/// BEP 44: the value is too big.
const TOO_BIG: i64 = 205;
/// BEP 44: the signature is not one.
const BAD_SIGNATURE: i64 = 206;
/// BEP 44: the salt is too big.
const SALT_TOO_BIG: i64 = 207;
/// BEP 44: another sequence number is stored than the putter expects.
const CAS_MISMATCH: i64 = 301;
/// BEP 44: a newer value is stored.
const STALE: i64 = 302;

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
            Query::Get { target, newer_than } => {
                answer.token = Some(self.tokens.token(*from.ip()).to_vec());
                match self.values.value(&target) {
                    None => answer.nodes = Some(self.table.closest(target.as_bytes(), K)),
                    Some(Stored { mutable: Some(mutable), .. })
                        if newer_than.is_some_and(|sequence| mutable.sequence <= sequence) =>
                    {
                        answer.sequence = Some(mutable.sequence);
                    }
                    Some(Stored { value, mutable }) => {
                        answer.value = Some(value.clone());
                        // Whoever asks knows the salt.
                        answer.mutable =
                            mutable.as_deref().map(|mutable| Box::new(Mutable { salt: None, ..mutable.clone() }));
                    }
                }
            }
            Query::Put { token, value, mutable } => {
                if let Err((code, text)) = self.take_value(from, &token, value, mutable) {
                    return self.refuse(from, transaction, code, text);
                }
            }
        }
        self.answer(from, transaction, answer);
    }

    /// Stores a value that was put here, or says why not.
    fn take_value(
        &mut self,
        from: SocketAddrV4,
        token: &[u8],
        value: Value,
        mutable: Option<Box<Mutable>>,
    ) -> Result<(), (i64, &'static str)> {
        if !self.tokens.accepts(*from.ip(), token) {
            return Err((PROTOCOL_ERROR, "cannot `put` with bad token"));
        }
        if value.size() > MAX_VALUE {
            return Err((TOO_BIG, "data payload too large"));
        }
        let Some(mutable) = mutable else {
            self.values.insert(*from.ip(), value);
            return Ok(());
        };
        if mutable.salt.as_ref().is_some_and(|salt| salt.len() > MAX_SALT) {
            return Err((SALT_TOO_BIG, "salt too large"));
        }
        if !mutable.is_signed(&value) {
            return Err((BAD_SIGNATURE, "invalid signature"));
        }
        self.values.replace(*from.ip(), value, mutable).map_err(|conflict| match conflict {
            Conflict::Cas => (CAS_MISMATCH, "CAS mismatch, re-read and try again"),
            Conflict::Stale => (STALE, "sequence number less than current"),
        })
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
