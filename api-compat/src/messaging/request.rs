//! Requests: calls, which are answered, and casts, which are not.

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::context::RequestContext;
use super::envelope::{self, DecodeError};

/// Names and ids above this size (in bytes) are refused. AMQP has no room for longer names, and
/// what is remembered or logged of a message shall be small.
const MAX_TEXT: usize = 255;

/// A request as it is on the wire (oslo_messaging `_drivers/amqp.py`).
#[derive(Clone, PartialEq)]
pub struct Request {
    /// The method's name.
    pub method: String,
    /// Named arguments; there are no others.
    pub args: Map<String, Value>,
    /// The RPC version that the sender asks for. A request without one is meant as `1.0`.
    pub version: Option<String>,
    /// The endpoint's namespace; Cinder never sets one.
    pub namespace: Option<String>,
    /// By which a second delivery of the same message is noticed: 32 hex digits.
    pub unique_id: Option<String>,
    /// Set in calls: where the answer goes, and under which id.
    pub call: Option<CallIds>,
    /// Who asks.
    pub context: RequestContext,
}

/// What the answer to a call must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallIds {
    /// The id of the call, which the answer repeats: 32 hex digits.
    pub msg_id: String,
    /// The queue to answer to, through the default exchange.
    pub reply_queue: String,
}

impl Request {
    /// Reads a message's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is no message, or a message without a method.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut payload = envelope::decode(body)?;
        let context = RequestContext::take_from(&mut payload);
        let method = text(&mut payload, "method")?.ok_or(DecodeError::Missing("method"))?;
        let args = match payload.remove("args") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(args)) => args,
            Some(_) => return Err(DecodeError::WrongType("args", "an object")),
        };
        let msg_id = text(&mut payload, "_msg_id")?;
        let reply_queue = text(&mut payload, "_reply_q")?;
        let call = match (msg_id, reply_queue) {
            (Some(msg_id), Some(reply_queue)) => Some(CallIds {
                msg_id,
                reply_queue,
            }),
            (None, _) => None,
            (Some(_), None) => return Err(DecodeError::Missing("_reply_q")),
        };
        Ok(Self {
            method,
            args,
            version: text(&mut payload, "version")?,
            namespace: text(&mut payload, "namespace")?,
            unique_id: text(&mut payload, "_unique_id")?,
            call,
            context,
        })
    }

    /// Writes the message's body.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Map::new();
        payload.insert("method".into(), self.method.clone().into());
        payload.insert("args".into(), self.args.clone().into());
        let texts = [
            ("version", &self.version),
            ("namespace", &self.namespace),
            ("_unique_id", &self.unique_id),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                payload.insert(key.into(), value.clone().into());
            }
        }
        if let Some(call) = &self.call {
            payload.insert("_msg_id".into(), call.msg_id.clone().into());
            payload.insert("_reply_q".into(), call.reply_queue.clone().into());
            // No signs of life are asked for while the call is worked on.
            payload.insert("_timeout".into(), Value::Null);
        }
        self.context.put_into(&mut payload);
        envelope::encode(payload)
    }
}

/// An id in the form that oslo.messaging uses for messages and queues: 32 hex digits.
pub fn hex_id(id: Uuid) -> String {
    id.simple().to_string()
}

fn text(
    payload: &mut Map<String, Value>,
    key: &'static str,
) -> Result<Option<String>, DecodeError> {
    match payload.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > MAX_TEXT => {
            Err(DecodeError::TooLong(key, text.len()))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(DecodeError::WrongType(key, "a text")),
    }
}

/// Shows the names of the arguments only: their values may hold credentials.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("args", &self.args.keys().collect::<Vec<_>>())
            .field("version", &self.version)
            .field("unique_id", &self.unique_id)
            .field("call", &self.call)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn body(payload: Value) -> Vec<u8> {
        match payload {
            Value::Object(map) => envelope::encode(map),
            _ => unreachable!(),
        }
    }

    #[test]
    fn a_call_needs_a_queue_for_its_answer() {
        let error = Request::decode(&body(json!({"method": "x", "_msg_id": "1"}))).unwrap_err();
        assert!(matches!(error, DecodeError::Missing("_reply_q")));
    }

    #[test]
    fn a_request_needs_a_method_and_named_arguments() {
        assert!(matches!(
            Request::decode(&body(json!({"args": {}}))),
            Err(DecodeError::Missing("method"))
        ));
        assert!(matches!(
            Request::decode(&body(json!({"method": "x", "args": [1]}))),
            Err(DecodeError::WrongType("args", _))
        ));
    }

    #[test]
    fn names_and_ids_are_short() {
        let sound = json!({"method": "m", "_msg_id": "x", "_reply_q": "q", "_unique_id": "u"});
        for key in [
            "method",
            "version",
            "namespace",
            "_msg_id",
            "_reply_q",
            "_unique_id",
        ] {
            let mut payload = sound.clone();
            payload[key] = "ä".repeat(127).into();
            assert!(Request::decode(&body(payload.clone())).is_ok(), "{key}");
            payload[key] = "ä".repeat(128).into();
            let error = Request::decode(&body(payload)).unwrap_err().to_string();
            assert_eq!(error, format!("{key} of the message is 256 bytes long"));
        }
    }

    #[test]
    fn debug_hides_arguments() {
        let request = Request::decode(&body(json!({
            "method": "x", "args": {"connector": {"password": "hunter2"}},
        })))
        .unwrap();
        let shown = format!("{request:?}");
        assert!(shown.contains("connector") && !shown.contains("hunter2"));
    }

    prop_compose! {
        fn any_request()(
            method: String, key: String, value: String, version: Option<String>,
            namespace: Option<String>, unique_id: Option<String>,
            call in proptest::option::of(("[0-9a-f]{32}", "\\PC{1,20}")),
            user: String,
        ) -> Request {
            let Value::Object(mut items) = json!({"_context_user_id": user}) else {
                unreachable!()
            };
            Request {
                method, version, namespace, unique_id,
                args: Map::from_iter([(key, Value::from(value))]),
                call: call.map(|(msg_id, reply_queue)| CallIds { msg_id, reply_queue }),
                context: RequestContext::take_from(&mut items),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_is_small_and_round_trips(
            payload in any_json::object(&[
                "method", "args", "version", "namespace", "_unique_id", "_msg_id", "_reply_q",
                "_timeout", "_context_request_id", "_context_roles",
            ]),
            method in proptest::option::of("[a-z_]{1,20}"),
        ) {
            let mut payload = payload;
            if let Some(method) = method {
                payload.insert("method".into(), method.into());
            }
            if let Ok(request) = Request::decode(&envelope::encode(payload)) {
                let call = request.call.iter().flat_map(|call| [&call.msg_id, &call.reply_queue]);
                let texts = call.chain(&request.unique_id).chain([&request.method]);
                for text in texts {
                    prop_assert!(text.len() <= MAX_TEXT);
                }
                prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
            }
        }

        #[test]
        fn round_trip(request in any_request()) {
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }
    }
}
