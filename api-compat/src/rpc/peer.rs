//! What one backup service asks of another (cinder/backup/rpcapi.py).

use serde_json::json;

use super::backup::TOPIC;
use super::outgoing::{Destination, Kind, Outgoing};
use crate::objects::{self, Backup, BackupImport, ObjectHistory};

/// Hand on the import of a record that was made by a driver that is not ours. `remaining_hosts`
/// are those who have not been asked yet, without `host`; that one takes the last of them next.
pub fn import_record(
    host: &str,
    backup: &Backup,
    backup_service: &str,
    backup_url: &str,
    remaining_hosts: &[String],
    history: ObjectHistory,
) -> Outgoing {
    let backup = BackupImport(backup.clone());
    Outgoing::new(
        Destination::Topic(format!("{TOPIC}.{host}")),
        Kind::Cast,
        "import_record",
        "2.0",
        [
            ("backup", objects::encode(&backup, history)),
            ("backup_service", json!(backup_service)),
            ("backup_url", json!(backup_url)),
            ("backup_hosts", json!(remaining_hosts)),
        ],
    )
}
