//! Why an operation failed, and how that reads at each of its addresses.

use api_compat::backup_record::RecordError;
use api_compat::ids::NotAnId;
use api_compat::messaging::Failure;
use api_compat::names::NameError;
use api_compat::state::{Refusal, driver};
use api_compat::user_message::Detail;
use api_compat::volume_metadata::{MetadataError, RestoreError};

use crate::{amqp, attach, db, keys, vault};

/// Why an operation failed. The text is what `fail_reason` and the log say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state of the backup or of its volume does not allow it.
    #[error("{}", .0.reason)]
    Refused(Box<Refusal>),
    /// The request cannot be carried out.
    #[error("{0}")]
    Invalid(String),
    /// Another worker makes the backup.
    #[error("{0}")]
    Elsewhere(String),
    /// The backup got another status from somebody else.
    #[error("The backup was reset or deleted meanwhile.")]
    CalledOff,
    /// A cluster did not answer for longer than something that matters little is waited for.
    #[error("No answer in time.")]
    NoAnswer(#[from] tokio::time::error::Elapsed),
    /// There is no such volume.
    #[error("Volume {0} could not be found.")]
    VolumeNotFound(String),
    /// There is no such snapshot.
    #[error("Snapshot {0} could not be found.")]
    SnapshotNotFound(String),
    /// There is no such backup.
    #[error("Backup {0} could not be found.")]
    BackupNotFound(String),
    /// No worker has the driver that made the record.
    #[error("{}", driver::nobody_imports(.0))]
    NobodyImports(String),
    /// A record cannot be imported.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A row holds an id that cannot be one.
    #[error(transparent)]
    Id(#[from] NotAnId),
    /// A row names an image that cannot be this backup's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The volume could not be reached.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The backup pool could not be worked with.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The database could not be worked with.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// A key could not be copied or deleted.
    #[error(transparent)]
    Key(#[from] keys::Error),
    /// Another service could not be reached.
    #[error(transparent)]
    Call(#[from] amqp::CallError),
    /// The recorded metadata cannot be read.
    #[error("Metadata restore failed: {0}")]
    Metadata(#[from] MetadataError),
    /// The recorded metadata does not fit the volume.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl Error {
    /// What the user is told: that the volume cannot be attached, or else `other`.
    pub(super) fn detail_or(&self, other: Detail) -> Detail {
        match self {
            Self::Attach(_) | Self::Vault(vault::Error::Volume(_)) => Detail::AttachError,
            _ => other,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// What the caller of a call gets to see.
impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal.failure(),
            Error::VolumeNotFound(id) => Failure::volume_not_found(id),
            Error::SnapshotNotFound(id) => Failure::snapshot_not_found(id),
            Error::BackupNotFound(id) => Failure::backup_not_found(id),
            Error::NobodyImports(service) => Failure::service_not_found(service),
            Error::Invalid(_)
            | Error::Elsewhere(_)
            | Error::CalledOff
            | Error::Id(_)
            | Error::Name(_)
            | Error::Record(_) => Failure::invalid_backup(&error.to_string()),
            _ => Failure::backup_driver(&error.to_string()),
        }
    }
}
