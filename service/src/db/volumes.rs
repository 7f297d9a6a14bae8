//! Reading volumes and snapshots, and what a restore changes of a volume besides its status.

use std::collections::BTreeMap;

use api_compat::ids::{SnapshotId, VolumeId};
use api_compat::objects::{Backup, Snapshot, Volume, VolumeType};
use chrono::{NaiveDateTime, TimeDelta};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::entity::{snapshots, volume_attachment, volume_type_extra_specs, volume_types, volumes};
use super::{Database, Result, convert};

impl Database {
    /// A volume that is not deleted.
    ///
    /// # Errors
    /// `Row` if the row holds what is no volume's.
    pub async fn volume(&self, id: VolumeId) -> Result<Option<Volume>> {
        let find =
            volumes::Entity::find_by_id(id.to_string()).filter(volumes::Column::Deleted.eq(false));
        self.find(find).await?.map(convert::volume).transpose()
    }

    /// A snapshot that is not deleted.
    ///
    /// # Errors
    /// `Row` if the row holds what is no snapshot's.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<Option<Snapshot>> {
        let find = snapshots::Entity::find_by_id(id.to_string())
            .filter(snapshots::Column::Deleted.eq(false));
        self.find(find).await?.map(convert::snapshot).transpose()
    }

    /// The attachments of a volume to a host itself, rather than to a server on it.
    pub async fn attachments(&self, volume: VolumeId, host: &str) -> Result<Vec<String>> {
        let find = volume_attachment::Entity::find()
            .filter(volume_attachment::Column::VolumeId.eq(volume.to_string()))
            .filter(volume_attachment::Column::AttachedHost.eq(host))
            .filter(volume_attachment::Column::InstanceUuid.is_null())
            .filter(volume_attachment::Column::Deleted.eq(false));
        let rows = self.find_all(find).await?;
        Ok(rows
            .into_iter()
            // The collation compares without regard to case; hosts that differ in it are different.
            .filter(|row| row.attached_host.as_deref() == Some(host))
            .map(|row| row.id)
            .collect())
    }

    /// Marks a snapshot as being deleted, as cinder-volume expects it.
    pub async fn mark_snapshot_deleting(&self, id: SnapshotId, now: NaiveDateTime) -> Result<()> {
        let update = snapshots::Entity::update_many()
            .col_expr(snapshots::Column::Status, "deleting".into())
            .col_expr(snapshots::Column::UpdatedAt, now.into())
            .filter(snapshots::Column::Id.eq(id.to_string()))
            .filter(snapshots::Column::Deleted.eq(false));
        self.patience
            .run(|| async { Ok(update.clone().exec(&self.pool).await?) })
            .await?;
        Ok(())
    }

    /// Whether cinder-volume makes a temporary volume or snapshot for a backup: by the names that it
    /// gives them, since the backup names them only when they are complete. Its clock may be behind that
    /// of cinder-api, which made the backup's row, by `skew`.
    pub async fn is_being_prepared(
        &self,
        backup: &Backup,
        volume: &Volume,
        skew: TimeDelta,
    ) -> Result<bool> {
        // Not what an earlier backup has left.
        let since = backup.created_at.unwrap_or_default().naive_utc();
        let since = since.checked_sub_signed(skew).unwrap_or(since);
        let copy = volumes::Entity::find()
            .filter(volumes::Column::Deleted.eq(false))
            .filter(volumes::Column::Host.eq(volume.host.as_deref().unwrap_or_default()))
            .filter(volumes::Column::DisplayName.eq(format!("backup-vol-{}", volume.id)))
            .filter(volumes::Column::Status.eq("creating"))
            .filter(volumes::Column::CreatedAt.gte(since));
        let snapshot = snapshots::Entity::find()
            .filter(snapshots::Column::VolumeId.eq(volume.id.to_string()))
            .filter(snapshots::Column::Deleted.eq(false))
            .filter(snapshots::Column::DisplayName.eq(format!("backup-snap-{}", volume.id)))
            .filter(snapshots::Column::Status.eq("creating"))
            .filter(snapshots::Column::CreatedAt.gte(since));
        Ok(self.exists(copy).await? || self.exists(snapshot).await?)
    }

    /// Whether a volume type exists.
    pub async fn volume_type_exists(&self, id: &str) -> Result<bool> {
        let find = volume_types::Entity::find_by_id(id);
        self.exists(find.filter(volume_types::Column::Deleted.eq(false)))
            .await
    }

    /// A volume type, deleted or not: volumes may outlive theirs.
    pub async fn volume_type(&self, id: &str) -> Result<Option<VolumeType>> {
        let find = volume_types::Entity::find_by_id(id);
        let Some(row) = self.find(find).await? else {
            return Ok(None);
        };
        let find = volume_type_extra_specs::Entity::find()
            .filter(volume_type_extra_specs::Column::VolumeTypeId.eq(id))
            .filter(volume_type_extra_specs::Column::Deleted.eq(false));
        let specs = self.find_all(find).await?;
        let extra_specs: BTreeMap<_, _> = specs
            .into_iter()
            .filter_map(|spec| Some((spec.key?, spec.value)))
            .collect();
        Ok(Some(convert::volume_type(row, extra_specs)))
    }
}
