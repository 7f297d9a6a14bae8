//! Notifications: what telemetry and billing get to hear of a backup (cinder/volume/
//! volume_utils.py, `notify_about_backup_usage`; oslo_messaging/notify).

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::messaging::request::hex_id;
use crate::messaging::{RequestContext, envelope};
use crate::objects::Backup;

/// What happened. None is sent for an export, an import or a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BackupEvent {
    /// A backup begins.
    CreateStart,
    /// So many per cent of it are stored (cinder/backup/chunkeddriver.py; Python's driver for Ceph sends
    /// none).
    CreateProgress(f64),
    /// A backup is complete.
    CreateEnd,
    /// A restore begins.
    RestoreStart,
    /// A restore is complete.
    RestoreEnd,
    /// A delete begins.
    DeleteStart,
    /// A backup is deleted.
    DeleteEnd,
    /// An operator has set a backup's status.
    ResetStatusEnd,
}

impl BackupEvent {
    /// `event_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateStart => "backup.create.start",
            Self::CreateProgress(_) => "backup.createprogress",
            Self::CreateEnd => "backup.create.end",
            Self::RestoreStart => "backup.restore.start",
            Self::RestoreEnd => "backup.restore.end",
            Self::DeleteStart => "backup.delete.start",
            Self::DeleteEnd => "backup.delete.end",
            Self::ResetStatusEnd => "backup.reset_status.end",
        }
    }
}

/// The two drivers of `[oslo_messaging_notifications]` that use a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `messagingv2`: in an envelope.
    V2,
    /// `messaging`: without.
    V1,
}

/// The priority of all our notifications; the queue is `<topic>.info`.
pub const PRIORITY: &str = "info";

/// A notification, before it is encoded for one of the drivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    event: BackupEvent,
    message: Map<String, Value>,
    context: Map<String, Value>,
}

impl Notification {
    /// `host` is the configured host, `message_id` a new random id.
    pub fn new(
        event: BackupEvent,
        backup: &Backup,
        host: &str,
        context: &RequestContext,
        message_id: Uuid,
        now: DateTime<Utc>,
    ) -> Self {
        let mut message = Map::new();
        let mut put = |key: &str, value: Value| message.insert(key.to_owned(), value);
        put("message_id", json!(message_id));
        put("publisher_id", json!(format!("backup.{host}")));
        put("event_type", json!(event.as_str()));
        put("priority", json!("INFO"));
        put("payload", payload(event, backup));
        put(
            "timestamp",
            json!(now.format("%Y-%m-%d %H:%M:%S%.6f").to_string()),
        );
        let mut redacted = Map::new();
        context.redacted(now).put_into(&mut redacted);
        Self {
            event,
            message,
            context: redacted,
        }
    }

    /// What happened.
    pub fn event(&self) -> BackupEvent {
        self.event
    }

    /// The text that the driver `log` writes.
    pub fn to_json(&self) -> String {
        Value::Object(self.message.clone()).to_string()
    }

    /// The message's body; `unique_id` is a new random id.
    pub fn encode(&self, format: Format, unique_id: Uuid) -> Vec<u8> {
        let mut message = self.message.clone();
        message.insert("_unique_id".to_owned(), json!(hex_id(unique_id)));
        message.extend(self.context.clone());
        match format {
            Format::V2 => envelope::encode(message),
            Format::V1 => envelope::encode_bare(message),
        }
    }
}

fn payload(event: BackupEvent, backup: &Backup) -> Value {
    let mut payload = usage(backup);
    if let (BackupEvent::CreateProgress(percent), Value::Object(payload)) = (event, &mut payload) {
        payload.insert("backup_percent".to_owned(), json!(percent));
    }
    payload
}

fn usage(backup: &Backup) -> Value {
    json!({
        "tenant_id": backup.project_id,
        "user_id": backup.user_id,
        "availability_zone": backup.availability_zone,
        "backup_id": backup.id,
        "host": backup.host,
        "display_name": backup.display_name,
        "created_at": backup.created_at.map(isoformat),
        "status": backup.status,
        "volume_id": backup.volume_id,
        "size": backup.size,
        "service_metadata": backup.service_metadata,
        "service": backup.service,
        "fail_reason": backup.fail_reason,
        "parent_id": backup.parent_id,
        "num_dependent_backups": backup.num_dependent_backups,
        "snapshot_id": backup.snapshot_id,
    })
}

/// `datetime.isoformat()` of a time in UTC: microseconds only if there are any.
fn isoformat(time: DateTime<Utc>) -> String {
    let format = match time.timestamp_subsec_micros() {
        0 => "%Y-%m-%dT%H:%M:%S+00:00",
        _ => "%Y-%m-%dT%H:%M:%S%.6f+00:00",
    };
    time.format(format).to_string()
}
