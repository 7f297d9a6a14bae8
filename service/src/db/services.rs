//! `services`: how other services see that a worker is there, and which versions it speaks.

use api_compat::objects::Volume;
use chrono::NaiveDateTime;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::entity::services;
use super::{Database, Result};

/// What a worker writes about itself.
#[derive(Debug, Clone)]
pub struct Registration {
    /// `[DEFAULT] host`.
    pub host: String,
    /// `cinder-backup`; also the topic.
    pub binary: String,
    /// The availability zone.
    pub zone: String,
    /// The newest RPC version that it serves.
    pub rpc_version: String,
    /// The newest object history that it knows.
    pub object_version: String,
    /// Whether a new row starts out enabled (`enable_new_services`).
    pub enabled: bool,
}

/// The versions that a service has published.
#[derive(Debug, Clone)]
pub struct Versions {
    /// Which kind of service.
    pub binary: Option<String>,
    /// Its RPC version.
    pub rpc: Option<String>,
    /// Its object history.
    pub objects: Option<String>,
}

/// What a worker has said of itself last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// Its host.
    pub host: String,
    /// Its availability zone.
    pub zone: Option<String>,
    /// Whether an operator wants nothing new to be done there.
    pub disabled: bool,
    /// When it said so, by its own clock, and how often it had.
    pub beat: (Option<NaiveDateTime>, i32),
}

impl Database {
    /// Finds the worker's row and brings its versions up to date, or creates it; its id.
    pub async fn register(&self, service: &Registration, now: NaiveDateTime) -> Result<i32> {
        self.patience
            .run(|| async {
                match self.find_service(service).await? {
                    Some(row) => self.update_service(row, service, now).await,
                    None => self.insert_service(service, now).await,
                }
            })
            .await
    }

    async fn find_service(&self, service: &Registration) -> Result<Option<services::Model>> {
        // The collation compares without regard to case; hosts that differ in it are different.
        let rows = services::Entity::find()
            .filter(services::Column::Deleted.eq(false))
            .filter(services::Column::Binary.eq(&service.binary))
            .filter(services::Column::Host.eq(&service.host))
            .order_by_asc(services::Column::Id)
            .all(&self.pool)
            .await?;
        Ok(rows
            .into_iter()
            .find(|row| row.host.as_deref() == Some(service.host.as_str())))
    }

    async fn update_service(
        &self,
        row: services::Model,
        service: &Registration,
        now: NaiveDateTime,
    ) -> Result<i32> {
        let current = row.rpc_current_version.as_ref() == Some(&service.rpc_version)
            && row.object_current_version.as_ref() == Some(&service.object_version);
        if !current {
            services::Entity::update_many()
                .col_expr(
                    services::Column::RpcCurrentVersion,
                    service.rpc_version.as_str().into(),
                )
                .col_expr(
                    services::Column::ObjectCurrentVersion,
                    service.object_version.as_str().into(),
                )
                .col_expr(services::Column::UpdatedAt, now.into())
                .filter(services::Column::Id.eq(row.id))
                .exec(&self.pool)
                .await?;
        }
        Ok(row.id)
    }

    async fn insert_service(&self, service: &Registration, now: NaiveDateTime) -> Result<i32> {
        let row = services::ActiveModel {
            id: NotSet,
            uuid: Set(Some(Uuid::new_v4().to_string())),
            host: Set(Some(service.host.clone())),
            binary: Set(Some(service.binary.clone())),
            topic: Set(Some(service.binary.clone())),
            report_count: Set(0),
            disabled: Set(Some(!service.enabled)),
            availability_zone: Set(Some(service.zone.clone())),
            rpc_current_version: Set(Some(service.rpc_version.clone())),
            object_current_version: Set(Some(service.object_version.clone())),
            replication_status: Set(Some("not-capable".to_owned())),
            frozen: Set(Some(false)),
            cluster_name: NotSet,
            created_at: Set(Some(now)),
            updated_at: Set(Some(now)),
            deleted_at: Set(None),
            deleted: Set(Some(false)),
        };
        Ok(row.insert(&self.pool).await?.id)
    }

    /// Says that the worker is alive; false when its row is gone.
    pub async fn heartbeat(&self, id: i32, zone: &str, now: NaiveDateTime) -> Result<bool> {
        let update = services::Entity::update_many()
            .col_expr(
                services::Column::ReportCount,
                Expr::col(services::Column::ReportCount).add(1),
            )
            .col_expr(services::Column::AvailabilityZone, zone.into())
            .col_expr(services::Column::UpdatedAt, now.into())
            .filter(services::Column::Id.eq(id))
            .filter(services::Column::Deleted.eq(false));
        let updated = self
            .patience
            .once(async { Ok(update.exec(&self.pool).await?) })
            .await?;
        Ok(updated.rows_affected == 1)
    }

    /// What every worker of a kind has said last that is registered, dead ones too.
    pub async fn signs_of_life(&self, binary: &str) -> Result<Vec<Sign>> {
        let find = services::Entity::find()
            .filter(services::Column::Deleted.eq(false))
            .filter(services::Column::Binary.eq(binary));
        let rows = self
            .patience
            .once(async { Ok(find.all(&self.pool).await?) })
            .await?;
        let sign = |row: services::Model| {
            Some(Sign {
                host: row.host?,
                zone: row.availability_zone,
                disabled: row.disabled.unwrap_or_default(),
                beat: (row.updated_at, row.report_count),
            })
        };
        Ok(rows.into_iter().filter_map(sign).collect())
    }

    /// Whether the cinder-volume of a volume, or one of its cluster, has said since then that it lives.
    pub async fn serves_volume(&self, volume: &Volume, since: NaiveDateTime) -> Result<bool> {
        let host = volume.host.as_deref().unwrap_or_default();
        let (host, _) = host.split_once('#').unwrap_or((host, ""));
        let mut place = Condition::any().add(services::Column::Host.eq(host));
        if let Some(cluster) = volume
            .cluster_name
            .as_deref()
            .filter(|name| !name.is_empty())
        {
            let (cluster, _) = cluster.split_once('#').unwrap_or((cluster, ""));
            place = place.add(services::Column::ClusterName.eq(cluster));
        }
        let alive = services::Entity::find()
            .filter(services::Column::Deleted.eq(false))
            .filter(services::Column::Binary.eq("cinder-volume"))
            .filter(services::Column::UpdatedAt.gte(since))
            .filter(place);
        self.exists(alive).await
    }

    /// The versions of every service that is registered, dead and disabled ones too.
    pub async fn versions(&self) -> Result<Vec<Versions>> {
        let find = services::Entity::find()
            .filter(services::Column::Deleted.eq(false))
            .select_only()
            .column(services::Column::Binary)
            .column(services::Column::RpcCurrentVersion)
            .column(services::Column::ObjectCurrentVersion)
            .into_tuple::<(Option<String>, Option<String>, Option<String>)>();
        let rows = self
            .patience
            .once(async { Ok(find.all(&self.pool).await?) })
            .await?;
        Ok(rows
            .into_iter()
            .map(|(binary, rpc, objects)| Versions {
                binary,
                rpc,
                objects,
            })
            .collect())
    }
}
