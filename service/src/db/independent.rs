//! Increments that count as whole backups: each is a restore point of its own, and Cinder's API refuses
//! to delete only what another row names as its parent.

use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::state::BackupStatus;
use chrono::NaiveDateTime;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::backups::live;
use super::entity::backups;
use super::{Database, Result};

/// How many backups one statement names.
const AT_ONCE: usize = 500;

impl Database {
    /// The increments of a host whose rows tell by themselves where their data lies, save those that
    /// are being made.
    pub async fn increments(&self, host: &str) -> Result<Vec<Backup>> {
        let find = live()
            .filter(backups::Column::ParentId.is_not_null())
            .filter(backups::Column::ServiceMetadata.is_not_null())
            .filter(backups::Column::Status.ne(BackupStatus::Creating.as_str()));
        self.find_of_host(find, host).await
    }

    /// Records that backups build on no other any more, save those that are being made.
    pub async fn make_independent(&self, ids: &[BackupId], now: NaiveDateTime) -> Result<()> {
        for ids in ids.chunks(AT_ONCE) {
            let update = backups::Entity::update_many()
                .col_expr(backups::Column::ParentId, Expr::value(None::<String>))
                .col_expr(backups::Column::UpdatedAt, now.into())
                .filter(backups::Column::Id.is_in(ids.iter().map(ToString::to_string)))
                .filter(backups::Column::Status.ne(BackupStatus::Creating.as_str()));
            self.patience
                .run(|| async { Ok(update.clone().exec(&self.pool).await?) })
                .await?;
        }
        Ok(())
    }

    /// Records that no backup builds on these any more.
    pub async fn forget_dependents(&self, ids: &[BackupId], now: NaiveDateTime) -> Result<()> {
        for ids in ids.chunks(AT_ONCE) {
            let update = backups::Entity::update_many()
                .col_expr(backups::Column::NumDependentBackups, 0.into())
                .col_expr(backups::Column::UpdatedAt, now.into())
                .filter(backups::Column::Id.is_in(ids.iter().map(ToString::to_string)))
                .filter(backups::Column::NumDependentBackups.gt(0));
            self.patience
                .run(|| async { Ok(update.clone().exec(&self.pool).await?) })
                .await?;
        }
        Ok(())
    }
}
