//! Mutable values as clients of a Grape's HTTP API put them.

use ed25519_dalek::{Signer, SigningKey};
use grenache::grape::krpc::{Value, signed_text};
use serde_json::{Value as Json, json};

/// The data of a put, always under the same key; what is `None` is left out.
pub(crate) fn signed(text: &str, sequence: i64, salt: Option<&str>, expected: Option<i64>) -> Json {
    let key = SigningKey::from_bytes(&[7; 32]);
    let text_signed = signed_text(salt.map(str::as_bytes), sequence, &Value::from_bytes(text.as_bytes()));
    let mut data = json!({
        "v": text,
        "k": hex::encode(key.verifying_key().as_bytes()),
        "seq": sequence,
        "sig": hex::encode(key.sign(&text_signed).to_bytes()),
    });
    if let Some(salt) = salt {
        data["salt"] = json!(salt);
    }
    if let Some(expected) = expected {
        data["cas"] = json!(expected);
    }
    data
}
