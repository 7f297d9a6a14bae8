//! What can be read and written as blocks.

use std::future::Future;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::budget::Buffer;
use super::diff_plan::whole_objects;
use super::periods::Periods;
use crate::rbd::{self, ErrorKind, Image};

/// How the space of a sink is divided whose own division is not known, in bytes.
const UNKNOWN_PERIOD: u64 = 4 << 20;

/// A part of a source that is not what somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlike {
    /// Where it is, in bytes.
    pub range: Range<u64>,
    /// Whether that is known: otherwise it may be the same all the same.
    pub certain: bool,
}

/// Something that bytes are read from: an image at a snapshot, a block device, a file.
///
/// A future that is dropped must leave nothing behind that still uses the caller's memory; the
/// buffer is owned by the call for that reason.
pub trait BlockSource: Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// It is read in whole grains of so many bytes, and to its end.
    fn grain(&self) -> u64 {
        1
    }

    /// Whether it is to hear of everything that is not read.
    fn wants_zeros(&self) -> bool {
        false
    }

    /// Hears of whole grains that read as zeros, by what the plan knows of it, and are not read. They may
    /// lie behind its end. Gives those, in order, that should hold something else.
    fn zeros(
        &self,
        _range: Range<u64>,
    ) -> impl Future<Output = Result<Vec<Range<u64>>, BlockError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Whether it can tell what it holds without being read: [`BlockSource::unlike`] is worth asking.
    fn is_known(&self) -> bool {
        false
    }

    /// Which parts of it, from `offset` on, are not `held`, or may not be; in order, whole grains.
    fn unlike(
        &self,
        offset: u64,
        held: &[u8],
    ) -> impl Future<Output = Result<Vec<Unlike>, BlockError>> + Send {
        let everything = Unlike {
            range: offset..offset + held.len() as u64,
            certain: false,
        };
        async { Ok(vec![everything]) }
    }

    /// Whether the destination holds a range already, as an attempt that was broken off has noted.
    fn is_stored(
        &self,
        _range: Range<u64>,
    ) -> impl Future<Output = Result<bool, BlockError>> + Send {
        async { Ok(false) }
    }

    /// Whether it has heard of so much, or for so long, that it is time to note that.
    fn wants_checkpoint(&self) -> bool {
        false
    }

    /// Sets what it has heard of until now apart from what it hears later.
    fn mark(&self) {}

    /// Notes what it had heard of when it was last marked: all of it is safe in the destination by now.
    fn checkpoint(&self) -> impl Future<Output = Result<(), BlockError>> + Send {
        async { Ok(()) }
    }

    /// Fills the whole buffer with the bytes from `offset` on and gives it back.
    fn read_at(
        &self,
        offset: u64,
        buffer: Buffer,
    ) -> impl Future<Output = Result<Buffer, BlockError>> + Send;
}

/// An image, or what stands before one.
pub trait ImageSource: BlockSource {
    /// The image, which is asked what is in it.
    fn image(&self) -> &Image;
}

/// Something that bytes are written to, with room for as many as it has, and that can be read back.
pub trait BlockSink: BlockSource {
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

    /// Which parts may hold anything but zeros, as far as that can be told at once.
    fn occupied(&self) -> impl Future<Output = Result<Periods, BlockError>> + Send {
        let everything = Periods::all(self.size(), UNKNOWN_PERIOD);
        async { Ok(everything) }
    }

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
    /// What was read is not what was stored.
    #[error("bytes {} to {} are not what was stored", .0.start, .0.end.saturating_sub(1))]
    Damaged(Range<u64>),
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
            Self::Damaged(_) => ErrorKind::Io,
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

impl ImageSource for Image {
    fn image(&self) -> &Image {
        self
    }
}

impl BlockSink for Image {
    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), BlockError> {
        Ok(self.write(offset, data).await?)
    }

    async fn zero_at(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        // Not a discard: that may leave the content of parts below its granularity.
        Ok(self.write_zeroes(offset, length).await?)
    }

    async fn occupied(&self) -> Result<Periods, BlockError> {
        let (size, period) = (self.known_size(), self.stripe_period());
        match self.has_valid_fast_diff() {
            true => Ok(whole_objects(self, None, true, Periods::none(size, period)).await?),
            false => Ok(Periods::all(size, period)),
        }
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(Image::flush(self).await?)
    }
}
