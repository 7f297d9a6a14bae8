//! The envelope of an object: name, namespace, version and the fields that are set.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::version::{ObjectHistory, Version};
use crate::excerpt::excerpt;

pub(crate) const NAME: &str = "versioned_object.name";
pub(crate) const VERSION: &str = "versioned_object.version";
const NAMESPACE: &str = "versioned_object.namespace";
const DATA: &str = "versioned_object.data";
const CINDER: &str = "cinder";

/// A typed object of Cinder's. Its serde form is the object's data, without the envelope.
pub trait WireObject: Serialize + DeserializeOwned {
    /// The class name.
    const NAME: &'static str;
    /// The newest version that we know; it is also the one that we send, unless pinned.
    const VERSION: Version;
}

/// Why a value is not the object that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not an envelope at all.
    #[error("expected object {0}, got something that is no object of Cinder's")]
    NotAnObject(&'static str),
    /// Another object.
    #[error("expected object {expected}, got {got:?}")]
    OtherObject {
        /// What was asked for.
        expected: &'static str,
        /// What the value says it is.
        got: String,
    },
    /// A version that we cannot read.
    #[error("version {version} of {name} is not supported, supported version is {supported}")]
    IncompatibleVersion {
        /// The object.
        name: &'static str,
        /// The version as it was sent.
        version: String,
        /// The newest version that we know.
        supported: Version,
    },
    /// A field is missing, null where it must not be, or of the wrong type.
    #[error("object {name}: {reason}")]
    Field {
        /// The object.
        name: &'static str,
        /// What is wrong with which field.
        reason: String,
    },
}

/// Writes an object as it goes into a message, in the versions that the fleet understands.
pub fn encode<T: WireObject>(object: &T, history: ObjectHistory) -> Value {
    let mut value = Value::Object(seal(object));
    history.pin(&mut value);
    value
}

/// Reads an object out of a message.
///
/// # Errors
/// [`ObjectError`] if it is another object, of another major version, or malformed.
pub fn decode<T: WireObject>(value: Value) -> Result<T, ObjectError> {
    let Value::Object(mut envelope) = value else {
        return Err(ObjectError::NotAnObject(T::NAME));
    };
    let mut text = |key| match envelope.remove(key) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(ObjectError::NotAnObject(T::NAME)),
    };
    let (name, namespace, version) = (text(NAME)?, text(NAMESPACE)?, text(VERSION)?);
    if name != T::NAME || namespace != CINDER {
        return Err(ObjectError::OtherObject {
            expected: T::NAME,
            got: format!("{namespace}.{name}").chars().take(64).collect(),
        });
    }
    match version.parse::<Version>() {
        Ok(parsed) if parsed.major == T::VERSION.major => {}
        _ => {
            return Err(ObjectError::IncompatibleVersion {
                name: T::NAME,
                version: version.chars().take(32).collect(),
                supported: T::VERSION,
            });
        }
    }
    match envelope.remove(DATA) {
        Some(data @ Value::Object(_)) => T::deserialize(data).map_err(|error| field::<T>(&error)),
        _ => Err(ObjectError::NotAnObject(T::NAME)),
    }
}

fn seal<T: WireObject>(object: &T) -> Map<String, Value> {
    let data = serde_json::to_value(object).expect("our structs have texts as keys");
    Map::from_iter([
        (NAME.to_owned(), T::NAME.into()),
        (NAMESPACE.to_owned(), CINDER.into()),
        (VERSION.to_owned(), T::VERSION.to_string().into()),
        (DATA.to_owned(), data),
    ])
}

fn field<T: WireObject>(error: &serde_json::Error) -> ObjectError {
    ObjectError::Field {
        name: T::NAME,
        reason: excerpt(error),
    }
}

/// A nested object that the sender may not have loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Lazy<T> {
    /// The sender has not loaded it: who needs it looks it up.
    #[default]
    Unset,
    /// There is none.
    Null,
    /// Here it is.
    Set(Box<T>),
}

impl<T> Lazy<T> {
    /// The object, if the sender gave one.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Set(object) => Some(object),
            _ => None,
        }
    }

    /// Whether the field is to be left out.
    pub fn is_unset(&self) -> bool {
        matches!(self, Self::Unset)
    }
}

impl<T: WireObject> Serialize for Lazy<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Set(object) => seal(object.as_ref()).serialize(serializer),
            _ => serializer.serialize_none(),
        }
    }
}

impl<'de, T: WireObject> Deserialize<'de> for Lazy<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Self::Null),
            value => decode(value)
                .map(|object| Self::Set(Box::new(object)))
                .map_err(D::Error::custom),
        }
    }
}

/// `#[serde(with)]` for the `objects` of a list object.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<T: WireObject, S: Serializer>(
        objects: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(objects.iter().map(seal))
    }

    pub(crate) fn deserialize<'de, T: WireObject, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        Vec::<Value>::deserialize(deserializer)?
            .into_iter()
            .map(|value| decode(value).map_err(D::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::LogLevel;
    use proptest::prelude::*;
    use serde_json::json;

    fn level(namespace: &str, name: &str, version: &str, data: Value) -> Value {
        json!({
            "versioned_object.name": name, "versioned_object.namespace": namespace,
            "versioned_object.version": version, "versioned_object.data": data,
        })
    }

    #[test]
    fn unknown_fields_and_higher_minor_versions_are_accepted() {
        for version in ["1.0", "1.7", "1.0.1"] {
            let data = json!({"prefix": "cinder", "level": "DEBUG", "colour": [1]});
            let object: LogLevel = decode(level("cinder", "LogLevel", version, data)).unwrap();
            assert_eq!(object.prefix.as_deref(), Some("cinder"));
        }
    }

    #[test]
    fn another_major_version_is_refused() {
        for version in ["2.0", "0.9", "x", ""] {
            let error = decode::<LogLevel>(level("cinder", "LogLevel", version, json!({})));
            assert!(
                matches!(error, Err(ObjectError::IncompatibleVersion { .. })),
                "{version:?} was accepted"
            );
        }
    }

    #[test]
    fn other_objects_are_refused() {
        for (namespace, name) in [("nova", "LogLevel"), ("cinder", "Volume")] {
            let error = decode::<LogLevel>(level(namespace, name, "1.0", json!({})));
            assert!(matches!(error, Err(ObjectError::OtherObject { .. })));
        }
        for value in [
            json!(null),
            json!("x"),
            json!({}),
            json!({"versioned_object.name": 1}),
        ] {
            let error = decode::<LogLevel>(value).unwrap_err();
            assert_eq!(error, ObjectError::NotAnObject("LogLevel"));
        }
    }

    #[test]
    fn a_long_value_is_not_told_as_a_whole() {
        let data = json!({"prefix": {"x": 1}, "level": ["l".repeat(1 << 20)]});
        let error = decode::<LogLevel>(level("cinder", "LogLevel", "1.0", data)).unwrap_err();
        assert!(error.to_string().len() < 2000);
        let data = json!({"id": "x", "created_at": "9".repeat(1 << 20)});
        let backup = decode::<crate::objects::Backup>(level("cinder", "Backup", "1.0", data));
        assert!(backup.unwrap_err().to_string().len() < 2000);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(name: String, version: String, data: String) {
            let _ = decode::<LogLevel>(level("cinder", &name, &version, json!(data)));
            let _ = decode::<LogLevel>(level("cinder", "LogLevel", &version, json!({"level": data})));
        }
    }
}
