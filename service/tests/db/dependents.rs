//! How a parent counts the backups that build on it.

use api_compat::ids::BackupId;
use api_compat::state::{BackupStatus, Event, Source};
use cinderblock::db::{Done, Result};
use sea_orm::ActiveValue::Set;
use tokio::task::JoinSet;

use crate::lab::{DELETED, Lab, before, change, now, rules, subject};

async fn parent(lab: &Lab, dependents: Option<i32>) -> BackupId {
    lab.backup(BackupStatus::Available, |row| {
        row.num_dependent_backups = Set(dependents);
    })
    .await
}

/// Completes a backup that was being made.
async fn complete(lab: &Lab, backup: BackupId, parent: BackupId) -> Result<()> {
    let source = Source::Gone;
    let succeeded = change(BackupStatus::Creating, &Event::CreateSucceeded { source });
    let done = Done::Created {
        size: Some(1),
        parent: Some(parent),
    };
    let subject = subject(backup, BackupStatus::Creating);
    lab.db.change(subject, &succeeded, done, now()).await
}

/// Marks a backup as deleted.
async fn delete(lab: &Lab, backup: BackupId, parent: BackupId) -> Result<()> {
    let deleted = change(BackupStatus::Deleting, &DELETED);
    let done = Done::Deleted {
        parent: Some(parent),
        project: None,
        size: 1,
        rules: &rules(),
    };
    let subject = subject(backup, BackupStatus::Deleting);
    lab.db.change(subject, &deleted, done, now()).await
}

#[tokio::test]
async fn a_new_backup_adds_one() {
    let lab = Lab::new().await;
    for (found, left) in [(None, 1), (Some(0), 1), (Some(4), 5)] {
        let parent = parent(&lab, found).await;
        let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
        complete(&lab, backup, parent).await.expect("change");
        let row = lab.backup_row(parent).await;
        assert_eq!(row.num_dependent_backups, Some(left));
        assert_eq!(row.updated_at, Some(now()));
        assert_eq!(row.status.as_deref(), Some("available"));
    }
}

#[tokio::test]
async fn a_deleted_backup_takes_one_off_and_never_leaves_less_than_none() {
    let lab = Lab::new().await;
    for (found, left, changed) in [
        (Some(2), Some(1), now()),
        (Some(1), Some(0), now()),
        (Some(0), Some(0), before()),
        (None, None, before()),
    ] {
        let parent = parent(&lab, found).await;
        let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
        delete(&lab, backup, parent).await.expect("change");
        let row = lab.backup_row(parent).await;
        assert_eq!(row.num_dependent_backups, left);
        assert_eq!(row.updated_at, Some(changed));
    }
}

#[tokio::test]
async fn a_parent_that_is_gone_hinders_nobody() {
    let lab = Lab::new().await;
    let fill = |row: &mut cinderblock::db::entity::backups::ActiveModel| {
        row.deleted = Set(Some(true));
        row.num_dependent_backups = Set(Some(1));
    };
    let parent = lab.backup(BackupStatus::Deleted, fill).await;
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    delete(&lab, backup, parent).await.expect("change");
    assert_eq!(lab.backup_row(backup).await.deleted, Some(true));
    assert_eq!(lab.backup_row(parent).await.num_dependent_backups, Some(1));
}

#[tokio::test]
async fn tasks_that_count_at_the_same_time_lose_nothing() {
    let lab = std::sync::Arc::new(Lab::new().await);
    let parent = parent(&lab, Some(4)).await;
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let created = lab.backup(BackupStatus::Creating, |_| ()).await;
        let own = lab.clone();
        tasks.spawn(async move { complete(&own, created, parent).await });
    }
    for _ in 0..4 {
        let deleted = lab.backup(BackupStatus::Deleting, |_| ()).await;
        let own = lab.clone();
        tasks.spawn(async move { delete(&own, deleted, parent).await });
    }
    for outcome in tasks.join_all().await {
        outcome.expect("change");
    }
    assert_eq!(lab.backup_row(parent).await.num_dependent_backups, Some(12));
}
