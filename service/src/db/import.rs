//! What an imported record writes.

use api_compat::backup_record::ImportedBackup;
use api_compat::ids::BackupId;
use chrono::NaiveDateTime;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::Expr;
use sea_orm::{DatabaseTransaction, EntityTrait, UpdateMany};

use super::Result;
use super::entity::{backup_metadata, backups};

/// Who imports a record, as the row says it.
#[derive(Debug, Clone, Copy)]
pub struct Importer<'a> {
    /// The driver, `backups.service`.
    pub service: &'a str,
    /// The worker, `backups.host`.
    pub host: &'a str,
    /// Its availability zone.
    pub zone: &'a str,
}

/// Sets the columns of a backup to what a record says.
pub(super) fn columns(
    update: UpdateMany<backups::Entity>,
    record: &ImportedBackup,
    importer: Importer<'_>,
) -> UpdateMany<backups::Entity> {
    use backups::Column;
    let id = |id: Option<String>| Expr::value(id);
    let time =
        |time: Option<chrono::DateTime<chrono::Utc>>| Expr::value(time.map(|t| t.naive_utc()));
    let update = match record.volume_id {
        Some(volume) => update.col_expr(Column::VolumeId, volume.to_string().into()),
        None => update,
    };
    update
        .col_expr(Column::Service, importer.service.into())
        .col_expr(Column::Host, importer.host.into())
        .col_expr(Column::AvailabilityZone, importer.zone.into())
        .col_expr(
            Column::DisplayName,
            Expr::value(record.display_name.clone()),
        )
        .col_expr(
            Column::DisplayDescription,
            Expr::value(record.display_description.clone()),
        )
        .col_expr(Column::Container, Expr::value(record.container.clone()))
        .col_expr(Column::Size, Expr::value(record.size))
        .col_expr(
            Column::ServiceMetadata,
            Expr::value(record.service_metadata.clone()),
        )
        .col_expr(Column::ObjectCount, Expr::value(record.object_count))
        .col_expr(
            Column::ParentId,
            id(record.parent_id.map(|id| id.to_string())),
        )
        .col_expr(Column::SnapshotId, id(record.snapshot_id.clone()))
        .col_expr(
            Column::NumDependentBackups,
            Expr::value(record.num_dependent_backups),
        )
        .col_expr(
            Column::RestoreVolumeId,
            id(record.restore_volume_id.clone()),
        )
        .col_expr(
            Column::EncryptionKeyId,
            id(record.encryption_key_id.clone()),
        )
        .col_expr(Column::DataTimestamp, time(record.data_timestamp))
        .col_expr(Column::CreatedAt, time(record.created_at))
}

/// Inserts the user's pairs that a record brings.
pub(super) async fn insert_metadata(
    transaction: &DatabaseTransaction,
    backup: BackupId,
    record: &ImportedBackup,
    now: NaiveDateTime,
) -> Result<()> {
    let pairs = record.metadata.iter().flatten();
    let rows: Vec<_> = pairs
        .map(|(key, value)| backup_metadata::ActiveModel {
            id: NotSet,
            backup_id: Set(backup.to_string()),
            key: Set(Some(key.clone())),
            value: Set(Some(value.clone())),
            created_at: Set(Some(now)),
            updated_at: Set(None),
            deleted_at: Set(None),
            deleted: Set(Some(false)),
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    backup_metadata::Entity::insert_many(rows)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
