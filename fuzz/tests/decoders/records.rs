//! What is stored, and brought from other clouds.

use api_compat::backup_record::{self, RecordError};
use api_compat::ids::{BackupId, VolumeId};
use api_compat::names::{BackupImage, BackupSnapshot, recorded_image};
use api_compat::objects::Version;
use api_compat::service_metadata;
use api_compat::volume_metadata::{self, Target, plan_restore};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cinderblock_fuzz::{assert_short, run};
use serde_json::Value;

const BACKUP: &str = "246c011b-8fab-4538-90c2-f0ded6b69811";
const VOLUME: &str = "06a314a8-3f21-44ef-b19e-2fb9b505d554";

/// The text of a record, and its JSON.
#[test]
fn backup_urls() {
    run("backup_urls", |input| {
        let backup: BackupId = BACKUP.parse().expect("an id");
        let import = |record: &str| match backup_record::import(record, backup) {
            Ok(imported) => {
                let fields = backup_record::decode(record).expect("it was read");
                assert_eq!(fields["id"], BACKUP);
                let volume = imported.volume_id.map(|id| id.to_string());
                assert_eq!(
                    fields.get("volume_id").and_then(Value::as_str),
                    volume.as_deref()
                );
                assert!(
                    imported.created_at.is_none_or(is_date)
                        && imported.data_timestamp.is_none_or(is_date)
                );
            }
            Err(error @ RecordError::NotBase64) => assert_short(&error),
            Err(error) => {
                assert!(record.len() <= backup_record::MAX_RECORD);
                assert_short(&error);
            }
        };
        import(&String::from_utf8_lossy(input));
        import(&STANDARD.encode(input));
    });
}

/// A date that Python and every database can have.
fn is_date(date: chrono::DateTime<chrono::Utc>) -> bool {
    date.format("%Y-%m-%dT%H:%M:%SZ").to_string().len() == "2026-11-20T20:43:34Z".len()
}

/// Whatever is written there, no image of another volume's is reached.
#[test]
fn service_metadata() {
    run("service_metadata", |input| {
        let text = String::from_utf8_lossy(input);
        let volume: VolumeId = VOLUME.parse().expect("an id");
        match recorded_image(volume, Some(&text)) {
            Ok(Some(image)) => {
                assert_eq!(
                    service_metadata::base(&text).expect("it was read"),
                    image.to_string()
                );
                assert!(
                    image
                        .to_string()
                        .starts_with(&format!("volume-{volume}.backup."))
                );
                let written = match service_metadata::is_of_device(&text) {
                    true => service_metadata::format_of_device(&image),
                    false => service_metadata::format(&image),
                };
                assert_eq!(
                    recorded_image(volume, Some(&written)).expect("ours"),
                    Some(image)
                );
            }
            Ok(None) => assert!(text.is_empty()),
            Err(error) => assert_short(&error),
        }
    });
}

#[test]
fn volume_metadata() {
    run("volume_metadata", |input| {
        let recorded = match volume_metadata::decode(input) {
            Ok(recorded) => recorded,
            Err(error) => return assert_short(&error),
        };
        assert!(matches!(recorded.version, 1 | 2));
        for target in [None, Some("t")] {
            let target = Target {
                display_name: target,
                volume_type_id: target,
                recorded_type_exists: true,
            };
            if let Err(error) = plan_restore(&recorded, target) {
                assert_short(&error);
            }
        }
    });
}

/// Names in a pool, ids and versions: what is recognised is written as it was.
#[test]
fn names() {
    run("names", |input| {
        let text = String::from_utf8_lossy(input);
        if let Some(image) = BackupImage::parse(&text) {
            assert_eq!(image.to_string(), text);
        }
        if let Some(snapshot) = BackupSnapshot::parse(&text) {
            assert_eq!(snapshot.to_string(), text);
            assert!(
                snapshot
                    .backup()
                    .is_none_or(|backup| snapshot.is_of(backup))
            );
        }
        match text.parse::<BackupId>() {
            Ok(id) => assert_eq!(id.to_string(), text),
            Err(error) => assert_short(&error),
        }
        match text.parse::<Version>() {
            Ok(version) => assert_eq!(version.to_string().parse(), Ok(version)),
            Err(error) => assert_short(&error),
        }
    });
}
