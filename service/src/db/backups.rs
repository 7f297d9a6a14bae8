//! Reading backups, and the changes to them that are no changes of status.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::state::BackupStatus;
use chrono::{NaiveDateTime, Timelike};
use sea_orm::sea_query::{Expr, ExprTrait, NullOrdering};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect, Select,
    UpdateMany,
};

use tracing::error;

use super::entity::{backup_metadata, backups};
use super::{Database, Error, Result, convert};

/// What is written when a worker takes a new backup on.
#[derive(Debug, Clone, Copy)]
pub struct Begin<'a> {
    /// The backup.
    pub backup: BackupId,
    /// The worker's host, which the row names as long as nobody has taken it over.
    pub host: &'a str,
    /// The driver.
    pub service: &'a str,
    /// The pool.
    pub container: &'a str,
    /// The availability zone.
    pub zone: &'a str,
}

/// Where a backup will lie.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The backup.
    pub backup: BackupId,
    /// The worker's host, which the row names as long as nobody has taken it over.
    pub host: &'a str,
    /// Its image, as `backups.service_metadata` names it.
    pub service_metadata: &'a str,
    /// What the column holds: only one of two attempts may go on.
    pub was: Option<&'a str>,
    /// Whether it builds on no other backup after all.
    pub detach: bool,
}

/// What a backup is that may have no data.
const INCOMPLETE: [BackupStatus; 2] = [BackupStatus::Error, BackupStatus::Creating];

impl Database {
    /// A backup that is not deleted.
    ///
    /// # Errors
    /// `Row` if the row holds what is no backup's.
    pub async fn backup(&self, id: BackupId) -> Result<Option<Backup>> {
        let find = live().filter(backups::Column::Id.eq(id.to_string()));
        self.find(find).await?.map(convert::backup).transpose()
    }

    /// A backup, whether deleted or not.
    ///
    /// # Errors
    /// `Row` if the row holds what is no backup's.
    pub async fn backup_even_deleted(&self, id: BackupId) -> Result<Option<Backup>> {
        let find = backups::Entity::find_by_id(id.to_string());
        self.find(find).await?.map(convert::backup).transpose()
    }

    /// The user's key-value pairs of a backup.
    pub async fn backup_metadata(&self, id: BackupId) -> Result<BTreeMap<String, String>> {
        let find = backup_metadata::Entity::find()
            .filter(backup_metadata::Column::BackupId.eq(id.to_string()))
            .filter(backup_metadata::Column::Deleted.eq(false))
            .order_by_asc(backup_metadata::Column::Id);
        let rows = self.find_all(find).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| Some((row.key?, row.value.unwrap_or_default())))
            .collect())
    }

    /// The backups of a host on which an operation was begun or asked for, or that have a temporary
    /// volume or snapshot although they failed: what a start of that host has to look at. A row that
    /// holds what is no backup's is logged and left out.
    pub async fn unfinished_backups(&self, host: &str) -> Result<Vec<Backup>> {
        let temporary = Condition::any()
            .add(backups::Column::TempVolumeId.is_not_null())
            .add(backups::Column::TempSnapshotId.is_not_null());
        let failed = Condition::all()
            .add(backups::Column::Status.eq(BackupStatus::Error.as_str()))
            .add(temporary);
        let status = Condition::any()
            .add(backups::Column::Status.is_in(BackupStatus::UNDER_WAY.map(BackupStatus::as_str)))
            .add(failed);
        let find = live()
            .filter(status)
            .order_by_with_nulls(backups::Column::CreatedAt, Order::Desc, NullOrdering::Last)
            .order_by_desc(backups::Column::Id);
        self.find_of_host(find, host).await
    }

    /// Those backups of a host on which nothing is under way whose rows were changed last, at most so many. A
    /// row that holds what is no backup's is logged and left out.
    pub async fn last_ended_backups(&self, host: &str, most: u64) -> Result<Vec<Backup>> {
        let ended = [BackupStatus::Available, BackupStatus::Error].map(BackupStatus::as_str);
        let find = live()
            .filter(backups::Column::Status.is_in(ended))
            .order_by_with_nulls(backups::Column::UpdatedAt, Order::Desc, NullOrdering::Last)
            .order_by_desc(backups::Column::Id)
            .limit(most);
        self.find_of_host(find, host).await
    }

    /// The backups that are being made, restored or deleted, on whatever host, oldest first. A row that
    /// holds what is no backup's is logged and left out.
    pub async fn backups_under_way(&self) -> Result<Vec<Backup>> {
        let find = live()
            .filter(
                backups::Column::Status.is_in(BackupStatus::UNDER_WAY.map(BackupStatus::as_str)),
            )
            .order_by_with_nulls(backups::Column::CreatedAt, Order::Asc, NullOrdering::Last)
            .order_by_asc(backups::Column::Id);
        Ok(readable(self.find_all(find).await?).collect())
    }

    /// The backups of a host among those that are asked for. A row that holds what is no backup's is
    /// logged and left out.
    pub(super) async fn find_of_host(
        &self,
        find: Select<backups::Entity>,
        host: &str,
    ) -> Result<Vec<Backup>> {
        let find = find.filter(backups::Column::Host.eq(host));
        let rows = self.find_all(find).await?;
        // The collation compares without regard to case; hosts that differ in it are different.
        let of_host = rows
            .into_iter()
            .filter(|row| row.host.as_deref() == Some(host));
        Ok(readable(of_host).collect())
    }

    /// Whether another live backup of the same volume names the same base image; for a backup of a
    /// snapshot that names none, whether another complete one does so as well. To a backup that is being
    /// deleted, another one that is counts for as much as is left of it in the image.
    pub async fn shares_base(&self, backup: &Backup) -> Result<bool> {
        let same = match (&backup.service_metadata, &backup.snapshot_id) {
            (Some(metadata), _) => {
                let goes_too = (backup.status == Some(BackupStatus::Deleting))
                    .then(|| backups::Column::Status.ne(BackupStatus::Deleting.as_str()));
                Condition::all()
                    .add(backups::Column::ServiceMetadata.eq(metadata))
                    .add_option(goes_too)
            }
            (None, Some(_)) => Condition::all()
                .add(backups::Column::ServiceMetadata.is_null())
                .add(backups::Column::SnapshotId.is_not_null())
                .add(backups::Column::Status.is_not_in(INCOMPLETE.map(BackupStatus::as_str))),
            (None, None) => return Ok(false),
        };
        let others = live()
            .filter(backups::Column::VolumeId.eq(backup.volume_id.to_string()))
            .filter(backups::Column::Id.ne(backup.id.to_string()));
        self.exists(others.filter(same)).await
    }

    /// The backups of a volume that are not deleted.
    pub async fn backups_of(&self, volume: VolumeId) -> Result<Vec<BackupId>> {
        let find = live().filter(backups::Column::VolumeId.eq(volume.to_string()));
        let rows = self.find_all(find).await?;
        // What has no id of a backup's is none.
        Ok(rows.iter().filter_map(|row| row.id.parse().ok()).collect())
    }

    /// The backups that are complete, oldest first.
    pub async fn complete_backups(&self) -> Result<Vec<BackupId>> {
        let complete = [BackupStatus::Available, BackupStatus::Restoring];
        let find = live()
            .filter(backups::Column::Status.is_in(complete.map(BackupStatus::as_str)))
            .order_by_with_nulls(backups::Column::CreatedAt, Order::Asc, NullOrdering::Last)
            .order_by_asc(backups::Column::Id)
            .select_only()
            .column(backups::Column::Id);
        let ids = self
            .patience
            .run(|| async {
                let ids = find.clone().into_tuple::<String>();
                Ok(ids.all(&self.pool).await?)
            })
            .await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Whether a backup is being restored to a volume.
    pub async fn is_being_restored_to(&self, volume: &str) -> Result<bool> {
        let restoring = live()
            .filter(backups::Column::RestoreVolumeId.eq(volume))
            .filter(backups::Column::Status.eq(BackupStatus::Restoring.as_str()));
        self.exists(restoring).await
    }

    /// Whether another backup of the same source is being made.
    pub async fn is_backed_up_by_another(&self, backup: &Backup) -> Result<bool> {
        let source = match &backup.snapshot_id {
            Some(snapshot) => backups::Column::SnapshotId.eq(snapshot),
            None => backups::Column::VolumeId
                .eq(backup.volume_id.to_string())
                .and(backups::Column::SnapshotId.is_null()),
        };
        let others = live()
            .filter(source)
            .filter(backups::Column::Status.eq(BackupStatus::Creating.as_str()))
            .filter(backups::Column::Id.ne(backup.id.to_string()));
        self.exists(others).await
    }

    /// Records that a worker has taken a new backup on.
    ///
    /// # Errors
    /// `Conflict` if it is not being created any more, or not on this host.
    pub async fn begin_backup(&self, begin: Begin<'_>, now: NaiveDateTime) -> Result<()> {
        let update = creating(begin.backup, now)
            .filter(backups::Column::Host.eq(begin.host))
            .col_expr(backups::Column::Service, begin.service.into())
            .col_expr(backups::Column::Container, begin.container.into())
            .col_expr(backups::Column::AvailabilityZone, begin.zone.into());
        self.update_creating(begin.backup, update).await
    }

    /// Records in which image a new backup will lie.
    ///
    /// # Errors
    /// `Conflict` if it is not being created any more, or not on this host, or lies elsewhere than it did.
    pub async fn place_backup(&self, place: Place<'_>, now: NaiveDateTime) -> Result<()> {
        use backups::Column::{Host, ParentId, ServiceMetadata};

        // As the column holds it, so that it can be recognised there.
        let now = now.with_nanosecond(0).unwrap_or(now);
        let was = match place.was {
            Some(was) => ServiceMetadata.eq(was),
            None => ServiceMetadata.is_null(),
        };
        let mut update = creating(place.backup, now)
            .col_expr(ServiceMetadata, place.service_metadata.into())
            .filter(Host.eq(place.host))
            .filter(was);
        if place.detach {
            update = update.col_expr(ParentId, Expr::value(None::<String>));
        }
        let in_doubt = AtomicBool::new(false);
        let placed = self.patience.run(|| async {
            let again = in_doubt.swap(true, Ordering::Relaxed);
            let rows = update.clone().exec(&self.pool).await?.rows_affected;
            // The answer to an earlier try may have been lost.
            Ok(rows == 1 || (again && self.is_placed(place, now).await?))
        });
        match placed.await? {
            true => Ok(()),
            false => Err(not_created(place.backup)),
        }
    }

    /// Whether the row is as this very placing leaves it.
    async fn is_placed(&self, place: Place<'_>, now: NaiveDateTime) -> Result<bool> {
        let row = live()
            .filter(backups::Column::Id.eq(place.backup.to_string()))
            .filter(backups::Column::ServiceMetadata.eq(place.service_metadata))
            .filter(backups::Column::UpdatedAt.eq(now));
        Ok(row.one(&self.pool).await?.is_some())
    }

    /// Notes how many objects of a backup have been copied so far. A backup that is not being made
    /// any more keeps its number.
    pub async fn count_objects(
        &self,
        backup: BackupId,
        objects: i32,
        now: NaiveDateTime,
    ) -> Result<()> {
        let update = creating(backup, now).col_expr(backups::Column::ObjectCount, objects.into());
        // Once: the next number comes soon.
        self.patience
            .once(async { Ok(update.exec(&self.pool).await?) })
            .await?;
        Ok(())
    }

    async fn update_creating(
        &self,
        backup: BackupId,
        update: UpdateMany<backups::Entity>,
    ) -> Result<()> {
        let updated = self
            .patience
            .run(|| async { Ok(update.clone().exec(&self.pool).await?.rows_affected) })
            .await?;
        if updated == 1 {
            return Ok(());
        }
        Err(not_created(backup))
    }

    /// Gives a backup on which `from` does nothing any more to another host, if it has the status still
    /// with which it was found; whether it is that host's now.
    pub async fn hand_over(
        &self,
        backup: BackupId,
        status: BackupStatus,
        (from, to): (&str, &str),
        now: NaiveDateTime,
    ) -> Result<bool> {
        let of = |host: &str| {
            Condition::all()
                .add(backups::Column::Id.eq(backup.to_string()))
                .add(backups::Column::Deleted.eq(false))
                .add(backups::Column::Status.eq(status.as_str()))
                .add(backups::Column::Host.eq(host))
        };
        let update = backups::Entity::update_many()
            .col_expr(backups::Column::Host, to.into())
            .col_expr(backups::Column::UpdatedAt, now.into())
            .filter(of(from));
        let handing = self
            .patience
            .run(|| async { Ok(update.clone().exec(&self.pool).await?.rows_affected) });
        // The answer to an earlier try may have been lost.
        Ok(handing.await? == 1 || self.exists(backups::Entity::find().filter(of(to))).await?)
    }

    /// Forgets a backup's temporary volume and snapshot, which are being deleted.
    pub async fn forget_temporary(&self, backup: BackupId, now: NaiveDateTime) -> Result<()> {
        let update = backups::Entity::update_many()
            .col_expr(backups::Column::TempVolumeId, Expr::value(None::<String>))
            .col_expr(backups::Column::TempSnapshotId, Expr::value(None::<String>))
            .col_expr(backups::Column::UpdatedAt, now.into())
            .filter(backups::Column::Id.eq(backup.to_string()));
        self.patience
            .run(|| async { Ok(update.clone().exec(&self.pool).await?) })
            .await?;
        Ok(())
    }
}

/// What the rows mean; one that holds what is no backup's is logged and left out.
fn readable(rows: impl IntoIterator<Item = backups::Model>) -> impl Iterator<Item = Backup> {
    rows.into_iter().filter_map(|row| {
        convert::backup(row)
            .inspect_err(|error| error!(%error, "A backup is left alone"))
            .ok()
    })
}

pub(super) fn live() -> Select<backups::Entity> {
    backups::Entity::find().filter(backups::Column::Deleted.eq(false))
}

fn creating(backup: BackupId, now: NaiveDateTime) -> UpdateMany<backups::Entity> {
    backups::Entity::update_many()
        .col_expr(backups::Column::UpdatedAt, now.into())
        .filter(backups::Column::Id.eq(backup.to_string()))
        .filter(backups::Column::Deleted.eq(false))
        .filter(backups::Column::Status.eq(BackupStatus::Creating.as_str()))
}

fn not_created(backup: BackupId) -> Error {
    Error::Conflict {
        what: "backup",
        id: backup.to_string(),
        expected: BackupStatus::Creating.to_string(),
    }
}
