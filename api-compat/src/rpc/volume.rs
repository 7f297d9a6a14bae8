//! What we ask of cinder-volume (cinder/volume/rpcapi.py).

use serde_json::{Value, json};

use super::outgoing::{Destination, Kind, Outgoing};
use crate::ids::{SnapshotId, VolumeId};
use crate::objects::{self, Backup, ObjectHistory, Snapshot, Volume};

/// The routing key of the cinder-volume that serves a resource: for `host@backend#pool` it is
/// `cinder-volume.host@backend.host` (`VolumeAPI._get_cctxt`, cinder/volume/rpcapi.py).
pub fn volume_topic(service_topic_queue: &str) -> String {
    let backend = before(service_topic_queue, '#');
    let host = before(backend, '@');
    format!("cinder-volume.{backend}.{host}")
}

fn before(text: &str, separator: char) -> &str {
    text.split_once(separator)
        .map_or(text, |(before, _)| before)
}

/// The requests to one cinder-volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeApi {
    routing_key: String,
    history: ObjectHistory,
}

impl VolumeApi {
    /// `service_topic_queue` is the resource's ([`Volume::service_topic_queue`]); `history` what
    /// the fleet understands ([`super::version::object_history`]).
    pub fn new(service_topic_queue: &str, history: ObjectHistory) -> Self {
        Self {
            routing_key: volume_topic(service_topic_queue),
            history,
        }
    }

    /// Prepare what is to be backed up and cast `continue_backup` to the backup's host.
    pub fn get_backup_device(&self, backup: &Backup) -> Outgoing {
        let backup = objects::encode(backup, self.history);
        self.request(
            Kind::Cast,
            "get_backup_device",
            "3.17",
            [
                ("backup", backup),
                ("want_objects", json!(true)),
                ("async_call", json!(true)),
            ],
        )
    }

    /// How can this host reach the volume? The answer is a [`super::ConnectionInfo`].
    pub fn initialize_connection(&self, volume: &Volume, connector: Value) -> Outgoing {
        let volume = objects::encode(volume, self.history);
        let args = [("connector", connector), ("volume", volume)];
        self.request(Kind::Call, "initialize_connection", "3.0", args)
    }

    /// This host no longer uses the volume.
    pub fn terminate_connection(&self, id: VolumeId, connector: Value, force: bool) -> Outgoing {
        self.request(
            Kind::Call,
            "terminate_connection",
            "3.0",
            [
                ("volume_id", json!(id)),
                ("connector", connector),
                ("force", json!(force)),
            ],
        )
    }

    /// Nobody needs the volume's export any more.
    pub fn remove_export(&self, id: VolumeId) -> Outgoing {
        let args = [("volume_id", json!(id))];
        self.request(Kind::Call, "remove_export", "3.0", args)
    }

    /// How can this host reach the snapshot?
    pub fn initialize_connection_snapshot(&self, id: SnapshotId, connector: Value) -> Outgoing {
        let args = [("snapshot_id", json!(id)), ("connector", connector)];
        self.request(Kind::Call, "initialize_connection_snapshot", "3.13", args)
    }

    /// This host no longer uses the snapshot.
    pub fn terminate_connection_snapshot(
        &self,
        id: SnapshotId,
        connector: Value,
        force: bool,
    ) -> Outgoing {
        self.request(
            Kind::Call,
            "terminate_connection_snapshot",
            "3.13",
            [
                ("snapshot_id", json!(id)),
                ("connector", connector),
                ("force", json!(force)),
            ],
        )
    }

    /// Nobody needs the snapshot's export any more.
    pub fn remove_export_snapshot(&self, id: SnapshotId) -> Outgoing {
        let args = [("snapshot_id", json!(id))];
        self.request(Kind::Call, "remove_export_snapshot", "3.13", args)
    }

    /// May the volume's files be used without root rights?
    pub fn secure_file_operations_enabled(&self, volume: &Volume) -> Outgoing {
        let args = [("volume", objects::encode(volume, self.history))];
        self.request(Kind::Call, "secure_file_operations_enabled", "3.0", args)
    }

    /// Delete a temporary volume.
    pub fn delete_volume(&self, volume: &Volume) -> Outgoing {
        self.request(
            Kind::Cast,
            "delete_volume",
            "3.0",
            [
                ("volume", objects::encode(volume, self.history)),
                ("unmanage_only", json!(false)),
                ("cascade", json!(false)),
            ],
        )
    }

    /// Delete a temporary snapshot. The routing key must be its volume's.
    pub fn delete_snapshot(&self, snapshot: &Snapshot) -> Outgoing {
        self.request(
            Kind::Cast,
            "delete_snapshot",
            "3.0",
            [
                ("snapshot", objects::encode(snapshot, self.history)),
                ("unmanage_only", json!(false)),
            ],
        )
    }

    /// Forget an attachment of this host's that nobody ended.
    pub fn detach_volume(&self, volume: &Volume, attachment_id: &str) -> Outgoing {
        self.request(
            Kind::Call,
            "detach_volume",
            "3.4",
            [
                ("volume_id", json!(volume.id)),
                ("attachment_id", json!(attachment_id)),
                ("volume", objects::encode(volume, self.history)),
            ],
        )
    }

    fn request<const N: usize>(
        &self,
        kind: Kind,
        method: &'static str,
        version: &'static str,
        args: [(&str, Value); N],
    ) -> Outgoing {
        let destination = Destination::Topic(self.routing_key.clone());
        Outgoing::new(destination, kind, method, version, args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_keys_are_cinders() {
        for (queue, key) in [
            ("volhost@ceph#pool", "cinder-volume.volhost@ceph.volhost"),
            (
                "rbd:volumes@rbd-1#rbd-1",
                "cinder-volume.rbd:volumes@rbd-1.rbd:volumes",
            ),
            ("cluster@ceph", "cinder-volume.cluster@ceph.cluster"),
            ("host", "cinder-volume.host.host"),
        ] {
            assert_eq!(volume_topic(queue), key);
        }
    }

    #[test]
    fn every_request_goes_to_the_same_service() {
        let api = VolumeApi::new("h@b#p", ObjectHistory::V1_39);
        let id = uuid::Uuid::nil();
        for request in [
            api.terminate_connection(id.into(), json!({}), true),
            api.remove_export(id.into()),
            api.initialize_connection_snapshot(id.into(), json!({})),
            api.terminate_connection_snapshot(id.into(), json!({}), false),
            api.remove_export_snapshot(id.into()),
        ] {
            let key = Destination::Topic("cinder-volume.h@b.h".into());
            assert_eq!(request.destination, key);
            assert_eq!(request.kind, Kind::Call);
        }
    }
}
