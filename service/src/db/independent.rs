//! Increments that count as whole backups: each is a restore point of its own, and Cinder's API refuses
//! to delete only what another row names as its parent.

use std::collections::{BTreeMap, BTreeSet};

use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::state::BackupStatus;
use chrono::NaiveDateTime;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    UpdateMany,
};

use super::backups::live;
use super::entity::backups;
use super::{Database, Result, retry};

/// How many backups one transaction changes.
const AT_ONCE: usize = 500;

/// What keeps its parent: one that is being made counts at its end, and one that is being deleted is
/// counted off at its own, by whoever has read its parent.
const KEPT: [&str; 2] = [
    BackupStatus::Creating.as_str(),
    BackupStatus::Deleting.as_str(),
];

impl Database {
    /// The increments of a host whose rows tell by themselves where their data lies, save those that
    /// are being made or deleted.
    pub async fn increments(&self, host: &str) -> Result<Vec<Backup>> {
        let find = live()
            .filter(backups::Column::ParentId.is_not_null())
            .filter(backups::Column::ServiceMetadata.is_not_null())
            .filter(backups::Column::Status.is_not_in(KEPT));
        self.find_of_host(find, host).await
    }

    /// Records that backups build on no other any more, save those that are being made or deleted, and how
    /// many still build on each of those that they were built on.
    pub async fn make_independent(&self, ids: &[BackupId], now: NaiveDateTime) -> Result<()> {
        for ids in ids.chunks(AT_ONCE) {
            self.patience
                .run(|| async {
                    let transaction = self.begin().await?;
                    let outcome = separate(&transaction, ids, now).await;
                    retry::end(transaction, outcome).await
                })
                .await?;
        }
        Ok(())
    }
}

async fn separate(
    transaction: &DatabaseTransaction,
    ids: &[BackupId],
    now: NaiveDateTime,
) -> Result<()> {
    // Both are locked before anything is counted: who counts one more meanwhile does so afterwards.
    let increments = locked(ids.iter().map(ToString::to_string))
        .filter(backups::Column::Status.is_not_in(KEPT))
        .filter(backups::Column::ParentId.is_not_null())
        .all(transaction)
        .await?;
    let parents: BTreeSet<String> = increments
        .iter()
        .filter_map(|row| row.parent_id.clone())
        .collect();
    let update = updated(increments.into_iter().map(|row| row.id), now)
        .col_expr(backups::Column::ParentId, Expr::value(None::<String>));
    update.exec(transaction).await?;

    let parents = locked(parents).all(transaction).await?;
    let left = dependents(transaction, &parents).await?;
    let mut changed: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for parent in parents {
        let left = left.get(&parent.id).copied().unwrap_or(0);
        if parent.num_dependent_backups.unwrap_or(0) != left {
            changed.entry(left).or_default().push(parent.id);
        }
    }
    for (left, parents) in changed {
        let update =
            updated(parents, now).col_expr(backups::Column::NumDependentBackups, left.into());
        update.exec(transaction).await?;
    }
    Ok(())
}

fn locked(ids: impl IntoIterator<Item = String>) -> Select<backups::Entity> {
    live()
        .filter(backups::Column::Id.is_in(ids))
        .order_by_asc(backups::Column::Id)
        .lock_exclusive()
}

fn updated(
    ids: impl IntoIterator<Item = String>,
    now: NaiveDateTime,
) -> UpdateMany<backups::Entity> {
    backups::Entity::update_many()
        .col_expr(backups::Column::UpdatedAt, now.into())
        .filter(backups::Column::Id.is_in(ids))
}

/// How many live backups build on each, save those that are being made, which count at their end.
async fn dependents(
    transaction: &DatabaseTransaction,
    parents: &[backups::Model],
) -> Result<BTreeMap<String, i32>> {
    let parents = parents.iter().map(|row| row.id.as_str());
    let counts: Vec<(String, i64)> = live()
        .filter(backups::Column::ParentId.is_in(parents))
        .filter(backups::Column::Status.ne(BackupStatus::Creating.as_str()))
        .select_only()
        .column(backups::Column::ParentId)
        .column_as(backups::Column::Id.count(), "count")
        .group_by(backups::Column::ParentId)
        .into_tuple()
        .all(transaction)
        .await?;
    let bounded = |count| i32::try_from(count).unwrap_or(i32::MAX);
    Ok(counts
        .into_iter()
        .map(|(parent, count)| (parent, bounded(count)))
        .collect())
}
