//! One iterative search through the DHT (BEP 5): ask the closest nodes that are known, learn of closer ones, until the
//! closest have all been asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;

use super::krpc::{Answer, Contact, Key, NodeId};
use super::table::{Distance, K, is_reachable};

/// How many nodes one search asks. Beyond it the search ends with what it has: a swarm of made-up nodes cannot keep it
/// going. Twenty nodes close to a key are found with far fewer in any honest DHT.
pub(super) const MAX_ASKED: usize = 128;

/// How many nodes that have not been asked a search remembers; beyond it the farthest are forgotten.
const MAX_CANDIDATES: usize = 256;

/// How many peers a search remembers to have learnt of; those beyond count as new each time.
const MAX_LEARNT: usize = 256;

/// A node that answered with a token, which is needed to store something there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) contact: Contact,
    pub(super) token: Vec<u8>,
}

/// Who was asked, who is to be asked next, and who may be stored at.
#[derive(Debug)]
pub(super) struct Search {
    key: Key,
    own: NodeId,
    width: usize,
    in_flight: usize,
    answers: usize,
    /// Asked first: addresses whose nodes' ids are not known.
    seeds: VecDeque<SocketAddrV4>,
    asked: BTreeSet<SocketAddrV4>,
    /// Closest first. `true`: asked and not found wanting.
    candidates: BTreeMap<(Distance, Contact), bool>,
    /// In the order of their answers.
    holders: Vec<Holder>,
    /// Peers that were learnt of.
    learnt: BTreeSet<SocketAddrV4>,
}

impl Search {
    /// A search for `key` that keeps up to `width` queries in flight, from known nodes and addresses of unknown ones.
    pub(super) fn new(key: Key, own: NodeId, width: usize, known: Vec<Contact>, seeds: Vec<SocketAddrV4>) -> Self {
        let mut search = Self {
            key,
            own,
            width: width.max(1),
            in_flight: 0,
            answers: 0,
            seeds: seeds.into(),
            asked: BTreeSet::new(),
            candidates: BTreeMap::new(),
            holders: Vec::new(),
            learnt: BTreeSet::new(),
        };
        known.into_iter().for_each(|contact| search.consider(contact));
        search
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Who to ask now; the answer or failure must be told.
    pub(super) fn next(&mut self) -> Option<SocketAddrV4> {
        if self.in_flight >= self.width || self.asked.len() >= MAX_ASKED {
            return None;
        }
        let address = self.next_address()?;
        self.asked.insert(address);
        self.in_flight += 1;
        Some(address)
    }

    fn next_address(&mut self) -> Option<SocketAddrV4> {
        while let Some(seed) = self.seeds.pop_front() {
            if !self.asked.contains(&seed) {
                return Some(seed);
            }
        }
        for ((_, contact), asked) in self.candidates.iter_mut().take(K) {
            if !*asked {
                // It may have been a seed, or two ids may claim one address: it is asked once.
                *asked = true;
                if !self.asked.contains(&contact.address) {
                    return Some(contact.address);
                }
            }
        }
        None
    }

    /// Whether nobody is left to ask or to wait for.
    pub(super) fn is_done(&self) -> bool {
        let exhausted = || {
            self.asked.len() >= MAX_ASKED
                || self.seeds.iter().all(|seed| self.asked.contains(seed))
                    && self
                        .candidates
                        .iter()
                        .take(K)
                        .all(|((_, contact), asked)| *asked || self.asked.contains(&contact.address))
        };
        self.in_flight == 0 && exhausted()
    }

    /// Takes an answer of a node that was asked.
    pub(super) fn answered(&mut self, from: SocketAddrV4, answer: &Answer) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.answers += 1;
        let contact = Contact { id: answer.id, address: from };
        // Whoever was expected at this address, it is this one.
        let candidates = self.candidates.len();
        self.candidates.retain(|(_, other), _| other.address != from);
        if contact.id == self.own && self.candidates.len() < candidates {
            // Others still know this node by an id that it had before a restart. As a seed it is wanted.
            return;
        }
        if contact.id != self.own {
            self.candidates.insert((self.distance(&contact.id), contact), true);
        }
        if let Some(token) = &answer.token {
            self.holders.push(Holder { contact, token: token.clone() });
        }
        for contact in answer.nodes.iter().flatten() {
            self.consider(*contact);
        }
    }

    /// Takes note that a node that was asked gave no answer, or an error.
    pub(super) fn failed(&mut self, address: SocketAddrV4) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.candidates.retain(|(_, contact), _| contact.address != address);
    }

    /// Takes note of a peer that an answer lists; `true` where it is the first to do so.
    pub(super) fn learn(&mut self, peer: SocketAddrV4) -> bool {
        self.learnt.len() >= MAX_LEARNT || self.learnt.insert(peer)
    }

    /// How many nodes answered.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// The nodes that gave a token.
    pub(super) fn take_holders(&mut self) -> Vec<Holder> {
        std::mem::take(&mut self.holders)
    }

    fn consider(&mut self, contact: Contact) {
        if contact.id == self.own || !is_reachable(contact.address) || self.asked.contains(&contact.address) {
            return;
        }
        self.candidates.entry((self.distance(&contact.id), contact)).or_insert(false);
        if self.candidates.len() > MAX_CANDIDATES {
            self.candidates.pop_last();
        }
    }

    fn distance(&self, id: &NodeId) -> Distance {
        Distance::new(self.key.as_bytes(), id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const OWN: NodeId = NodeId([9; 20]);

    /// Smaller numbers are closer to the key.
    fn contact(number: u16) -> Contact {
        let [high, low] = number.to_be_bytes();
        let mut id = [0; 20];
        (id[0], id[1]) = (high, low);
        Contact { id: NodeId(id), address: SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), number + 1) }
    }

    fn answer(id: NodeId, nodes: impl IntoIterator<Item = u16>) -> Answer {
        Answer { nodes: Some(nodes.into_iter().map(contact).collect()), ..Answer::new(id) }
    }

    fn search(known: impl IntoIterator<Item = u16>) -> Search {
        Search::new(Key::from(NodeId([0; 20])), OWN, 3, known.into_iter().map(contact).collect(), Vec::new())
    }

    fn ask_all(search: &mut Search) -> Vec<u16> {
        std::iter::from_fn(|| search.next()).map(|address| address.port() - 1).collect()
    }

    #[test]
    fn it_asks_the_closest_first_and_no_more_than_its_width() {
        let mut search = search([40, 10, 30, 20]);
        assert_eq!(ask_all(&mut search), [10, 20, 30]);
        search.answered(contact(20).address, &answer(contact(20).id, [5]));
        assert_eq!(ask_all(&mut search), [5]);
        for failed in [5, 10, 30] {
            search.failed(contact(failed).address);
        }
        assert!(!search.is_done());
        assert_eq!(ask_all(&mut search), [40]);
        search.failed(contact(40).address);
        assert!(search.is_done());
    }

    #[test]
    fn it_ends_when_the_twenty_closest_have_answered() {
        let mut search = search(0..100);
        let mut asked = Vec::new();
        while !search.is_done() {
            for number in ask_all(&mut search) {
                search.answered(contact(number).address, &answer(contact(number).id, []));
                asked.push(number);
            }
        }
        assert_eq!(asked, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn made_up_nodes_cannot_keep_it_going() {
        let mut search = search([60_000]);
        let (mut asked, mut next) = (0, 60_000);
        while !search.is_done() {
            for number in ask_all(&mut search) {
                asked += 1;
                next -= 20;
                search.answered(contact(number).address, &answer(contact(number).id, next..next + 20));
            }
        }
        assert_eq!(asked, MAX_ASKED);
    }

    #[test]
    fn a_seed_is_asked_once_whatever_its_id_turns_out_to_be() {
        let mut search = Search::new(Key::from(OWN), OWN, 3, Vec::new(), vec![contact(1).address; 2]);
        assert_eq!(ask_all(&mut search), [1]);
        assert!(!search.is_done());
        search.answered(contact(1).address, &answer(contact(7).id, [1]));
        assert!(search.is_done());
    }
    #[test]
    fn it_stores_at_its_own_node_where_that_is_a_seed_but_not_where_others_know_it_by_an_old_id() {
        let mut token = answer(OWN, []);
        token.token = Some(vec![1]);
        let mut alone = Search::new(Key::from(OWN), OWN, 3, Vec::new(), vec![contact(1).address]);
        assert_eq!(ask_all(&mut alone), [1]);
        alone.answered(contact(1).address, &token);
        assert_eq!(alone.take_holders().len(), 1);

        let mut restarted = search([1]);
        assert_eq!(ask_all(&mut restarted), [1]);
        restarted.answered(contact(1).address, &token);
        assert!(restarted.is_done());
        assert_eq!(restarted.take_holders(), []);
    }
}
