//! What can go wrong with what lies in the backup pool.

use std::ops::Range;

use crate::{rbd, transfer};

/// Why an operation on the backup pool failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Ceph refused or failed a call.
    #[error(transparent)]
    Rbd(#[from] rbd::Error),
    /// A volume's image cannot be opened.
    #[error(transparent)]
    Volume(rbd::Error),
    /// Moving bytes failed; the error names the side and the offset.
    #[error(transparent)]
    Transfer(#[from] transfer::TransferError),
    /// A block device or file cannot be dealt with.
    #[error("{0}")]
    Device(std::io::Error),
    /// An image, snapshot or object that must exist does not.
    #[error("{0}")]
    Missing(String),
    /// What is there contradicts itself; nothing was changed.
    #[error("{0}")]
    Damaged(String),
    /// The object map of a volume calls these bytes unchanged, and they are not.
    #[error("the volume's object map is wrong: bytes {} to {} changed, and it does not say so", .0.start, .0.end.saturating_sub(1))]
    WrongMap(Range<u64>),
    /// The request does not fit what is there.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    pub(super) fn missing(text: impl Into<String>) -> Self {
        Self::Missing(text.into())
    }

    pub(super) fn damaged(text: impl Into<String>) -> Self {
        Self::Damaged(text.into())
    }

    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// What Ceph or a device said, where it was one of them that failed.
    pub fn kind(&self) -> Option<rbd::ErrorKind> {
        match self {
            Self::Rbd(error) | Self::Volume(error) => Some(error.kind()),
            Self::Transfer(error) => error.kind(),
            _ => None,
        }
    }

    /// Whether the cause is that something does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Missing(_) => true,
            Self::Rbd(error) | Self::Volume(error) => error.kind() == rbd::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Short form for this room.
pub type Result<T> = std::result::Result<T, Error>;
