//! The transfers between RBD images that everything else is made of.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::block::{BlockError, BlockSource};
use super::budget::Buffer;
use super::diff_plan::Holes;
use super::error::TransferError;
use super::extent::Extent;
use super::plan::Plan;
use super::progress::{Progress, Stats};
use super::pump::{Destination, PumpOptions, pump};
use crate::rbd::Image;

/// Makes `target` read as `source` does at the point at which that was opened.
///
/// With `since`, a snapshot of the source, only what changed since then is moved: `target` must
/// read as the source did at that snapshot, apart from ranges that changed since, and must have the
/// source's size now. Without it everything is moved; a target that may hold data is zeroed where
/// the source has none, up to the target's end.
///
/// # Errors
/// As [`pump`]; `NotFound` when the source has no such snapshot.
pub async fn copy_diff(
    source: &Image,
    since: Option<&str>,
    target: &Image,
    options: &PumpOptions,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Stats, TransferError> {
    let replaces_everything = since.is_none() && options.destination == Destination::MayHoldData;
    let holes = if replaces_everything {
        Holes::Zero
    } else {
        Holes::Skip
    };
    let mut stats = Stats::default();
    let (length, room) = (source.known_size(), target.known_size());
    if replaces_everything && room > length {
        let tail = Plan::of(vec![Extent::zero(length..room)], progress);
        stats.add(&pump(tail, source, target, options, progress, cancel).await?);
    }
    let plan = Plan::diff(source, since, options.scanners, holes, progress);
    stats.add(&pump(plan, source, target, options, progress, cancel).await?);
    Ok(stats)
}

/// Makes an image read as zeros and gives its space back. With an object map librbd asks the cluster
/// only for the objects that exist.
pub async fn erase(
    target: &Image,
    options: &PumpOptions,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Stats, TransferError> {
    let options = PumpOptions {
        destination: Destination::MayHoldData,
        ..options.clone()
    };
    let size = target.known_size();
    let plan = Plan::of(vec![Extent::zero(0..size)], progress);
    pump(plan, &Nothing(size), target, &options, progress, cancel).await
}

/// A source that is never read: a plan of zeros needs none.
struct Nothing(u64);

impl BlockSource for Nothing {
    fn size(&self) -> u64 {
        self.0
    }

    async fn read_at(&self, _offset: u64, mut buffer: Buffer) -> Result<Buffer, BlockError> {
        buffer.as_mut().fill(0);
        Ok(buffer)
    }
}
