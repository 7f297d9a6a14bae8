//! One change of a backup and of what hangs on it, in one transaction.

use std::sync::atomic::{AtomicBool, Ordering};

use api_compat::backup_record::ImportedBackup;
use api_compat::ids::{BackupId, SnapshotId, VolumeId};
use api_compat::state::{BackupStatus, Change, VolumeChange, VolumeStatus};
use chrono::{NaiveDateTime, Timelike};
use sea_orm::sea_query::{Expr, ExprTrait, Func, SimpleExpr};
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, UpdateMany,
};
use tracing::error;

use super::entity::{backup_metadata, backups, snapshots, volumes};
use super::quota::QuotaRules;
use super::{Database, Error, ErrorKind, Importer, Result, import, quota, retry};

/// Longest text of `backups.fail_reason`, in characters.
const FAIL_REASON: usize = 255;

/// The rows that a change is about, with the statuses on which it was decided.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The backup.
    pub backup: BackupId,
    /// The backup's status when it was read.
    pub status: BackupStatus,
    /// The host that its row named then, if a change must not follow once another has taken it over.
    pub host: Option<&'a str>,
    /// The volume that is backed up or restored to, and its status when it was read. It is left
    /// alone if it has another one by now.
    pub volume: Option<(VolumeId, &'a VolumeStatus)>,
    /// The snapshot that is backed up; left alone unless it is still `backing-up`.
    pub snapshot: Option<SnapshotId>,
}

impl Subject<'_> {
    /// A backup by itself.
    pub fn alone(backup: BackupId, status: BackupStatus) -> Self {
        Self {
            backup,
            status,
            host: None,
            volume: None,
            snapshot: None,
        }
    }
}

/// What else is written when an operation is done.
#[derive(Debug, Clone, Copy)]
pub enum Done<'a> {
    /// Nothing else.
    Nothing,
    /// A backup is complete.
    Created {
        /// Its size in GiB; the row keeps what it has when nobody knows.
        size: Option<i64>,
        /// The backup that counts it as a dependent.
        parent: Option<BackupId>,
    },
    /// A volume that was being created from a backup is complete.
    Launched,
    /// The row of a record that was imported.
    Imported {
        /// The record.
        record: &'a ImportedBackup,
        /// Who imports it.
        importer: Importer<'a>,
    },
    /// A backup is gone: its rows are marked as deleted and its quota is given back.
    Deleted {
        /// The backup that counted it as a dependent.
        parent: Option<BackupId>,
        /// Whose quota it counted against.
        project: Option<&'a str>,
        /// Its size in GiB.
        size: i64,
        /// How usages are kept.
        rules: &'a QuotaRules,
    },
}

impl Database {
    /// Writes a change that `api_compat::state::transition` decided. A deletion whose quota cannot be
    /// given back is written without.
    ///
    /// # Errors
    /// `Conflict` if the backup has another status, or another host, than those that the change was decided
    /// on; nothing was written then.
    pub async fn change(
        &self,
        subject: Subject<'_>,
        change: &Change,
        done: Done<'_>,
        now: NaiveDateTime,
    ) -> Result<()> {
        let write = Write {
            subject,
            change,
            done,
            // As the columns hold it, so that it can be recognised there.
            now: now.with_nanosecond(0).unwrap_or(now),
        };
        let error = match self.write(write).await {
            Err(error) if error.kind() == ErrorKind::Other => error,
            outcome => return outcome,
        };
        let Some(rest) = write.without_quota() else {
            return Err(error);
        };
        // Not in a savepoint: what gives a transaction up takes those of MySQL with it.
        self.write(rest).await?;
        error!(backup = %subject.backup, %error, "Failed to update usages deleting backup");
        Ok(())
    }

    async fn write(&self, write: Write<'_>) -> Result<()> {
        let in_doubt = AtomicBool::new(false);
        self.patience.run(|| self.try_write(write, &in_doubt)).await
    }

    /// Writes what a decision says of a volume, whose backup is gone. The volume is left alone if it
    /// has another status by now.
    pub async fn change_volume(
        &self,
        id: VolumeId,
        found: &VolumeStatus,
        wanted: &VolumeChange,
        now: NaiveDateTime,
    ) -> Result<()> {
        let update = volume_update((id, found), wanted, now);
        self.patience
            .run(|| async { Ok(update.clone().exec(&self.pool).await?) })
            .await?;
        Ok(())
    }

    /// Writes what a decision says of the volume and the snapshot of a backup that is gone. They are
    /// left alone if they have another status by now.
    pub async fn change_source(
        &self,
        subject: Subject<'_>,
        change: &Change,
        now: NaiveDateTime,
    ) -> Result<()> {
        let write = Write {
            subject,
            change,
            done: Done::Nothing,
            now,
        };
        let both = || async {
            let transaction = self.begin().await?;
            let outcome = async {
                write_volume(&transaction, write).await?;
                write_snapshot(&transaction, write).await
            };
            let outcome = outcome.await;
            retry::end(transaction, outcome).await
        };
        self.patience.run(both).await
    }

    /// `in_doubt` tells whether an earlier try may have written it.
    async fn try_write(&self, write: Write<'_>, in_doubt: &AtomicBool) -> Result<()> {
        let transaction = self.begin().await?;
        let outcome = apply(&transaction, write, in_doubt.load(Ordering::Relaxed)).await;
        if outcome.is_ok() {
            // Whatever ends the commit, or the wait for it: the server may have committed.
            in_doubt.store(true, Ordering::Relaxed);
        }
        retry::end(transaction, outcome).await
    }
}

/// All that one transaction writes.
#[derive(Clone, Copy)]
struct Write<'a> {
    subject: Subject<'a>,
    change: &'a Change,
    done: Done<'a>,
    now: NaiveDateTime,
}

impl Write<'_> {
    /// The same but for the quota that a deletion gives back; none if there is no such.
    fn without_quota(mut self) -> Option<Self> {
        match &mut self.done {
            Done::Deleted { project, .. } => project.take().map(|_| self),
            _ => None,
        }
    }
}

/// Writes it, unless it is `in_doubt` and found written.
async fn apply(transaction: &DatabaseTransaction, write: Write<'_>, in_doubt: bool) -> Result<()> {
    let Write {
        subject, done, now, ..
    } = write;
    if in_doubt && is_written(transaction, write).await? {
        return Ok(());
    }
    // Locks the row, and so keeps the order backup, volume, parent in every transaction.
    if !write_backup(transaction, write).await? {
        return Err(Error::Conflict {
            what: "backup",
            id: subject.backup.to_string(),
            expected: subject.status.to_string(),
        });
    }
    write_volume(transaction, write).await?;
    write_snapshot(transaction, write).await?;
    match done {
        Done::Created {
            parent: Some(parent),
            ..
        } => count_dependents(transaction, parent, 1, now).await?,
        Done::Deleted {
            parent,
            project,
            size,
            rules,
        } => {
            delete_metadata(transaction, subject.backup, now).await?;
            if let Some(parent) = parent {
                count_dependents(transaction, parent, -1, now).await?;
            }
            if let Some(project) = project {
                quota::give_back(transaction, project, size, rules, now).await?;
            }
        }
        Done::Imported { record, .. } => {
            delete_metadata(transaction, subject.backup, now).await?;
            import::insert_metadata(transaction, subject.backup, record, now).await?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether the backup's row is as this very change leaves it: the status alone could be somebody
/// else's, or the one that it had before. Waits for a commit that is still under way.
async fn is_written(transaction: &DatabaseTransaction, write: Write<'_>) -> Result<bool> {
    let find = backups::Entity::find_by_id(write.subject.backup.to_string()).lock_exclusive();
    let Some(row) = find.one(transaction).await? else {
        return Ok(false);
    };
    let changed = match write.done {
        Done::Deleted { .. } => row.deleted_at,
        _ => row.updated_at,
    };
    let status = write.change.backup.map(BackupStatus::as_str);
    let as_wanted = status.is_none_or(|status| row.status.as_deref() == Some(status));
    Ok(changed == Some(write.now) && as_wanted)
}

/// Changes the backup's row if it has the expected status; whether it had.
async fn write_backup(transaction: &DatabaseTransaction, write: Write<'_>) -> Result<bool> {
    let Write {
        subject,
        change,
        done,
        now,
    } = write;
    let mut update = backups::Entity::update_many()
        .filter(backups::Column::Id.eq(subject.backup.to_string()))
        .filter(backups::Column::Deleted.eq(false))
        .filter(backups::Column::Status.eq(subject.status.as_str()));
    if let Some(host) = subject.host {
        update = update.filter(backups::Column::Host.eq(host));
    }
    if let Some(status) = change.backup {
        update = update.col_expr(backups::Column::Status, status.as_str().into());
    }
    if let Some(reason) = &change.fail_reason {
        update = update.col_expr(backups::Column::FailReason, fail_reason(reason).into());
    }
    if let Done::Created {
        size: Some(size), ..
    } = done
    {
        update = update.col_expr(backups::Column::Size, size.into());
    }
    if let Done::Imported { record, importer } = done {
        update = import::columns(update, record, importer);
    }
    update = match done {
        // As Cinder's soft delete, which keeps the time of the last change.
        Done::Deleted { .. } => update
            .col_expr(backups::Column::Deleted, true.into())
            .col_expr(backups::Column::DeletedAt, now.into()),
        _ => update.col_expr(backups::Column::UpdatedAt, now.into()),
    };
    Ok(update.exec(transaction).await?.rows_affected == 1)
}

async fn write_volume(transaction: &DatabaseTransaction, write: Write<'_>) -> Result<()> {
    let (Some(volume), Some(wanted)) = (write.subject.volume, &write.change.volume) else {
        return Ok(());
    };
    let mut update = volume_update(volume, wanted, write.now);
    if let Done::Launched = write.done {
        update = update.col_expr(volumes::Column::LaunchedAt, write.now.into());
    }
    update.exec(transaction).await?;
    Ok(())
}

fn volume_update(
    (id, found): (VolumeId, &VolumeStatus),
    wanted: &VolumeChange,
    now: NaiveDateTime,
) -> UpdateMany<volumes::Entity> {
    let mut update = volumes::Entity::update_many()
        .col_expr(volumes::Column::Status, wanted.status.as_str().into())
        .col_expr(volumes::Column::UpdatedAt, now.into())
        .filter(volumes::Column::Id.eq(id.to_string()))
        .filter(volumes::Column::Deleted.eq(false))
        .filter(volumes::Column::Status.eq(found.as_str()));
    if let Some(previous) = &wanted.previous {
        update = update.col_expr(volumes::Column::PreviousStatus, previous.as_str().into());
    }
    update
}

async fn write_snapshot(transaction: &DatabaseTransaction, write: Write<'_>) -> Result<()> {
    let (Some(id), Some(wanted)) = (write.subject.snapshot, &write.change.snapshot) else {
        return Ok(());
    };
    snapshots::Entity::update_many()
        .col_expr(snapshots::Column::Status, wanted.as_str().into())
        .col_expr(snapshots::Column::UpdatedAt, write.now.into())
        .filter(snapshots::Column::Id.eq(id.to_string()))
        .filter(snapshots::Column::Deleted.eq(false))
        .filter(snapshots::Column::Status.eq("backing-up"))
        .exec(transaction)
        .await?;
    Ok(())
}

async fn delete_metadata(
    transaction: &DatabaseTransaction,
    backup: BackupId,
    now: NaiveDateTime,
) -> Result<()> {
    backup_metadata::Entity::update_many()
        .col_expr(backup_metadata::Column::Deleted, true.into())
        .col_expr(backup_metadata::Column::DeletedAt, now.into())
        .filter(backup_metadata::Column::BackupId.eq(backup.to_string()))
        .filter(backup_metadata::Column::Deleted.eq(false))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Adds to a parent's number of dependent backups; never below zero. A parent that is gone counts
/// nothing.
async fn count_dependents(
    transaction: &DatabaseTransaction,
    parent: BackupId,
    by: i32,
    now: NaiveDateTime,
) -> Result<()> {
    let count: SimpleExpr = Func::coalesce([
        Expr::col(backups::Column::NumDependentBackups),
        Expr::val(0),
    ])
    .into();
    let mut update: UpdateMany<backups::Entity> = backups::Entity::update_many()
        .col_expr(backups::Column::NumDependentBackups, count.clone().add(by))
        .col_expr(backups::Column::UpdatedAt, now.into())
        .filter(backups::Column::Id.eq(parent.to_string()))
        .filter(backups::Column::Deleted.eq(false));
    if by < 0 {
        update = update.filter(count.gte(-by));
    }
    update.exec(transaction).await?;
    Ok(())
}

/// A reason as the column takes it: 255 characters, none of which needs four bytes, since Cinder's
/// tables in MySQL are utf8mb3 and refuse those, and none of which is PostgreSQL's end of a text.
fn fail_reason(text: &str) -> String {
    text.chars()
        .take(FAIL_REASON)
        .map(|c| match c {
            '\0' | '\u{10000}'.. => '\u{FFFD}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_the_column() {
        let reason = fail_reason(&"a💾ü\0".repeat(200));
        assert_eq!(reason.chars().count(), 255);
        assert!(reason.starts_with("a\u{FFFD}ü\u{FFFD}a"));
        assert!(reason.chars().all(|c| c.len_utf8() < 4));
    }
}
