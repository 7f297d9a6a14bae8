//! The plan of what differs in an RBD image, found in two steps.
//!
//! First the object maps name the objects that there are, or were at the older snapshot, at once.
//! Then a few scanners ask for the exact extents, only of those objects, while the pump already moves
//! the first of them. Asking for exact extents takes a request for every object, whether it exists or
//! not, which is why the `rbd` tool's export takes so long on large images.
//!
//! The first step may name too much but never too little: an image without object map, or with one
//! that is marked invalid, is scanned as a whole. For clones librbd, since Ceph 16, answers both
//! questions together with the parent's objects.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;

use super::block::BlockError;
use super::extent::Extent;
use super::periods::Periods;
use super::plan::{Message, Plan};
use super::progress::Progress;
use super::pump::PumpOptions;
use crate::rbd::{self, Change, DiffQuery, Image};

/// How many objects one scan asks about: librbd asks for ten at a time.
const PERIODS_PER_SCAN: u64 = 16;

/// What to do about ranges that the diff does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// Leave them out: the destination has them already, or is empty.
    Skip,
    /// Plan them as zeros: the destination may hold anything there.
    Zero,
}

impl Plan {
    /// What changed in an image from a snapshot to the point at which it was opened; without a
    /// snapshot everything that it holds, including what a clone shows of its parent.
    ///
    /// With [`Holes::Zero`] the plan covers the whole image. Planning goes on in the background
    /// until the plan is complete or dropped, and holds a clone of `image` meanwhile.
    pub fn diff(
        image: &Image,
        from: Option<&str>,
        options: &PumpOptions,
        holes: Holes,
        progress: &Arc<Progress>,
    ) -> Self {
        let (sender, plan) = Self::channel();
        let planner = Planner {
            image: image.clone(),
            from: from.map(str::to_owned),
            holes,
            believes_map: options.believe_map,
            progress: Arc::clone(progress),
        };
        let scanners = options.scanners.max(1);
        tokio::spawn(async move {
            let end = match planner.run(scanners, &sender).await {
                Ok(()) => Message::Complete,
                Err(error) => Message::Failed(BlockError::Rbd(error)),
            };
            // Without a receiver nobody wants to know.
            let _ = sender.send(end).await;
        });
        plan
    }
}

struct Planner {
    image: Image,
    from: Option<String>,
    holes: Holes,
    believes_map: bool,
    progress: Arc<Progress>,
}

impl Planner {
    async fn run(&self, scanners: usize, sender: &mpsc::Sender<Message>) -> rbd::Result<()> {
        let periods = self.candidates().await?;
        for (range, inside) in periods.runs(u64::MAX) {
            if inside || self.holes == Holes::Zero {
                self.progress.plan(range.end - range.start);
            }
        }
        let mut batches = stream::iter(periods.runs(PERIODS_PER_SCAN))
            .map(|(range, inside)| async move {
                match (inside, self.holes) {
                    (true, _) => self.scan(range).await,
                    (false, Holes::Zero) => Ok(vec![Extent::zero(range)]),
                    (false, Holes::Skip) => Ok(Vec::new()),
                }
            })
            .buffer_unordered(scanners);
        while let Some(extents) = batches.next().await {
            let extents = extents?;
            if !extents.is_empty() && sender.send(Message::Extents(extents)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The first step: which periods may hold a change.
    async fn candidates(&self) -> rbd::Result<Periods> {
        let image = &self.image;
        let (size, period) = (image.known_size(), image.stripe_period());
        let none = Periods::none(size, period);
        if !image.has_valid_fast_diff() {
            return Ok(Periods::all(size, period));
        }
        let Some(from) = &self.from else {
            return whole_objects(image, None, true, none).await;
        };
        // Between two snapshots the object map may name too little: a rollback of the image brings
        // the older snapshot's map back, which marks nothing as changed. But it does tell which
        // objects appeared and disappeared, and only what was there before can have changed.
        let held = match self.believes_map {
            true => none,
            false => held_at(image, from).await?,
        };
        whole_objects(image, Some(from), false, held).await
    }

    /// The second step, for one range.
    async fn scan(&self, range: Range<u64>) -> rbd::Result<Vec<Extent>> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let collect = Arc::clone(&found);
        self.image
            .diff(self.query(range.clone()), move |change| {
                lock(&collect).push(change);
                ControlFlow::Continue(())
            })
            .await?;
        let changes = std::mem::take(&mut *lock(&found));
        let extents = exact_extents(&range, changes, self.holes);
        let exact: u64 = extents.iter().map(|extent| extent.length).sum();
        self.progress
            .unplan((range.end - range.start).saturating_sub(exact));
        Ok(extents)
    }

    fn query(&self, range: Range<u64>) -> DiffQuery {
        DiffQuery {
            from: self.from.clone(),
            range,
            include_parent: self.from.is_none(),
            whole_objects: false,
        }
    }
}

/// The periods in which an image had objects at a snapshot.
pub(super) async fn held_at(image: &Image, snapshot: &str) -> rbd::Result<Periods> {
    let (size, period) = (image.known_size(), image.stripe_period());
    let then = image.open_at(snapshot).await?;
    let held = match then.has_valid_fast_diff() {
        true => whole_objects(&then, None, false, Periods::none(size, period)).await,
        false => Ok(Periods::all(size, period)),
    };
    then.close().await;
    held
}

/// Adds the periods in which objects changed since a snapshot, or exist at all. At once where the
/// image has a valid object map.
pub(super) async fn whole_objects(
    image: &Image,
    from: Option<&str>,
    include_parent: bool,
    periods: Periods,
) -> rbd::Result<Periods> {
    let query = DiffQuery {
        from: from.map(str::to_owned),
        range: 0..image.known_size(),
        include_parent,
        whole_objects: true,
    };
    let found = Arc::new(Mutex::new(periods));
    let collect = Arc::clone(&found);
    image
        .diff(query, move |change| {
            lock(&collect).insert(change.offset..change.offset.saturating_add(change.length));
            ControlFlow::Continue(())
        })
        .await?;
    let periods = lock(&found).clone();
    Ok(periods)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The extents of a range, in order and without overlap: data wins over zeros, and with
/// [`Holes::Zero`] all that is not data is zeros.
fn exact_extents(range: &Range<u64>, changes: Vec<Change>, holes: Holes) -> Vec<Extent> {
    let mut data = Vec::new();
    let mut zeros = Vec::new();
    for change in changes {
        let changed = change.offset..change.offset.saturating_add(change.length);
        if change.exists {
            data.push(changed);
        } else {
            zeros.push(changed);
        }
    }
    if holes == Holes::Zero {
        zeros = vec![range.clone()];
    }
    let data = ordered(range, data);
    let zeros = without(ordered(range, zeros), &data);
    let mut extents: Vec<Extent> = data
        .into_iter()
        .map(Extent::data)
        .chain(zeros.into_iter().map(Extent::zero))
        .collect();
    extents.sort_by_key(|extent| extent.offset);
    extents
}

/// Ranges clipped to `within`, in order, adjacent and overlapping ones joined.
fn ordered(within: &Range<u64>, mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let range = range.start.max(within.start)..range.end.min(within.end);
        match joined.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// What is left of ordered ranges without other ordered ranges.
fn without(ranges: Vec<Range<u64>>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut first = 0;
    for mut range in ranges {
        while holes.get(first).is_some_and(|hole| hole.end <= range.start) {
            first += 1;
        }
        for hole in &holes[first..] {
            if hole.start >= range.end {
                break;
            }
            if hole.start > range.start {
                left.push(range.start..hole.start);
            }
            range.start = hole.end.min(range.end);
        }
        if !range.is_empty() {
            left.push(range);
        }
    }
    left
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::extent::ExtentKind;
    use proptest::prelude::*;

    fn change(offset: u64, length: u64, exists: bool) -> Change {
        Change {
            offset,
            length,
            exists,
        }
    }

    #[test]
    fn changes_are_ordered_and_joined() {
        let changes = vec![
            change(50, 10, true),
            change(10, 5, true),
            change(15, 5, true),
        ];
        assert_eq!(
            exact_extents(&(0..100), changes, Holes::Skip),
            [Extent::data(10..20), Extent::data(50..60)]
        );
    }

    #[test]
    fn holes_become_zeros_when_asked_for() {
        assert_eq!(
            exact_extents(&(0..100), vec![change(10, 20, true)], Holes::Zero),
            [
                Extent::zero(0..10),
                Extent::data(10..30),
                Extent::zero(30..100)
            ]
        );
    }

    proptest! {
        #[test]
        fn every_byte_is_what_it_must_be(
            changes in proptest::collection::vec((0u64..90, 0u64..30, any::<bool>()), 0..12),
            zero in any::<bool>(),
        ) {
            let changes: Vec<Change> =
                changes.into_iter().map(|(at, length, exists)| change(at, length, exists)).collect();
            let range = 20u64..80;
            let holes = if zero { Holes::Zero } else { Holes::Skip };
            let extents = exact_extents(&range, changes.clone(), holes);
            prop_assert!(extents.windows(2).all(|pair| pair[0].end() <= pair[1].offset));
            prop_assert!(extents.iter().all(|extent| extent.length > 0));
            for at in 0..120 {
                let got = extents.iter().find(|e| (e.offset..e.end()).contains(&at)).map(|e| e.kind);
                let named = |exists| changes.iter().any(|c| {
                    c.exists == exists && (c.offset..c.offset + c.length).contains(&at)
                });
                let expected = if !range.contains(&at) {
                    None
                } else if named(true) {
                    Some(ExtentKind::Data)
                } else if zero || named(false) {
                    Some(ExtentKind::Zero)
                } else {
                    None
                };
                prop_assert_eq!(got, expected);
            }
        }
    }
}
