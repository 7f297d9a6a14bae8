//! The statuses by their names in the database and on the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is not a status that a backup can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a status of a backup")]
pub struct UnknownStatus(String);

/// `backups.status`. Closed, because Python's services fail on every other value
/// (cinder/objects/fields.py).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BackupStatus {
    /// It failed.
    Error,
    /// Its deletion failed.
    ErrorDeleting,
    /// It is being made.
    Creating,
    /// It is complete.
    Available,
    /// It is being deleted.
    Deleting,
    /// It is gone.
    Deleted,
    /// It is being restored.
    Restoring,
}

impl BackupStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Error,
        Self::ErrorDeleting,
        Self::Creating,
        Self::Available,
        Self::Deleting,
        Self::Deleted,
        Self::Restoring,
    ];

    /// Those in which an operation was begun or asked for.
    pub const UNDER_WAY: [Self; 3] = [Self::Creating, Self::Deleting, Self::Restoring];

    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::ErrorDeleting => "error_deleting",
            Self::Creating => "creating",
            Self::Available => "available",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Restoring => "restoring",
        }
    }
}

impl FromStr for BackupStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for BackupStatus {
    type Error = UnknownStatus;

    fn try_from(text: String) -> Result<Self, UnknownStatus> {
        text.parse()
    }
}

impl From<BackupStatus> for String {
    fn from(status: BackupStatus) -> Self {
        status.as_str().to_owned()
    }
}

impl fmt::Display for BackupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Statuses that other services own: those that matter here by name, the rest as text.
macro_rules! open_status {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// Any other status.
            Other(String),
        }

        impl $name {
            /// The name in the database.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl From<$name> for String {
            fn from(status: $name) -> Self {
                status.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

open_status! {
    /// `volumes.status` and `volumes.previous_status`.
    VolumeStatus {
        /// Nobody uses it.
        Available = "available",
        /// A server uses it.
        InUse = "in-use",
        /// It is being backed up.
        BackingUp = "backing-up",
        /// As previous status: its last backup failed.
        ErrorBackingUp = "error_backing-up",
        /// A backup is being restored to it.
        RestoringBackup = "restoring-backup",
        /// A restore to it failed.
        ErrorRestoring = "error_restoring",
        /// It is being made, possibly from a backup.
        Creating = "creating",
        /// It is unusable.
        Error = "error",
    }
}

impl VolumeStatus {
    /// Whether a volume with this status waits for the data of a backup.
    pub fn awaits_restore(&self) -> bool {
        matches!(self, Self::RestoringBackup | Self::Creating)
    }
}

open_status! {
    /// `snapshots.status`.
    SnapshotStatus {
        /// Nobody uses it.
        Available = "available",
        /// It is being backed up.
        BackingUp = "backing-up",
        /// It is being deleted.
        Deleting = "deleting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn backup_statuses_round_trip_and_are_closed() {
        for status in BackupStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for text in ["", "Available", "in-use", "error "] {
            assert!(text.parse::<BackupStatus>().is_err());
        }
    }

    proptest! {
        #[test]
        fn every_text_is_some_volume_status(text: String) {
            let status = VolumeStatus::from(text.as_str());
            prop_assert_eq!(status.as_str(), text);
        }
    }
}
