//! The columns of a volume's row, as Python writes them.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Serialize, Serializer};

use crate::hidden::Hidden;
use crate::objects::Volume;

/// Every column of a volume's row, in the order in which Python writes them. Datetimes are UTC.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(
    missing_docs,
    reason = "the names are those of the columns of `volumes`"
)]
pub struct VolumeColumns {
    pub id: String,
    pub _name_id: Option<String>,
    pub use_quota: bool,
    pub ec2_id: Option<String>,
    pub user_id: Option<String>,
    pub project_id: Option<String>,
    pub snapshot_id: Option<String>,
    pub cluster_name: Option<String>,
    pub host: Option<String>,
    pub size: Option<i64>,
    pub availability_zone: Option<String>,
    pub status: Option<String>,
    pub attach_status: Option<String>,
    pub migration_status: Option<String>,
    #[serde(serialize_with = "date")]
    pub scheduled_at: Option<NaiveDateTime>,
    #[serde(serialize_with = "date")]
    pub launched_at: Option<NaiveDateTime>,
    #[serde(serialize_with = "date")]
    pub terminated_at: Option<NaiveDateTime>,
    pub display_name: Option<String>,
    pub display_description: Option<String>,
    pub provider_location: Option<String>,
    pub provider_auth: Option<Hidden<String>>,
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
    #[serde(serialize_with = "date")]
    pub deleted_at: Option<NaiveDateTime>,
    pub deleted: Option<bool>,
    #[serde(serialize_with = "date")]
    pub created_at: Option<NaiveDateTime>,
    #[serde(serialize_with = "date")]
    pub updated_at: Option<NaiveDateTime>,
}

/// Microseconds always, no zone (oslo_serialization `jsonutils.to_primitive`).
fn date<S: Serializer>(time: &Option<NaiveDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&time.format("%Y-%m-%dT%H:%M:%S%.6f")),
        None => serializer.serialize_none(),
    }
}

impl From<&Volume> for VolumeColumns {
    fn from(volume: &Volume) -> Self {
        let naive = |time: Option<DateTime<Utc>>| time.map(|time| time.naive_utc());
        Self {
            id: volume.id.to_string(),
            _name_id: volume.name_id.map(String::from),
            use_quota: volume.use_quota,
            ec2_id: volume.ec2_id.clone(),
            user_id: volume.user_id.clone(),
            project_id: volume.project_id.clone(),
            snapshot_id: volume.snapshot_id.clone(),
            cluster_name: volume.cluster_name.clone(),
            host: volume.host.clone(),
            size: volume.size,
            availability_zone: volume.availability_zone.clone(),
            status: volume.status.clone().map(String::from),
            attach_status: volume.attach_status.clone(),
            migration_status: volume.migration_status.clone(),
            scheduled_at: naive(volume.scheduled_at),
            launched_at: naive(volume.launched_at),
            terminated_at: naive(volume.terminated_at),
            display_name: volume.display_name.clone(),
            display_description: volume.display_description.clone(),
            provider_location: volume.provider_location.clone(),
            provider_auth: volume.provider_auth.clone(),
            provider_geometry: volume.provider_geometry.clone(),
            provider_id: volume.provider_id.clone(),
            volume_type_id: volume.volume_type_id.clone(),
            source_volid: volume.source_volid.clone(),
            encryption_key_id: volume.encryption_key_id.clone(),
            consistencygroup_id: volume.consistencygroup_id.clone(),
            group_id: volume.group_id.clone(),
            bootable: volume.bootable,
            multiattach: volume.multiattach,
            replication_status: volume.replication_status.clone(),
            replication_extended_status: volume.replication_extended_status.clone(),
            replication_driver_data: volume.replication_driver_data.clone(),
            previous_status: volume.previous_status.clone().map(String::from),
            service_uuid: volume.service_uuid.clone(),
            shared_targets: volume.shared_targets,
            deleted_at: naive(volume.deleted_at),
            deleted: volume.deleted,
            created_at: naive(volume.created_at),
            updated_at: naive(volume.updated_at),
        }
    }
}
