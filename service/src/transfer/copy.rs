//! The transfers between RBD images that everything else is made of.

use tracing::warn;

use super::block::{BlockError, BlockSink, BlockSource, ImageSource};
use super::diff_plan::{Holes, whole_objects};
use super::error::TransferError;
use super::extent::Extent;
use super::periods::Periods;
use super::plan::Plan;
use super::progress::Stats;
use super::pump::{Destination, PumpOptions, pump};
use super::share::Job;
use crate::rbd::Image;

/// Makes `target` read as `source` does at the point at which that was opened.
///
/// With `since`, a snapshot of the source, only what changed since then is moved: `target` must
/// read as the source did at that snapshot, apart from ranges that changed since, and must have the
/// source's size now. Without it everything is moved; a target that may hold data is zeroed where
/// the source has none, and behind the source's end as the options say. Of one that is similar only
/// what differs is written.
///
/// # Errors
/// What either side says, or `Cancelled`; `NotFound` when the source has no such snapshot.
pub async fn copy_diff<S: ImageSource, K: BlockSink>(
    source: &S,
    since: Option<&str>,
    target: &K,
    options: &PumpOptions,
    job: &Job,
) -> Result<Stats, TransferError> {
    let replaces_everything = since.is_none() && options.destination != Destination::Fresh;
    let holes = match replaces_everything || source.wants_zeros() {
        true => Holes::Zero,
        false => Holes::Skip,
    };
    let mut stats = Stats::default();
    if replaces_everything && let Some(excess) = excess(source.size(), target.size(), options) {
        let plan = Plan::of(vec![excess], &job.progress);
        stats.add(&pump(plan, source, target, options, job).await?);
    }
    let plan = Plan::diff(source.image(), since, options, holes, &job.progress);
    stats.add(&pump(plan, source, target, options, job).await?);
    Ok(stats)
}

/// Makes `target` read as `source` does at the point at which that was opened. Where nobody can tell
/// what is in it, every byte is read.
///
/// # Errors
/// What either side says, or `Cancelled`.
pub async fn copy_all<S: ImageSource, K: BlockSink>(
    source: &S,
    target: &K,
    options: &PumpOptions,
    job: &Job,
) -> Result<Stats, TransferError> {
    let error = match copy_diff(source, None, target, options, job).await {
        Err(error @ TransferError::Plan(_)) => error,
        copied => return copied,
    };
    warn!(image = source.image().name(), %error, "Copying byte by byte");
    let options = PumpOptions {
        // Of what has been written already, the most will be found to be right.
        destination: Destination::Similar,
        ..options.clone()
    };
    copy_whole(source, target, &options, job).await
}

/// Makes `target` read as `source` does, knowing nothing of either: every byte of the source is read.
/// Zeros are left out where the target is fresh, and give space back elsewhere.
///
/// What a source has beyond the target's end is left out; what the target has beyond the source's end
/// is zeroed or left alone, as the options say.
///
/// # Errors
/// What either side says, or `Cancelled`.
pub async fn copy_whole<S: BlockSource, K: BlockSink>(
    source: &S,
    target: &K,
    options: &PumpOptions,
    job: &Job,
) -> Result<Stats, TransferError> {
    let end = source.size().min(target.size());
    let mut extents = vec![Extent::data(0..end)];
    extents.extend(excess(end, target.size(), options));
    let plan = Plan::of(extents, &job.progress);
    pump(plan, source, target, options, job).await
}

/// What is to be zeroed of a target with room for more than the source has.
fn excess(length: u64, room: u64, options: &PumpOptions) -> Option<Extent> {
    (options.zero_excess && room > length).then(|| Extent::zero(length..room))
}

/// Makes `image` read again as it did at its snapshot `then`: whole objects that differ are copied
/// back, by the object map where there is a valid one. The image gets the snapshot's size. The options
/// must not call it fresh.
///
/// Unlike librbd's own rollback this takes time in proportion to what differs, can be cancelled, and
/// leaves the object map in step with the objects wherever it ends.
///
/// # Errors
/// What either side says, or `Cancelled`; `NotFound` when the image has no such snapshot.
pub async fn take_back(
    image: &Image,
    then: &str,
    options: &PumpOptions,
    job: &Job,
) -> Result<Stats, TransferError> {
    let plan = |error| TransferError::Plan(BlockError::Rbd(error));
    let source = image.open_at(then).await.map_err(plan)?;
    let size = source.known_size();
    if image.known_size() != size {
        image.resize(size).await.map_err(plan)?;
    }
    let job = job.aside();
    let none = Periods::none(size, image.stripe_period());
    let differs = tokio::select! {
        biased;
        () = job.cancel.cancelled() => return Err(TransferError::Cancelled),
        found = whole_objects(image, Some(then), false, none) => found.map_err(plan)?,
    };
    let differs = differs.runs(u64::MAX).filter(|(_, differs)| *differs);
    let extents: Vec<Extent> = differs.map(|(range, _)| Extent::data(range)).collect();
    if extents.is_empty() {
        return Ok(Stats::default());
    }
    let plan = Plan::of(extents, &job.progress);
    pump(plan, &source, image, options, &job).await
}
