//! Exceptions on the wire (oslo_messaging `_drivers/common.py`, `serialize_remote_exception`).
//!
//! A caller rebuilds the exception as `class(*args, **kwargs)` if its module is one that it
//! allows (for Cinder `cinder.exception` and the builtins), and only then does the API answer
//! with the right HTTP code; everything else becomes a 500.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::excerpt::excerpt;
use crate::python_json;

/// An exception, to be sent or received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The exception's class.
    #[serde(default)]
    pub class: String,
    /// The Python module of that class.
    #[serde(default)]
    pub module: String,
    /// Its text.
    #[serde(default)]
    pub message: String,
    /// Traceback lines of a Python server; ours are empty.
    #[serde(default, rename = "tb")]
    pub traceback: Vec<String>,
    /// What a caller passes to the class to have the exception again.
    #[serde(flatten)]
    pub rebuild: Box<Rebuild>,
}

/// The arguments of an exception's class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Positional arguments.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Named arguments.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
}

const CINDER: &str = "cinder.exception";
const DISPATCHER: &str = "oslo_messaging.rpc.dispatcher";

impl Failure {
    /// The text that goes into a reply.
    pub fn encode(&self) -> String {
        python_json::to_string(self).expect("a struct of texts and JSON values is JSON")
    }

    /// Reads the text out of a reply.
    ///
    /// # Errors
    /// If the text is not a JSON object of the right shape.
    pub fn decode(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// What stands for a failure whose text cannot be read.
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        Self::new(
            "RemoteError",
            "oslo_messaging.rpc.client",
            excerpt(error),
            [],
        )
    }

    /// Whether this is Cinder's exception `class`, for instance `VolumeNotFound`.
    pub fn is_cinder(&self, class: &str) -> bool {
        self.module == CINDER && self.class == class
    }

    /// An exception of Cinder's. `kwargs` never holds `message`: the caller would then pass it
    /// twice and end up with a `RemoteError`.
    fn cinder(class: &str, code: u16, message: String, kwarg: (&str, &str)) -> Self {
        let (name, value) = kwarg;
        let kwargs = [(name, json!(value)), ("code", json!(code))];
        Self::new(class, CINDER, message, kwargs)
    }

    /// `Invalid backup: <reason>` (400).
    pub fn invalid_backup(reason: &str) -> Self {
        let message = format!("Invalid backup: {reason}");
        Self::cinder("InvalidBackup", 400, message, ("reason", reason))
    }

    /// `Invalid volume: <reason>` (400).
    pub fn invalid_volume(reason: &str) -> Self {
        let message = format!("Invalid volume: {reason}");
        Self::cinder("InvalidVolume", 400, message, ("reason", reason))
    }

    /// `Invalid snapshot: <reason>` (400).
    pub fn invalid_snapshot(reason: &str) -> Self {
        let message = format!("Invalid snapshot: {reason}");
        Self::cinder("InvalidSnapshot", 400, message, ("reason", reason))
    }

    /// `Invalid input received: <reason>` (400).
    pub fn invalid_input(reason: &str) -> Self {
        let message = format!("Invalid input received: {reason}");
        Self::cinder("InvalidInput", 400, message, ("reason", reason))
    }

    /// `Service <id> could not be found.` (404).
    pub fn service_not_found(service_id: &str) -> Self {
        let message = format!("Service {service_id} could not be found.");
        Self::cinder("ServiceNotFound", 404, message, ("service_id", service_id))
    }

    /// `Backup <id> could not be found.` (404).
    pub fn backup_not_found(backup_id: &str) -> Self {
        let message = format!("Backup {backup_id} could not be found.");
        Self::cinder("BackupNotFound", 404, message, ("backup_id", backup_id))
    }

    /// `Volume <id> could not be found.` (404).
    pub fn volume_not_found(volume_id: &str) -> Self {
        let message = format!("Volume {volume_id} could not be found.");
        Self::cinder("VolumeNotFound", 404, message, ("volume_id", volume_id))
    }

    /// `Snapshot <id> could not be found.` (404).
    pub fn snapshot_not_found(snapshot_id: &str) -> Self {
        let message = format!("Snapshot {snapshot_id} could not be found.");
        Self::cinder(
            "SnapshotNotFound",
            404,
            message,
            ("snapshot_id", snapshot_id),
        )
    }

    /// `Backup driver reported an error: <reason>` (500).
    pub fn backup_driver(reason: &str) -> Self {
        let message = format!("Backup driver reported an error: {reason}");
        Self::cinder("BackupDriverException", 500, message, ("reason", reason))
    }

    /// What oslo.messaging's dispatcher answers to a method that no endpoint has.
    pub fn no_such_method(method: &str) -> Self {
        let message = format!("Endpoint does not support RPC method {method}");
        Self::new("NoSuchMethod", DISPATCHER, message, [])
    }

    /// What oslo.messaging's dispatcher answers to a version that no endpoint has.
    pub fn unsupported_version(version: &str, method: &str) -> Self {
        let message =
            format!("Endpoint does not support RPC version {version}. Attempted method: {method}");
        Self::new("UnsupportedVersion", DISPATCHER, message, [])
    }

    /// What Python answers to arguments that do not fit.
    pub fn type_error(message: String) -> Self {
        Self::new("TypeError", "builtins", message, [])
    }

    /// What oslo.versionedobjects answers to an object version that it cannot read.
    pub fn incompatible_object(name: &str, version: &str, supported: &str) -> Self {
        let message = format!(
            "Version {version} of {name} is not supported, supported version is {supported}"
        );
        let kwargs = [
            ("objname", json!(name)),
            ("objver", json!(version)),
            ("supported", json!(supported)),
            ("code", json!(500)),
        ];
        let module = "oslo_versionedobjects.exception";
        Self::new("IncompatibleObjectVersion", module, message, kwargs)
    }

    fn new<const N: usize>(
        class: &str,
        module: &str,
        message: String,
        kwargs: [(&str, Value); N],
    ) -> Self {
        let kwargs = kwargs.into_iter();
        let rebuild = Rebuild {
            args: vec![json!(message)],
            kwargs: kwargs
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        };
        Self {
            class: class.into(),
            module: module.into(),
            message,
            traceback: Vec::new(),
            rebuild: Box::new(rebuild),
        }
    }
}

/// The class and the text, as far as they can be told, without the remote traceback.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = if self.class.is_empty() {
            "unnamed exception"
        } else {
            &self.class
        };
        f.write_str(&match self.message.as_str() {
            "" => excerpt(&class),
            message => excerpt(&format_args!("{class}: {message}")),
        })
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::any_json;
    use proptest::prelude::*;

    #[test]
    fn a_long_failure_is_not_told_as_a_whole() {
        let failure = Failure::new("X", "m", "x".repeat(1 << 20), []);
        assert!(failure.to_string().len() < 2000);
        let text = format!("{{\"tb\": \"{}\"}}", "x".repeat(1 << 20));
        let unreadable = Failure::unreadable(&Failure::decode(&text).unwrap_err());
        assert!(unreadable.message.len() < 2000);
    }

    #[test]
    fn an_invalid_backup_is_what_python_sends() {
        // Recorded from `serialize_remote_exception(InvalidBackup(reason="some reason"))`.
        let expected = json!({
            "class": "InvalidBackup", "module": "cinder.exception",
            "message": "Invalid backup: some reason", "tb": [],
            "args": ["Invalid backup: some reason"],
            "kwargs": {"reason": "some reason", "code": 400},
        });
        let sent = Failure::invalid_backup("some reason").encode();
        assert_eq!(serde_json::from_str::<Value>(&sent).unwrap(), expected);
    }

    #[test]
    fn no_constructor_passes_the_message_twice() {
        let all = [
            Failure::invalid_backup("r"),
            Failure::invalid_volume("r"),
            Failure::invalid_snapshot("r"),
            Failure::invalid_input("r"),
            Failure::service_not_found("s"),
            Failure::backup_not_found("b"),
            Failure::volume_not_found("v"),
            Failure::snapshot_not_found("s"),
            Failure::backup_driver("r"),
            Failure::no_such_method("m"),
            Failure::unsupported_version("9.9", "m"),
            Failure::type_error("t".into()),
            Failure::incompatible_object("Backup", "2.0", "1.7"),
        ];
        for failure in all {
            assert!(!failure.rebuild.kwargs.contains_key("message"), "{failure}");
            assert_eq!(failure.rebuild.args, [Value::from(failure.message.clone())]);
            assert_eq!(Failure::decode(&failure.encode()).unwrap(), failure);
        }
    }

    #[test]
    fn display_leaves_the_traceback_out() {
        let remote = r#"{"class": "Boom", "module": "m", "message": "it broke",
            "tb": ["Traceback (most recent call last):\n"], "args": [], "kwargs": {}}"#;
        let failure = Failure::decode(remote).unwrap();
        assert_eq!(failure.to_string(), "Boom: it broke");
        assert_eq!(
            Failure::decode("{}").unwrap().to_string(),
            "unnamed exception"
        );
    }

    proptest! {
        #[test]
        fn what_is_understood_round_trips(
            failure in any_json::object(&["class", "module", "message", "tb", "args", "kwargs"]),
        ) {
            let text = Value::Object(failure).to_string();
            if let Ok(failure) = Failure::decode(&text) {
                prop_assert!(!failure.to_string().is_empty());
                prop_assert_eq!(Failure::decode(&failure.encode()).unwrap(), failure);
            }
        }
    }
}
