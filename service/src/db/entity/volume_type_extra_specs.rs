//! Rows of `volume_type_extra_specs`.

#![allow(missing_docs)] // The fields are the columns; Cinder documents them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "volume_type_extra_specs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i32,
    pub volume_type_id: String,
    pub key: Option<String>,
    pub value: Option<String>,
    pub created_at: Option<DateTime>,
    pub updated_at: Option<DateTime>,
    pub deleted_at: Option<DateTime>,
    pub deleted: Option<bool>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
