//! Rows of `backups`.

#![allow(missing_docs)] // The fields are the columns; Cinder documents them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "backups")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub volume_id: String,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub host: Option<String>,
    pub availability_zone: Option<String>,
    pub display_name: Option<String>,
    pub display_description: Option<String>,
    pub container: Option<String>,
    pub parent_id: Option<String>,
    pub status: Option<String>,
    pub fail_reason: Option<String>,
    pub service_metadata: Option<String>,
    pub service: Option<String>,
    pub size: Option<i32>,
    pub object_count: Option<i32>,
    pub temp_volume_id: Option<String>,
    pub temp_snapshot_id: Option<String>,
    pub num_dependent_backups: Option<i32>,
    pub snapshot_id: Option<String>,
    pub data_timestamp: Option<DateTime>,
    pub restore_volume_id: Option<String>,
    pub encryption_key_id: Option<String>,
    pub created_at: Option<DateTime>,
    pub updated_at: Option<DateTime>,
    pub deleted_at: Option<DateTime>,
    pub deleted: Option<bool>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
