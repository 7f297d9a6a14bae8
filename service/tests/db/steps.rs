//! What is written of a backup while it is being made.

use api_compat::state::{BackupStatus, Change};
use cinderblock::db::entity::backups;
use cinderblock::db::{Begin, Done, ErrorKind, Place, Subject};
use sea_orm::ActiveValue::Set;

use crate::lab::{HOST, Lab, before, now};

const DRIVER: &str = "cinder.backup.drivers.ceph.CephBackupDriver";

fn begin(backup: api_compat::ids::BackupId) -> Begin<'static> {
    Begin {
        backup,
        host: HOST,
        service: DRIVER,
        container: "backups",
        zone: "nova",
    }
}

fn place<'a>(
    backup: api_compat::ids::BackupId,
    service_metadata: &'a str,
    was: Option<&'a str>,
    detach: bool,
) -> Place<'a> {
    Place {
        backup,
        host: HOST,
        service_metadata,
        was,
        detach,
    }
}

#[tokio::test]
async fn a_backup_is_taken_on_and_placed() {
    let lab = Lab::new().await;
    let child = |row: &mut backups::ActiveModel| row.parent_id = Set(Some("full".to_owned()));
    let backup = lab.backup(BackupStatus::Creating, child).await;
    // Twice, as when the answer to the first try was lost: the second changes nothing, which is
    // no reason to take it for a conflict.
    for _ in 0..2 {
        lab.db
            .begin_backup(begin(backup), now())
            .await
            .expect("begin");
    }
    let row = lab.backup_row(backup).await;
    assert_eq!(row.service.as_deref(), Some(DRIVER));
    assert_eq!(row.container.as_deref(), Some("backups"));
    assert_eq!(row.availability_zone.as_deref(), Some("nova"));
    assert_eq!(row.updated_at, Some(now()));

    // Another way to make it lies elsewhere, or in the same image.
    let (chain, own) = (r#"{"base": "chain"}"#, r#"{"base": "own"}"#);
    for (was, base, detach, parent) in [
        (None, chain, false, Some("full")),
        (Some(chain), own, true, None),
        (Some(own), own, true, None),
    ] {
        let place = place(backup, base, was, detach);
        lab.db.place_backup(place, now()).await.expect("place");
        let row = lab.backup_row(backup).await;
        assert_eq!(row.service_metadata.as_deref(), Some(base));
        assert_eq!(row.parent_id.as_deref(), parent);
    }
    // Another worker has got the same request: whatever it would write, it comes late.
    for base in [chain, own] {
        let late = place(backup, base, None, false);
        let late = lab.db.place_backup(late, now()).await;
        assert_eq!(late.expect_err("late").kind(), ErrorKind::Conflict);
    }
    let found = lab.backup_row(backup).await.service_metadata;
    assert_eq!(found.as_deref(), Some(own));
}

#[tokio::test]
async fn a_backup_that_another_host_has_taken_over_is_changed_by_that_one_only() {
    let lab = Lab::new().await;
    let creating = BackupStatus::Creating;
    let backup = lab.backup(creating, |_| ()).await;
    let hand_over = async |status, from, to| {
        let handing = lab.db.hand_over(backup, status, (from, to), now());
        handing.await.expect("query")
    };
    // Its operation has ended, or it was another one's already.
    assert!(!hand_over(BackupStatus::Restoring, HOST, "other").await);
    assert!(!hand_over(creating, "third", "fourth").await);
    assert_eq!(lab.backup_row(backup).await.host.as_deref(), Some(HOST));
    // Also where the answer was lost, and it is said again.
    for _ in 0..2 {
        assert!(hand_over(creating, HOST, "other").await);
    }
    let taken = lab.backup_row(backup).await;
    assert_eq!(taken.host.as_deref(), Some("other"));
    assert_eq!(taken.updated_at, Some(now()));
    assert!(!hand_over(creating, HOST, "third").await);

    let subject = |host| Subject {
        host: Some(host),
        ..Subject::alone(backup, creating)
    };
    let failed = Change {
        backup: Some(BackupStatus::Error),
        ..Change::default()
    };
    let change = async |host| {
        let changing = lab.db.change(subject(host), &failed, Done::Nothing, now());
        changing.await
    };
    let begun = lab.db.begin_backup(begin(backup), now()).await;
    let placed = lab
        .db
        .place_backup(place(backup, "{}", None, false), now())
        .await;
    for late in [begun, placed, change(HOST).await] {
        assert_eq!(late.expect_err("late").kind(), ErrorKind::Conflict);
    }
    assert_eq!(lab.backup_row(backup).await, taken);
    change("other").await.expect("change");
}

#[tokio::test]
async fn a_backup_that_is_not_being_made_is_neither_taken_on_nor_placed() {
    let lab = Lab::new().await;
    let deleted = |row: &mut backups::ActiveModel| row.deleted = Set(Some(true));
    for backup in [
        lab.backup(BackupStatus::Error, |_| ()).await,
        lab.backup(BackupStatus::Creating, deleted).await,
    ] {
        let found = lab.backup_row(backup).await;
        let begun = lab.db.begin_backup(begin(backup), now()).await;
        assert_eq!(begun.expect_err("begin").kind(), ErrorKind::Conflict);
        let place = place(backup, "{}", None, true);
        let placed = lab.db.place_backup(place, now()).await;
        assert_eq!(placed.expect_err("place").kind(), ErrorKind::Conflict);
        assert_eq!(lab.backup_row(backup).await, found);
    }
}

#[tokio::test]
async fn temporary_things_are_forgotten() {
    let lab = Lab::new().await;
    let fill = |row: &mut backups::ActiveModel| {
        row.temp_volume_id = Set(Some("a volume".to_owned()));
        row.temp_snapshot_id = Set(Some("a snapshot".to_owned()));
    };
    let backup = lab.backup(BackupStatus::Error, fill).await;
    let other = lab.backup(BackupStatus::Error, fill).await;
    lab.db
        .forget_temporary(backup, now())
        .await
        .expect("forget");
    let row = lab.backup_row(backup).await;
    assert_eq!((row.temp_volume_id, row.temp_snapshot_id), (None, None));
    assert_eq!(row.updated_at, Some(now()));
    let row = lab.backup_row(other).await;
    assert_eq!(row.temp_volume_id.as_deref(), Some("a volume"));
    assert_eq!(row.updated_at, Some(before()));
}
