//! Whether an image's object map can be believed about what changed.
//!
//! It is wrong after the image was rolled back to a snapshot: the map of that snapshot comes back, and marks
//! nothing of what the rollback changed. And several releases of librbd and of the kernel's driver left out
//! what was written while a snapshot was taken (Ceph tracker 61616).

use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::block::{BlockError, BlockSource};
use super::budget::Budget;
use super::diff_plan::{held_at, whole_objects};
use super::error::TransferError;
use super::periods::Periods;
use crate::rbd::{self, DiffQuery, Image};

/// How many questions are under way at a time.
const QUESTIONS: usize = 8;

/// How much of an object is compared, in bytes.
const SAMPLE: u64 = 64 << 10;

/// Some parts of an image that changed between two of its snapshots, `wanted` at most; which of them is up to
/// `random`. The OSDs are asked, not the object map alone. `image` is open at the newer snapshot.
///
/// # Errors
/// What the image says.
pub async fn changed_parts(
    image: &Image,
    since: &str,
    wanted: usize,
    random: impl FnMut() -> u64,
) -> rbd::Result<Vec<Range<u64>>> {
    let none = Periods::none(image.known_size(), image.stripe_period());
    let marked = whole_objects(image, Some(since), false, none).await?;
    // What the map marks need not have changed.
    let marked = marked.some(wanted * 2, random);
    let asked = stream::iter(marked).map(|part| async move {
        let changed = has_changed(image, since, part.clone()).await?;
        Ok(changed.then_some(part))
    });
    let changed: Vec<Option<Range<u64>>> = asked.buffered(QUESTIONS).try_collect().await?;
    Ok(changed.into_iter().flatten().take(wanted).collect())
}

/// Whether anything in a part of an image changed since a snapshot, as the OSDs know.
///
/// # Errors
/// What the image says.
pub async fn has_changed(image: &Image, since: &str, part: Range<u64>) -> rbd::Result<bool> {
    let query = DiffQuery {
        from: Some(since.to_owned()),
        range: part,
        include_parent: false,
        whole_objects: false,
    };
    image.differs(query).await
}

/// Compares some parts that, by the object map, did not change since a snapshot with what another image holds
/// there; the first that differs.
///
/// # Errors
/// What either side says.
pub async fn audit(
    source: &Image,
    since: &str,
    target: &Image,
    wanted: usize,
    budget: &Budget,
    mut random: impl FnMut() -> u64,
) -> Result<Option<Range<u64>>, TransferError> {
    let plan = |error| TransferError::Plan(BlockError::Rbd(error));
    let none = Periods::none(source.known_size(), source.stripe_period());
    let changed = whole_objects(source, Some(since), false, none)
        .await
        .map_err(plan)?;
    let mut unchanged = held_at(source, since).await.map_err(plan)?;
    unchanged.remove(&changed);
    let parts = unchanged.some(wanted, &mut random);
    let samples = parts.into_iter().map(|part| {
        let places = (part.end - part.start).div_ceil(SAMPLE).max(1);
        let start = part.start + random() % places * SAMPLE;
        start..part.end.min(start + SAMPLE)
    });
    // The target may be shorter.
    let samples = samples.filter(|sample| sample.end <= target.known_size());
    let samples: Vec<Range<u64>> = samples.collect();
    let compared = stream::iter(samples).map(|sample| async move {
        let same = is_same(source, target, &sample, budget).await?;
        Ok((!same).then_some(sample))
    });
    let differing: Vec<Option<Range<u64>>> = compared.buffered(QUESTIONS).try_collect().await?;
    Ok(differing.into_iter().flatten().next())
}

async fn is_same(
    source: &Image,
    target: &Image,
    sample: &Range<u64>,
    budget: &Budget,
) -> Result<bool, TransferError> {
    let length = sample.end - sample.start;
    let (one, other) = budget.pair(length as usize).await;
    let read = tokio::try_join!(
        source.read_at(sample.start, one),
        target.read_at(sample.start, other)
    );
    let (one, other) = read.map_err(|error| TransferError::Read {
        offset: sample.start,
        length,
        error,
    })?;
    Ok(one.as_ref() == other.as_ref())
}
