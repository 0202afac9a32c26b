//! Values in the DHT (BEP 44): signing mutable ones, checking what a Grape gives.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use rand::CryptoRng;
use serde_json::{Value as Json, json};
use sha1::{Digest as _, Sha1};

use super::LinkError;
use crate::grape::krpc::{Mutable, Value, ValueError, signed_text};

/// An ed25519 key pair that signs mutable values.
///
/// ```
/// use grenache::link::KeyPair;
/// let keys = KeyPair::from_seed([7; 32]);
/// let signed = keys.sign(Some("prices"), 1, "42 satoshi")?;
/// assert!(signed.is_genuine());
/// assert_eq!(signed.hash(), keys.hash(Some("prices")));
/// # Ok::<(), grenache::link::ValueError>(())
/// ```
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// The pair that follows from a seed, which is the secret key. Not for anybody else to see.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// A new pair. On a real network `net.rng("keys")` is seeded by the operating system.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Self::from_seed(seed)
    }

    /// What [`from_seed`](Self::from_seed) makes the same pair from.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Where values signed with this pair are stored: see [`mutable_hash`].
    pub fn hash(&self, salt: Option<&str>) -> String {
        mutable_hash(&self.public_key(), salt)
    }

    /// Signs a value, so that [`Link::put_mutable`](super::Link::put_mutable) takes it. `sequence` must be larger than
    /// what is stored; `salt`, of 64 bytes at most, tells values of one key apart, and an empty one is none.
    ///
    /// # Errors
    /// Where the value cannot be bencoded: `null`, fractions, deep nesting.
    pub fn sign(&self, salt: Option<&str>, sequence: i64, value: impl Into<Json>) -> Result<SignedValue, ValueError> {
        let value = value.into();
        let salt = salt.filter(|salt| !salt.is_empty());
        let text = signed_text(salt.map(str::as_bytes), sequence, &Value::from_json(&value)?);
        let signature = self.0.sign(&text).to_bytes();
        Ok(SignedValue { value, key: self.public_key(), sequence, salt: salt.map(str::to_owned), signature })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public_key", &hex::encode(self.public_key())).finish_non_exhaustive()
    }
}

/// A mutable value with what proves whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedValue {
    /// The value. A get gives booleans as 1 and 0, as bencode knows none.
    pub value: Json,
    /// The public key.
    pub key: [u8; 32],
    /// Grows with each change.
    pub sequence: i64,
    /// Tells values of one key apart.
    pub salt: Option<String>,
    /// The key's signature over salt, sequence number and bencoded value.
    pub signature: [u8; 64],
}

impl SignedValue {
    /// Where it is stored: see [`mutable_hash`].
    pub fn hash(&self) -> String {
        mutable_hash(&self.key, self.salt.as_deref())
    }

    /// Whether the signature is the key's over salt, sequence number and value.
    pub fn is_genuine(&self) -> bool {
        Value::from_json(&self.value).is_ok_and(|value| self.proof().is_signed(&value))
    }

    fn proof(&self) -> Mutable {
        let salt = self.salt.as_ref().map(|salt| salt.as_bytes().to_vec());
        Mutable { key: self.key, signature: self.signature, sequence: self.sequence, salt, expected: None }
    }

    /// What is posted.
    pub(super) fn to_put(&self, cas: Option<i64>) -> Json {
        let mut data = json!({
            "v": self.value,
            "k": hex::encode(self.key),
            "seq": self.sequence,
            "sig": hex::encode(self.signature),
        });
        if let Some(salt) = &self.salt {
            data["salt"] = json!(salt);
        }
        if let Some(cas) = cas {
            data["cas"] = json!(cas);
        }
        data
    }
}

/// Where mutable values of a public key and a salt are stored: the SHA-1 of both, 40 hex digits.
pub fn mutable_hash(key: &[u8; 32], salt: Option<&str>) -> String {
    hex::encode(Sha1::new().chain_update(key).chain_update(salt.unwrap_or_default()).finalize())
}

/// Where an immutable value is stored: the SHA-1 of its bencoded form, 40 hex digits.
///
/// # Errors
/// As those of [`KeyPair::sign`].
pub fn immutable_hash(value: &Json) -> Result<String, ValueError> {
    Ok(hash_of(&Value::from_json(value)?))
}

fn hash_of(value: &Value) -> String {
    hex::encode(Sha1::digest(value.as_bencode()))
}

/// What was found under `hash`, once it is known to belong there: an immutable value, or a mutable one.
pub(super) fn check(found: &Json, hash: &str, salt: Option<&str>) -> Result<Found, LinkError> {
    let value = found.get("v").ok_or(LinkError::Forged)?;
    if found.get("k").is_none_or(Json::is_null) {
        let fits = |value: &Json| immutable_hash(value).is_ok_and(|known| known.eq_ignore_ascii_case(hash));
        return readings(value).find(fits).map(Found::Immutable).ok_or(LinkError::Forged);
    }
    let salt = salt.or_else(|| found.get("salt")?.as_str()).filter(|salt| !salt.is_empty()).map(str::to_owned);
    let signed = (|| {
        Some(SignedValue {
            value: value.clone(),
            key: bytes(found.get("k")?)?,
            sequence: found.get("seq")?.as_i64()?,
            salt,
            signature: bytes(found.get("sig")?)?,
        })
    })()
    .filter(|signed| signed.hash().eq_ignore_ascii_case(hash))
    .ok_or(LinkError::Forged)?;
    readings(value)
        .map(|value| SignedValue { value, ..signed.clone() })
        .find(SignedValue::is_genuine)
        .map(Found::Mutable)
        .ok_or(LinkError::Forged)
}

/// What a get has found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    Immutable(Json),
    Mutable(SignedValue),
}

/// The value as it is shown, and, as Grapes show a number as its digits, the number.
fn readings(shown: &Json) -> impl Iterator<Item = Json> {
    let number = shown.as_str().and_then(|digits| digits.parse::<i64>().ok());
    [Some(shown.clone()), number.map(Json::from)].into_iter().flatten()
}

fn bytes<const N: usize>(digits: &Json) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits.as_str()?, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Rng;
    use rand::SeedableRng as _;

    /// As a Grape shows it.
    fn shown(signed: &SignedValue) -> Json {
        json!({"id": "00", "token": null, "v": signed.value, "k": hex::encode(signed.key), "seq": signed.sequence,
            "sig": hex::encode(signed.signature)})
    }

    #[test]
    fn bep44_an_immutable_value_must_have_its_hash() {
        let hash = "E5F96F6F38320F0F33959CB4D3D656452117AADB"; // BEP 44, test 3
        let text = json!("Hello World!");
        assert_eq!(immutable_hash(&text).unwrap(), hash.to_lowercase());
        assert_eq!(check(&json!({"v": text}), hash, None), Ok(Found::Immutable(text)));
        assert_eq!(check(&json!({"v": "Hello World?"}), hash, None), Err(LinkError::Forged));
        assert_eq!(check(&json!({"token": null}), hash, None), Err(LinkError::Forged));
    }

    #[test]
    fn a_number_is_told_from_its_digits_by_the_hash() {
        for value in [json!(1337), json!("1337"), json!(-1)] {
            let digits = value.as_i64().map_or_else(|| value.clone(), |number| json!(number.to_string()));
            let found = check(&json!({"v": digits}), &immutable_hash(&value).unwrap(), None);
            assert_eq!(found, Ok(Found::Immutable(value)));
        }
        let signed = KeyPair::from_seed([7; 32]).sign(None, 1, 1337).unwrap();
        let mut found = shown(&signed);
        found["v"] = json!("1337");
        assert_eq!(check(&found, &signed.hash(), None), Ok(Found::Mutable(signed)));
    }

    #[test]
    fn bep44_a_mutable_value_must_have_its_hash_and_its_signature() {
        let keys = KeyPair::from_seed([7; 32]);
        for salt in [None, Some("pepper")] {
            let signed = keys.sign(salt, 3, "text").unwrap();
            assert!(signed.is_genuine());
            assert_eq!(signed.hash(), keys.hash(salt));
            let found = shown(&signed);
            assert_eq!(check(&found, &keys.hash(salt), salt), Ok(Found::Mutable(signed)));
            for (name, other) in [
                ("v", json!("texts")),
                ("seq", json!(4)),
                ("seq", json!("3")),
                ("sig", json!("00".repeat(64))),
                ("sig", json!("00")),
                ("k", json!(hex::encode(KeyPair::from_seed([8; 32]).public_key()))),
                ("k", json!("zz")),
            ] {
                let mut forged = found.clone();
                forged[name] = other;
                assert_eq!(check(&forged, &keys.hash(salt), salt), Err(LinkError::Forged), "{name}");
            }
            assert_eq!(check(&found, &keys.hash(Some("other")), Some("other")), Err(LinkError::Forged));
        }
    }

    #[test]
    fn an_empty_salt_is_none_and_what_cannot_be_bencoded_is_not_signed() {
        let keys = KeyPair::from_seed([7; 32]);
        assert_eq!(keys.sign(Some(""), 1, "v"), keys.sign(None, 1, "v"));
        for value in [json!(null), json!(0.5)] {
            assert!(keys.sign(None, 1, value).is_err());
        }
    }

    #[test]
    fn a_pair_follows_from_its_seed_and_hides_it() {
        let (mut rng, mut same) = (Rng::seed_from_u64(1), Rng::seed_from_u64(1));
        let (first, again) = (KeyPair::random(&mut rng), KeyPair::random(&mut same));
        assert_eq!(first.seed(), again.seed());
        assert_ne!(first.seed(), KeyPair::random(&mut rng).seed());
        assert_eq!(KeyPair::from_seed(first.seed()).public_key(), first.public_key());
        assert!(!format!("{first:?}").contains(&hex::encode(first.seed())));
    }
}
