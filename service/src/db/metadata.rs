//! A volume's key-value pairs: the user's, and those that came from its image.

use std::collections::BTreeMap;

use api_compat::ids::VolumeId;
use api_compat::volume_metadata::{Change, Pairs};
use chrono::NaiveDateTime;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};

use super::entity::{volume_glance_metadata, volume_metadata, volumes};
use super::{Database, Result, retry};

impl Database {
    /// The user's pairs of a volume, in the order in which they were set.
    pub async fn volume_metadata(&self, volume: VolumeId) -> Result<Pairs> {
        let rows = self.find_all(user_rows(&volume.to_string())).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| Some((row.key?, row.value.unwrap_or_default())))
            .collect())
    }

    /// The pairs that a bootable volume took over from its image.
    pub async fn glance_metadata(&self, volume: VolumeId) -> Result<Pairs> {
        let find = volume_glance_metadata::Entity::find()
            .filter(volume_glance_metadata::Column::VolumeId.eq(volume.to_string()))
            .filter(volume_glance_metadata::Column::Deleted.eq(false))
            .order_by_asc(volume_glance_metadata::Column::Id);
        let rows = self.find_all(find).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| Some((row.key?, row.value.unwrap_or_default())))
            .collect())
    }

    /// Gives a volume what a metadata object recorded, in one transaction.
    pub async fn restore_metadata(
        &self,
        volume: VolumeId,
        changes: &[Change],
        now: NaiveDateTime,
    ) -> Result<()> {
        let volume = &volume.to_string();
        if changes.is_empty() {
            return Ok(());
        }
        self.patience
            .run(|| async {
                let transaction = self.begin().await?;
                let outcome = apply_all(&transaction, volume, changes, now).await;
                retry::end(transaction, outcome).await
            })
            .await
    }

    /// Sets one of the user's pairs of a volume and leaves the others.
    pub async fn set_volume_metadata(
        &self,
        volume: VolumeId,
        key: &str,
        value: &str,
        now: NaiveDateTime,
    ) -> Result<()> {
        let volume = &volume.to_string();
        self.patience
            .run(|| async {
                let transaction = self.begin().await?;
                let outcome = set_one(&transaction, volume, (key, value), now).await;
                retry::end(transaction, outcome).await
            })
            .await
    }
}

async fn apply_all(
    transaction: &DatabaseTransaction,
    volume: &str,
    changes: &[Change],
    now: NaiveDateTime,
) -> Result<()> {
    for change in changes {
        apply(transaction, volume, change, now).await?;
    }
    Ok(())
}

async fn apply(
    transaction: &DatabaseTransaction,
    volume: &str,
    change: &Change,
    now: NaiveDateTime,
) -> Result<()> {
    let mut update = volumes::Entity::update_many()
        .col_expr(volumes::Column::UpdatedAt, now.into())
        .filter(volumes::Column::Id.eq(volume))
        .filter(volumes::Column::Deleted.eq(false));
    update = match change {
        Change::VolumeType(id) => update.col_expr(volumes::Column::VolumeTypeId, id.into()),
        Change::Name { name, description } => update
            .col_expr(volumes::Column::DisplayName, name.into())
            .col_expr(
                volumes::Column::DisplayDescription,
                Expr::value(description.clone()),
            ),
        Change::EncryptionKey(id) => {
            update.col_expr(volumes::Column::EncryptionKeyId, Expr::value(id.clone()))
        }
        Change::UserMetadata(pairs) => {
            return replace_user_pairs(transaction, volume, pairs, now).await;
        }
        Change::GlanceMetadata(pairs) => {
            replace_glance_pairs(transaction, volume, pairs, now).await?;
            update.col_expr(volumes::Column::Bootable, true.into())
        }
    };
    update.exec(transaction).await?;
    Ok(())
}

/// The rows of a volume's user pairs. Keys are compared here, not in the database, whose collation
/// takes `os` and `OS` for the same.
fn user_rows(volume: &str) -> Select<volume_metadata::Entity> {
    volume_metadata::Entity::find()
        .filter(volume_metadata::Column::VolumeId.eq(volume))
        .filter(volume_metadata::Column::Deleted.eq(false))
        .order_by_asc(volume_metadata::Column::Id)
}

async fn replace_user_pairs(
    transaction: &DatabaseTransaction,
    volume: &str,
    pairs: &Pairs,
    now: NaiveDateTime,
) -> Result<()> {
    let rows = user_rows(volume).lock_exclusive().all(transaction).await?;
    let wanted: BTreeMap<&str, &str> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
    let unwanted = rows
        .iter()
        .filter(|row| {
            row.key
                .as_deref()
                .is_some_and(|key| !wanted.contains_key(key))
        })
        .map(|row| row.id);
    // As Cinder's soft delete, which keeps the time of the last change.
    volume_metadata::Entity::update_many()
        .col_expr(volume_metadata::Column::Deleted, true.into())
        .col_expr(volume_metadata::Column::DeletedAt, now.into())
        .filter(volume_metadata::Column::Id.is_in(unwanted))
        .exec(transaction)
        .await?;
    for (key, value) in wanted {
        set_user_pair(transaction, &rows, volume, (key, value), now).await?;
    }
    Ok(())
}

async fn set_one(
    transaction: &DatabaseTransaction,
    volume: &str,
    pair: (&str, &str),
    now: NaiveDateTime,
) -> Result<()> {
    let rows = user_rows(volume).lock_exclusive().all(transaction).await?;
    set_user_pair(transaction, &rows, volume, pair, now).await
}

/// Sets one pair, `rows` being those that there are.
async fn set_user_pair(
    transaction: &DatabaseTransaction,
    rows: &[volume_metadata::Model],
    volume: &str,
    (key, value): (&str, &str),
    now: NaiveDateTime,
) -> Result<()> {
    if let Some(row) = rows.iter().find(|row| row.key.as_deref() == Some(key)) {
        if row.value.as_deref() != Some(value) {
            volume_metadata::Entity::update_many()
                .col_expr(volume_metadata::Column::Value, value.into())
                .col_expr(volume_metadata::Column::UpdatedAt, now.into())
                .filter(volume_metadata::Column::Id.eq(row.id))
                .exec(transaction)
                .await?;
        }
        return Ok(());
    }
    let row = volume_metadata::ActiveModel {
        id: NotSet,
        volume_id: Set(volume.to_owned()),
        key: Set(Some(key.to_owned())),
        value: Set(Some(value.to_owned())),
        created_at: Set(Some(now)),
        updated_at: Set(None),
        deleted_at: Set(None),
        deleted: Set(Some(false)),
    };
    volume_metadata::Entity::insert(row)
        .exec(transaction)
        .await?;
    Ok(())
}

async fn replace_glance_pairs(
    transaction: &DatabaseTransaction,
    volume: &str,
    pairs: &Pairs,
    now: NaiveDateTime,
) -> Result<()> {
    volume_glance_metadata::Entity::update_many()
        .col_expr(volume_glance_metadata::Column::Deleted, true.into())
        .col_expr(volume_glance_metadata::Column::DeletedAt, now.into())
        .filter(volume_glance_metadata::Column::VolumeId.eq(volume))
        .filter(volume_glance_metadata::Column::Deleted.eq(false))
        .exec(transaction)
        .await?;
    for (key, value) in pairs {
        let row = volume_glance_metadata::ActiveModel {
            id: NotSet,
            volume_id: Set(Some(volume.to_owned())),
            snapshot_id: Set(None),
            key: Set(Some(key.clone())),
            value: Set(Some(value.clone())),
            created_at: Set(Some(now)),
            updated_at: Set(None),
            deleted_at: Set(None),
            deleted: Set(Some(false)),
        };
        volume_glance_metadata::Entity::insert(row)
            .exec(transaction)
            .await?;
    }
    Ok(())
}
