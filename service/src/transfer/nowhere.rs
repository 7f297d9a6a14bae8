//! A sink for what is read to be looked at only.

use std::io;

use bytes::Bytes;

use super::block::{BlockError, BlockSink, BlockSource};
use super::budget::Buffer;

/// Takes everything and keeps nothing.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere {
    size: u64,
}

impl Nowhere {
    /// With room for so many bytes.
    pub fn new(size: u64) -> Self {
        Self { size }
    }
}

impl BlockSource for Nowhere {
    fn size(&self) -> u64 {
        self.size
    }

    /// Nobody can tell what it holds: whoever compares it with a source has to read all of that.
    async fn read_at(&self, _: u64, _: Buffer) -> Result<Buffer, BlockError> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }
}

impl BlockSink for Nowhere {
    async fn write_at(&self, _: u64, _: Bytes) -> Result<(), BlockError> {
        Ok(())
    }

    async fn zero_at(&self, _: u64, _: u64) -> Result<(), BlockError> {
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }
}
