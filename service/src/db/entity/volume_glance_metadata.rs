//! Rows of `volume_glance_metadata`: what a bootable volume took over from its image.

#![allow(missing_docs)] // The fields are the columns; Cinder documents them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "volume_glance_metadata")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    pub volume_id: Option<String>,
    pub snapshot_id: Option<String>,
    pub key: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub value: Option<String>,
    pub created_at: Option<DateTime>,
    pub updated_at: Option<DateTime>,
    pub deleted_at: Option<DateTime>,
    pub deleted: Option<bool>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
