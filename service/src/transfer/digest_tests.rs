//! What passes through [`Recorded`] and [`Checked`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use super::extent::Extent;
use super::memory::{Disk, Fault};
use super::plan::Plan;
use super::pump::pump;
use super::{
    BlockError, BlockSink, BlockSource, Budget, Checked, Destination, Digest, GRAIN, Holes, Job,
    Nowhere, PumpOptions, Recorded, Recorder, Reference, Stats, TransferError, copy_whole,
};

/// A manifest in memory: what it does not list is not known.
#[derive(Default)]
struct Book(Mutex<BTreeMap<u64, Digest>>);

impl Book {
    fn of(&self, grain: u64) -> Option<Digest> {
        let book = self.0.lock().expect("nobody panicked");
        book.get(&grain).copied()
    }

    fn forget(&self, grain: u64) {
        let mut book = self.0.lock().expect("nobody panicked");
        book.remove(&grain);
    }
}

impl Recorder for Book {
    fn seed(&self) -> u64 {
        7
    }

    fn record(&self, first: u64, digests: Vec<Digest>) {
        let mut book = self.0.lock().expect("nobody panicked");
        book.extend((first..).zip(digests));
    }
}

impl Reference for Book {
    fn seed(&self) -> u64 {
        7
    }

    async fn expected(&self, grains: Range<u64>) -> Result<Vec<Option<Digest>>, BlockError> {
        Ok(grains.map(|grain| self.of(grain)).collect())
    }

    async fn holes(&self, grains: Range<u64>) -> Result<Holes, BlockError> {
        let data = grains.filter(|grain| self.of(*grain).is_some_and(|it| it != Digest::ZEROS));
        Ok(Holes {
            data: data.collect(),
            lost: Vec::new(),
        })
    }
}

async fn copy(source: &impl BlockSource, sink: &impl BlockSink) -> Result<Stats, TransferError> {
    let options = PumpOptions::new(Budget::new(1 << 20), Destination::Similar);
    let job = Job::default();
    copy_whole(source, sink, &options, &job).await
}

/// Sizes that are not multiples of a grain, on each side of one another.
#[tokio::test]
async fn what_was_copied_is_what_is_known_whatever_the_sizes() {
    const UNIT: usize = 50_000;
    for (device, stored, restored) in [(7, 5, 5), (5, 5, 9), (4, 6, 6), (3, 3, 8)] {
        let content: Vec<u8> = (0..device * UNIT).map(|at| (at % 255 + 1) as u8).collect();
        let device = Disk::new(content);
        let base = Disk::new(vec![0; stored * UNIT]);
        let book = Book::default();
        let recorded = Recorded::new(&device, &book, (stored * UNIT) as u64);
        copy(&recorded, &base).await.expect("stored");

        let volume = Disk::new(vec![9; restored * UNIT]);
        let checked = Checked::new(&base, &book);
        copy(&checked, &volume).await.expect("restored");
        assert!(volume.content()[..stored * UNIT] == base.content());
        assert!(
            volume.content()[stored * UNIT..]
                .iter()
                .all(|byte| *byte == 0)
        );

        let mut spoilt = base.content();
        let last = device.content().len().min(spoilt.len()) - 1;
        spoilt[last] ^= 1;
        let spoilt = Disk::new(spoilt);
        let other = || Disk::new(vec![9; restored * UNIT]);
        let refused = copy(&Checked::new(&spoilt, &book), &other()).await;
        refused.expect_err("it is damaged");
        let noting = Checked::noting(&spoilt, &book);
        copy(&noting, &other()).await.expect("restored");
        let damage = noting.into_damage().places;
        assert!(
            damage.len() == 1 && damage[0].contains(&(last as u64)),
            "{damage:?}"
        );
    }
}

#[tokio::test]
async fn what_the_destination_holds_already_is_not_read() {
    const GRAINS: usize = 20;
    let grain = GRAIN as usize;
    let end = GRAINS * grain - 1000;
    let mut content: Vec<u8> = (0..end).map(|at| (at % 255 + 1) as u8).collect();
    content[4 * grain..5 * grain].fill(0);
    let (device, book) = (Disk::new(content.clone()), Book::default());
    let recorded = Recorded::new(&device, &book, end as u64);
    copy(&recorded, &Disk::new(vec![0; end]))
        .await
        .expect("stored");

    // Where the destination is right nobody looks.
    let base = Disk::new(content.clone()).with_fault(11 * GRAIN, Fault::Unreadable);
    let mut held = content.clone();
    held.resize(end + 5000, 9);
    for other in [2 * grain, 3 * grain + 7, 4 * grain + 1, end - 1] {
        held[other] ^= 1;
    }
    let volume = Disk::new(held);
    let checked = Checked::new(&base, &book);
    let stats = copy(&checked, &volume).await.expect("restored");
    assert_eq!(stats.bytes_read, 4 * GRAIN - 1000);
    assert_eq!(stats.bytes_unchanged, 16 * GRAIN);
    assert!(volume.content()[..end] == content);
    assert!(volume.content()[end..].iter().all(|byte| *byte == 0));

    // What is not known is read, and written only if it differs.
    book.forget(12);
    let stats = copy(&checked, &Disk::new(content)).await.expect("restored");
    assert_eq!((stats.bytes_read, stats.bytes_written), (GRAIN, 0));
}

#[tokio::test]
async fn what_the_destination_has_of_what_is_missing_stays() {
    const GRAINS: usize = 100;
    let grain = GRAIN as usize;
    let content: Vec<u8> = (0..GRAINS * grain).map(|at| (at % 255 + 1) as u8).collect();
    let (device, book) = (Disk::new(content.clone()), Book::default());
    let recorded = Recorded::new(&device, &book, content.len() as u64);
    copy(&recorded, &Disk::new(vec![0; content.len()]))
        .await
        .expect("stored");
    // As if the objects were gone that held all but the first grain.
    let mut left = content.clone();
    left[grain..].fill(0);
    let mut held = content.clone();
    held[40 * grain] ^= 1;
    let volume = Disk::new(held.clone());
    let base = Disk::new(left);
    let noting = Checked::noting(&base, &book);
    let missing = GRAIN..content.len() as u64;
    let plan = vec![Extent::data(0..GRAIN), Extent::zero(missing.clone())];
    let options = PumpOptions {
        zero_grain: grain,
        ..PumpOptions::new(Budget::new(64 << 20), Destination::Similar)
    };
    let job = Job::default();
    let plan = Plan::of(plan, &job.progress);
    let pumped = pump(plan, &noting, &volume, &options, &job).await;
    pumped.expect("restored");
    held[40 * grain..41 * grain].fill(0);
    assert!(volume.content() == held);
    assert_eq!(noting.into_damage().places, [missing]);
}

/// As it is read where nobody tells what is in it.
#[tokio::test]
async fn what_is_read_to_be_looked_at_is_read_as_a_whole() {
    let size = 10 * GRAIN as usize;
    let (device, book) = (Disk::new(vec![0; size]), Book::default());
    let recorded = Recorded::new(&device, &book, size as u64);
    let nowhere = Nowhere::new(size as u64);
    copy(&recorded, &nowhere).await.expect("read");
    let mut spoilt = vec![0; size];
    spoilt[5 * GRAIN as usize] = 1;
    let spoilt = Disk::new(spoilt);
    let noting = Checked::noting(&spoilt, &book);
    let stats = copy(&noting, &nowhere).await.expect("read");
    assert_eq!(stats.bytes_read, size as u64);
    assert_eq!(noting.into_damage().places, vec![5 * GRAIN..6 * GRAIN]);
}

#[test]
fn damage_that_touches_is_one_in_whatever_order_it_is_found() {
    let (disk, book) = (Disk::new(vec![0; 10]), Book::default());
    let noting = Checked::noting(&disk, &book);
    for range in [4..6, 8..9, 0..1, 6..7, 3..4, 7..8, 3..5] {
        noting.damaged(range).expect("noted");
    }
    let found = noting.into_damage();
    assert_eq!((found.places, found.more), (vec![0..1, 3..9], 0));
}

#[test]
fn more_damage_than_is_noted_is_counted_and_passed_on() {
    let (disk, book) = (Disk::new(vec![0; 10]), Book::default());
    let noting = Checked::noting(&disk, &book);
    for place in 0..10_002 {
        let start = place * 2 * GRAIN;
        noting.damaged(start..start + GRAIN).expect("passed on");
    }
    let found = noting.into_damage();
    assert_eq!((found.places.len(), found.more), (10_000, 2 * GRAIN));
}

#[test]
fn a_digest_is_of_the_grain_with_its_zeros() {
    assert_eq!(Digest::of(&[0; 100], 7), Digest::ZEROS);
    assert_eq!(Digest::of(&[], 7), Digest::ZEROS);
    let mut whole = vec![0; GRAIN as usize];
    whole[99] = 1;
    let digest = Digest::of(&whole, 7);
    assert_eq!(Digest::of(&whole[..100], 7), digest);
    assert_ne!(Digest::of(&whole, 8), digest);
    whole[GRAIN as usize - 1] = 1;
    assert_ne!(Digest::of(&whole, 7), digest);
}

/// What is stored must be found by later releases.
#[test]
fn digests_stay_what_they_are() {
    let grain: Vec<u8> = (0..GRAIN).map(|at| (at % 251) as u8).collect();
    let digest = u128::from_be_bytes(Digest::of(&grain, 0x5eed).0);
    assert_eq!(format!("{digest:032x}"), "c3d6d441a1a73fda1b2d52cc7635bc74");
}
