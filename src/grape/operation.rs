//! What one operation does: search for nodes, then store at those that gave a token.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use super::krpc::{Answer, Key, Mutable, NodeId, Query, Value};
use super::node::{FoundValue, OperationError, Outcome};
use super::search::{Holder, Search};
use super::values::target;

/// BEP 5: protocol error, which is what a bad token is answered with.
const BAD_TOKEN: i64 = 203;

/// An operation that has not ended.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) goal: Goal,
    pub(super) phase: Phase,
    /// Whether it has begun anew because the tokens of last time no longer counted. It does so once.
    pub(super) retried: bool,
}

/// What an operation is for.
#[derive(Debug)]
pub(super) enum Goal {
    Bootstrap,
    Lookup,
    /// The newest of a mutable value so far; and its salt, where it has one.
    Get {
        salt: Option<Vec<u8>>,
        newest: Option<FoundValue>,
    },
    Announce {
        port: u16,
    },
    Put {
        target: NodeId,
        value: Value,
        mutable: Option<Box<Mutable>>,
    },
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Phase {
    Search(Search),
    Store(Store),
    /// A get has the immutable value that it wants.
    Found(FoundValue),
}

impl Phase {
    pub(super) fn store(key: Key, holders: Vec<Holder>, cached: bool) -> Self {
        Self::Store(Store {
            key,
            left: holders.into(),
            waiting: Vec::new(),
            asked: 0,
            accepted: 0,
            refusal: None,
            cached,
            stale: false,
        })
    }
}

/// Storing at every node that gave a token.
#[derive(Debug)]
pub(super) struct Store {
    key: Key,
    left: VecDeque<Holder>,
    waiting: Vec<Holder>,
    asked: usize,
    accepted: usize,
    refusal: Option<OperationError>,
    /// Whether the tokens are those of last time.
    cached: bool,
    /// Whether one of them no longer counts, or was another node's.
    stale: bool,
}

/// What came of a query.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Box<Answer>),
    Error { code: i64, text: String },
    None,
}

/// What an operation needs next.
#[derive(Debug)]
pub(super) enum Step {
    /// Replies.
    Wait,
    /// To store at these nodes.
    Searched(Key, Vec<Holder>),
    /// To search anew: the tokens of last time no longer count.
    Stale(Key),
    /// Nothing: no node took it.
    Failed(Key, OperationError),
    /// Nothing: it is done.
    Done(Outcome),
    /// Nothing: its search is over, and what it found is in the node's cache. So many nodes answered.
    LookedUp(Key, usize),
    /// Nothing: the node has found its first contacts, or none.
    Bootstrapped,
}

impl Operation {
    /// The next query to send, with `width` of them in flight at most.
    pub(super) fn next_query(&mut self, width: usize) -> Option<(SocketAddrV4, Query)> {
        match &mut self.phase {
            Phase::Search(search) => {
                let to = search.next()?;
                let key = search.key().clone();
                let query = match self.goal {
                    Goal::Bootstrap => Query::FindNode { target: key },
                    Goal::Lookup | Goal::Announce { .. } => Query::GetPeers { info_hash: key },
                    Goal::Get { .. } | Goal::Put { .. } => Query::Get { target: key, newer_than: None },
                };
                Some((to, query))
            }
            Phase::Store(store) => {
                if store.waiting.len() >= width.max(1) {
                    return None;
                }
                let holder = store.left.pop_front()?;
                let (to, token) = (holder.contact.address, holder.token.clone());
                store.waiting.push(holder);
                store.asked += 1;
                let query = match &self.goal {
                    Goal::Announce { port } => {
                        Query::AnnouncePeer { info_hash: store.key.clone(), port: *port, implied_port: false, token }
                    }
                    Goal::Put { value, mutable, .. } => {
                        Query::Put { token, value: value.clone(), mutable: mutable.clone() }
                    }
                    // They only search.
                    Goal::Bootstrap | Goal::Lookup | Goal::Get { .. } => return None,
                };
                Some((to, query))
            }
            Phase::Found(_) => None,
        }
    }

    /// Takes what came of a query to `from`.
    pub(super) fn replied(&mut self, from: SocketAddrV4, reply: Reply) {
        match &mut self.phase {
            Phase::Search(search) => match reply {
                Reply::Answer(answer) => {
                    search.answered(from, &answer);
                    if let Goal::Get { salt, newest } = &mut self.goal
                        && let Some(found) = believable(search.key(), salt.as_deref(), *answer)
                    {
                        if found.mutable.is_none() {
                            self.phase = Phase::Found(found);
                        } else if newest.as_ref().and_then(sequence) < sequence(&found) {
                            *newest = Some(found);
                        }
                    }
                }
                Reply::Error { .. } | Reply::None => search.failed(from),
            },
            Phase::Store(store) => store.replied(from, reply),
            Phase::Found(_) => {}
        }
    }

    /// What is needed next, once [`next_query`](Self::next_query) has nothing more.
    pub(super) fn step(&mut self) -> Step {
        match &mut self.phase {
            Phase::Search(search) if search.is_done() => {
                let key = search.key().clone();
                match &mut self.goal {
                    Goal::Bootstrap => Step::Bootstrapped,
                    Goal::Lookup => Step::LookedUp(key, search.answers()),
                    Goal::Get { newest, .. } => Step::Done(Outcome::Value(newest.take())),
                    Goal::Announce { .. } | Goal::Put { .. } => Step::Searched(key, search.take_holders()),
                }
            }
            Phase::Store(store) if store.left.is_empty() && store.waiting.is_empty() => {
                let key = store.key.clone();
                if store.cached && store.stale && !self.retried {
                    self.retried = true;
                    Step::Stale(key)
                } else if store.accepted > 0 {
                    Step::Done(match &self.goal {
                        Goal::Put { target, .. } => Outcome::Stored(*target),
                        _ => Outcome::Announced(store.accepted),
                    })
                } else if store.asked == 0 {
                    Step::Failed(key, OperationError::NoNodes)
                } else {
                    Step::Failed(key, store.refusal.take().unwrap_or(OperationError::AllFailed))
                }
            }
            Phase::Search(_) | Phase::Store(_) => Step::Wait,
            Phase::Found(found) => Step::Done(Outcome::Value(Some(found.clone()))),
        }
    }
}

impl Store {
    fn replied(&mut self, from: SocketAddrV4, reply: Reply) {
        let Some(index) = self.waiting.iter().position(|holder| holder.contact.address == from) else { return };
        let holder = self.waiting.swap_remove(index);
        match reply {
            Reply::Answer(answer) if answer.id == holder.contact.id => self.accepted += 1,
            Reply::Answer(_) => self.stale = true,
            Reply::Error { code: BAD_TOKEN, .. } => self.stale = true,
            Reply::Error { code, text } => {
                // BEP 44's own errors are for whoever puts; the last one is told.
                if (300..400).contains(&code) {
                    self.refusal = Some(OperationError::Refused { code, text });
                }
            }
            Reply::None => {}
        }
    }
}

/// The value of an answer, where it is what `key` is the hash of (BEP 44): of the value itself, or of the public key
/// and salt that it is signed with.
fn believable(key: &Key, salt: Option<&[u8]>, answer: Answer) -> Option<FoundValue> {
    let Answer { id, token, value, mutable, .. } = answer;
    let value = value?;
    let mutable = mutable.map(|mutable| Box::new(Mutable { salt: salt.map(<[u8]>::to_vec), ..*mutable }));
    let (hash, signed) = match &mutable {
        None => (target(&value), true),
        Some(mutable) => (mutable.target(), mutable.is_signed(&value)),
    };
    (signed && hash.0[..] == *key.as_bytes()).then_some(FoundValue { id, token, value, mutable })
}

fn sequence(found: &FoundValue) -> Option<i64> {
    found.mutable.as_ref().map(|mutable| mutable.sequence)
}
