//! Rows as objects, and the questions that are asked of many rows.

use api_compat::config::database_url::Backend;
use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::{Backup, Volume};
use api_compat::state::{BackupStatus, VolumeStatus};
use cinderblock::db::entity::{HiddenText, backups, snapshots, volumes};
use cinderblock::db::{ErrorKind, Place};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use crate::lab::{Lab, TYPE, backend, before, cinder_release};

/// What SQL, LIKE and the server's escapes might take for something else than a text.
fn hostile() -> String {
    let text = "'; DROP TABLE backups; -- \\' \" ` % _ \u{0} \n \u{1A} ${x} {0} ü漢";
    match backend() {
        // It has no text with a zero.
        Backend::Postgres => text.replace('\0', ""),
        Backend::MySql | Backend::Sqlite => text.to_owned(),
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

async fn unfinished(lab: &Lab, host: &str) -> Vec<BackupId> {
    let found = lab.db.unfinished_backups(host).await.expect("query");
    found.iter().map(|backup| backup.id).collect()
}

#[tokio::test]
async fn unfinished_backups_are_the_hosts_own_with_the_newest_first() {
    let lab = Lab::new().await;
    let host = format!("host-{}", lab.project);
    let mut expected = Vec::new();
    for (age, status) in BackupStatus::ALL.into_iter().enumerate() {
        let fill = |row: &mut backups::ActiveModel| {
            row.host = Set(text(&host));
            let age = std::time::Duration::from_secs(age as u64);
            row.created_at = Set(Some(before() - age));
        };
        let id = lab.backup(status, fill).await;
        if let BackupStatus::Creating | BackupStatus::Deleting | BackupStatus::Restoring = status {
            expected.push(id);
        }
    }
    let copied = |row: &mut backups::ActiveModel| {
        row.host = Set(text(&host));
        row.temp_volume_id = Set(text("a volume"));
        row.created_at = Set(Some(before() - std::time::Duration::from_secs(100)));
    };
    expected.push(lab.backup(BackupStatus::Error, copied).await);
    let oldest = |row: &mut backups::ActiveModel| {
        row.host = Set(text(&host));
        row.temp_snapshot_id = Set(text("a snapshot"));
        row.created_at = Set(None);
    };
    expected.push(lab.backup(BackupStatus::Error, oldest).await);
    // Not these: a deleted one, those of hosts that only look alike, one that cannot be read.
    let others: [&dyn Fn(&mut backups::ActiveModel); 4] = [
        &|row| {
            row.host = Set(text(&host));
            row.deleted = Set(Some(true));
        },
        &|row| row.host = Set(text(&host.to_uppercase())),
        &|row| row.host = Set(Some(format!("{host} "))),
        &|row| {
            row.host = Set(text(&host));
            row.status = Set(text("unheard-of"));
        },
    ];
    for fill in others {
        lab.backup(BackupStatus::Creating, fill).await;
    }
    let unreadable = |row: &mut backups::ActiveModel| {
        row.host = Set(text(&host));
        row.volume_id = Set("../etc".to_owned());
    };
    lab.backup(BackupStatus::Creating, unreadable).await;
    assert_eq!(unfinished(&lab, &host).await, expected);
}

#[tokio::test]
async fn the_last_ended_backups_are_those_that_were_changed_last() {
    let lab = Lab::new().await;
    let host = format!("host-{}", lab.project);
    let mut expected = Vec::new();
    let statuses = BackupStatus::ALL.into_iter().chain(BackupStatus::ALL);
    for (age, status) in statuses.enumerate() {
        let fill = |row: &mut backups::ActiveModel| {
            row.host = Set(text(&host));
            let age = std::time::Duration::from_secs(age as u64);
            row.updated_at = Set(Some(before() - age));
        };
        let id = lab.backup(status, fill).await;
        if let BackupStatus::Available | BackupStatus::Error = status {
            expected.push(id);
        }
    }
    assert_eq!(expected.len(), 4);
    for most in [3, 100] {
        let found = lab.db.last_ended_backups(&host, most).await.expect("query");
        let found: Vec<BackupId> = found.iter().map(|backup| backup.id).collect();
        assert_eq!(found, expected[..expected.len().min(most as usize)]);
    }
}

#[tokio::test]
async fn a_base_is_shared_by_live_backups_of_one_volume() {
    let lab = Lab::new().await;
    let volume = Uuid::new_v4().to_string();
    let base = format!("{{\"base\": \"volume-{volume}.backup.base\"}}");
    let add = async |volume: &str, base: Option<&str>, deleted: bool| {
        let fill = |row: &mut backups::ActiveModel| {
            row.volume_id = Set(volume.to_owned());
            row.service_metadata = Set(base.map(str::to_owned));
            row.deleted = Set(Some(deleted));
        };
        let id = lab.backup(BackupStatus::Available, fill).await;
        let found = lab.db.backup_even_deleted(id).await.expect("query");
        found.expect("a backup")
    };
    let first: Backup = add(&volume, Some(&base), false).await;
    add(&volume, Some(&base), true).await;
    add(&Uuid::new_v4().to_string(), Some(&base), false).await;
    add(&volume, Some("{}"), false).await;
    let nameless = add(&volume, None, false).await;
    add(&volume, None, false).await;
    assert!(!lab.db.shares_base(&first).await.expect("query"));
    assert!(!lab.db.shares_base(&nameless).await.expect("query"));
    // Two that go at once see each other in the image only.
    let fill = |row: &mut backups::ActiveModel| {
        row.volume_id = Set(volume.clone());
        row.service_metadata = Set(Some(base.clone()));
    };
    lab.backup(BackupStatus::Deleting, fill).await;
    assert!(lab.db.shares_base(&first).await.expect("query"));
    let deleting = Backup {
        status: Some(BackupStatus::Deleting),
        ..first.clone()
    };
    assert!(!lab.db.shares_base(&deleting).await.expect("query"));
    let second = add(&volume, Some(&base), false).await;
    assert!(lab.db.shares_base(&first).await.expect("query"));
    assert!(lab.db.shares_base(&second).await.expect("query"));
}

#[tokio::test]
async fn a_source_is_prepared_while_a_copy_of_it_is_being_made() {
    let lab = Lab::new().await;
    let volume = lab.volume(VolumeStatus::BackingUp, |row| {
        row.host = Set(text("host@ceph#pool"));
    });
    let volume = volume.await;
    let of_volume = |row: &mut backups::ActiveModel| row.volume_id = Set(volume.to_string());
    let backup = lab.backup(BackupStatus::Creating, of_volume).await;
    let backup = lab.db.backup(backup).await.expect("query").expect("one");
    let volume = lab.db.volume(volume).await.expect("query").expect("one");
    let copy = async |status: &str, age: u64, host: &str| {
        let status = VolumeStatus::from(status);
        let fill = |row: &mut volumes::ActiveModel| {
            row.host = Set(text(host));
            row.display_name = Set(Some(format!("backup-vol-{}", volume.id)));
            row.created_at = Set(Some(before() - std::time::Duration::from_secs(age)));
        };
        lab.volume(status, fill).await;
        let skew = chrono::TimeDelta::seconds(60);
        let prepared = lab.db.is_being_prepared(&backup, &volume, skew).await;
        prepared.expect("query")
    };
    assert!(!copy("backing-up", 0, "host@ceph#pool").await);
    assert!(!copy("creating", 0, "other@ceph#pool").await);
    // Of an earlier backup.
    assert!(!copy("creating", 61, "host@ceph#pool").await);
    // Of this one, by a clock that is behind.
    assert!(copy("creating", 60, "host@ceph#pool").await);
}

#[tokio::test]
async fn a_source_is_held_by_the_backup_that_is_being_made() {
    let lab = Lab::new().await;
    let (volume, snapshot) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let add = async |status, snapshot: Option<&str>| {
        let fill = |row: &mut backups::ActiveModel| {
            row.volume_id = Set(volume.clone());
            row.snapshot_id = Set(snapshot.map(str::to_owned));
        };
        let id = lab.backup(status, fill).await;
        lab.db.backup(id).await.expect("query").expect("a backup")
    };
    let of_volume: Backup = add(BackupStatus::Deleting, None).await;
    let of_snapshot: Backup = add(BackupStatus::Deleting, Some(&snapshot)).await;
    let held = async |backup: &Backup| {
        let held = lab.db.is_backed_up_by_another(backup).await;
        held.expect("query")
    };
    add(BackupStatus::Available, None).await;
    assert!(!held(&of_volume).await);
    add(BackupStatus::Creating, Some(&snapshot)).await;
    assert!(!held(&of_volume).await);
    assert!(held(&of_snapshot).await);
    let other = add(BackupStatus::Creating, None).await;
    assert!(held(&of_volume).await);
    assert!(!held(&other).await);
}

#[tokio::test]
async fn hostile_texts_stay_texts() {
    let lab = Lab::new().await;
    let fill = |row: &mut backups::ActiveModel| {
        row.display_name = Set(Some(hostile()));
        row.host = Set(Some(hostile()));
        row.service_metadata = Set(Some(hostile()));
    };
    let id = lab.backup(BackupStatus::Creating, fill).await;
    lab.backup_pair(id, &hostile(), &hostile()).await;
    let backup = lab.db.backup(id).await.expect("query").expect("a backup");
    assert_eq!(backup.display_name.as_deref(), Some(hostile().as_str()));
    assert_eq!(backup.service_metadata.as_deref(), Some(hostile().as_str()));
    let pairs = lab.db.backup_metadata(id).await.expect("query");
    assert_eq!(pairs[&hostile()], hostile());
    assert!(unfinished(&lab, &hostile()).await.contains(&id));
    for pattern in ["%", "' OR ''='", "_"] {
        assert_eq!(unfinished(&lab, pattern).await, []);
    }
    assert!(!lab.db.shares_base(&backup).await.expect("query"));
    let host = hostile();
    let place = Place {
        backup: id,
        host: &host,
        service_metadata: &hostile(),
        was: Some(&hostile()),
        detach: false,
    };
    let placed = lab.db.place_backup(place, before()).await;
    placed.expect("place");
    let found = lab.backup_row(id).await.service_metadata;
    assert_eq!(found.as_deref(), Some(hostile().as_str()));
}

/// Changes a row before it is inserted.
type Fill = fn(&mut backups::ActiveModel);

#[tokio::test]
async fn a_row_that_is_no_backups_is_an_error() {
    let lab = Lab::new().await;
    let fills: [(&str, Fill); 3] = [
        ("volume_id", |row| row.volume_id = Set("base@x".to_owned())),
        ("parent_id", |row| row.parent_id = Set(text("../x"))),
        ("status", |row| row.status = Set(text("unheard-of"))),
    ];
    for (column, fill) in fills {
        let id = lab.backup(BackupStatus::Available, fill).await;
        let error = lab.db.backup(id).await.expect_err("a row of nonsense");
        let expected = format!("backups row {id}: column {column} is not usable");
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), ErrorKind::Other);
    }
    let empty = |row: &mut backups::ActiveModel| row.parent_id = Set(text(""));
    let id = lab.backup(BackupStatus::Available, empty).await;
    let backup = lab.db.backup(id).await.expect("query").expect("a backup");
    assert_eq!(backup.parent_id, None);
    assert_eq!(backup.size, Some(0));
    assert_eq!(backup.num_dependent_backups, Some(0));
}

#[tokio::test]
async fn a_volume_is_read_with_every_column() {
    let lab = Lab::new().await;
    let fill = |row: &mut volumes::ActiveModel| {
        row.name_id = Set(Some(Uuid::from_u128(1).to_string()));
        row.use_quota = Set(Some(false));
        row.host = Set(text("host@rbd#pool"));
        row.size = Set(Some(7));
        row.display_name = Set(Some(hostile()));
        row.provider_auth = Set(Some(HiddenText("CHAP user password".to_owned())));
        row.launched_at = Set(Some(before()));
        row.bootable = Set(Some(true));
        row.multiattach = Set(Some(false));
        row.previous_status = Set(text("maintenance"));
    };
    let id = lab.volume(VolumeStatus::BackingUp, fill).await;
    let volume: Volume = lab.db.volume(id).await.expect("query").expect("a volume");
    assert_eq!(volume.id, id);
    assert_eq!(volume.name_id, Some(VolumeId::from(Uuid::from_u128(1))));
    assert!(!volume.use_quota);
    assert_eq!(volume.display_name.as_deref(), Some(hostile().as_str()));
    assert_eq!(volume.status, Some(VolumeStatus::BackingUp));
    let previous = VolumeStatus::Other("maintenance".to_owned());
    assert_eq!(volume.previous_status, Some(previous));
    assert_eq!(volume.launched_at, Some(before().and_utc()));

    let shown = format!("{:?}", lab.volume_row(id).await);
    assert!(!shown.contains("CHAP"), "{shown}");

    // Nothing is lost on the way: the object's own fields are the row's columns.
    let wire = serde_json::to_value(&volume).expect("an object");
    let again: Volume = serde_json::from_value(wire.clone()).expect("a volume");
    assert_eq!(again, volume);
    for (name, value) in [
        ("size", serde_json::json!(7)),
        ("host", "host@rbd#pool".into()),
        ("volume_type_id", TYPE.into()),
        ("provider_auth", "CHAP user password".into()),
        ("bootable", true.into()),
        ("multiattach", false.into()),
        ("shared_targets", serde_json::Value::Null),
        ("project_id", lab.project.as_str().into()),
    ] {
        assert_eq!(wire[name], value, "{name}");
    }
    let text = format!("{volume:?}");
    assert!(!text.contains("CHAP"), "the credentials are shown");
}

#[tokio::test]
async fn a_volume_and_a_snapshot_without_use_quota_count() {
    let lab = Lab::new().await;
    let volume = lab.volume(VolumeStatus::Available, |_| ()).await;
    let snapshot = lab.snapshot(volume, "available").await;
    let nothing = || sea_orm::sea_query::Expr::value(None::<bool>);
    let volumes = volumes::Entity::update_many()
        .col_expr(volumes::Column::UseQuota, nothing())
        .filter(volumes::Column::Id.eq(volume.to_string()));
    let snapshots = snapshots::Entity::update_many()
        .col_expr(snapshots::Column::UseQuota, nothing())
        .filter(snapshots::Column::Id.eq(snapshot.to_string()));
    if volumes.exec(&lab.raw).await.is_err() {
        // Since release 24 there are none.
        assert!(cinder_release() > 23);
        return;
    }
    snapshots.exec(&lab.raw).await.expect("update");
    let volume = lab.db.volume(volume).await.expect("query");
    assert!(volume.expect("a volume").use_quota);
    let snapshot = lab.db.snapshot(snapshot).await.expect("query");
    assert!(snapshot.expect("a snapshot").use_quota);
}

#[tokio::test]
async fn what_is_deleted_or_was_never_there_is_not_found() {
    let lab = Lab::new().await;
    let deleted = |row: &mut volumes::ActiveModel| row.deleted = Set(Some(true));
    let volume = lab.volume(VolumeStatus::Available, deleted).await;
    assert!(lab.db.volume(volume).await.expect("query").is_none());
    let nobody = BackupId::from(Uuid::new_v4());
    assert!(lab.db.backup(nobody).await.expect("query").is_none());
    assert!(!lab.db.volume_type_exists(TYPE).await.expect("query"));
    assert!(lab.db.volume_type(TYPE).await.expect("query").is_none());
}

#[tokio::test]
async fn a_snapshot_is_read_and_marked() {
    let lab = Lab::new().await;
    let volume = lab.volume(VolumeStatus::Available, |_| ()).await;
    let id = lab.snapshot(volume, "available").await;
    lab.db
        .mark_snapshot_deleting(id, before())
        .await
        .expect("mark");
    let snapshot = lab.db.snapshot(id).await.expect("query");
    let snapshot = snapshot.expect("a snapshot");
    assert_eq!(snapshot.volume_id, Some(volume));
    assert_eq!(snapshot.volume_size, Some(1));
    assert_eq!(snapshot.status, Some("deleting".into()));
    assert_eq!(snapshot.updated_at, Some(before().and_utc()));
}
