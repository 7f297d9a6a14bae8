//! Why a transfer did not come to its end.

use super::block::BlockError;
use crate::rbd::ErrorKind;

/// Why a transfer did not come to its end; of several errors the one that came first.
///
/// The text is complete: it includes that of the source or the sink.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Somebody asked for it.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// Which extents there are could not be found out.
    #[error("cannot find out what to transfer: {0}")]
    Plan(BlockError),
    /// The plan ended without saying that it is complete, so nobody knows what is missing.
    #[error("the plan of the transfer broke off")]
    PlanBrokeOff,
    /// The source could not be read.
    #[error("cannot read {length} bytes at offset {offset} of the source: {error}")]
    Read {
        /// Where the operation started.
        offset: u64,
        /// How much it was to read.
        length: u64,
        /// What the source said.
        error: BlockError,
    },
    /// The sink could not be written or zeroed.
    #[error("cannot write {length} bytes at offset {offset} of the destination: {error}")]
    Write {
        /// Where the operation started.
        offset: u64,
        /// How much it was to write.
        length: u64,
        /// What the sink said.
        error: BlockError,
    },
    /// What was written could not be made safe.
    #[error("cannot flush the destination: {0}")]
    Flush(BlockError),
    /// How far the transfer is could not be noted.
    #[error("cannot note how far the transfer is: {0}")]
    Checkpoint(BlockError),
}

impl TransferError {
    /// What the error means; none if the transfer was cancelled.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Cancelled => None,
            Self::PlanBrokeOff => Some(ErrorKind::Io),
            Self::Plan(error)
            | Self::Read { error, .. }
            | Self::Write { error, .. }
            | Self::Flush(error)
            | Self::Checkpoint(error) => Some(error.kind()),
        }
    }
}
