//! What happens to backups, and what follows from it.

use std::fmt;

use super::status::{BackupStatus, SnapshotStatus, VolumeStatus};
use crate::messaging::Failure;
use crate::user_message::Detail;

/// What is being backed up, with the statuses that its row has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// The volume.
    Volume {
        /// `volumes.status`.
        status: &'a VolumeStatus,
        /// `volumes.previous_status`.
        previous: Option<&'a VolumeStatus>,
    },
    /// A snapshot of the volume; the volume's own status does not matter then.
    Snapshot {
        /// `snapshots.status`.
        status: &'a SnapshotStatus,
    },
    /// Its row is gone.
    Gone,
}

/// What happens to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// `create_backup` arrived.
    Create {
        /// What is to be backed up.
        source: Source<'a>,
        /// Whether the driver works.
        service_up: bool,
    },
    /// `continue_backup` arrived.
    Continue,
    /// The data are complete.
    CreateSucceeded {
        /// What was backed up.
        source: Source<'a>,
    },
    /// Something went wrong between `create_backup` and the end.
    CreateFailed {
        /// What was to be backed up.
        source: Source<'a>,
        /// Why.
        reason: &'a str,
        /// Whether the data may be complete all the same: the end could not be written, or what
        /// failed is not what makes it.
        may_be_complete: bool,
    },
    /// `restore_backup` arrived.
    Restore {
        /// `volumes.status` of the volume to restore to.
        target: &'a VolumeStatus,
    },
    /// The data are on the volume.
    RestoreSucceeded,
    /// Something went wrong after the restore began.
    RestoreFailed,
    /// `delete_backup` arrived.
    Delete {
        /// Whether the driver works.
        service_up: bool,
    },
    /// The data is gone, and the row goes.
    DeleteSucceeded {
        /// What waits for the end of this backup, if it was deleted while it was being made.
        source: Source<'a>,
    },
    /// Something went wrong after the delete began.
    DeleteFailed {
        /// Why.
        reason: &'a str,
    },
    /// The data is gone, and the key stays.
    KeyDeleteFailed {
        /// Why.
        reason: &'a str,
    },
    /// `export_record` arrived.
    Export,
    /// `import_record` arrived.
    Import,
    /// The record stands in the rows.
    ImportSucceeded,
    /// The record cannot be imported.
    ImportFailed {
        /// Why.
        reason: &'a str,
    },
    /// `reset_status` arrived.
    Reset {
        /// The status that the operator wants.
        to: BackupStatus,
    },
    /// The worker starts and finds the backup without a living owner.
    Interrupted {
        /// The volume or snapshot of a backup that was being made, the target of a restore.
        source: Source<'a>,
        /// Whether the backup has a key that only a user's token can delete.
        encrypted: bool,
    },
}

/// What is to be written. `None` leaves a value as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `backups.status`.
    pub backup: Option<BackupStatus>,
    /// `backups.fail_reason`; the column holds 255 characters.
    pub fail_reason: Option<String>,
    /// The volume, source or target.
    pub volume: Option<VolumeChange>,
    /// `snapshots.status`.
    pub snapshot: Option<SnapshotStatus>,
}

impl Change {
    pub(super) fn of_backup(status: BackupStatus) -> Self {
        Self {
            backup: Some(status),
            ..Self::default()
        }
    }

    pub(super) fn of_volume(status: VolumeStatus) -> Self {
        Self {
            volume: Some(VolumeChange {
                status,
                previous: None,
            }),
            ..Self::default()
        }
    }

    pub(super) fn failed(reason: &str) -> Self {
        Self {
            fail_reason: Some(reason.to_owned()),
            ..Self::of_backup(BackupStatus::Error)
        }
    }
}

/// A change of a volume's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeChange {
    /// `volumes.status`.
    pub status: VolumeStatus,
    /// `volumes.previous_status`, if it changes too.
    pub previous: Option<VolumeStatus>,
}

/// The operation is not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is to be written all the same.
    pub change: Box<Change>,
    /// What the user is told, if anything.
    pub detail: Option<Detail>,
    /// What is wrong.
    pub blame: Blame,
    /// Why, in Cinder's words.
    pub reason: String,
}

/// Whose status is not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The backup's, or the service itself.
    Backup,
    /// The volume's.
    Volume,
    /// The snapshot's.
    Snapshot,
}

impl Refusal {
    /// A refusal that changes nothing and tells the user nothing.
    pub(super) fn new(blame: Blame, reason: String) -> Self {
        Self {
            change: Box::default(),
            detail: None,
            blame,
            reason,
        }
    }

    /// The exception for the log, and for the caller if there is one.
    pub fn failure(&self) -> Failure {
        match self.blame {
            Blame::Backup => Failure::invalid_backup(&self.reason),
            Blame::Volume => Failure::invalid_volume(&self.reason),
            Blame::Snapshot => Failure::invalid_snapshot(&self.reason),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failure().message)
    }
}

impl std::error::Error for Refusal {}
