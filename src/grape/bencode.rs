//! Bencode: stored values and the few writing primitives that KRPC needs. Reading is `bendy`'s, which refuses what is
//! not canonical and counts its depth instead of recursing.

use bendy::decoding::{Decoder, Object};
use serde_json::{Map, Number};
use thiserror::Error;

/// How deeply lists and dictionaries may nest in a datagram, the message's own two dictionaries included.
pub(super) const MAX_DEPTH: usize = 16;

/// How deeply they may nest in a value, so that the value fits into a message.
const MAX_VALUE_DEPTH: usize = MAX_DEPTH - 4;

/// A value as BEP 44 stores it: one well-formed bencoded item, kept in its encoded form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(Vec<u8>);

/// Why something is not a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not one canonical bencoded item.
    #[error("v is not one well-formed bencoded item")]
    Malformed,
    /// Bencode knows integers only.
    #[error("v may hold whole numbers of 64 bits only")]
    Number,
    /// Nested too deeply.
    #[error("v is nested too deeply")]
    TooDeep,
}

impl Value {
    /// A byte string.
    pub fn from_bytes(text: &[u8]) -> Self {
        let mut out = Vec::with_capacity(text.len() + 6);
        bytes(&mut out, text);
        Self(out)
    }

    /// A value that is bencoded already.
    ///
    /// # Errors
    /// Where it is not one canonical item, or nested too deeply.
    pub fn from_bencode(encoded: &[u8]) -> Result<Self, ValueError> {
        let mut decoder = Decoder::new(encoded).with_max_depth(MAX_VALUE_DEPTH);
        match decoder.next_object() {
            Ok(Some(Object::List(mut list))) => list.consume_all().map_err(|_| ValueError::Malformed)?,
            Ok(Some(Object::Dict(mut dict))) => dict.consume_all().map_err(|_| ValueError::Malformed)?,
            Ok(Some(Object::Integer(_) | Object::Bytes(_))) => {}
            Ok(None) | Err(_) => return Err(ValueError::Malformed),
        }
        match decoder.next_object() {
            Ok(None) => Ok(Self(encoded.to_vec())),
            _ => Err(ValueError::Malformed),
        }
    }

    /// Encodes JSON: strings as UTF-8, booleans as 1 and 0, `null` inside lists and objects left out.
    ///
    /// # Errors
    /// Where it is `null`, holds a number that is not a whole one of 64 bits, or is nested too deeply.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ValueError> {
        if json.is_null() {
            return Err(ValueError::Malformed);
        }
        let mut out = Vec::new();
        encode_json(json, MAX_VALUE_DEPTH, &mut out)?;
        Ok(Self(out))
    }

    /// The bencoded form: what is hashed and sent.
    pub fn as_bencode(&self) -> &[u8] {
        &self.0
    }

    /// The size that limits apply to, in bytes: a string's own length, else the encoded length.
    ///
    /// BEP 44 counts the encoded form of strings too; the reference does not, and its peers rely on it.
    pub fn size(&self) -> usize {
        match Decoder::new(&self.0).next_object() {
            Ok(Some(Object::Bytes(text))) => text.len(),
            _ => self.0.len(),
        }
    }

    /// The value for people: strings as text (what is not UTF-8 is replaced), integers as their digits in a string
    /// like the reference's, lists and dictionaries as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut decoder = Decoder::new(&self.0).with_max_depth(MAX_VALUE_DEPTH);
        match decoder.next_object() {
            Ok(Some(Object::Integer(digits))) => digits.into(),
            Ok(Some(object)) => decode_json(object),
            Ok(None) | Err(_) => serde_json::Value::Null,
        }
    }
}

fn encode_json(json: &serde_json::Value, depth: usize, out: &mut Vec<u8>) -> Result<(), ValueError> {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    let Some(inner) = depth.checked_sub(1) else { return Err(ValueError::TooDeep) };
    match json {
        Null => {}
        Bool(yes) => integer(out, i64::from(*yes)),
        Number(number) => integer(out, whole(number).ok_or(ValueError::Number)?),
        String(text) => bytes(out, text.as_bytes()),
        Array(items) => {
            out.push(b'l');
            items.iter().try_for_each(|item| encode_json(item, inner, out))?;
            out.push(b'e');
        }
        // A map's keys are unique; bencode wants them in the order of their bytes.
        Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            fields.sort_unstable_by_key(|(name, _)| name.as_bytes());
            out.push(b'd');
            for (name, value) in fields {
                key(out, name);
                encode_json(value, inner, out)?;
            }
            out.push(b'e');
        }
    }
    Ok(())
}

/// A whole number as JavaScript sees it: 1337.0 is one.
pub(super) fn whole(number: &Number) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number within 53 bits")]
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64)
    })
}

/// Recurses no deeper than the decoder's limit.
fn decode_json(object: Object<'_, '_>) -> serde_json::Value {
    match object {
        Object::Bytes(text) => String::from_utf8_lossy(text).into(),
        Object::Integer(digits) => digits.parse::<i64>().map_or_else(|_| digits.into(), Into::into),
        Object::List(mut list) => {
            let mut items = Vec::new();
            while let Ok(Some(item)) = list.next_object() {
                items.push(decode_json(item));
            }
            items.into()
        }
        Object::Dict(mut dict) => {
            let mut fields = Map::new();
            while let Ok(Some((name, value))) = dict.next_pair() {
                fields.insert(String::from_utf8_lossy(name).into_owned(), decode_json(value));
            }
            fields.into()
        }
    }
}

/// Writes a byte string.
pub(super) fn bytes(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(itoa::Buffer::new().format(text.len()).as_bytes());
    out.push(b':');
    out.extend_from_slice(text);
}

/// Writes a dictionary's key. Keys must be written in the order of their bytes.
pub(super) fn key(out: &mut Vec<u8>, name: &str) {
    bytes(out, name.as_bytes());
}

/// Writes an integer.
pub(super) fn integer(out: &mut Vec<u8>, number: i64) {
    out.push(b'i');
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.push(b'e');
}

/// Writes a key and a byte string.
pub(super) fn pair(out: &mut Vec<u8>, name: &str, text: &[u8]) {
    key(out, name);
    bytes(out, text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_canonical_bencode_and_comes_back() {
        let value = Value::from_json(&json!({"b": [1, null, "x"], "a": true, "n": null})).unwrap();
        assert_eq!(value.as_bencode(), b"d1:ai1e1:bli1e1:xee");
        assert_eq!(value.to_json(), json!({"a": 1, "b": [1, "x"]}));
        assert_eq!(Value::from_json(&json!(42)).unwrap().to_json(), json!("42"));
        assert_eq!(Value::from_json(&json!(1.5)), Err(ValueError::Number));
        assert_eq!(Value::from_json(&json!(null)), Err(ValueError::Malformed));
    }

    #[test]
    fn a_value_nests_as_deep_as_a_message_can_carry_and_no_deeper() {
        let nested = |depth: usize| format!("{}{}", "l".repeat(depth), "e".repeat(depth)).into_bytes();
        assert!(Value::from_bencode(&nested(MAX_VALUE_DEPTH)).is_ok());
        assert!(Value::from_bencode(&nested(MAX_VALUE_DEPTH + 1)).is_err());
        let json = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(Value::from_json(&json(MAX_VALUE_DEPTH - 1)).is_ok());
        assert_eq!(Value::from_json(&json(MAX_VALUE_DEPTH)), Err(ValueError::TooDeep));
    }

    #[test]
    fn a_string_is_measured_without_its_length_prefix() {
        assert_eq!(Value::from_bytes(&[b'x'; 999]).size(), 999);
        assert_eq!(Value::from_json(&json!(["x"])).unwrap().size(), 5);
    }
}
