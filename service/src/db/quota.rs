//! Giving quota back when a backup is deleted.
//!
//! Cinder does this in two transactions, a reservation before the rows change and a commit after.
//! The effect is the same in one, as long as the locks are taken in Cinder's order: usages by id,
//! then reservations (cinder/db/api.py, `quota_reserve` and `reservation_commit`).

use chrono::{NaiveDateTime, TimeDelta};
use sea_orm::sea_query::{Func, LockType, OnConflict, SimpleExpr};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::Result;
use super::entity::{backups, quota_usages, reservations};

/// How usages are kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct QuotaRules {
    /// After how many reservations a usage is counted anew; 0 never (`until_refresh`).
    pub until_refresh: i32,
    /// After how many seconds a usage is counted anew; 0 never (`max_age`).
    pub max_age: i64,
    /// Seconds until a reservation would expire (`reservation_expire`).
    pub reservation_expire: i64,
}

const BACKUPS: &str = "backups";
const GIGABYTES: &str = "backup_gigabytes";

/// Takes one backup of `size` GiB off a project's usage.
pub(super) async fn give_back(
    transaction: &DatabaseTransaction,
    project: &str,
    size: i64,
    rules: &QuotaRules,
    now: NaiveDateTime,
) -> Result<()> {
    let size = i32::try_from(size.max(0)).unwrap_or(i32::MAX);
    let mut usages = lock(transaction, project).await?;
    let missing: Vec<&str> = [BACKUPS, GIGABYTES]
        .into_iter()
        .filter(|resource| {
            usages
                .iter()
                .all(|u| u.resource.as_deref() != Some(*resource))
        })
        .collect();
    // The backup counts as gone already in this transaction; the usage must still hold it.
    for resource in &missing {
        let counted = count(transaction, project, resource).await?;
        let still = counted.saturating_add(amount(resource, size));
        create_missing(transaction, project, resource, still, rules, now).await?;
    }
    if !missing.is_empty() {
        usages = lock(transaction, project).await?;
    }
    for usage in usages {
        let resource = usage.resource.clone().unwrap_or_default();
        let amount = amount(&resource, size);
        let refresh = refresh(&usage, rules, now);
        let in_use = if refresh.due {
            count(transaction, project, &resource).await?
        } else {
            (usage.in_use - amount).max(0)
        };
        update(transaction, &usage, in_use, refresh.left, now).await?;
        record(transaction, &usage, -amount, rules, now).await?;
    }
    Ok(())
}

fn amount(resource: &str, size: i32) -> i32 {
    if resource == BACKUPS { 1 } else { size }
}

/// When a usage is counted anew.
struct Refresh {
    /// Whether it is counted anew now.
    due: bool,
    /// After how many reservations it will be (`quota_usages.until_refresh`).
    left: Option<i32>,
}

/// Decides as Cinder does: a usage that counts reservations does not age
/// (cinder/db/api.py, `quota_reserve`).
fn refresh(usage: &quota_usages::Model, rules: &QuotaRules, now: NaiveDateTime) -> Refresh {
    let configured = (rules.until_refresh > 0).then_some(rules.until_refresh);
    let aged = || {
        rules.max_age > 0
            && usage
                .updated_at
                .is_some_and(|at| (now - at).num_seconds() >= rules.max_age)
    };
    let due = usage.in_use < 0
        || match usage.until_refresh {
            Some(left) => left <= 1,
            None => aged(),
        };
    let left = match usage.until_refresh {
        Some(left) if !due => configured.map(|most| most.min(left - 1)),
        _ => configured,
    };
    Refresh { due, left }
}

async fn lock(
    transaction: &DatabaseTransaction,
    project: &str,
) -> Result<Vec<quota_usages::Model>> {
    Ok(quota_usages::Entity::find()
        .filter(quota_usages::Column::ProjectId.eq(project))
        .filter(quota_usages::Column::Resource.is_in([BACKUPS, GIGABYTES]))
        .filter(quota_usages::Column::Deleted.eq(false))
        .order_by_asc(quota_usages::Column::Id)
        .lock(LockType::Update)
        .all(transaction)
        .await?)
}

/// What a project's live backups add up to.
async fn count(transaction: &DatabaseTransaction, project: &str, resource: &str) -> Result<i32> {
    let live = backups::Entity::find()
        .filter(backups::Column::ProjectId.eq(project))
        .filter(backups::Column::Deleted.eq(false));
    if resource == BACKUPS {
        let number = live.count(transaction).await?;
        return Ok(i32::try_from(number).unwrap_or(i32::MAX));
    }
    // A sum is DECIMAL otherwise, at least in MySQL, which knows the other name in columns only.
    let integer = match transaction.get_database_backend() {
        DbBackend::MySql => "signed",
        _ => "bigint",
    };
    let sum: SimpleExpr = Func::cast_as(backups::Column::Size.sum(), integer).into();
    let sum: Option<Option<i64>> = live
        .select_only()
        .column_as(sum, "sum")
        .into_tuple()
        .one(transaction)
        .await?;
    let sum = sum.flatten().unwrap_or(0);
    Ok(i32::try_from(sum).unwrap_or(i32::MAX))
}

/// Creates a usage, unless somebody else has created it meanwhile.
async fn create_missing(
    transaction: &DatabaseTransaction,
    project: &str,
    resource: &str,
    in_use: i32,
    rules: &QuotaRules,
    now: NaiveDateTime,
) -> Result<()> {
    let row = quota_usages::ActiveModel {
        id: NotSet,
        project_id: Set(Some(project.to_owned())),
        resource: Set(Some(resource.to_owned())),
        in_use: Set(in_use),
        reserved: Set(0),
        until_refresh: Set((rules.until_refresh > 0).then_some(rules.until_refresh)),
        race_preventer: Set(Some(true)),
        created_at: Set(Some(now)),
        updated_at: Set(None),
        deleted_at: Set(None),
        deleted: Set(Some(false)),
    };
    let id = quota_usages::Column::Id;
    quota_usages::Entity::insert(row)
        .on_conflict(OnConflict::new().do_nothing_on([id]).to_owned())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

async fn update(
    transaction: &DatabaseTransaction,
    usage: &quota_usages::Model,
    in_use: i32,
    until_refresh: Option<i32>,
    now: NaiveDateTime,
) -> Result<()> {
    quota_usages::Entity::update_many()
        .col_expr(quota_usages::Column::InUse, in_use.into())
        .col_expr(quota_usages::Column::UntilRefresh, until_refresh.into())
        .col_expr(quota_usages::Column::UpdatedAt, now.into())
        .filter(quota_usages::Column::Id.eq(usage.id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Leaves the reservation that Cinder would leave: committed, which is marked as deleted.
async fn record(
    transaction: &DatabaseTransaction,
    usage: &quota_usages::Model,
    delta: i32,
    rules: &QuotaRules,
    now: NaiveDateTime,
) -> Result<()> {
    let expire = TimeDelta::try_seconds(rules.reservation_expire)
        .and_then(|seconds| now.checked_add_signed(seconds));
    let row = reservations::ActiveModel {
        id: NotSet,
        uuid: Set(Uuid::new_v4().to_string()),
        usage_id: Set(Some(usage.id)),
        project_id: Set(usage.project_id.clone()),
        resource: Set(usage.resource.clone()),
        delta: Set(delta),
        expire: Set(expire),
        created_at: Set(Some(now)),
        updated_at: Set(Some(now)),
        deleted_at: Set(Some(now)),
        deleted: Set(Some(true)),
    };
    reservations::Entity::insert(row).exec(transaction).await?;
    Ok(())
}
