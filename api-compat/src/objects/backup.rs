//! `Backup` 1.7, its twin `BackupImport`, and `BackupDeviceInfo` 1.0 (cinder/objects/backup.py).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::date;
use super::envelope::{Lazy, WireObject};
use super::snapshot::Snapshot;
use super::version::Version;
use super::volume::Volume;
use crate::ids::{BackupId, VolumeId};
use crate::state::BackupStatus;

/// A row of `backups`, as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// `backups.id`.
    pub id: BackupId,
    /// Who made it.
    pub user_id: String,
    /// Whose quota it counts against.
    pub project_id: String,
    /// The volume that it was made of; all zeros while a record is being imported.
    pub volume_id: VolumeId,
    /// The host whose worker is, or was last, in charge.
    pub host: Option<String>,
    /// Where workers must be to be asked for it.
    pub availability_zone: Option<String>,
    /// For Ceph: the pool. Comes from the user unchecked.
    pub container: Option<String>,
    /// The backup that this one is a difference to.
    pub parent_id: Option<BackupId>,
    /// That backup itself. The API sends it with a create; after a read from the database it is
    /// not loaded.
    #[serde(default, skip_serializing_if = "Lazy::is_unset")]
    pub parent: Lazy<Backup>,
    /// Where it stands.
    pub status: Option<BackupStatus>,
    /// Why it failed.
    pub fail_reason: Option<String>,
    /// GiB.
    pub size: Option<i64>,
    /// The user's name for it.
    pub display_name: Option<String>,
    /// The user's description.
    pub display_description: Option<String>,
    /// See [`crate::service_metadata`].
    pub service_metadata: Option<String>,
    /// The driver that made it, as `backup_driver` names it.
    pub service: Option<String>,
    /// Not used by the Ceph driver.
    pub object_count: Option<i64>,
    /// A volume that cinder-volume made only for this backup.
    pub temp_volume_id: Option<String>,
    /// A snapshot that cinder-volume made only for this backup.
    pub temp_snapshot_id: Option<String>,
    /// How many backups have this one as their parent.
    pub num_dependent_backups: Option<i64>,
    /// The snapshot that it was made of, if it was.
    pub snapshot_id: Option<String>,
    /// The moment that its data are of.
    #[serde(default, with = "date")]
    pub data_timestamp: Option<DateTime<Utc>>,
    /// The volume that it is being, or was last, restored to.
    pub restore_volume_id: Option<String>,
    /// The user's key-value pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// The backup's own copy of the volume's key.
    pub encryption_key_id: Option<String>,
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
    #[serde(default)]
    pub deleted: Option<bool>,
}

impl WireObject for Backup {
    const NAME: &'static str = "Backup";
    const VERSION: Version = Version::new(1, 7);
}

/// A backup whose record is being imported. The same fields under another name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackupImport(pub Backup);

impl WireObject for BackupImport {
    const NAME: &'static str = "BackupImport";
    const VERSION: Version = Version::new(1, 7);
}

/// What cinder-volume has prepared to be backed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "DeviceFields", into = "DeviceFields")]
pub struct BackupDeviceInfo {
    /// The volume or snapshot to attach.
    pub device: BackupDevice,
    /// Whether the files of that device may be used without root rights.
    pub secure_enabled: bool,
}

/// The two kinds of devices.
#[derive(Clone, Debug, PartialEq)]
pub enum BackupDevice {
    /// The volume itself, or a temporary one made from it or from a snapshot of it.
    Volume(Box<Volume>),
    /// A snapshot, possibly a temporary one.
    Snapshot(Box<Snapshot>),
}

impl WireObject for BackupDeviceInfo {
    const NAME: &'static str = "BackupDeviceInfo";
    const VERSION: Version = Version::new(1, 0);
}

/// Which of the two keys is *present* says which kind of device it is; both or none is an error.
#[derive(Clone, Serialize, Deserialize)]
struct DeviceFields {
    #[serde(default, skip_serializing_if = "Lazy::is_unset")]
    volume: Lazy<Volume>,
    #[serde(default, skip_serializing_if = "Lazy::is_unset")]
    snapshot: Lazy<Snapshot>,
    #[serde(default)]
    secure_enabled: bool,
}

impl TryFrom<DeviceFields> for BackupDeviceInfo {
    type Error = &'static str;

    fn try_from(fields: DeviceFields) -> Result<Self, Self::Error> {
        let device = match (fields.volume, fields.snapshot) {
            (Lazy::Set(volume), Lazy::Unset) => BackupDevice::Volume(volume),
            (Lazy::Unset, Lazy::Set(snapshot)) => BackupDevice::Snapshot(snapshot),
            (Lazy::Null, Lazy::Unset) | (Lazy::Unset, Lazy::Null) => {
                return Err("the device is null");
            }
            (Lazy::Unset, Lazy::Unset) => return Err("neither volume nor snapshot is set"),
            _ => return Err("volume and snapshot are both set"),
        };
        Ok(Self {
            device,
            secure_enabled: fields.secure_enabled,
        })
    }
}

impl From<BackupDeviceInfo> for DeviceFields {
    fn from(info: BackupDeviceInfo) -> Self {
        let (volume, snapshot) = match info.device {
            BackupDevice::Volume(volume) => (Lazy::Set(volume), Lazy::Unset),
            BackupDevice::Snapshot(snapshot) => (Lazy::Unset, Lazy::Set(snapshot)),
        };
        Self {
            volume,
            snapshot,
            secure_enabled: info.secure_enabled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{ObjectError, ObjectHistory, decode, encode};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const ID: &str = "246c011b-8fab-4538-90c2-f0ded6b69811";

    fn sealed(name: &str, data: Value) -> Value {
        json!({
            "versioned_object.name": name, "versioned_object.namespace": "cinder",
            "versioned_object.version": "1.0", "versioned_object.data": data,
        })
    }

    fn backup(parent: Option<Value>) -> Value {
        let mut data = json!({"id": ID, "user_id": "u", "project_id": "p", "volume_id": ID});
        if let Some(parent) = parent {
            data["parent"] = parent;
        }
        sealed("Backup", data)
    }

    fn device(data: Value) -> Result<BackupDeviceInfo, ObjectError> {
        decode(sealed("BackupDeviceInfo", data))
    }

    #[test]
    fn a_parent_is_unset_null_or_there() {
        let parent = |value| decode::<Backup>(backup(value)).unwrap().parent;
        assert_eq!(parent(None), Lazy::Unset);
        assert_eq!(parent(Some(Value::Null)), Lazy::Null);
        let there = parent(Some(backup(None)));
        assert_eq!(there.get().unwrap().id.to_string(), ID);
        assert!(decode::<Backup>(backup(Some(json!({"id": ID})))).is_err());
    }

    #[test]
    fn what_was_not_loaded_is_not_sent() {
        let keys = |value| {
            let backup: Backup = decode(value).unwrap();
            encode(&backup, ObjectHistory::V1_39)["versioned_object.data"].clone()
        };
        assert_eq!(keys(backup(None)).get("parent"), None);
        assert_eq!(keys(backup(None)).get("metadata"), None);
        assert_eq!(
            keys(backup(Some(Value::Null))).get("parent"),
            Some(&Value::Null)
        );
    }

    #[test]
    fn required_fields_are_required() {
        for field in ["id", "user_id", "project_id", "volume_id"] {
            for broken in [None, Some(Value::Null), Some(json!(7)), Some(json!({}))] {
                let mut value = backup(None);
                let data = value["versioned_object.data"].as_object_mut().unwrap();
                match broken {
                    Some(broken) => data.insert(field.to_owned(), broken),
                    None => data.remove(field),
                };
                assert!(decode::<Backup>(value).is_err(), "{field}");
            }
        }
    }

    #[test]
    fn presence_says_which_kind_of_device_it_is() {
        let volume = || sealed("Volume", json!({"id": ID}));
        let snapshot = || sealed("Snapshot", json!({"id": ID}));
        let of_volume = device(json!({"volume": volume()})).unwrap();
        assert!(matches!(of_volume.device, BackupDevice::Volume(_)));
        assert!(!of_volume.secure_enabled);
        let of_snapshot = device(json!({"snapshot": snapshot(), "secure_enabled": true})).unwrap();
        assert!(matches!(of_snapshot.device, BackupDevice::Snapshot(_)));
        assert!(of_snapshot.secure_enabled);
        for data in [
            json!({}),
            json!({"volume": null}),
            json!({"snapshot": null}),
            json!({"volume": volume(), "snapshot": null}),
            json!({"volume": volume(), "snapshot": snapshot()}),
            json!({"volume": snapshot()}),
        ] {
            assert!(device(data.clone()).is_err(), "{data} was accepted");
        }
    }

    #[test]
    fn debug_hides_the_drivers_credentials() {
        let volume = sealed("Volume", json!({"id": ID, "provider_auth": "CHAP hunter2"}));
        let shown = format!("{:?}", device(json!({"volume": volume})).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    prop_compose! {
        fn any_backup()(
            ids: (u128, u128, Option<u128>), texts: [Option<String>; 4], size: Option<i64>,
            status in 0..BackupStatus::ALL.len(), seconds in 0_i64..4_000_000_000,
            metadata: Option<BTreeMap<String, String>>,
        ) -> Backup {
            let mut backup: Backup = decode(backup(None)).unwrap();
            let [host, container, display_name, fail_reason] = texts;
            backup.id = uuid::Uuid::from_u128(ids.0).into();
            backup.volume_id = uuid::Uuid::from_u128(ids.1).into();
            backup.parent_id = ids.2.map(|id| uuid::Uuid::from_u128(id).into());
            backup.status = Some(BackupStatus::ALL[status]);
            backup.created_at = DateTime::from_timestamp(seconds, 0);
            Backup { host, container, display_name, fail_reason, size, metadata, ..backup }
        }
    }

    proptest! {
        #[test]
        fn round_trip(parent in any_backup(), child in any_backup()) {
            let backup = Backup { parent: Lazy::Set(Box::new(parent)), ..child };
            let sent = encode(&backup, ObjectHistory::V1_39);
            prop_assert_eq!(decode::<Backup>(sent).unwrap(), backup);
        }
    }
}
