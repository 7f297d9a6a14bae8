//! What a deletion leaves behind, compared with the rows that Cinder leaves.

use std::sync::Arc;

use api_compat::ids::BackupId;
use api_compat::state::BackupStatus;
use chrono::{NaiveDateTime, TimeDelta};
use cinderblock::db::entity::{backup_metadata, backups};
use cinderblock::db::{Done, ErrorKind, Result};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tokio::task::JoinSet;

use crate::lab::{DELETED, Lab, before, change, now, rules, subject};

/// Inserts a backup of `size` GiB that is being deleted.
async fn deleting(lab: &Lab, size: i32) -> BackupId {
    let fill = |row: &mut backups::ActiveModel| row.size = Set(Some(size));
    lab.backup(BackupStatus::Deleting, fill).await
}

/// Marks a backup as deleted and gives back its quota.
async fn delete(lab: &Lab, backup: BackupId, size: i64, now: NaiveDateTime) -> Result<()> {
    let deleted = change(BackupStatus::Deleting, &DELETED);
    let done = Done::Deleted {
        parent: None,
        project: Some(&lab.project),
        size,
        rules: &rules(),
    };
    let subject = subject(backup, BackupStatus::Deleting);
    lab.db.change(subject, &deleted, done, now).await
}

#[tokio::test]
async fn the_row_is_marked_and_keeps_the_time_of_its_last_change() {
    let lab = Lab::new().await;
    let backup = deleting(&lab, 1).await;
    let found = lab.backup_row(backup).await;
    delete(&lab, backup, 1, now()).await.expect("change");
    let expected = backups::Model {
        status: Some("deleted".to_owned()),
        deleted: Some(true),
        deleted_at: Some(now()),
        ..found
    };
    assert_eq!(lab.backup_row(backup).await, expected);
    assert_eq!(expected.updated_at, Some(before()));
    assert!(lab.db.backup(backup).await.expect("query").is_none());
    let gone = lab.db.backup_even_deleted(backup).await.expect("query");
    assert_eq!(gone.expect("a backup").status, Some(BackupStatus::Deleted));
}

#[tokio::test]
async fn its_pairs_go_with_it_and_those_of_others_stay() {
    let lab = Lab::new().await;
    let backup = deleting(&lab, 1).await;
    let other = deleting(&lab, 1).await;
    lab.backup_pair(backup, "k", "v").await;
    lab.backup_pair(other, "k", "v").await;
    delete(&lab, backup, 1, now()).await.expect("change");

    let row = backup_metadata::Entity::find()
        .filter(backup_metadata::Column::BackupId.eq(backup.to_string()))
        .one(&lab.raw)
        .await
        .expect("query")
        .expect("a pair");
    assert_eq!((row.deleted, row.deleted_at), (Some(true), Some(now())));
    assert_eq!(row.updated_at, None);
    let pairs = lab.db.backup_metadata(backup).await.expect("query");
    assert!(pairs.is_empty());
    let pairs = lab.db.backup_metadata(other).await.expect("query");
    assert_eq!(pairs["k"], "v");
}

#[tokio::test]
async fn quota_is_given_back_and_recorded_as_cinder_does() {
    let lab = Lab::new().await;
    lab.usage("backups", 9, None).await;
    lab.usage("backup_gigabytes", 10, None).await;
    lab.usage("volumes", 7, None).await;
    let backup = deleting(&lab, 3).await;
    delete(&lab, backup, 3, now()).await.expect("change");

    let usages = lab.usages().await;
    for (usage, (in_use, changed)) in usages.iter().zip([(8, now()), (7, now()), (7, before())]) {
        assert_eq!((usage.in_use, usage.reserved), (in_use, 0));
        assert_eq!(usage.updated_at, Some(changed));
        assert_eq!(usage.until_refresh, None);
    }
    let reservations = lab.reservations().await;
    assert_eq!(reservations.len(), 2);
    assert_ne!(reservations[0].uuid, reservations[1].uuid);
    for (reservation, (usage, delta)) in reservations.iter().zip(usages.iter().zip([-1, -3])) {
        assert_eq!(reservation.usage_id, Some(usage.id));
        assert_eq!(reservation.resource, usage.resource);
        assert_eq!(reservation.delta, delta);
        assert_eq!(reservation.expire, Some(now() + TimeDelta::days(1)));
        let times = [
            reservation.created_at,
            reservation.updated_at,
            reservation.deleted_at,
        ];
        assert_eq!(times, [Some(now()); 3]);
        assert_eq!(reservation.deleted, Some(true));
    }
}

#[tokio::test]
async fn usage_never_falls_below_nothing() {
    let lab = Lab::new().await;
    lab.usage("backups", 0, None).await;
    lab.usage("backup_gigabytes", 2, None).await;
    let backup = deleting(&lab, 3).await;
    delete(&lab, backup, 3, now()).await.expect("change");
    assert_eq!(lab.in_use().await, (0, 0));
    let deltas: Vec<i32> = lab.reservations().await.iter().map(|r| r.delta).collect();
    assert_eq!(deltas, [-1, -3]);
}

#[tokio::test]
async fn usage_that_nobody_keeps_is_counted() {
    let lab = Lab::new().await;
    let backup = deleting(&lab, 3).await;
    for size in [Some(5), Some(6), None] {
        let fill = |row: &mut backups::ActiveModel| row.size = Set(size);
        lab.backup(BackupStatus::Available, fill).await;
    }
    delete(&lab, backup, 3, now()).await.expect("change");
    assert_eq!(lab.in_use().await, (3, 11));
    for usage in lab.usages().await {
        assert_eq!(usage.race_preventer, Some(true));
        assert_eq!((usage.reserved, usage.until_refresh), (0, None));
        assert_eq!(usage.deleted, Some(false));
    }
    assert_eq!(lab.reservations().await.len(), 2);
}

#[tokio::test]
async fn usage_of_one_resource_may_be_missing() {
    let lab = Lab::new().await;
    lab.usage("backup_gigabytes", 20, None).await;
    let backup = deleting(&lab, 3).await;
    delete(&lab, backup, 3, now()).await.expect("change");
    assert_eq!(lab.in_use().await, (0, 17));
}

#[tokio::test]
async fn a_size_that_no_backup_has_is_no_panic() {
    let lab = Lab::new().await;
    for (size, left) in [(i64::MIN, 5), (-1, 5), (i64::MAX, 0)] {
        let lab = Lab::new().await;
        lab.usage("backups", 1, None).await;
        lab.usage("backup_gigabytes", 5, None).await;
        let backup = deleting(&lab, 1).await;
        delete(&lab, backup, size, now()).await.expect("change");
        assert_eq!(lab.in_use().await, (0, left));
    }
    let huge = deleting(&lab, i32::MAX).await;
    lab.backup(BackupStatus::Available, |row| {
        row.size = Set(Some(i32::MAX));
    })
    .await;
    delete(&lab, huge, i32::MAX.into(), now())
        .await
        .expect("change");
}

#[tokio::test]
async fn of_two_deletions_of_one_backup_one_is_a_conflict() {
    let lab = Lab::new().await;
    lab.usage("backups", 2, None).await;
    lab.usage("backup_gigabytes", 2, None).await;
    let backup = deleting(&lab, 1).await;
    let (one, other) = tokio::join!(
        delete(&lab, backup, 1, now()),
        delete(&lab, backup, 1, now())
    );
    let conflict = match (one, other) {
        (Ok(()), Err(error)) | (Err(error), Ok(())) => error,
        both => panic!("one of them has to win: {both:?}"),
    };
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert_eq!(lab.in_use().await, (1, 1));
}

/// Deletes half of a project's backups at the same time.
async fn delete_many(lab: Lab) -> Lab {
    let lab = Arc::new(lab);
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let fill = |row: &mut backups::ActiveModel| row.size = Set(Some(2));
        lab.backup(BackupStatus::Available, fill).await;
    }
    let mut doomed = Vec::new();
    for _ in 0..6 {
        doomed.push(deleting(&lab, 2).await);
    }
    for backup in doomed {
        let lab = lab.clone();
        tasks.spawn(async move { delete(&lab, backup, 2, now()).await });
    }
    for outcome in tasks.join_all().await {
        outcome.expect("change");
    }
    Arc::into_inner(lab).expect("the tasks are over")
}

#[tokio::test]
async fn deletions_of_one_project_at_the_same_time_all_count() {
    let lab = Lab::new().await;
    lab.usage("backups", 12, None).await;
    lab.usage("backup_gigabytes", 24, None).await;
    let lab = delete_many(lab).await;
    assert_eq!(lab.in_use().await, (6, 12));
    assert_eq!(lab.reservations().await.len(), 12);
}

#[tokio::test]
async fn deletions_at_the_same_time_make_missing_usage_once() {
    let lab = delete_many(Lab::new().await).await;
    assert_eq!(lab.in_use().await, (6, 12));
    assert_eq!(lab.reservations().await.len(), 12);
}

mod server {
    use super::*;

    #[tokio::test]
    async fn a_backup_whose_quota_cannot_be_given_back_goes_all_the_same() {
        let lab = Lab::new().await;
        let parent = lab
            .backup(BackupStatus::Available, |row| {
                row.num_dependent_backups = Set(Some(1));
            })
            .await;
        let backup = deleting(&lab, 3).await;
        let deleted = change(BackupStatus::Deleting, &DELETED);
        let done = Done::Deleted {
            parent: Some(parent),
            // No row of quota can be made for it.
            project: Some(&"x".repeat(256)),
            size: 3,
            rules: &rules(),
        };
        let subject = subject(backup, BackupStatus::Deleting);
        lab.db
            .change(subject, &deleted, done, now())
            .await
            .expect("change");
        assert_eq!(lab.backup_row(backup).await.deleted, Some(true));
        let row = lab.backup_row(parent).await;
        assert_eq!(row.num_dependent_backups, Some(0));
    }
}
