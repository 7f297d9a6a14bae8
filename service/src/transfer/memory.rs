//! Blocks in memory, with faults where the test wants them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::block::{BlockError, BlockSink, BlockSource};
use super::budget::Buffer;

/// What happens to an operation that touches a certain byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails with this errno.
    Errno(i32),
    /// It fails if it is a read.
    Unreadable,
    /// It never ends.
    Hangs,
}

/// What a disk was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read { offset: u64, length: u64 },
    Write { offset: u64, length: u64 },
    Zero { offset: u64, length: u64 },
    Flush,
}

/// A disk in memory.
#[derive(Default)]
pub(super) struct Disk {
    content: Mutex<Vec<u8>>,
    grain: u64,
    fault: Option<(u64, Fault)>,
    calls: Mutex<Vec<Call>>,
    ended: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    pub(super) fn new(content: Vec<u8>) -> Self {
        Self {
            content: Mutex::new(content),
            grain: 1,
            ..Self::default()
        }
    }

    pub(super) fn with_grain(mut self, grain: u64) -> Self {
        self.grain = grain;
        self
    }

    pub(super) fn with_fault(mut self, at: u64, fault: Fault) -> Self {
        self.fault = Some((at, fault));
        self
    }

    pub(super) fn content(&self) -> Vec<u8> {
        lock(&self.content).clone()
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// How many calls have not come to their end, whether somebody waits for it or not.
    pub(super) fn under_way(&self) -> usize {
        lock(&self.calls).len() - self.ended.load(Ordering::Relaxed)
    }

    /// Notes a call, lets others run, and has the fault if the range touches it. What succeeds takes
    /// longer than what fails.
    async fn begin(&self, call: Call, offset: u64, length: u64) -> Result<(), BlockError> {
        lock(&self.calls).push(call);
        tokio::task::yield_now().await;
        let outcome = match self.fault {
            Some((at, fault)) if (offset..offset + length).contains(&at) => match fault {
                Fault::Errno(errno) => Err(io::Error::from_raw_os_error(errno).into()),
                Fault::Unreadable => match call {
                    Call::Read { .. } => Err(io::Error::from_raw_os_error(libc::EIO).into()),
                    _ => Ok(()),
                },
                Fault::Hangs => std::future::pending().await,
            },
            _ => {
                tokio::task::yield_now().await;
                Ok(())
            }
        };
        self.ended.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

impl BlockSource for Disk {
    fn size(&self) -> u64 {
        lock(&self.content).len() as u64
    }

    fn grain(&self) -> u64 {
        self.grain
    }

    async fn read_at(&self, offset: u64, mut buffer: Buffer) -> Result<Buffer, BlockError> {
        let length = buffer.as_ref().len() as u64;
        self.begin(Call::Read { offset, length }, offset, length)
            .await?;
        let start = offset as usize;
        let content = lock(&self.content);
        buffer
            .as_mut()
            .copy_from_slice(&content[start..start + length as usize]);
        Ok(buffer)
    }
}

impl BlockSink for Disk {
    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), BlockError> {
        let length = data.len() as u64;
        self.begin(Call::Write { offset, length }, offset, length)
            .await?;
        let start = offset as usize;
        lock(&self.content)[start..start + data.len()].copy_from_slice(&data);
        Ok(())
    }

    async fn zero_at(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.begin(Call::Zero { offset, length }, offset, length)
            .await?;
        lock(&self.content)[offset as usize..(offset + length) as usize].fill(0);
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        lock(&self.calls).push(Call::Flush);
        Ok(())
    }
}
