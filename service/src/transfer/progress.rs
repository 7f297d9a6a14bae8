//! How far a transfer is, and what it has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a transfer that others may read while it runs.
///
/// `planned` is an upper bound from early on: it starts with the objects that changed, or with the
/// whole size where nothing is known, and falls as the exact extents become known.
#[derive(Debug, Default)]
pub struct Progress {
    planned: AtomicU64,
    done: AtomicU64,
}

impl Progress {
    /// At most so many bytes are to be dealt with.
    pub fn planned(&self) -> u64 {
        self.planned.load(Ordering::Relaxed)
    }

    /// So many of them are dealt with: moved, or found to be zero.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn plan(&self, bytes: u64) {
        self.planned.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn unplan(&self, bytes: u64) {
        self.planned.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a transfer has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes written to the sink.
    pub bytes_written: u64,
    /// Bytes zeroed on the sink, giving space back where possible.
    pub bytes_discarded: u64,
    /// Bytes that are zero and that the sink did not have to hear of.
    pub bytes_zero_skipped: u64,
    /// Bytes that the sink held already.
    pub bytes_unchanged: u64,
    /// Extents of the plan.
    pub extents: u64,
    /// Steps: each reads or zeroes one range.
    pub operations: u64,
}

impl Stats {
    /// Adds what an operation has done; `extents` and `operations` are counted by the pump.
    pub(super) fn add(&mut self, other: &Stats) {
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.bytes_discarded += other.bytes_discarded;
        self.bytes_zero_skipped += other.bytes_zero_skipped;
        self.bytes_unchanged += other.bytes_unchanged;
        self.extents += other.extents;
        self.operations += other.operations;
    }
}
