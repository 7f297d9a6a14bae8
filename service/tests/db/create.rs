//! What the end of a backup or a restore writes.

use api_compat::ids::VolumeId;
use api_compat::state::{BackupStatus, Event, Source, VolumeChange, VolumeStatus};
use cinderblock::db::entity::{backups, snapshots, volumes};
use cinderblock::db::{Done, ErrorKind, Subject};
use sea_orm::ActiveValue::Set;
use sea_orm::EntityTrait;

use crate::lab::{Lab, before, change, now, subject};

const BUSY: VolumeStatus = VolumeStatus::BackingUp;
const IN_USE: VolumeStatus = VolumeStatus::InUse;

/// A volume that is being backed up while a server uses it.
const SOURCE: Source<'static> = Source::Volume {
    status: &BUSY,
    previous: Some(&IN_USE),
};

/// A complete backup of a whole volume.
const CREATED: Done<'static> = Done::Created {
    size: Some(3),
    parent: None,
};

async fn busy_volume(lab: &Lab) -> VolumeId {
    let fill = |row: &mut volumes::ActiveModel| {
        row.previous_status = Set(Some("in-use".to_owned()));
    };
    lab.volume(BUSY, fill).await
}

#[tokio::test]
async fn a_complete_backup_is_available_and_its_volume_free() {
    let lab = Lab::new().await;
    let volume = busy_volume(&lab).await;
    let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
    let subject = Subject {
        volume: Some((volume, &BUSY)),
        ..subject(backup, BackupStatus::Creating)
    };
    let succeeded = change(
        BackupStatus::Creating,
        &Event::CreateSucceeded { source: SOURCE },
    );
    lab.db
        .change(subject, &succeeded, CREATED, now())
        .await
        .expect("change");

    let row = lab.backup_row(backup).await;
    assert_eq!(row.status.as_deref(), Some("available"));
    assert_eq!((row.size, row.fail_reason), (Some(3), None));
    assert_eq!(row.updated_at, Some(now()));
    assert_eq!((row.deleted, row.deleted_at), (Some(false), None));
    let row = lab.volume_row(volume).await;
    assert_eq!(row.status.as_deref(), Some("in-use"));
    assert_eq!(row.previous_status.as_deref(), Some("backing-up"));
    assert_eq!((row.updated_at, row.launched_at), (Some(now()), None));
}

#[tokio::test]
async fn a_failed_backup_keeps_why_and_its_size() {
    let lab = Lab::new().await;
    let volume = busy_volume(&lab).await;
    let size = |row: &mut backups::ActiveModel| row.size = Set(Some(2));
    let backup = lab.backup(BackupStatus::Creating, size).await;
    let subject = Subject {
        volume: Some((volume, &BUSY)),
        ..subject(backup, BackupStatus::Creating)
    };
    let failed = Event::CreateFailed {
        source: SOURCE,
        reason: "the pool is full",
        may_be_complete: false,
    };
    let failed = change(BackupStatus::Creating, &failed);
    lab.db
        .change(subject, &failed, Done::Nothing, now())
        .await
        .expect("change");

    let row = lab.backup_row(backup).await;
    assert_eq!(row.status.as_deref(), Some("error"));
    assert_eq!(row.fail_reason.as_deref(), Some("the pool is full"));
    assert_eq!(row.size, Some(2));
    let row = lab.volume_row(volume).await;
    assert_eq!(row.status.as_deref(), Some("in-use"));
    assert_eq!(row.previous_status.as_deref(), Some("error_backing-up"));
}

#[tokio::test]
async fn a_refused_backup_leaves_a_volume_that_somebody_else_uses() {
    let lab = Lab::new().await;
    let volume = lab.volume(IN_USE, |_| ()).await;
    let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
    let subject = Subject {
        volume: Some((volume, &IN_USE)),
        ..subject(backup, BackupStatus::Creating)
    };
    let create = Event::Create {
        source: Source::Volume {
            status: &IN_USE,
            previous: None,
        },
        service_up: true,
    };
    let refusal = api_compat::state::transition(BackupStatus::Creating, &create)
        .expect_err("the volume is not being backed up");
    lab.db
        .change(subject, &refusal.change, Done::Nothing, now())
        .await
        .expect("change");

    let row = lab.backup_row(backup).await;
    assert_eq!(row.status.as_deref(), Some("error"));
    assert_eq!(row.fail_reason.as_deref(), Some(refusal.reason.as_str()));
    let row = lab.volume_row(volume).await;
    assert_eq!(row.status.as_deref(), Some("in-use"));
    assert_eq!(row.updated_at, Some(before()));
}

#[tokio::test]
async fn nothing_is_written_when_the_backup_has_changed() {
    let lab = Lab::new().await;
    let volume = busy_volume(&lab).await;
    let parent = lab.backup(BackupStatus::Available, |_| ()).await;
    let backup = lab.backup(BackupStatus::Error, |_| ()).await;
    let rows = (
        lab.backup_row(backup).await,
        lab.backup_row(parent).await,
        lab.volume_row(volume).await,
    );
    let subject = Subject {
        volume: Some((volume, &BUSY)),
        ..subject(backup, BackupStatus::Creating)
    };
    let succeeded = change(
        BackupStatus::Creating,
        &Event::CreateSucceeded { source: SOURCE },
    );
    let created = Done::Created {
        size: Some(1),
        parent: Some(parent),
    };
    let error = lab
        .db
        .change(subject, &succeeded, created, now())
        .await
        .expect_err("the backup is not being created any more");

    assert_eq!(error.kind(), ErrorKind::Conflict);
    let text = format!("backup {backup} is no longer creating");
    assert_eq!(error.to_string(), text);
    let after = (
        lab.backup_row(backup).await,
        lab.backup_row(parent).await,
        lab.volume_row(volume).await,
    );
    assert_eq!(after, rows);
}

#[tokio::test]
async fn a_backup_that_is_already_what_was_wanted_is_a_conflict_all_the_same() {
    let lab = Lab::new().await;
    let backup = lab.backup(BackupStatus::Available, |_| ()).await;
    let succeeded = change(
        BackupStatus::Creating,
        &Event::CreateSucceeded {
            source: Source::Gone,
        },
    );
    let subject = subject(backup, BackupStatus::Creating);
    let error = lab.db.change(subject, &succeeded, CREATED, now()).await;
    assert_eq!(error.expect_err("a second end").kind(), ErrorKind::Conflict);
    assert_eq!(lab.backup_row(backup).await.size, None);
}

#[tokio::test]
async fn a_deleted_backup_is_not_changed() {
    let lab = Lab::new().await;
    let deleted = |row: &mut backups::ActiveModel| {
        row.deleted = Set(Some(true));
    };
    let backup = lab.backup(BackupStatus::Creating, deleted).await;
    let failed = change(BackupStatus::Deleting, &Event::DeleteFailed { reason: "x" });
    let subject = subject(backup, BackupStatus::Creating);
    let error = lab.db.change(subject, &failed, Done::Nothing, now()).await;
    assert_eq!(error.expect_err("it is gone").kind(), ErrorKind::Conflict);
    assert_eq!(lab.backup_row(backup).await.fail_reason, None);
}

#[tokio::test]
async fn a_volume_that_was_reset_meanwhile_is_left_alone() {
    let lab = Lab::new().await;
    let volume = lab.volume(VolumeStatus::Error, |_| ()).await;
    let found = lab.volume_row(volume).await;
    let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
    let subject = Subject {
        volume: Some((volume, &BUSY)),
        ..subject(backup, BackupStatus::Creating)
    };
    let succeeded = change(
        BackupStatus::Creating,
        &Event::CreateSucceeded { source: SOURCE },
    );
    lab.db
        .change(subject, &succeeded, CREATED, now())
        .await
        .expect("change");
    let row = lab.backup_row(backup).await;
    assert_eq!(row.status.as_deref(), Some("available"));
    assert_eq!(lab.volume_row(volume).await, found);
}

#[tokio::test]
async fn a_snapshot_is_freed_only_if_it_is_being_backed_up() {
    let lab = Lab::new().await;
    let volume = lab.volume(VolumeStatus::Available, |_| ()).await;
    for (found, left) in [("backing-up", "available"), ("deleting", "deleting")] {
        let snapshot = lab.snapshot(volume, found).await;
        let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
        let subject = Subject {
            snapshot: Some(snapshot),
            ..subject(backup, BackupStatus::Creating)
        };
        let status = &found.into();
        let succeeded = Event::CreateSucceeded {
            source: Source::Snapshot { status },
        };
        let succeeded = change(BackupStatus::Creating, &succeeded);
        lab.db
            .change(subject, &succeeded, CREATED, now())
            .await
            .expect("change");
        let row = snapshots::Entity::find_by_id(snapshot.to_string())
            .one(&lab.raw)
            .await
            .expect("query")
            .expect("a snapshot");
        assert_eq!(row.status.as_deref(), Some(left));
    }
}

#[tokio::test]
async fn a_restored_volume_is_available_and_a_new_one_launched() {
    let lab = Lab::new().await;
    for (found, done, launched) in [
        (VolumeStatus::RestoringBackup, Done::Nothing, None),
        (VolumeStatus::Creating, Done::Launched, Some(now())),
    ] {
        let volume = lab.volume(found.clone(), |_| ()).await;
        let backup = lab.backup(BackupStatus::Restoring, |_| ()).await;
        let subject = Subject {
            volume: Some((volume, &found)),
            ..subject(backup, BackupStatus::Restoring)
        };
        let restored = change(BackupStatus::Restoring, &Event::RestoreSucceeded);
        lab.db
            .change(subject, &restored, done, now())
            .await
            .expect("change");
        let row = lab.volume_row(volume).await;
        assert_eq!(row.status.as_deref(), Some("available"));
        assert_eq!((row.launched_at, row.previous_status), (launched, None));
        let row = lab.backup_row(backup).await;
        assert_eq!(row.status.as_deref(), Some("available"));
    }
}

#[tokio::test]
async fn a_reason_is_cut_to_what_the_column_takes() {
    let lab = Lab::new().await;
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    let reason = "ü💾\u{0}'; DROP TABLE backups; -- ".repeat(20);
    let failed = Event::DeleteFailed { reason: &reason };
    let failed = change(BackupStatus::Deleting, &failed);
    let subject = subject(backup, BackupStatus::Deleting);
    lab.db
        .change(subject, &failed, Done::Nothing, now())
        .await
        .expect("change");
    let expected: String = reason
        .replace(['💾', '\0'], "\u{FFFD}")
        .chars()
        .take(255)
        .collect();
    assert_eq!(lab.backup_row(backup).await.fail_reason, Some(expected));
}

#[tokio::test]
async fn a_volume_whose_backup_is_gone_is_changed_by_itself() {
    let lab = Lab::new().await;
    let failed = VolumeChange {
        status: VolumeStatus::ErrorRestoring,
        previous: None,
    };
    for (found, left) in [
        (VolumeStatus::RestoringBackup, "error_restoring"),
        (VolumeStatus::InUse, "in-use"),
    ] {
        let volume = lab.volume(found, |_| ()).await;
        lab.db
            .change_volume(volume, &VolumeStatus::RestoringBackup, &failed, now())
            .await
            .expect("change");
        let row = lab.volume_row(volume).await;
        assert_eq!(row.status.as_deref(), Some(left));
    }
}
