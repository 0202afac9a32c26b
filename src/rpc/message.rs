//! Requests and replies as JSON texts: `[rid, key, payload]` and `[rid, error or null, result]`.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

/// The longest request id, in bytes; peers use UUIDs of 36. A request with a longer one is malformed.
pub const MAX_RID: usize = 128;

/// A request as it is on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestMessage {
    /// The request's id, chosen by the client; the reply carries it.
    pub rid: String,
    /// The service's name.
    pub key: String,
    /// What is asked. Null where the request left it out.
    pub payload: Value,
}

/// A reply as it is on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyMessage {
    /// The request's id.
    pub rid: String,
    /// The result, or the handler's error message.
    pub result: Result<Value, String>,
}

/// A text that is no request, or no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct MalformedMessage {
    /// The id, where one can be read.
    pub rid: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl RequestMessage {
    /// Reads a request. Elements after the third are ignored, as peers do.
    ///
    /// # Errors
    /// Where the text is no array of at least an id and a key that are strings.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedMessage> {
        let Parts(rid, key, payload) = parts(text)?;
        Ok(Self { rid, key, payload })
    }

    /// The text, without white space and with no character escaped that need not be.
    pub fn encode(rid: &str, key: &str, payload: &Value) -> Bytes {
        encode(&(rid, key, payload))
    }
}

impl ReplyMessage {
    /// Reads a reply. An error that is no string is given as its JSON text.
    ///
    /// # Errors
    /// Where the text is no array of at least an id that is a string and an error.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedMessage> {
        let Parts(rid, error, result) = parts::<Value>(text)?;
        let result = match error {
            Value::Null => Ok(result),
            Value::String(message) => Err(message),
            other => Err(other.to_string()),
        };
        Ok(Self { rid, result })
    }

    /// The text, without white space and with no character escaped that need not be.
    pub fn encode(rid: &str, result: &Result<Value, String>) -> Bytes {
        match result {
            Ok(value) => encode(&(rid, (), value)),
            Err(message) => encode(&(rid, message, ())),
        }
    }
}

/// Reads a request's id from the beginning of a text that cannot be read as a whole.
pub fn readable_rid(head: &[u8]) -> Option<String> {
    let inside = head.trim_ascii_start().strip_prefix(b"[")?;
    let rid: String = serde_json::Deserializer::from_slice(inside).into_iter().next()?.ok()?;
    (rid.len() <= MAX_RID).then_some(rid)
}

fn encode(message: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(message).expect("strings and JSON values can be written as JSON").into()
}

fn parts<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<Parts<T>, MalformedMessage> {
    let malformed = |reason| MalformedMessage { rid: readable_rid(text), reason };
    let parts: Parts<T> = serde_json::from_slice(text).map_err(|e| malformed(e.to_string()))?;
    if parts.0.len() > MAX_RID {
        return Err(malformed(format!("the id is longer than {MAX_RID} bytes")));
    }
    Ok(parts)
}

/// `[string, T, value?, …]`
struct Parts<T>(String, T, Value);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Parts<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartsVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for PartsVisitor<T> {
            type Value = Parts<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of a message's id, key or error, and payload or result")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let missing = |n| serde::de::Error::invalid_length(n, &self);
                let rid = seq.next_element()?.ok_or_else(|| missing(0))?;
                let second = seq.next_element()?.ok_or_else(|| missing(1))?;
                let third = seq.next_element()?.unwrap_or(Value::Null);
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Parts(rid, second, third))
            }
        }

        deserializer.deserialize_seq(PartsVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    // Recorded from a peer of the original implementation.
    const RID: &str = "8f5da386-2524-478b-bd8d-35d723d539ba";
    const REQUEST: &str = r#"["8f5da386-2524-478b-bd8d-35d723d539ba","vec",{"utf8":"ÿ€🚀"}]"#;
    const REPLY: &str = r#"["8f5da386-2524-478b-bd8d-35d723d539ba",null,{"utf8":"ÿ€🚀"}]"#;
    const ERROR_REPLY: &str = r#"["53c3c727-e69a-4fd0-8825-577bc3e1c199","ERR_BOOM",null]"#;

    #[test]
    fn recorded_texts_are_read_and_written_byte_for_byte() {
        let request = RequestMessage::parse(REQUEST.as_bytes()).unwrap();
        assert_eq!((request.rid.as_str(), request.key.as_str()), (RID, "vec"));
        assert_eq!(RequestMessage::encode(&request.rid, &request.key, &request.payload), REQUEST);
        for (text, result) in [(REPLY, Ok(json!({"utf8": "ÿ€🚀"}))), (ERROR_REPLY, Err("ERR_BOOM".to_owned()))] {
            let reply = ReplyMessage::parse(text.as_bytes()).unwrap();
            assert_eq!(reply.result, result);
            assert_eq!(ReplyMessage::encode(&reply.rid, &reply.result), text);
        }
    }

    #[test]
    fn what_may_be_left_out_or_added() {
        let request = RequestMessage::parse(br#" ["r", "k"] "#).unwrap();
        assert_eq!(request.payload, Value::Null);
        assert_eq!(RequestMessage::parse(br#"["r","k",1,2,[3]]"#).unwrap().payload, json!(1));
        assert_eq!(ReplyMessage::parse(br#"["r",null]"#).unwrap().result, Ok(Value::Null));
        assert_eq!(ReplyMessage::parse(br#"["r",{"code":1},2]"#).unwrap().result, Err(r#"{"code":1}"#.to_owned()));
    }

    #[test]
    fn malformed_requests_tell_the_id_where_it_can_be_read() {
        for (text, rid) in [
            ("[]", None),
            ("{}", None),
            ("\"x\"", None),
            ("0", None),
            ("true", None),
            ("null", None),
            ("[}", None),
            ("[null,\"k\",1]", None),
            ("[7,\"k\",1]", None),
            (r#"["r"]"#, Some("r")),
            (r#"["r",null,1]"#, Some("r")),
            (r#"["r","k",nul]"#, Some("r")),
            (r#"["r","k",1} "#, Some("r")),
            (r#" [ "r\"" , }"#, Some("r\"")),
            (r#"["r"#, None),
        ] {
            let error = RequestMessage::parse(text.as_bytes()).expect_err(text);
            assert_eq!(error.rid.as_deref(), rid, "{text}: {error}");
        }
        assert_eq!(RequestMessage::parse(b"[\"r\",\"\xff\",1]").unwrap_err().rid.as_deref(), Some("r"), "UTF-8");
    }

    #[test]
    fn an_id_may_have_the_limit_and_no_byte_more() {
        let longest = format!("[\"{}\",\"k\",1]", "x".repeat(MAX_RID));
        assert!(RequestMessage::parse(longest.as_bytes()).is_ok());
        let longer = format!("[\"{}\",\"k\",1]", "x".repeat(MAX_RID + 1));
        assert_eq!(RequestMessage::parse(longer.as_bytes()).unwrap_err().rid, None);
    }

    proptest! {
        #[test]
        fn random_texts_never_panic(text in prop::collection::vec(any::<u8>(), 0..60), json in "[\\[\\]{}\",:0rk]{0,40}") {
            for text in [&text[..], json.as_bytes()] {
                let _ = RequestMessage::parse(text);
                let _ = ReplyMessage::parse(text);
                let _ = readable_rid(text);
            }
        }
    }
}
