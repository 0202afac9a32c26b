//! Mutable values (BEP 44): whose they are, what is signed, and what replaces what.

use ed25519_dalek::{Signature, VerifyingKey};
use sha1::{Digest, Sha1};

use super::bencode;
use super::krpc::{Mutable, NodeId, Value};

impl Mutable {
    /// Where the value is stored: sha1(k ‖ salt).
    pub fn target(&self) -> NodeId {
        let salt = self.salt.as_deref().unwrap_or_default();
        NodeId(Sha1::new().chain_update(self.key).chain_update(salt).finalize().into())
    }

    /// Whether `signature` is `key`'s over salt, sequence number and `value`.
    ///
    /// Strictly (RFC 8032): a key or signature that more than one message would fit is refused.
    pub fn is_signed(&self, value: &Value) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.key) else { return false };
        let text = signed_text(self.salt.as_deref(), self.sequence, value);
        key.verify_strict(&text, &Signature::from_bytes(&self.signature)).is_ok()
    }
}

/// What the signature of a mutable value is over: the bencoded `salt` (where there is one), `seq` and `v`, keys
/// included, one after the other.
pub fn signed_text(salt: Option<&[u8]>, sequence: i64, value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + value.as_bencode().len());
    if let Some(salt) = salt.filter(|salt| !salt.is_empty()) {
        bencode::pair(&mut out, "salt", salt);
    }
    bencode::key(&mut out, "seq");
    bencode::integer(&mut out, sequence);
    bencode::key(&mut out, "v");
    out.extend_from_slice(value.as_bencode());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).unwrap();
        bytes
    }

    const KEY: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";

    #[test]
    fn bep44_test_1_mutable() {
        let value = Value::from_bytes(b"Hello World!");
        assert_eq!(signed_text(None, 1, &value), b"3:seqi1e1:v12:Hello World!");
        let mutable = Mutable {
            key: fixed(KEY),
            signature: fixed(
                "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
                 1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
            ),
            sequence: 1,
            salt: None,
            expected: None,
        };
        assert_eq!(mutable.target().to_string(), "4a533d47ec9c7d95b1ad75f576cffc641853b750");
        assert!(mutable.is_signed(&value));
        assert!(!mutable.is_signed(&Value::from_bytes(b"Hello World?")));
        assert!(!Mutable { sequence: 2, ..mutable }.is_signed(&value));
    }

    #[test]
    fn bep44_test_2_mutable_with_salt() {
        let value = Value::from_bytes(b"Hello World!");
        let mutable = Mutable {
            key: fixed(KEY),
            signature: fixed(
                "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
                 df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
            ),
            sequence: 1,
            salt: Some(b"foobar".to_vec()),
            expected: None,
        };
        assert_eq!(signed_text(mutable.salt.as_deref(), 1, &value), b"4:salt6:foobar3:seqi1e1:v12:Hello World!");
        assert_eq!(mutable.target().to_string(), "411eba73b6f087ca51a3795d9c8c938d365e32c1");
        assert!(mutable.is_signed(&value));
        assert!(!Mutable { salt: None, ..mutable.clone() }.is_signed(&value));
        assert!(!Mutable { key: [2; 32], ..mutable }.is_signed(&value), "not a point of the curve, or not the signer");
    }
}
