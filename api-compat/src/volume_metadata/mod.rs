//! The metadata object of a backup: what Cinder knew of the volume (cinder/backup/driver.py).
//!
//! A JSON object with a `version` and up to three sections. It is written like Python writes it,
//! so that either service restores what the other has saved, and read leniently: a section or
//! column that is missing is simply not restored.

mod columns;
mod restore;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

pub use columns::VolumeColumns;
pub use restore::{Change, RestoreError, Target, plan_restore};

use crate::excerpt::excerpt;
use crate::json_weight::most_values;
use crate::python_json;

/// More values than this are not taken apart, each of which takes hundreds of bytes.
const MAX_VALUES: usize = 500_000;

/// The version that is written.
pub const VERSION: u32 = 2;

/// Key-value pairs in the order in which they are to be written.
pub type Pairs = Vec<(String, String)>;

/// Writes the text of a metadata object. A section without rows is left out.
pub fn encode(
    volume: &VolumeColumns,
    user: &[(String, String)],
    glance: &[(String, String)],
) -> String {
    #[derive(Serialize)]
    struct Container<'a> {
        version: u32,
        #[serde(rename = "volume-base-metadata")]
        base: &'a VolumeColumns,
        #[serde(
            rename = "volume-metadata",
            skip_serializing_if = "<[_]>::is_empty",
            serialize_with = "pairs"
        )]
        user: &'a [(String, String)],
        #[serde(
            rename = "volume-glance-metadata",
            skip_serializing_if = "<[_]>::is_empty",
            serialize_with = "pairs"
        )]
        glance: &'a [(String, String)],
    }
    python_json::to_string(&Container {
        version: VERSION,
        base: volume,
        user,
        glance,
    })
    .expect("columns and pairs of texts are JSON")
}

fn pairs<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

/// Why a metadata object is not restored.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Not JSON, or not of the right shape.
    #[error("volume metadata cannot be read: {}", excerpt(.0))]
    Malformed(#[from] serde_json::Error),
    /// More values than any volume has.
    #[error("volume metadata has more than {MAX_VALUES} values")]
    TooManyValues,
    /// A version that nobody has written so far.
    #[error("Metadata restore failed due to incompatible version")]
    Version(i64),
}

/// What a metadata object says, as far as a restore looks at it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Recorded {
    /// 1 or 2; 1 does not restore the encryption key.
    pub version: i64,
    /// The volume's columns.
    #[serde(default, rename = "volume-base-metadata")]
    pub base: Option<RecordedBase>,
    /// The user's key-value pairs. The values should be texts.
    #[serde(default, rename = "volume-metadata")]
    pub user: Option<BTreeMap<String, Value>>,
    /// The image's properties. Python turns every value into a text when it stores it.
    #[serde(default, rename = "volume-glance-metadata")]
    pub glance: Option<BTreeMap<String, Value>>,
}

/// The columns that a restore looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RecordedBase {
    /// The volume's name.
    #[serde(default)]
    pub display_name: Option<String>,
    /// The volume's description.
    #[serde(default)]
    pub display_description: Option<String>,
    /// The volume's own key at the time of the backup. The outer option is none if the column is
    /// not there at all.
    #[serde(default, deserialize_with = "present")]
    pub encryption_key_id: Option<Option<String>>,
    /// The volume's type.
    #[serde(default)]
    pub volume_type_id: Option<String>,
}

fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads a metadata object.
///
/// # Errors
/// [`MetadataError`].
pub fn decode(text: &[u8]) -> Result<Recorded, MetadataError> {
    if most_values(text) > MAX_VALUES {
        return Err(MetadataError::TooManyValues);
    }
    let recorded: Recorded = serde_json::from_slice(text)?;
    match recorded.version {
        1 | 2 => Ok(recorded),
        other => Err(MetadataError::Version(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::Hidden;
    use proptest::prelude::*;

    #[test]
    fn a_long_value_is_not_told_as_a_whole() {
        let text = format!("{{\"version\": \"{}\"}}", "v".repeat(1 << 20));
        assert!(decode(text.as_bytes()).unwrap_err().to_string().len() < 2000);
        let id = "u".repeat(1 << 20);
        let base = serde_json::json!({"encryption_key_id": "k", "volume_type_id": id});
        let recorded = serde_json::json!({"version": 2, "volume-base-metadata": base});
        let recorded = decode(recorded.to_string().as_bytes()).unwrap();
        for volume_type_id in [None, Some("t")] {
            let target = Target {
                display_name: None,
                volume_type_id,
                recorded_type_exists: false,
            };
            let error = plan_restore(&recorded, target).unwrap_err();
            assert!(error.to_string().len() < 2000);
        }
    }

    #[test]
    fn what_has_too_many_values_is_refused_before_it_is_taken_apart() {
        let pairs = vec!["\"k\": 1"; MAX_VALUES].join(",");
        let text = format!("{{\"version\": 2, \"volume-metadata\": {{{pairs}}}}}");
        let refused = decode(text.as_bytes());
        assert!(matches!(refused, Err(MetadataError::TooManyValues)));
    }

    #[test]
    fn only_versions_1_and_2_are_restored() {
        for version in [1, 2] {
            let text = format!("{{\"version\": {version}}}");
            assert_eq!(decode(text.as_bytes()).unwrap().version, version);
        }
        assert!(matches!(
            decode(b"{\"version\": 3}"),
            Err(MetadataError::Version(3))
        ));
        for text in ["", "{}", "[]", "{\"version\": \"2\"}"] {
            assert!(matches!(
                decode(text.as_bytes()),
                Err(MetadataError::Malformed(_))
            ));
        }
    }

    #[test]
    fn empty_sections_are_left_out() {
        let text = encode(&VolumeColumns::default(), &Vec::new(), &Vec::new());
        let value: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["version", "volume-base-metadata"]);
    }

    #[test]
    fn debug_hides_chap_secrets() {
        let columns = VolumeColumns {
            provider_auth: Some(Hidden::new("CHAP user hunter2".into())),
            ..VolumeColumns::default()
        };
        assert!(!format!("{columns:?}").contains("hunter2"));
        assert!(encode(&columns, &Vec::new(), &Vec::new()).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn pairs_round_trip(pairs: BTreeMap<String, String>) {
            let user: Pairs = pairs.clone().into_iter().collect();
            let text = encode(&VolumeColumns::default(), &user, &Vec::new());
            let read = decode(text.as_bytes()).unwrap();
            let pairs = pairs.into_iter().map(|(key, value)| (key, Value::from(value)));
            prop_assert_eq!(read.user.unwrap_or_default(), pairs.collect::<BTreeMap<_, _>>());
        }
    }
}
