//! The recorded messages, and how two of them are compared.

use api_compat::messaging::envelope;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A message as it was published.
#[derive(Deserialize)]
pub struct Recorded {
    /// The method, the event type, or `reply to <method>`.
    pub what: String,
    /// In which recording it was.
    capture: String,
    /// The exchange that it was published to.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// After how many milliseconds it would have expired.
    pub expiration: Option<String>,
    body: String,
}

impl Recorded {
    /// The body as the broker had it.
    pub fn body(&self) -> &[u8] {
        self.body.as_bytes()
    }

    /// What is in the envelope.
    pub fn payload(&self) -> Map<String, Value> {
        envelope::decode(self.body()).unwrap_or_else(|error| panic!("{self}: {error}"))
    }
}

impl std::fmt::Display for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.what, self.capture)
    }
}

pub fn requests() -> Vec<Recorded> {
    load(include_str!("fixtures/requests.json"))
}

pub fn outgoing() -> Vec<Recorded> {
    load(include_str!("fixtures/outgoing.json"))
}

pub fn replies() -> Vec<Recorded> {
    load(include_str!("fixtures/replies.json"))
}

pub fn notifications() -> Vec<Recorded> {
    load(include_str!("fixtures/notifications.json"))
}

/// Metadata objects, as text.
pub fn volume_metadata() -> Vec<String> {
    serde_json::from_str(include_str!("fixtures/volume_metadata.json")).unwrap()
}

/// What stood in the broker under one set of options: `classic` or `kolla`.
pub fn broker(flavour: &str) -> Value {
    let mut all: Value = serde_json::from_str(include_str!("fixtures/broker.json")).unwrap();
    all[flavour].take()
}

fn load(text: &str) -> Vec<Recorded> {
    let recorded: Vec<Recorded> = serde_json::from_str(text).unwrap();
    assert!(!recorded.is_empty());
    recorded
}

/// Takes out the lists of changed fields, which receivers do not look at.
pub fn without_changes(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            map.remove("versioned_object.changes");
            for value in map.values_mut() {
                *value = without_changes(value.take());
            }
        }
        Value::Array(values) => {
            for value in values {
                *value = without_changes(value.take());
            }
        }
        _ => {}
    }
    value
}
