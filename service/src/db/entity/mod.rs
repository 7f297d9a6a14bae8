//! Cinder's tables, as far as a backup service reads or writes them. Their schema is Cinder's own
//! affair: nothing here creates or alters a table.

pub mod backup_metadata;
pub mod backups;
pub mod messages;
pub mod quota_usages;
pub mod reservations;
pub mod services;
pub mod snapshots;
pub mod volume_attachment;
pub mod volume_glance_metadata;
pub mod volume_metadata;
pub mod volume_type_extra_specs;
pub mod volume_types;
pub mod volumes;

use sea_orm::DeriveValueType;

/// A text of which nothing shows in debug output, as of what may hold credentials.
#[derive(Clone, PartialEq, Eq, DeriveValueType)]
pub struct HiddenText(pub String);

impl std::fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}
