//! `Volume` 1.9 with its attachments and its type (cinder/objects/volume.py,
//! volume_attachment.py, volume_type.py).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::date;
use super::envelope::{self, Lazy, WireObject};
use super::version::Version;
use crate::hidden::Hidden;
use crate::ids::VolumeId;
use crate::state::VolumeStatus;

/// A row of `volumes`, as it travels.
///
/// When it is sent, all fields up to `shared_targets` must be there: a receiver can look up only
/// those after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// `volumes.id`.
    pub id: VolumeId,
    /// The id under which the volume is stored, if a migration made it another than `id`.
    #[serde(rename = "_name_id")]
    pub name_id: Option<VolumeId>,
    /// Kept for EC2.
    pub ec2_id: Option<String>,
    /// Whose it is.
    pub user_id: Option<String>,
    /// Whose quota it counts against.
    pub project_id: Option<String>,
    /// Whether it counts against a quota; temporary volumes do not. Since 1.9.
    #[serde(default = "yes")]
    pub use_quota: bool,
    /// The snapshot that it was made from.
    pub snapshot_id: Option<String>,
    /// The cluster whose members serve it.
    pub cluster_name: Option<String>,
    /// Who serves it: `host@backend#pool`.
    pub host: Option<String>,
    /// GiB.
    pub size: Option<i64>,
    /// Its availability zone.
    pub availability_zone: Option<String>,
    /// Where it stands.
    pub status: Option<VolumeStatus>,
    /// `attached`, `detached`, …
    pub attach_status: Option<String>,
    /// Where a migration of it stands.
    pub migration_status: Option<String>,
    /// When a host was found for it.
    #[serde(default, with = "date")]
    pub scheduled_at: Option<DateTime<Utc>>,
    /// When it became usable.
    #[serde(default, with = "date")]
    pub launched_at: Option<DateTime<Utc>>,
    /// When its deletion began.
    #[serde(default, with = "date")]
    pub terminated_at: Option<DateTime<Utc>>,
    /// The user's name for it.
    pub display_name: Option<String>,
    /// The user's description.
    pub display_description: Option<String>,
    /// Its driver's own id.
    pub provider_id: Option<String>,
    /// Its driver's own address.
    pub provider_location: Option<String>,
    /// Its driver's credentials (CHAP).
    pub provider_auth: Option<Hidden<String>>,
    /// Its driver's geometry.
    pub provider_geometry: Option<String>,
    /// Its type.
    pub volume_type_id: Option<String>,
    /// The volume that it was cloned from.
    pub source_volid: Option<String>,
    /// Its key, if it is encrypted.
    pub encryption_key_id: Option<String>,
    /// Its consistency group.
    pub consistencygroup_id: Option<String>,
    /// Its group.
    pub group_id: Option<String>,
    /// Whether the row is marked as deleted.
    pub deleted: Option<bool>,
    /// Whether a server can boot from it.
    pub bootable: Option<bool>,
    /// Whether several servers may attach it.
    pub multiattach: Option<bool>,
    /// Where its replication stands.
    pub replication_status: Option<String>,
    /// More about its replication.
    pub replication_extended_status: Option<String>,
    /// What its driver keeps about its replication.
    pub replication_driver_data: Option<String>,
    /// The status before a backup began, and afterwards how the backup went.
    pub previous_status: Option<VolumeStatus>,
    /// The service that serves it.
    pub service_uuid: Option<String>,
    /// Whether its driver shares targets between volumes.
    pub shared_targets: Option<bool>,
    /// When the row was made.
    #[serde(default, with = "date")]
    pub created_at: Option<DateTime<Utc>>,
    /// When the row was last changed.
    #[serde(default, with = "date")]
    pub updated_at: Option<DateTime<Utc>>,
    /// When the row was marked as deleted.
    #[serde(default, with = "date")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// The user's key-value pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// The administrator's key-value pairs; sent in contexts of administrators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_metadata: Option<BTreeMap<String, String>>,
    /// Its type itself.
    #[serde(default, skip_serializing_if = "Lazy::is_unset")]
    pub volume_type: Lazy<VolumeType>,
    /// Who has it attached.
    #[serde(default, skip_serializing_if = "Lazy::is_unset")]
    pub volume_attachment: Lazy<VolumeAttachmentList>,
}

fn yes() -> bool {
    true
}

impl Volume {
    /// Who serves it: the cluster if there is one, else the host
    /// (cinder/objects/base.py, `service_topic_queue`).
    pub fn service_topic_queue(&self) -> Option<&str> {
        self.cluster_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .or(self.host.as_deref())
    }
}

impl WireObject for Volume {
    const NAME: &'static str = "Volume";
    const VERSION: Version = Version::new(1, 9);
}

/// A row of `volume_types`, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeType {
    /// `volume_types.id`.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Whether every project may use it.
    pub is_public: Option<bool>,
    /// What it asks of a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_specs: Option<BTreeMap<String, Option<String>>>,
    /// Its QoS.
    pub qos_specs_id: Option<String>,
    /// When the row was made.
    #[serde(default, with = "date")]
    pub created_at: Option<DateTime<Utc>>,
    /// When the row was last changed.
    #[serde(default, with = "date")]
    pub updated_at: Option<DateTime<Utc>>,
    /// When the row was marked as deleted.
    #[serde(default, with = "date")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// Whether the row is marked as deleted.
    pub deleted: Option<bool>,
}

impl WireObject for VolumeType {
    const NAME: &'static str = "VolumeType";
    const VERSION: Version = Version::new(1, 3);
}

/// A row of `volume_attachment`, as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeAttachment {
    /// `volume_attachment.id`.
    pub id: String,
    /// The volume.
    pub volume_id: VolumeId,
    /// The server; none if a host of Cinder's has it attached.
    pub instance_uuid: Option<String>,
    /// The host.
    pub attached_host: Option<String>,
    /// The device's name in the server.
    pub mountpoint: Option<String>,
    /// Since when.
    #[serde(default, with = "date")]
    pub attach_time: Option<DateTime<Utc>>,
    /// Until when.
    #[serde(default, with = "date")]
    pub detach_time: Option<DateTime<Utc>>,
    /// `attached`, `reserved`, …
    pub attach_status: Option<String>,
    /// `rw`, `ro` or the text `null`.
    pub attach_mode: Option<String>,
    /// How the host reaches the device.
    #[serde(default)]
    pub connection_info: Hidden<Value>,
    /// How the host describes itself.
    #[serde(default)]
    pub connector: Hidden<Value>,
    /// When the row was made.
    #[serde(default, with = "date")]
    pub created_at: Option<DateTime<Utc>>,
    /// When the row was last changed.
    #[serde(default, with = "date")]
    pub updated_at: Option<DateTime<Utc>>,
    /// When the row was marked as deleted.
    #[serde(default, with = "date")]
    pub deleted_at: Option<DateTime<Utc>>,
    /// Whether the row is marked as deleted.
    pub deleted: Option<bool>,
}

impl WireObject for VolumeAttachment {
    const NAME: &'static str = "VolumeAttachment";
    const VERSION: Version = Version::new(1, 3);
}

/// All attachments of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeAttachmentList {
    /// The attachments.
    #[serde(with = "envelope::list")]
    pub objects: Vec<VolumeAttachment>,
}

impl WireObject for VolumeAttachmentList {
    const NAME: &'static str = "VolumeAttachmentList";
    const VERSION: Version = Version::new(1, 1);
}
