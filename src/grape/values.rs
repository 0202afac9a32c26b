//! Stored values (BEP 44): immutable ones by the sha1 of their bencoded form, mutable ones by that of their key.

use std::net::Ipv4Addr;
use std::num::NonZeroUsize;

use sha1::{Digest, Sha1};

use super::krpc::{Key, Mutable, NodeId, Value};
use crate::fair::FairMap;
use crate::source::source;

/// A value must be smaller than this, in bytes, to be put.
pub(super) const MAX_VALUE: usize = 1000;

/// Values. They do not age: at the limit the one that was put or read longest ago goes, or, where one source has put
/// half of them, the oldest of its own.
#[derive(Debug)]
pub(super) struct ValueStore(FairMap<NodeId, Stored>);

/// A value, and what makes it mutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) value: Value,
    pub(super) mutable: Option<Box<Mutable>>,
}

/// Why a mutable value is not stored (BEP 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Another sequence number is stored than the putter expects.
    Cas,
    /// A newer value is stored, or another one of the same sequence number.
    Stale,
}

impl ValueStore {
    pub(super) fn new(max_values: NonZeroUsize) -> Self {
        Self(FairMap::new(max_values))
    }

    /// Stores an immutable value.
    pub(super) fn insert(&mut self, from: Ipv4Addr, value: Value) {
        self.0.entry(&target(&value), source(from), || Stored { value, mutable: None });
    }

    /// Stores a mutable value, whose signature has been checked, where it is newer than what is there.
    pub(super) fn replace(&mut self, from: Ipv4Addr, value: Value, mut mutable: Box<Mutable>) -> Result<(), Conflict> {
        let target = mutable.target();
        let expected = mutable.expected.take();
        if let Some(Stored { value: stored, mutable: Some(there) }) = self.0.get(&target) {
            if expected.is_some_and(|expected| expected != there.sequence) {
                return Err(Conflict::Cas);
            }
            // The very same value again only makes it young.
            let same = mutable.sequence == there.sequence && value == *stored;
            if mutable.sequence <= there.sequence && !same {
                return Err(Conflict::Stale);
            }
        }
        let stored = Stored { value, mutable: Some(mutable) };
        let (entry, _) = self.0.entry(&target, source(from), || stored.clone());
        *entry = stored;
        Ok(())
    }

    /// The value under a target, which becomes the youngest. Targets that do not have 20 bytes have none.
    pub(super) fn value(&mut self, target: &Key) -> Option<&Stored> {
        let target = NodeId(target.as_bytes().try_into().ok()?);
        self.0.touch(&target)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many values had to make room so far.
    pub(super) fn evicted(&self) -> u64 {
        self.0.evicted()
    }
}

/// Where an immutable value is stored.
pub(super) fn target(value: &Value) -> NodeId {
    NodeId(Sha1::digest(value.as_bencode()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn the_target_is_the_hash_of_the_bencoded_value() {
        let expected = hex::encode(target(&Value::from_bytes(b"Hello World!")).0);
        assert_eq!(expected, "e5f96f6f38320f0f33959cb4d3d656452117aadb", "BEP 44, test 3");
    }

    #[test]
    fn the_least_recently_used_value_goes_at_the_limit() {
        let mut store = ValueStore::new(NonZeroUsize::new(2).unwrap());
        let values = [b"a", b"b", b"c"].map(|text| Value::from_bytes(text));
        let key = |value: &Value| Key::from(target(value));
        store.insert(SOURCE, values[0].clone());
        store.insert(SOURCE, values[1].clone());
        assert!(store.value(&key(&values[0])).is_some());
        store.insert(SOURCE, values[2].clone());
        assert_eq!(store.value(&key(&values[1])), None);
        assert_eq!((store.len(), store.evicted()), (2, 1));
        assert_eq!(store.value(&Key::new(b"short").unwrap()), None);
    }

    #[test]
    fn bep44_a_mutable_value_is_replaced_by_newer_ones_only() {
        let mut store = ValueStore::new(NonZeroUsize::new(10).unwrap());
        let mut put = |text: &str, sequence, expected| {
            let mutable = Mutable { key: [1; 32], signature: [2; 64], sequence, salt: None, expected };
            store.replace(SOURCE, Value::from_bytes(text.as_bytes()), Box::new(mutable))
        };
        assert_eq!(put("five", 5, Some(1)), Ok(()), "there is nothing to compare with yet");
        assert_eq!(put("four", 4, None), Err(Conflict::Stale));
        assert_eq!(put("other", 5, None), Err(Conflict::Stale));
        assert_eq!(put("five", 5, None), Ok(()), "the same once more");
        assert_eq!(put("six", 6, Some(4)), Err(Conflict::Cas));
        assert_eq!(put("three", 3, Some(5)), Err(Conflict::Stale));
        assert_eq!(put("six", 6, Some(5)), Ok(()));
        let target = Mutable { key: [1; 32], signature: [2; 64], sequence: 0, salt: None, expected: None }.target();
        let stored = store.value(&target.into()).unwrap();
        assert_eq!((&stored.value, stored.mutable.as_ref().unwrap().sequence), (&Value::from_bytes(b"six"), 6));
        assert_eq!(stored.mutable.as_ref().unwrap().expected, None);
    }
}
