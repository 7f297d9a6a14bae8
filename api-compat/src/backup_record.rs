//! The record by which a backup becomes known to another cloud: what `export_record` answers and
//! `import_record` brings (`encode_record` and `decode_record` in cinder/objects/backup.py,
//! `import_record` in cinder/backup/manager.py).
//!
//! It is base64 of one flat JSON object: `driver_info`, which is empty for Ceph, and every field
//! of the backup except `parent`. An administrator may import what anybody gave him, so nothing
//! in it is believed.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::excerpt::excerpt;
use crate::ids::{BackupId, VolumeId};
use crate::objects::{Backup, date};
use crate::python_json;

/// Records above this size (in bytes of base64) are refused unread; real ones have some 1500.
pub const MAX_RECORD: usize = 1024 * 1024;

/// Python's decoder does not care about the last bits, and neither do we.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Why a record is not imported. The texts are Cinder's and become the backup's `fail_reason`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not base64.
    #[error("Invalid input received: Can't decode backup record.")]
    NotBase64,
    /// Not a JSON object inside, or no text at all.
    #[error("Invalid input received: Can't parse backup record.")]
    NotJson,
    /// Without these fields nothing can be imported.
    #[error(
        "Driver successfully decoded imported backup data, but there are missing fields ({0})."
    )]
    MissingFields(String),
    /// The record is of another backup.
    #[error("Trying to import backup metadata from id {record} into backup {backup}.")]
    OtherBackup {
        /// The id in the record.
        record: String,
        /// The id of the row.
        backup: BackupId,
    },
    /// A field has a value that it cannot have.
    #[error("Invalid input received: backup record: {0}")]
    Field(String),
}

/// Writes the record of a backup.
pub fn encode(backup: &Backup) -> String {
    #[derive(Serialize)]
    struct Record<'a> {
        driver_info: BTreeMap<(), ()>,
        #[serde(flatten)]
        backup: &'a Backup,
    }
    let whole = Backup {
        parent: Default::default(),
        metadata: Some(backup.metadata.clone().unwrap_or_default()),
        ..backup.clone()
    };
    let record = Record {
        driver_info: BTreeMap::new(),
        backup: &whole,
    };
    ENGINE.encode(python_json::to_string(&record).expect("a backup has texts as keys"))
}

/// Whether the row of an import still waits for its record, or never got it: cinder-api makes it
/// with a volume that there is none (`IMPORT_VOLUME_ID` in cinder/backup/api.py).
pub fn is_awaited(backup: &Backup) -> bool {
    backup.volume_id == VolumeId::from(Uuid::nil())
}

/// Reads a record as it is.
///
/// # Errors
/// [`RecordError::NotBase64`] and [`RecordError::NotJson`].
pub fn decode(record: &str) -> Result<Map<String, Value>, RecordError> {
    if record.len() > MAX_RECORD {
        return Err(RecordError::NotBase64);
    }
    // Python's decoder drops everything that is not of the alphabet, line breaks for instance.
    let in_alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let letters: Vec<u8> = record.bytes().filter(in_alphabet).collect();
    let bytes = ENGINE.decode(letters).map_err(|_| RecordError::NotBase64)?;
    serde_json::from_slice(&bytes).map_err(|_| RecordError::NotJson)
}

/// What a record sets in the row of an imported backup. A field that the record does not have
/// stays null; `service`, `host`, `availability_zone` and `status` are the importing worker's.
///
/// Python also takes over `temp_volume_id` and `temp_snapshot_id`. They could only name resources
/// of the cloud where the backup was made, and a later reset to `error` would delete whatever has
/// that id here; so they are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ImportedBackup {
    /// `backups.display_name`.
    pub display_name: Option<String>,
    /// `backups.display_description`.
    pub display_description: Option<String>,
    /// `backups.container`.
    pub container: Option<String>,
    /// `backups.size` in GiB.
    pub size: Option<i64>,
    /// `backups.service_metadata`.
    pub service_metadata: Option<String>,
    /// `backups.object_count`.
    pub object_count: Option<i64>,
    /// `backups.volume_id`.
    pub volume_id: Option<VolumeId>,
    /// `backups.parent_id`.
    pub parent_id: Option<BackupId>,
    /// `backups.snapshot_id`.
    pub snapshot_id: Option<String>,
    /// `backups.num_dependent_backups`.
    pub num_dependent_backups: Option<i64>,
    /// `backups.restore_volume_id`.
    pub restore_volume_id: Option<String>,
    /// `backups.encryption_key_id`.
    pub encryption_key_id: Option<String>,
    /// `backups.data_timestamp`.
    #[serde(default, with = "date")]
    pub data_timestamp: Option<DateTime<Utc>>,
    /// `backups.created_at`.
    #[serde(default, with = "date")]
    pub created_at: Option<DateTime<Utc>>,
    /// `backups.updated_at`.
    #[serde(default, with = "date")]
    pub updated_at: Option<DateTime<Utc>>,
    /// The rows of `backup_metadata`.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Reads a record that is to be imported into the row of `backup`.
///
/// # Errors
/// [`RecordError`].
pub fn import(record: &str, backup: BackupId) -> Result<ImportedBackup, RecordError> {
    const NEEDED: [&str; 7] = [
        "display_name",
        "display_description",
        "container",
        "size",
        "service_metadata",
        "object_count",
        "id",
    ];
    let fields = decode(record)?;
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|name| !fields.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        return Err(RecordError::MissingFields(missing.join(", ")));
    }
    let id = fields["id"].as_str().unwrap_or_default();
    if id != backup.to_string() {
        return Err(RecordError::OtherBackup {
            record: id.chars().take(64).collect(),
            backup,
        });
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| RecordError::Field(excerpt(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ID: &str = "246c011b-8fab-4538-90c2-f0ded6b69811";

    fn record(change: impl FnOnce(&mut Map<String, Value>)) -> String {
        let Value::Object(mut fields) = json!({
            "driver_info": {}, "id": ID, "display_name": "n", "display_description": null,
            "container": "backups", "size": 1, "service_metadata": null, "object_count": 0,
            "volume_id": "06a314a8-3f21-44ef-b19e-2fb9b505d554", "temp_volume_id": "v",
            "data_timestamp": "2026-11-20T21:05:10Z", "metadata": {"k": "v"},
        }) else {
            unreachable!()
        };
        change(&mut fields);
        ENGINE.encode(Value::Object(fields).to_string())
    }

    fn imported(record: &str) -> Result<ImportedBackup, RecordError> {
        import(record, ID.parse().unwrap())
    }

    #[test]
    fn a_record_is_imported_and_line_breaks_do_not_matter() {
        let text = record(|_| {});
        let (a, b) = text.split_at(30);
        let backup = imported(&format!(" {a}\r\n{b}\n")).unwrap();
        assert_eq!(backup.container.as_deref(), Some("backups"));
        assert_eq!(backup.metadata.unwrap()["k"], "v");
    }

    #[test]
    fn the_row_of_an_import_is_known_by_its_volume() {
        let row = |volume: &str| -> Backup {
            let row = json!({"id": ID, "volume_id": volume, "user_id": "u", "project_id": "p"});
            serde_json::from_value(row).unwrap()
        };
        assert!(is_awaited(&row("00000000-0000-0000-0000-000000000000")));
        assert!(!is_awaited(&row("06a314a8-3f21-44ef-b19e-2fb9b505d554")));
    }

    #[test]
    fn refusals_are_cinders_words() {
        for (text, words) in [
            (
                "a".into(),
                "Invalid input received: Can't decode backup record.",
            ),
            (
                "gA==".into(),
                "Invalid input received: Can't parse backup record.",
            ),
            (
                ENGINE.encode("{"),
                "Invalid input received: Can't parse backup record.",
            ),
            (
                ENGINE.encode("[1]"),
                "Invalid input received: Can't parse backup record.",
            ),
            (
                record(|fields| {
                    fields.remove("size");
                    fields.remove("container");
                }),
                "Driver successfully decoded imported backup data, but there are missing fields \
                 (container, size).",
            ),
            (
                record(|fields| {
                    fields.insert("id".into(), json!("other"));
                }),
                "Trying to import backup metadata from id other into backup \
                 246c011b-8fab-4538-90c2-f0ded6b69811.",
            ),
        ] {
            assert_eq!(imported(&text).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn hostile_fields_are_refused() {
        for (field, value) in [
            ("volume_id", json!("../../x")),
            ("parent_id", json!("base")),
            ("size", json!("big")),
            ("metadata", json!({"k": {"nested": 1}})),
            ("data_timestamp", json!("yesterday")),
            ("created_at", json!("+10000-01-01T00:00:00")),
            ("updated_at", json!("2016-12-31T23:59:60Z")),
            ("object_count", json!("9".repeat(10_000))),
        ] {
            let text = record(|fields| {
                fields.insert(field.into(), value);
            });
            let refused = imported(&text);
            assert!(matches!(refused, Err(RecordError::Field(_))), "{field}");
            assert!(refused.unwrap_err().to_string().len() < 2000, "{field}");
        }
        assert_eq!(
            decode(&"A".repeat(MAX_RECORD + 1)),
            Err(RecordError::NotBase64)
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String, json in "\\PC*") {
            let _ = imported(&text);
            let _ = imported(&ENGINE.encode(json));
        }
    }
}
