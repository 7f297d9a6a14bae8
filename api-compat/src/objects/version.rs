//! Object versions, and which of them a fleet of mixed releases understands.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// `major.minor` of an object or an RPC API. A third part, which distributions may add when they
/// backport, does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Different major versions do not understand each other.
    pub major: u32,
    /// Grows with every compatible change.
    pub minor: u32,
}

impl Version {
    /// The version `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

/// The text is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version")]
pub struct NotAVersion(String);

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let refused = || NotAVersion(text.chars().take(32).collect());
        let number = |part: Option<&str>| {
            part.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(refused)
        };
        let mut parts = text.split('.');
        let version = Self::new(number(parts.next())?, number(parts.next())?);
        match (parts.next(), parts.next()) {
            (None, _) => Ok(version),
            (part, None) => number(part).map(|_| version),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the oldest service of the fleet understands: an entry of `OBJ_VERSIONS` in
/// cinder/objects/base.py. There have been no others from release 21 to 29.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectHistory {
    /// 1.38: Volume 1.8, Snapshot 1.5.
    V1_38,
    /// 1.39: Volume 1.9, Snapshot 1.6.
    #[default]
    V1_39,
}

impl ObjectHistory {
    /// The history entry that `services.object_current_version` names, if it is one that we can
    /// speak. Anything above 1.39 is spoken to as 1.39.
    pub fn at_most(version: Version) -> Option<Self> {
        match version {
            Version {
                major: 1,
                minor: 38,
            } => Some(Self::V1_38),
            Version { major: 1, minor } if minor >= 39 => Some(Self::V1_39),
            _ => None,
        }
    }

    /// Rewrites the versions in an encoded object, nested ones included, to those of this entry.
    ///
    /// Only numbers change: the field that was added (`use_quota`) may stay, since receivers
    /// ignore what they do not know, and Cinder 29 leaves it in as well.
    pub fn pin(self, object: &mut Value) {
        if self == Self::V1_39 {
            return;
        }
        match object {
            Value::Object(map) => {
                let older = match map.get(super::envelope::NAME).and_then(Value::as_str) {
                    Some("Volume") => Some("1.8"),
                    Some("Snapshot") => Some("1.5"),
                    _ => None,
                };
                if let Some(version) = older {
                    map.insert(super::envelope::VERSION.into(), version.into());
                }
                map.values_mut().for_each(|value| self.pin(value));
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.pin(value)),
            _ => {}
        }
    }
}

impl fmt::Display for ObjectHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_38 => "1.38",
            Self::V1_39 => "1.39",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn versions_parse_and_order() {
        let parse = |text: &str| text.parse::<Version>();
        assert_eq!(parse("1.9.1"), Ok(Version::new(1, 9)));
        assert!(parse("1.9").unwrap() < parse("1.10").unwrap());
        for text in [
            "",
            "1",
            "1.",
            ".1",
            "1.x",
            "1.2.3.4",
            "+1.2",
            "1.-2",
            "1.99999999999",
        ] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_newer_fleet_is_spoken_to_as_we_can() {
        let at_most = |minor| ObjectHistory::at_most(Version::new(1, minor));
        assert_eq!(at_most(38), Some(ObjectHistory::V1_38));
        assert_eq!(at_most(39), Some(ObjectHistory::V1_39));
        assert_eq!(at_most(40), Some(ObjectHistory::V1_39));
        assert_eq!(at_most(37), None);
        assert_eq!(ObjectHistory::at_most(Version::new(2, 0)), None);
    }

    #[test]
    fn pinning_reaches_nested_objects() {
        let object = |name: &str, version: &str, data: Value| {
            json!({
                "versioned_object.name": name, "versioned_object.version": version,
                "versioned_object.data": data,
            })
        };
        let device = |volume: &str, snapshot: &str| {
            let list = json!([object("Snapshot", snapshot, json!({}))]);
            let volume = object("Volume", volume, json!({"snapshots": list}));
            object("BackupDeviceInfo", "1.0", json!({"volume": volume}))
        };
        let mut pinned = device("1.9", "1.6");
        ObjectHistory::V1_39.pin(&mut pinned);
        assert_eq!(pinned, device("1.9", "1.6"));
        ObjectHistory::V1_38.pin(&mut pinned);
        assert_eq!(pinned, device("1.8", "1.5"));
    }

    proptest! {
        #[test]
        fn round_trip(major: u32, minor: u32) {
            let version = Version::new(major, minor);
            prop_assert_eq!(version.to_string().parse(), Ok(version));
        }
    }
}
