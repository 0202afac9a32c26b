//! Immutable values (BEP 44), by the sha1 of their bencoded form.

use std::num::NonZeroUsize;

use lru::LruCache;
use sha1::{Digest, Sha1};

use super::krpc::{Key, NodeId, Value};

/// A value must be smaller than this, in bytes, to be put.
pub(super) const MAX_VALUE: usize = 1000;

/// Immutable values. They do not age: the one that was put or read longest ago goes at the limit.
#[derive(Debug)]
pub(super) struct ValueStore(LruCache<NodeId, Value>);

impl ValueStore {
    pub(super) fn new(max_values: NonZeroUsize) -> Self {
        Self(LruCache::new(max_values))
    }

    pub(super) fn insert(&mut self, value: Value) {
        self.0.put(target(&value), value);
    }

    /// The value under a target. Targets that do not have 20 bytes have none.
    pub(super) fn value(&mut self, target: &Key) -> Option<Value> {
        let target = NodeId(target.as_bytes().try_into().ok()?);
        self.0.get(&target).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Where an immutable value is stored.
pub(super) fn target(value: &Value) -> NodeId {
    NodeId(Sha1::digest(value.as_bencode()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        store.insert(values[0].clone());
        store.insert(values[1].clone());
        assert!(store.value(&key(&values[0])).is_some());
        store.insert(values[2].clone());
        assert_eq!((store.value(&key(&values[1])), store.len()), (None, 2));
        assert_eq!(store.value(&Key::new(b"short").unwrap()), None);
    }
}
