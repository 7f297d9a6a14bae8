//! Rows of `volumes`, with every column: the metadata object of a backup records them all.

#![allow(missing_docs)] // The fields are the columns; Cinder documents them.

use sea_orm::entity::prelude::*;

use super::HiddenText;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "volumes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    #[sea_orm(column_name = "_name_id")]
    pub name_id: Option<String>,
    pub use_quota: Option<bool>,
    pub ec2_id: Option<String>,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub snapshot_id: Option<String>,
    pub cluster_name: Option<String>,
    pub host: Option<String>,
    pub size: Option<i32>,
    pub availability_zone: Option<String>,
    pub status: Option<String>,
    pub attach_status: Option<String>,
    pub migration_status: Option<String>,
    pub scheduled_at: Option<DateTime>,
    pub launched_at: Option<DateTime>,
    pub terminated_at: Option<DateTime>,
    pub display_name: Option<String>,
    pub display_description: Option<String>,
    pub provider_location: Option<String>,
    pub provider_auth: Option<HiddenText>,
    pub provider_geometry: Option<String>,
    pub provider_id: Option<String>,
    pub volume_type_id: Option<String>,
    pub source_volid: Option<String>,
    pub encryption_key_id: Option<String>,
    pub consistencygroup_id: Option<String>,
    pub group_id: Option<String>,
    pub bootable: Option<bool>,
    pub multiattach: Option<bool>,
    pub replication_status: Option<String>,
    pub replication_extended_status: Option<String>,
    pub replication_driver_data: Option<String>,
    pub previous_status: Option<String>,
    pub service_uuid: Option<String>,
    pub shared_targets: Option<bool>,
    pub created_at: Option<DateTime>,
    pub updated_at: Option<DateTime>,
    pub deleted_at: Option<DateTime>,
    pub deleted: Option<bool>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
