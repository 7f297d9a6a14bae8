//! The transfers between RBD images that everything else is made of.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::block::BlockError;
use super::diff_plan::{Holes, whole_objects};
use super::error::TransferError;
use super::extent::Extent;
use super::periods::Periods;
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

/// Makes `image` read again as it did at its snapshot `then`: whole objects that differ are copied
/// back, by the object map where there is a valid one. The image gets the snapshot's size.
///
/// Unlike librbd's own rollback this takes time in proportion to what differs, can be cancelled, and
/// leaves the object map in step with the objects wherever it ends.
///
/// # Errors
/// As [`pump`]; `NotFound` when the image has no such snapshot.
pub async fn take_back(
    image: &Image,
    then: &str,
    options: &PumpOptions,
    cancel: &CancellationToken,
) -> Result<Stats, TransferError> {
    let plan = |error| TransferError::Plan(BlockError::Rbd(error));
    let source = image.open_at(then).await.map_err(plan)?;
    let size = source.known_size();
    if image.known_size() != size {
        image.resize(size).await.map_err(plan)?;
    }
    let progress = Progress::default();
    let none = Periods::none(size, image.stripe_period());
    let differs = whole_objects(image, Some(then), false, none)
        .await
        .map_err(plan)?;
    let differs = differs.runs(u64::MAX).filter(|(_, differs)| *differs);
    let extents: Vec<Extent> = differs.map(|(range, _)| Extent::data(range)).collect();
    if extents.is_empty() {
        return Ok(Stats::default());
    }
    let options = PumpOptions {
        destination: Destination::MayHoldData,
        ..options.clone()
    };
    let plan = Plan::of(extents, &progress);
    pump(plan, &source, image, &options, &progress, cancel).await
}
