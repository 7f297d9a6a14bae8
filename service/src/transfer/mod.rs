//! Moves bytes: a plan of extents, pumped from a source to a sink.
//!
//! A plan says which extents there are to move; a pump reads them from a [`BlockSource`] and
//! writes them to a [`BlockSink`], many at a time, within a memory [`Budget`], leaving out what is
//! zero. There are [`copy_diff`] and [`take_back`] for what RBD knows to have changed, [`copy_all`] for
//! an image with everything in it, and [`copy_whole`] between any two of image, block device and file.
//!
//! This room knows blocks and offsets. It does not know what a backup is, nor how anything is called.

mod audit;
mod block;
mod budget;
mod checkpoints;
mod copy;
mod device;
mod diff_plan;
mod digest;
mod error;
mod extent;
mod mover;
mod nowhere;
mod periods;
mod plan;
mod progress;
mod pump;
mod rate;
mod runs;
mod share;

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod digest_tests;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod pump_tests;
#[cfg(test)]
mod share_tests;

pub use audit::{audit, changed_parts, has_changed};
pub use block::{BlockError, BlockSink, BlockSource, ImageSource, Unlike};
pub use budget::{Budget, Buffer};
pub use copy::{copy_all, copy_diff, copy_whole, take_back};
pub use device::{Access, Device};
pub use digest::{Checked, Digest, GRAIN, Holes, Recorded, Recorder, Reference};
pub use error::TransferError;
pub use nowhere::Nowhere;
pub use periods::Periods;
pub use progress::{Progress, Stats};
pub use pump::{Destination, PumpOptions};
pub use share::{Direction, Job, Limits, Share};
