//! A transaction that the server gives up is run again.

use api_compat::config::database_url::Backend;
use api_compat::ids::BackupId;
use api_compat::state::{BackupStatus, Event, Source};
use cinderblock::db::entity::backups;
use cinderblock::db::{Done, Error, ErrorKind};
use sea_orm::sea_query::{LockBehavior, LockType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait,
    QueryFilter, QuerySelect, Statement, TransactionTrait, UpdateMany,
};

use crate::lab::{Lab, backend, change, now, subject};

/// Waits until our transaction has locked a backup's row; with PostgreSQL, which gives up whoever has
/// waited longest, until it waits for what `other` has locked.
pub async fn waits(lab: &Lab, backup: &str, other: &DatabaseTransaction) {
    if backend() != Backend::Postgres {
        let find = backups::Entity::find_by_id(backup)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        while find.clone().one(&lab.raw).await.expect("query").is_some() {
            tokio::task::yield_now().await;
        }
        return;
    }
    let statement = |sql, values| Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let own = statement("SELECT pg_backend_pid()", vec![]);
    let own = other.query_one_raw(own).await.expect("query");
    let own: i32 = own.expect("a row").try_get_by_index(0).expect("an id");
    let find = "SELECT pid FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))";
    let find = statement(find, vec![own.into()]);
    let waiting = || lab.raw.query_one_raw(find.clone());
    while waiting().await.expect("query").is_none() {
        tokio::task::yield_now().await;
    }
}

fn set(backup: BackupId, column: backups::Column, value: &str) -> UpdateMany<backups::Entity> {
    backups::Entity::update_many()
        .col_expr(column, value.into())
        .filter(backups::Column::Id.eq(backup.to_string()))
}

/// Writes the end of a backup into a deadlock, out of which the other transaction comes and sets
/// a column of `backup`; its id, its parent's, and what became of ours.
async fn through_a_deadlock(
    lab: &Lab,
    column: backups::Column,
    value: &str,
) -> (BackupId, BackupId, Result<(), Error>) {
    let parent = lab.backup(BackupStatus::Available, |_| ()).await;
    let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
    let padding: Vec<_> = (0..50).map(|_| uuid::Uuid::new_v4().to_string()).collect();

    // The other transaction has the parent and has written more, so that ours is the victim.
    let other = lab.raw.begin().await.expect("begin");
    for id in &padding {
        let row = backups::ActiveModel {
            id: Set(id.clone()),
            volume_id: Set(id.clone()),
            project_id: Set(Some(lab.project.clone())),
            deleted: Set(Some(true)),
            ..Default::default()
        };
        backups::Entity::insert(row)
            .exec_without_returning(&other)
            .await
            .expect("insert");
    }
    let touch = set(parent, backups::Column::DisplayName, "other");
    touch.exec(&other).await.expect("update");

    let created = Done::Created {
        size: Some(1),
        parent: Some(parent),
    };
    let source = Source::Gone;
    let succeeded = change(BackupStatus::Creating, &Event::CreateSucceeded { source });
    let subject = subject(backup, BackupStatus::Creating);
    let ours = lab.db.change(subject, &succeeded, created, now());
    let theirs = async {
        waits(lab, &backup.to_string(), &other).await;
        // Ours has the backup and wants the parent. This can only be done once ours is given up.
        let update = set(backup, column, value);
        update.exec(&other).await.expect("update");
        other.commit().await.expect("commit");
    };
    let (ours, ()) = tokio::join!(ours, theirs);
    let rows = backups::Entity::find().filter(backups::Column::Id.is_in(padding));
    assert_eq!(rows.all(&lab.raw).await.expect("query").len(), 50);
    (backup, parent, ours)
}

#[tokio::test]
async fn a_deadlock_is_survived() {
    let lab = Lab::new().await;
    let name = backups::Column::DisplayName;
    let (backup, parent, ours) = through_a_deadlock(&lab, name, "other").await;
    ours.expect("the second try");

    let row = lab.backup_row(backup).await;
    assert_eq!(row.status.as_deref(), Some("available"));
    assert_eq!(row.display_name.as_deref(), Some("other"));
    let row = lab.backup_row(parent).await;
    assert_eq!(row.num_dependent_backups, Some(1));
}

#[tokio::test]
async fn what_somebody_else_wrote_during_a_deadlock_is_not_taken_for_ours() {
    let lab = Lab::new().await;
    let status = backups::Column::Status;
    let (_, parent, ours) = through_a_deadlock(&lab, status, "available").await;
    assert_eq!(ours.expect_err("lost").kind(), ErrorKind::Conflict);
    let row = lab.backup_row(parent).await;
    assert_eq!(row.num_dependent_backups, None);
}
