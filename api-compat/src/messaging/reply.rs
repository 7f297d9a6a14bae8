//! Answers to calls.

use std::fmt;

use serde_json::{Map, Value};

use super::envelope::{self, DecodeError};
use super::failure::Failure;

/// One message on a reply queue.
#[derive(Clone, PartialEq)]
pub struct Reply {
    /// The id of the call that this answers.
    pub msg_id: String,
    /// This message's own id: 32 hex digits.
    pub unique_id: Option<String>,
    /// What the server says.
    pub outcome: Outcome,
    /// Whether this is the last message of the answer.
    pub ending: bool,
}

/// What a call led to.
#[derive(Clone, PartialEq)]
pub enum Outcome {
    /// The value that the method returned; null if it returns nothing.
    Result(Value),
    /// The exception that it raised.
    Failure(Failure),
}

impl Reply {
    /// The whole answer to the call `msg_id`.
    pub fn ending(msg_id: &str, unique_id: String, outcome: Outcome) -> Self {
        Self {
            msg_id: msg_id.to_owned(),
            unique_id: Some(unique_id),
            outcome,
            ending: true,
        }
    }

    /// Writes the message's body.
    pub fn encode(&self) -> Vec<u8> {
        let (result, failure) = match &self.outcome {
            Outcome::Result(value) => (value.clone(), Value::Null),
            Outcome::Failure(failure) => (Value::Null, failure.encode().into()),
        };
        let mut payload = Map::new();
        payload.insert("result".into(), result);
        payload.insert("failure".into(), failure);
        payload.insert("ending".into(), self.ending.into());
        payload.insert("_msg_id".into(), self.msg_id.clone().into());
        if let Some(unique_id) = &self.unique_id {
            payload.insert("_unique_id".into(), unique_id.clone().into());
        }
        envelope::encode(payload)
    }

    /// Reads a message's body.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is no reply.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut payload = envelope::decode(body)?;
        let msg_id = match payload.remove("_msg_id") {
            Some(Value::String(id)) => id,
            Some(_) => return Err(DecodeError::WrongType("_msg_id", "a text")),
            None => return Err(DecodeError::Missing("_msg_id")),
        };
        let outcome = match payload.remove("failure") {
            None | Some(Value::Null) => {
                Outcome::Result(payload.remove("result").unwrap_or_default())
            }
            Some(Value::String(text)) => Outcome::Failure(readable(&text)),
            Some(other) => Outcome::Failure(readable(&other.to_string())),
        };
        let unique_id = match payload.remove("_unique_id") {
            Some(Value::String(id)) => Some(id),
            _ => None,
        };
        Ok(Self {
            msg_id,
            unique_id,
            outcome,
            ending: payload.get("ending") == Some(&Value::Bool(true)),
        })
    }
}

/// A caller must not wait in vain because a failure has gone bad.
fn readable(text: &str) -> Failure {
    Failure::decode(text).unwrap_or_else(|error| Failure::unreadable(&error))
}

/// Gathers the messages of one answer: there may be signs of life before the last one, and old
/// servers send the result and the ending apart.
#[derive(Default)]
pub struct Answer {
    result: Value,
}

impl Answer {
    /// Takes the next message. Gives what the call led to, once it is known.
    pub fn receive(&mut self, reply: Reply) -> Option<Result<Value, Failure>> {
        match reply.outcome {
            Outcome::Failure(failure) => return Some(Err(failure)),
            Outcome::Result(Value::Null) => {}
            Outcome::Result(value) => self.result = value,
        }
        reply.ending.then(|| Ok(self.result.take()))
    }
}

/// Hides the result: the answer to `initialize_connection` may hold credentials.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Result(_) => f.write_str("Result([hidden])"),
            Self::Failure(failure) => write!(f, "Failure({failure})"),
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("msg_id", &self.msg_id)
            .field("outcome", &self.outcome)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn reply(outcome: Outcome, ending: bool) -> Reply {
        Reply {
            ending,
            ..Reply::ending("m", "u".into(), outcome)
        }
    }

    #[test]
    fn both_outcomes_round_trip() {
        for outcome in [
            Outcome::Result(json!({"a": [1]})),
            Outcome::Result(Value::Null),
            Outcome::Failure(Failure::invalid_backup("x")),
        ] {
            let sent = reply(outcome, true);
            assert_eq!(Reply::decode(&sent.encode()).unwrap(), sent);
        }
    }

    #[test]
    fn an_answer_in_two_messages_is_put_together() {
        let mut answer = Answer::default();
        let sign_of_life = reply(Outcome::Result(Value::Null), false);
        assert_eq!(answer.receive(sign_of_life), None);
        assert_eq!(
            answer.receive(reply(Outcome::Result(json!(7)), false)),
            None
        );
        let end = reply(Outcome::Result(Value::Null), true);
        assert_eq!(answer.receive(end), Some(Ok(json!(7))));
    }

    #[test]
    fn a_failure_ends_the_answer() {
        let failure = Failure::invalid_volume("x");
        let received = Answer::default().receive(reply(Outcome::Failure(failure.clone()), true));
        assert_eq!(received, Some(Err(failure)));
    }

    #[test]
    fn an_unreadable_failure_is_still_a_failure() {
        for failure in [json!("Traceback"), json!(["Traceback"]), json!(true)] {
            let body = json!({"_msg_id": "m", "failure": failure, "ending": true});
            let reply = Reply::decode(body.to_string().as_bytes()).unwrap();
            assert!(matches!(reply.outcome, Outcome::Failure(_)));
        }
    }

    #[test]
    fn debug_hides_the_result() {
        let shown = format!("{:?}", reply(Outcome::Result(json!("keyring")), true));
        assert!(!shown.contains("keyring"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_understood_round_trips(
            payload in any_json::object(&["result", "failure", "ending", "_unique_id"]),
            msg_id in prop_oneof![4 => any::<String>().prop_map(Value::from), 1 => any_json::value()],
            failure in proptest::option::of(any_json::object(&["class", "message", "args"])),
        ) {
            let mut payload = payload;
            payload.insert("_msg_id".into(), msg_id.clone());
            if let Some(failure) = failure {
                let text = Value::Object(failure).to_string();
                payload.insert("failure".into(), text.into());
            }
            match Reply::decode(&envelope::encode(payload)) {
                Ok(reply) => prop_assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply),
                Err(_) => prop_assert!(!msg_id.is_string()),
            }
        }
    }
}
