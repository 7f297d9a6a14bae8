//! Which keys the rows name.

use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::secret;
use api_compat::state::BackupStatus;
use chrono::NaiveDateTime;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::backups::live;
use super::entity::{backups, snapshots, volumes};
use super::{Database, Result};

/// Another key for a backup.
#[derive(Debug, Clone, Copy)]
pub struct NewKey<'a> {
    /// The backup.
    pub backup: BackupId,
    /// The status that it must have, if any.
    pub status: Option<BackupStatus>,
    /// The key that it must have; none, it must have none.
    pub from: Option<&'a str>,
    /// The key that it gets.
    pub to: Option<&'a str>,
}

impl Database {
    /// Gives a backup another key. False if it is another backup by now: deleted, with another key
    /// or another status; nothing was written then.
    pub async fn replace_backup_key(&self, new: NewKey<'_>, now: NaiveDateTime) -> Result<bool> {
        let mut update = backups::Entity::update_many()
            .col_expr(
                backups::Column::EncryptionKeyId,
                Expr::value(new.to.map(str::to_owned)),
            )
            .col_expr(backups::Column::UpdatedAt, now.into())
            .filter(backups::Column::Id.eq(new.backup.to_string()))
            .filter(backups::Column::Deleted.eq(false))
            .filter(match new.from {
                Some(key) => backups::Column::EncryptionKeyId.eq(key),
                None => backups::Column::EncryptionKeyId.is_null(),
            });
        if let Some(status) = new.status {
            update = update.filter(backups::Column::Status.eq(status.as_str()));
        }
        let updated = self
            .patience
            .run(|| async { Ok(update.clone().exec(&self.pool).await?.rows_affected) })
            .await?;
        if updated == 1 {
            return Ok(true);
        }
        // An earlier try may have written it before its connection was lost.
        let row = self.backup(new.backup).await?;
        Ok(row.is_some_and(|row| new.to.is_some() && row.encryption_key_id.as_deref() == new.to))
    }

    /// The backups of a host that have this key. A row that holds what is no backup's is logged and
    /// left out.
    pub async fn backups_with_key(&self, host: &str, key: &str) -> Result<Vec<Backup>> {
        let find = live().filter(backups::Column::EncryptionKeyId.eq(key));
        self.find_of_host(find, host).await
    }

    /// Whether a volume, a snapshot, or another backup has a backup's key, as castellan writes it or as
    /// this one does.
    pub async fn is_key_of_another(&self, backup: BackupId, key: &str) -> Result<bool> {
        let castellans = secret::id(key).ok().map(|id| id.to_string());
        let names = || [key.to_owned()].into_iter().chain(castellans.clone());
        let of_volume = volumes::Entity::find()
            .filter(volumes::Column::EncryptionKeyId.is_in(names()))
            .filter(volumes::Column::Deleted.eq(false));
        let of_snapshot = snapshots::Entity::find()
            .filter(snapshots::Column::EncryptionKeyId.is_in(names()))
            .filter(snapshots::Column::Deleted.eq(false));
        let of_backup = live()
            .filter(backups::Column::EncryptionKeyId.is_in(names()))
            .filter(backups::Column::Id.ne(backup.to_string()));
        Ok(self.exists(of_volume).await?
            || self.exists(of_snapshot).await?
            || self.exists(of_backup).await?)
    }

    /// Whether a snapshot of a volume has this key. Cinder gives a snapshot its volume's own.
    pub async fn is_key_of_snapshot(&self, volume: VolumeId, key: &str) -> Result<bool> {
        let find = snapshots::Entity::find()
            .filter(snapshots::Column::VolumeId.eq(volume.to_string()))
            .filter(snapshots::Column::EncryptionKeyId.eq(key))
            .filter(snapshots::Column::Deleted.eq(false));
        self.exists(find).await
    }
}
