//! The envelope: `{"oslo.version": "2.0", "oslo.message": "<JSON text>"}`.
//!
//! The payload is JSON inside a JSON string (oslo_messaging `_drivers/common.py`,
//! `serialize_msg` and `deserialize_msg`). A body without these two keys is itself the payload
//! (version 1.0, and the notification driver `messaging`).

use serde_json::{Map, Value};

use crate::json_weight::most_values;
use crate::python_json;

const VERSION_KEY: &str = "oslo.version";
const MESSAGE_KEY: &str = "oslo.message";
const VERSION: &str = "2.0";

/// Bodies above this size (in bytes) are refused unread.
///
/// The largest real message is a `get_log_levels` reply or an object with many attachments: some
/// hundred kilobytes. Nesting is bounded too, by serde_json's limit of 128 levels.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// Bodies with more values are refused before they are taken apart, for which each takes hundreds of bytes.
/// Real ones have some thousands.
pub const MAX_VALUES: usize = 100_000;

/// A message that cannot be understood. It is to be rejected without requeueing.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is larger than [`MAX_BODY`].
    #[error("message of {0} bytes is larger than {MAX_BODY} bytes")]
    TooLarge(usize),
    /// The body holds more than [`MAX_VALUES`] values.
    #[error("message has more than {MAX_VALUES} values")]
    TooManyValues,
    /// The body or the payload in it is not JSON.
    #[error("message is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// The body, the payload or a part of it has another type than it should.
    #[error("{0} of the message is not {1}")]
    WrongType(&'static str, &'static str),
    /// A part without which the message means nothing is not there.
    #[error("message has no {0}")]
    Missing(&'static str),
    /// A name or id is longer than any that could be one.
    #[error("{0} of the message is {1} bytes long")]
    TooLong(&'static str, usize),
    /// The body is compressed in a way that we do not know.
    #[error("message is compressed as {0:?}, which is not supported")]
    Compression(String),
    /// The body is not compressed as its header says.
    #[error("message cannot be decompressed: {0}")]
    Compressed(std::io::Error),
    /// The sender uses an envelope that we do not know.
    #[error("message envelope version {0:?} is not supported")]
    EnvelopeVersion(String),
}

/// Puts a payload into an envelope of version 2.0.
pub fn encode(payload: Map<String, Value>) -> Vec<u8> {
    let mut envelope = Map::new();
    envelope.insert(VERSION_KEY.into(), VERSION.into());
    envelope.insert(
        MESSAGE_KEY.into(),
        python_json::value_to_string(&Value::Object(payload)).into(),
    );
    python_json::value_to_string(&Value::Object(envelope)).into_bytes()
}

/// Writes a payload without an envelope (the notification driver `messaging`).
pub fn encode_bare(payload: Map<String, Value>) -> Vec<u8> {
    python_json::value_to_string(&Value::Object(payload)).into_bytes()
}

/// Takes the payload out of its envelope.
///
/// # Errors
/// Every [`DecodeError`]; nothing that arrives here makes it panic or use unbounded memory.
pub fn decode(body: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    if body.len() > MAX_BODY {
        return Err(DecodeError::TooLarge(body.len()));
    }
    // The payload's are in it, too.
    if most_values(body) > MAX_VALUES {
        return Err(DecodeError::TooManyValues);
    }
    let outer = object(serde_json::from_slice(body)?, "the body")?;
    let (Some(version), Some(message)) = (outer.get(VERSION_KEY), outer.get(MESSAGE_KEY)) else {
        return Ok(outer);
    };
    check_version(version)?;
    let Value::String(text) = message else {
        return Err(DecodeError::WrongType("the payload", "a text"));
    };
    object(serde_json::from_str(text)?, "the payload")
}

/// Compatible means: the same major version, and a minor one that is not above ours.
fn check_version(version: &Value) -> Result<(), DecodeError> {
    let text = version.as_str().unwrap_or_default();
    match text.split_once('.') {
        Some(("2", "0")) => Ok(()),
        _ => Err(DecodeError::EnvelopeVersion(
            text.chars().take(16).collect(),
        )),
    }
}

fn object(value: Value, part: &'static str) -> Result<Map<String, Value>, DecodeError> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(DecodeError::WrongType(part, "an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        object(value, "it").unwrap()
    }

    #[test]
    fn payload_is_encoded_twice() {
        let body = encode(map(json!({"method": "ж"})));
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"oslo.version": "2.0", "oslo.message": r#"{"method": "\u0436"}"#})
        );
        assert!(body.is_ascii());
    }

    #[test]
    fn a_bare_payload_is_accepted() {
        let payload = map(json!({"method": "x", "oslo.version": "2.0"}));
        let decoded = decode(&encode_bare(payload)).unwrap();
        assert_eq!(decoded["method"], "x");
    }

    #[test]
    fn other_versions_are_refused() {
        for version in ["2.1", "1.0", "3.0", "2", "", "x"] {
            let body = json!({"oslo.version": version, "oslo.message": "{}"}).to_string();
            assert!(
                matches!(
                    decode(body.as_bytes()),
                    Err(DecodeError::EnvelopeVersion(_))
                ),
                "{version:?} was accepted"
            );
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow() {
        let deep = "[".repeat(MAX_VALUES / 2);
        assert!(matches!(
            decode(deep.as_bytes()),
            Err(DecodeError::NotJson(_))
        ));
        let inner = json!({"oslo.version": "2.0", "oslo.message": deep}).to_string();
        assert!(matches!(
            decode(inner.as_bytes()),
            Err(DecodeError::NotJson(_))
        ));
    }

    #[test]
    fn a_body_of_too_many_values_is_refused_before_it_is_taken_apart() {
        let list = |count: usize| format!("[{}1]", "1,".repeat(count));
        let wrap = |text: String| json!({"oslo.version": "2.0", "oslo.message": text}).to_string();
        let payload = |count| format!("{{\"args\": {}}}", list(count));
        for body in [
            list(MAX_VALUES),
            wrap(payload(MAX_VALUES)),
            "{".repeat(MAX_VALUES),
        ] {
            let refused = decode(body.as_bytes());
            assert!(matches!(refused, Err(DecodeError::TooManyValues)));
        }
        decode(wrap(payload(MAX_VALUES / 2)).as_bytes()).unwrap();
    }

    #[test]
    fn a_huge_body_is_refused_unread() {
        let body = vec![b' '; MAX_BODY + 1];
        assert!(matches!(decode(&body), Err(DecodeError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            let _ = decode(&body);
        }

        #[test]
        fn a_payload_comes_from_an_envelope_or_is_bare(
            body in any_json::object(&[VERSION_KEY, MESSAGE_KEY, "method"]),
            version in proptest::option::of(Just(VERSION)),
            payload in proptest::option::of(any_json::object(&["method", "args"])),
        ) {
            let mut body = body;
            if let Some(version) = version {
                body.insert(VERSION_KEY.into(), version.into());
            }
            if let Some(payload) = &payload {
                let text = Value::Object(payload.clone()).to_string();
                body.insert(MESSAGE_KEY.into(), text.into());
            }
            let decoded = decode(&encode_bare(body.clone()));
            if !(body.contains_key(VERSION_KEY) && body.contains_key(MESSAGE_KEY)) {
                prop_assert_eq!(decoded.unwrap(), body);
            } else if let (Some(_), Some(payload)) = (version, payload) {
                prop_assert_eq!(decoded.unwrap(), payload);
            } else if version.is_none() {
                let refused = matches!(decoded, Err(DecodeError::EnvelopeVersion(_)));
                prop_assert!(refused || body[VERSION_KEY] == VERSION);
            }
        }

        #[test]
        fn texts_survive_the_double_encoding(key: String, text: String) {
            let payload = map(json!({ "k": {key: text} }));
            prop_assert_eq!(decode(&encode(payload.clone())).unwrap(), payload);
        }
    }
}
