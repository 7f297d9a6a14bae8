//! User messages: rows of `messages`, by which a user learns why an asynchronous operation failed
//! (cinder/message/message_field.py, cinder/message/api.py).

use crate::ids::{BackupId, VolumeId};

/// What the user had asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create a backup.
    Create,
    /// Delete a backup.
    Delete,
    /// Restore a backup.
    Restore,
}

impl Action {
    /// `messages.action_id`.
    pub fn id(self) -> &'static str {
        match self {
            Self::Create => "013",
            Self::Delete => "014",
            Self::Restore => "015",
        }
    }

    /// Its text, as it travels in a request's context.
    pub fn text(self) -> &'static str {
        match self {
            Self::Create => "create backup",
            Self::Delete => "delete backup",
            Self::Restore => "restore backup",
        }
    }
}

/// What went wrong. The API turns the id into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing more is known.
    UnknownError,
    /// The backup's status does not allow the operation.
    BackupInvalidState,
    /// The driver is not initialised.
    BackupServiceDown,
    /// cinder-volume did not prepare the source of the backup.
    BackupCreateDeviceError,
    /// The backup could not be written.
    BackupCreateDriverError,
    /// The volume could not be attached.
    AttachError,
    /// The volume could not be detached.
    DetachError,
    /// A temporary volume or snapshot could not be removed.
    BackupCreateCleanupError,
    /// The backup could not be deleted.
    BackupDeleteDriverError,
    /// The backup could not be restored.
    BackupRestoreError,
    /// The volume's status does not allow the operation.
    VolumeInvalidState,
    /// An incremental backup was asked for and a full one is made.
    IncrementalForcesFull,
}

impl Detail {
    /// `messages.detail_id`.
    pub fn id(self) -> &'static str {
        match self {
            Self::UnknownError => "001",
            Self::BackupInvalidState => "017",
            Self::BackupServiceDown => "018",
            Self::BackupCreateDeviceError => "019",
            Self::BackupCreateDriverError => "020",
            Self::AttachError => "021",
            Self::DetachError => "022",
            Self::BackupCreateCleanupError => "023",
            Self::BackupDeleteDriverError => "025",
            Self::BackupRestoreError => "026",
            Self::VolumeInvalidState => "027",
            Self::IncrementalForcesFull => "030",
        }
    }

    /// `messages.message_level`.
    pub fn level(self) -> &'static str {
        match self {
            Self::IncrementalForcesFull => "WARNING",
            _ => "ERROR",
        }
    }
}

/// The kind of thing that a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    /// A backup.
    Backup,
    /// A volume.
    Volume,
}

impl ResourceType {
    /// `messages.resource_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "VOLUME_BACKUP",
            Self::Volume => "VOLUME",
        }
    }
}

/// A message, ready to be stored. The row's id, project, request id and expiry are the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMessage {
    /// What was asked for.
    pub action: Action,
    /// What went wrong.
    pub detail: Detail,
    /// What it is about.
    pub resource_type: ResourceType,
    /// The id of what it is about.
    pub resource_uuid: String,
}

impl UserMessage {
    /// A message about a backup.
    pub fn about_backup(action: Action, detail: Detail, id: BackupId) -> Self {
        Self {
            action,
            detail,
            resource_type: ResourceType::Backup,
            resource_uuid: id.to_string(),
        }
    }

    /// A message about a volume.
    pub fn about_volume(action: Action, detail: Detail, id: VolumeId) -> Self {
        Self {
            action,
            detail,
            resource_type: ResourceType::Volume,
            resource_uuid: id.to_string(),
        }
    }

    /// `messages.event_id`, for instance `VOLUME_VOLUME_BACKUP_013_020`.
    pub fn event_id(&self) -> String {
        let resource = self.resource_type.as_str();
        let (action, detail) = (self.action.id(), self.detail.id());
        format!("VOLUME_{resource}_{action}_{detail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn event_ids_are_those_of_recorded_rows() {
        let backup = BackupId::from(Uuid::nil());
        let message =
            UserMessage::about_backup(Action::Create, Detail::BackupCreateDriverError, backup);
        assert_eq!(message.event_id(), "VOLUME_VOLUME_BACKUP_013_020");
        let volume = VolumeId::from(Uuid::nil());
        let message =
            UserMessage::about_volume(Action::Create, Detail::IncrementalForcesFull, volume);
        assert_eq!(message.event_id(), "VOLUME_VOLUME_013_030");
        assert_eq!(message.detail.level(), "WARNING");
    }
}
