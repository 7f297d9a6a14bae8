//! What can be read and written as blocks.

use std::future::Future;
use std::io;

use bytes::Bytes;

use super::budget::Buffer;
use crate::rbd::{self, ErrorKind, Image};

/// Something that bytes are read from: an image at a snapshot, a block device, a file.
///
/// A future that is dropped must leave nothing behind that still uses the caller's memory; the
/// buffer is owned by the call for that reason.
pub trait BlockSource: Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Fills the whole buffer with the bytes from `offset` on and gives it back.
    fn read_at(
        &self,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, BlockError>> + Send;
}

/// Something that bytes are written to.
pub trait BlockSink: Sync {
    /// How many bytes there is room for.
    fn size(&self) -> u64;

    /// Writes all of `data` at `offset`.
    fn write_at(
        &self,
        offset: u64,
        data: Bytes,
    ) -> impl Future<Output = Result<(), BlockError>> + Send;

    /// Makes a range read as zeros, to the byte, and gives its space back where that is possible.
    fn zero_at(
        &self,
        offset: u64,
        length: u64,
    ) -> impl Future<Output = Result<(), BlockError>> + Send;

    /// Returns when everything that was written is safe.
    fn flush(&self) -> impl Future<Output = Result<(), BlockError>> + Send;
}

/// Why a source or a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// An RBD image.
    #[error(transparent)]
    Rbd(#[from] rbd::Error),
    /// A block device or a file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl BlockError {
    /// What the error means; for devices and files the same errno values mean the same as for
    /// images.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rbd(error) => error.kind(),
            Self::Io(error) => error
                .raw_os_error()
                .map_or(ErrorKind::Io, ErrorKind::from_errno),
        }
    }
}

impl BlockSource for Image {
    fn size(&self) -> u64 {
        self.known_size()
    }

    async fn read_at(&self, offset: u64, buffer: Buffer) -> Result<Buffer, BlockError> {
        Ok(self.read(offset, buffer).await?)
    }
}

impl BlockSink for Image {
    fn size(&self) -> u64 {
        self.known_size()
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), BlockError> {
        Ok(self.write(offset, data).await?)
    }

    async fn zero_at(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        // Not a discard: that may leave the content of parts below its granularity.
        Ok(self.write_zeroes(offset, length).await?)
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(Image::flush(self).await?)
    }
}
