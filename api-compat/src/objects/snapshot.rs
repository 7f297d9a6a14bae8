//! `Snapshot` 1.6 (cinder/objects/snapshot.py).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::date;
use super::envelope::WireObject;
use super::version::Version;
use crate::hidden::Hidden;
use crate::ids::{SnapshotId, VolumeId};
use crate::state::SnapshotStatus;

/// A row of `snapshots`, as it travels. Its volume, through which it is reached, is looked up by
/// its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `snapshots.id`.
    pub id: SnapshotId,
    /// Whose it is.
    pub user_id: Option<String>,
    /// Whose quota it counts against.
    pub project_id: Option<String>,
    /// Whether it counts against a quota; temporary snapshots do not. Since 1.6.
    #[serde(default = "yes")]
    pub use_quota: bool,
    /// The volume.
    pub volume_id: Option<VolumeId>,
    /// Its consistency group snapshot.
    pub cgsnapshot_id: Option<String>,
    /// Its group snapshot.
    pub group_snapshot_id: Option<String>,
    /// Where it stands.
    pub status: Option<SnapshotStatus>,
    /// How far its creation has come, for instance `100%`.
    pub progress: Option<String>,
    /// GiB.
    pub volume_size: Option<i64>,
    /// The user's name for it.
    pub display_name: Option<String>,
    /// The user's description.
    pub display_description: Option<String>,
    /// The volume's key, if it is encrypted.
    pub encryption_key_id: Option<String>,
    /// The volume's type.
    pub volume_type_id: Option<String>,
    /// Its driver's own address.
    pub provider_location: Option<String>,
    /// Its driver's own id.
    pub provider_id: Option<String>,
    /// Its driver's credentials.
    pub provider_auth: Option<Hidden<String>>,
    /// The user's key-value pairs.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
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

fn yes() -> bool {
    true
}

impl WireObject for Snapshot {
    const NAME: &'static str = "Snapshot";
    const VERSION: Version = Version::new(1, 6);
}
