//! What an imported record writes, compared with the row that Cinder was seen to write.

use api_compat::backup_record::{self, ImportedBackup};
use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, Event};
use cinderblock::db::entity::backups;
use cinderblock::db::{Done, ErrorKind, Importer, Result};
use sea_orm::ActiveValue::Set;
use serde_json::{Value, json};

use crate::lab::{Lab, before, change, now, subject};

const VOLUME: &str = "97b019f4-c9b3-4ea2-b600-3950a8fee594";
const IMPORTER: Importer<'_> = Importer {
    service: "cinder.backup.drivers.ceph.CephBackupDriver",
    host: "here",
    zone: "nova",
};

/// The record of a backup, with other fields than a sample's.
fn record(id: BackupId, fields: Value) -> ImportedBackup {
    let mut backup = json!({
        "id": id, "volume_id": VOLUME, "user_id": "theirs", "project_id": "theirs",
        "host": "there", "availability_zone": "there", "container": "backups",
        "status": "available", "size": 2, "display_name": "bigb",
        "service_metadata": "{\"base\": \"x\"}", "service": "theirs", "object_count": 0,
        "num_dependent_backups": 1, "parent_id": VOLUME, "temp_volume_id": VOLUME,
        "created_at": "2026-11-20T21:05:10Z", "data_timestamp": "2026-11-20T21:05:11Z",
        "metadata": {"k": "v"},
    });
    let object = backup.as_object_mut().expect("an object");
    object.extend(fields.as_object().expect("an object").clone());
    let backup: Backup = serde_json::from_value(backup).expect("a backup");
    backup_record::import(&backup_record::encode(&backup), id).expect("a record")
}

async fn import(lab: &Lab, id: BackupId, record: &ImportedBackup) -> Result<()> {
    let done = Done::Imported {
        record,
        importer: IMPORTER,
    };
    let imported = change(BackupStatus::Creating, &Event::ImportSucceeded);
    let subject = subject(id, BackupStatus::Creating);
    lab.db.change(subject, &imported, done, now()).await
}

#[tokio::test]
async fn a_row_is_what_its_record_says() {
    let lab = Lab::new().await;
    let made = |row: &mut backups::ActiveModel| row.user_id = Set(Some("own".to_owned()));
    let id = lab.backup(BackupStatus::Creating, made).await;
    lab.backup_pair(id, "old", "1").await;
    let record = record(id, json!({}));
    import(&lab, id, &record).await.expect("import");

    let seconds = |text: &str| text.parse().expect("a time");
    let expected = backups::Model {
        id: id.to_string(),
        volume_id: VOLUME.to_owned(),
        user_id: Some("own".to_owned()),
        project_id: Some(lab.project.clone()),
        host: Some("here".to_owned()),
        availability_zone: Some("nova".to_owned()),
        display_name: Some("bigb".to_owned()),
        display_description: None,
        container: Some("backups".to_owned()),
        parent_id: Some(VOLUME.to_owned()),
        status: Some("available".to_owned()),
        fail_reason: None,
        service_metadata: Some("{\"base\": \"x\"}".to_owned()),
        service: Some(IMPORTER.service.to_owned()),
        size: Some(2),
        object_count: Some(0),
        temp_volume_id: None,
        temp_snapshot_id: None,
        num_dependent_backups: Some(1),
        snapshot_id: None,
        data_timestamp: Some(seconds("2026-11-20T21:05:11")),
        restore_volume_id: None,
        encryption_key_id: None,
        created_at: Some(seconds("2026-11-20T21:05:10")),
        updated_at: Some(now()),
        deleted_at: None,
        deleted: Some(false),
    };
    assert_eq!(lab.backup_row(id).await, expected);
    let pairs = lab.db.backup_metadata(id).await.expect("query");
    assert_eq!(
        pairs.into_iter().collect::<Vec<_>>(),
        [("k".into(), "v".into())]
    );
}

#[tokio::test]
async fn a_backup_that_stands_is_not_overwritten() {
    let lab = Lab::new().await;
    let id = lab.backup(BackupStatus::Available, |_| ()).await;
    let imported = import(&lab, id, &record(id, json!({}))).await;
    assert_eq!(imported.expect_err("it stands").kind(), ErrorKind::Conflict);
    assert_eq!(lab.backup_row(id).await.updated_at, Some(before()));
}

/// SQLite takes texts of any length.
mod server {
    use super::*;

    #[tokio::test]
    async fn a_record_that_does_not_fit_changes_nothing() {
        let lab = Lab::new().await;
        let id = lab.backup(BackupStatus::Creating, |_| ()).await;
        let found = lab.backup_row(id).await;
        let long = "x".repeat(256);
        for fields in [
            json!({"display_name": long}),
            json!({"metadata": {"k": long}}),
        ] {
            let imported = import(&lab, id, &record(id, fields)).await;
            assert_eq!(imported.expect_err("too long").kind(), ErrorKind::Other);
            assert_eq!(lab.backup_row(id).await, found);
        }
    }
}
