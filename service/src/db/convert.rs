//! Rows as the typed objects that travel in messages and that decisions are made on.

use std::collections::BTreeMap;
use std::str::FromStr;

use api_compat::hidden::Hidden;
use api_compat::objects::{Backup, Lazy, Snapshot, Volume, VolumeType};
use chrono::{DateTime, NaiveDateTime, Utc};

use super::entity::{backups, snapshots, volume_types, volumes};
use super::{Error, Result};

/// Reads a backup's row.
///
/// # Errors
/// `Row` if an id is none, or the status is none of a backup's.
pub(super) fn backup(row: backups::Model) -> Result<Backup> {
    let column = Column {
        table: "backups",
        id: &row.id,
    };
    Ok(Backup {
        id: column.parse("id", &row.id)?,
        user_id: row.user_id.unwrap_or_default(),
        project_id: row.project_id.unwrap_or_default(),
        volume_id: column.parse("volume_id", &row.volume_id)?,
        host: row.host,
        availability_zone: row.availability_zone,
        container: row.container,
        parent_id: column.optional("parent_id", row.parent_id.as_deref())?,
        parent: Lazy::Unset,
        status: column.optional("status", row.status.as_deref())?,
        fail_reason: row.fail_reason,
        size: Some(row.size.unwrap_or(0).into()),
        display_name: row.display_name,
        display_description: row.display_description,
        service_metadata: row.service_metadata,
        service: row.service,
        object_count: Some(row.object_count.unwrap_or(0).into()),
        temp_volume_id: row.temp_volume_id,
        temp_snapshot_id: row.temp_snapshot_id,
        num_dependent_backups: Some(row.num_dependent_backups.unwrap_or(0).into()),
        snapshot_id: row.snapshot_id,
        data_timestamp: utc(row.data_timestamp),
        restore_volume_id: row.restore_volume_id,
        metadata: None,
        encryption_key_id: row.encryption_key_id,
        created_at: utc(row.created_at),
        updated_at: utc(row.updated_at),
        deleted_at: utc(row.deleted_at),
        deleted: row.deleted,
    })
}

/// Reads a volume's row.
///
/// # Errors
/// `Row` if an id is none.
pub(super) fn volume(row: volumes::Model) -> Result<Volume> {
    let column = Column {
        table: "volumes",
        id: &row.id,
    };
    Ok(Volume {
        id: column.parse("id", &row.id)?,
        name_id: column.optional("_name_id", row.name_id.as_deref())?,
        ec2_id: row.ec2_id,
        user_id: row.user_id,
        project_id: row.project_id,
        use_quota: counted(row.use_quota),
        snapshot_id: row.snapshot_id,
        cluster_name: row.cluster_name,
        host: row.host,
        size: row.size.map(i64::from),
        availability_zone: row.availability_zone,
        status: row.status.map(Into::into),
        attach_status: row.attach_status,
        migration_status: row.migration_status,
        scheduled_at: utc(row.scheduled_at),
        launched_at: utc(row.launched_at),
        terminated_at: utc(row.terminated_at),
        display_name: row.display_name,
        display_description: row.display_description,
        provider_id: row.provider_id,
        provider_location: row.provider_location,
        provider_auth: row.provider_auth.map(|auth| Hidden::new(auth.0)),
        provider_geometry: row.provider_geometry,
        volume_type_id: row.volume_type_id,
        source_volid: row.source_volid,
        encryption_key_id: row.encryption_key_id,
        consistencygroup_id: row.consistencygroup_id,
        group_id: row.group_id,
        deleted: row.deleted,
        bootable: row.bootable,
        multiattach: row.multiattach,
        replication_status: row.replication_status,
        replication_extended_status: row.replication_extended_status,
        replication_driver_data: row.replication_driver_data,
        previous_status: row.previous_status.map(Into::into),
        service_uuid: row.service_uuid,
        shared_targets: row.shared_targets,
        created_at: utc(row.created_at),
        updated_at: utc(row.updated_at),
        deleted_at: utc(row.deleted_at),
        metadata: None,
        admin_metadata: None,
        volume_type: Lazy::Unset,
        volume_attachment: Lazy::Unset,
    })
}

/// Reads a snapshot's row.
///
/// # Errors
/// `Row` if an id is none.
pub(super) fn snapshot(row: snapshots::Model) -> Result<Snapshot> {
    let column = Column {
        table: "snapshots",
        id: &row.id,
    };
    Ok(Snapshot {
        id: column.parse("id", &row.id)?,
        user_id: row.user_id,
        project_id: row.project_id,
        use_quota: counted(row.use_quota),
        volume_id: Some(column.parse("volume_id", &row.volume_id)?),
        cgsnapshot_id: row.cgsnapshot_id,
        group_snapshot_id: row.group_snapshot_id,
        status: row.status.map(Into::into),
        progress: row.progress,
        volume_size: row.volume_size.map(i64::from),
        display_name: row.display_name,
        display_description: row.display_description,
        encryption_key_id: row.encryption_key_id,
        volume_type_id: row.volume_type_id,
        provider_location: row.provider_location,
        provider_id: row.provider_id,
        provider_auth: row.provider_auth.map(|auth| Hidden::new(auth.0)),
        metadata: BTreeMap::new(),
        created_at: utc(row.created_at),
        updated_at: utc(row.updated_at),
        deleted_at: utc(row.deleted_at),
        deleted: row.deleted,
    })
}

/// Reads a volume type's row.
pub(super) fn volume_type(
    row: volume_types::Model,
    extra_specs: BTreeMap<String, Option<String>>,
) -> VolumeType {
    VolumeType {
        id: row.id,
        name: row.name,
        description: row.description,
        is_public: row.is_public,
        extra_specs: Some(extra_specs),
        qos_specs_id: row.qos_specs_id,
        created_at: utc(row.created_at),
        updated_at: utc(row.updated_at),
        deleted_at: utc(row.deleted_at),
        deleted: row.deleted,
    }
}

/// The row that a column is read from, for the error.
struct Column<'a> {
    table: &'static str,
    id: &'a str,
}

impl Column<'_> {
    fn parse<T: FromStr>(&self, name: &'static str, text: &str) -> Result<T> {
        text.parse().map_err(|_| Error::Row {
            table: self.table,
            id: self.id.to_owned(),
            column: name,
        })
    }

    /// An empty text is none: Cinder's API writes both.
    fn optional<T: FromStr>(&self, name: &'static str, text: Option<&str>) -> Result<Option<T>> {
        text.filter(|text| !text.is_empty())
            .map(|text| self.parse(name, text))
            .transpose()
    }
}

/// Whether a volume or a snapshot counts against the quota. Cinder 21 to 23 may have rows from before the
/// column, which count.
fn counted(use_quota: Option<bool>) -> bool {
    use_quota.unwrap_or(true)
}

fn utc(time: Option<NaiveDateTime>) -> Option<DateTime<Utc>> {
    time.map(|time| time.and_utc())
}
