//! Rows of `snapshots`.

#![allow(missing_docs)] // The fields are the columns; Cinder documents them.

use sea_orm::entity::prelude::*;

use super::HiddenText;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "snapshots")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub volume_id: String,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub use_quota: Option<bool>,
    pub cgsnapshot_id: Option<String>,
    pub group_snapshot_id: Option<String>,
    pub status: Option<String>,
    pub progress: Option<String>,
    pub volume_size: Option<i32>,
    pub display_name: Option<String>,
    pub display_description: Option<String>,
    pub encryption_key_id: Option<String>,
    pub volume_type_id: Option<String>,
    pub provider_location: Option<String>,
    pub provider_id: Option<String>,
    pub provider_auth: Option<HiddenText>,
    pub created_at: Option<DateTime>,
    pub updated_at: Option<DateTime>,
    pub deleted_at: Option<DateTime>,
    pub deleted: Option<bool>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
