//! What Python wrote into pools, columns and exported records, written again.

use api_compat::backup_record;
use api_compat::messaging::Request;
use api_compat::names::recorded_image;
use api_compat::objects::{self, Backup, Volume};
use api_compat::rpc::BackupMethod;
use api_compat::service_metadata;
use api_compat::volume_metadata::{self, Change, Pairs, Target, VolumeColumns, plan_restore};
use serde_json::Value;

use crate::fixtures::{requests, volume_metadata as recorded_metadata};

/// The names of the columns are those of the object's fields.
fn columns(base: &Value) -> VolumeColumns {
    let volume: Volume = serde_json::from_value(base.clone()).unwrap();
    VolumeColumns::from(&volume)
}

/// The pairs of a section in the order of the text, which a parsed object does not keep.
fn pairs(text: &str, container: &Value, section: &str) -> Pairs {
    let Some(map) = container.get(section).and_then(Value::as_object) else {
        return Pairs::new();
    };
    let start = text.find(&format!("\"{section}\": {{")).unwrap();
    let mut pairs: Vec<(usize, (String, String))> = map
        .iter()
        .map(|(key, value)| {
            let at = text[start..].find(&format!("\"{key}\": \"")).unwrap();
            (at, (key.clone(), value.as_str().unwrap().to_owned()))
        })
        .collect();
    pairs.sort();
    pairs.into_iter().map(|(_, pair)| pair).collect()
}

#[test]
fn metadata_objects_are_pythons_to_the_byte() {
    let mut sections = [false; 2];
    for text in recorded_metadata() {
        let container: Value = serde_json::from_str(&text).unwrap();
        let user = pairs(&text, &container, "volume-metadata");
        let glance = pairs(&text, &container, "volume-glance-metadata");
        sections[0] |= !user.is_empty();
        sections[1] |= !glance.is_empty();
        let volume = columns(&container["volume-base-metadata"]);
        assert_eq!(volume_metadata::encode(&volume, &user, &glance), text);
    }
    assert_eq!(sections, [true, true], "every section is in some recording");
}

#[test]
fn metadata_objects_are_restored() {
    for text in recorded_metadata() {
        let container: Value = serde_json::from_str(&text).unwrap();
        let recorded = volume_metadata::decode(text.as_bytes()).unwrap();
        let target = Target {
            display_name: Some("restore_backup_x"),
            volume_type_id: None,
            recorded_type_exists: false,
        };
        let changes = plan_restore(&recorded, target).unwrap();
        let named = changes
            .iter()
            .any(|change| matches!(change, Change::Name { .. }));
        let name = container["volume-base-metadata"]["display_name"].as_str();
        assert_eq!(named, name.is_some_and(|name| !name.is_empty()));
        let bootable = |change: &Change| matches!(change, Change::GlanceMetadata(_));
        let glance = container.get("volume-glance-metadata").is_some();
        assert_eq!(changes.iter().any(bootable), glance);
    }
}

#[test]
fn records_are_pythons_to_the_byte() {
    let mut records = 0;
    for recorded in requests() {
        let request = Request::decode(recorded.body()).unwrap();
        let Ok(BackupMethod::ImportRecord {
            backup, backup_url, ..
        }) = BackupMethod::parse(&request, false)
        else {
            continue;
        };
        records += 1;
        let fields = backup_record::decode(&backup_url).unwrap();
        let exported: Backup = serde_json::from_value(Value::Object(fields)).unwrap();
        assert_eq!(backup_record::encode(&exported), backup_url, "{recorded}");
        let imported = backup_record::import(&backup_url, backup.id).unwrap();
        assert_eq!(imported.volume_id, Some(exported.volume_id));
        assert_eq!(imported.service_metadata, exported.service_metadata);
        assert_eq!(imported.data_timestamp, exported.data_timestamp);
        assert_eq!(imported.size, exported.size);
    }
    assert!(records > 0);
}

#[test]
fn service_metadata_is_pythons_to_the_byte() {
    let mut texts = 0;
    for recorded in requests() {
        let request = Request::decode(recorded.body()).unwrap();
        let Some(value) = request.args.get("backup") else {
            continue;
        };
        if value["versioned_object.name"] != "Backup" {
            continue;
        }
        let backup: Backup = objects::decode(value.clone()).unwrap();
        let Some(text) = backup.service_metadata.as_deref() else {
            continue;
        };
        texts += 1;
        let image = recorded_image(backup.volume_id, Some(text)).unwrap();
        let image = image.expect("it is named");
        assert_eq!(service_metadata::format(&image), text, "{recorded}");
    }
    assert!(texts > 0);
}
