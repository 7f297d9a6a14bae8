//! Digests of the data that passes, and sources that take or check them.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use twox_hash::XxHash3_128;

use super::block::{BlockError, BlockSource, ImageSource, Unlike};
use super::budget::Buffer;
use super::runs::is_zero;
use crate::rbd::Image;

/// What is digested at once, in bytes, from the beginning of a device. The last grain of a device that
/// does not end with one is continued with zeros.
pub const GRAIN: u64 = 64 << 10;

/// The digest of one grain: 128 bits of XXH3, seeded. It tells damage from what was stored, not a
/// forgery by somebody who can write manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub(crate) [u8; 16]);

impl Digest {
    /// That of nothing but zeros.
    pub const ZEROS: Self = Self([0; 16]);

    /// The digest of a grain's data, which may end before the grain does.
    pub fn of(data: &[u8], seed: u64) -> Self {
        if is_zero(data) {
            return Self::ZEROS;
        }
        let digest = match data.len() < GRAIN as usize {
            false => XxHash3_128::oneshot_with_seed(seed, data),
            true => {
                let mut whole = data.to_vec();
                whole.resize(GRAIN as usize, 0);
                XxHash3_128::oneshot_with_seed(seed, &whole)
            }
        };
        Self(digest.to_be_bytes())
    }
}

/// Takes down the digests of what passes.
pub trait Recorder: Sync {
    /// What digests are seeded with.
    fn seed(&self) -> u64;

    /// Takes the digests of successive grains.
    fn record(&self, first: u64, digests: Vec<Digest>);

    /// Whether digests of a range of grains have been noted by an attempt that was broken off: what they
    /// are of is safe.
    fn has(&self, _grains: Range<u64>) -> impl Future<Output = Result<bool, BlockError>> + Send {
        async { Ok(false) }
    }

    /// Whether it has taken so many, or for so long, that it is time to note them.
    fn wants_checkpoint(&self) -> bool {
        false
    }

    /// Sets the digests that it has taken until now apart from later ones.
    fn mark(&self) {}

    /// Notes the digests that it had when it was last marked: what they are of is safe.
    fn checkpoint(&self) -> impl Future<Output = Result<(), BlockError>> + Send {
        async { Ok(()) }
    }
}

/// Knows what digests there must be.
pub trait Reference: Sync {
    /// What digests are seeded with.
    fn seed(&self) -> u64;

    /// Those of a range of grains; none where it is not known.
    fn expected(
        &self,
        grains: Range<u64>,
    ) -> impl Future<Output = Result<Vec<Option<Digest>>, BlockError>> + Send;

    /// What is known of a range of grains that reads as zeros, and may be as long as an image.
    fn holes(&self, grains: Range<u64>) -> impl Future<Output = Result<Holes, BlockError>> + Send;
}

/// Grains among those that read as zeros.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Holes {
    /// Those that are known to hold more than zeros.
    pub data: Vec<u64>,
    /// Those that may do so: what was known of them is lost.
    pub lost: Vec<u64>,
}

/// How many damaged places are noted.
const MOST_DAMAGE: usize = 10_000;

fn digests(data: &[u8], seed: u64) -> Vec<Digest> {
    let grains = data.chunks(GRAIN as usize);
    grains.map(|grain| Digest::of(grain, seed)).collect()
}

/// The bytes of a grain of a source of that size.
fn bytes_of(grain: u64, size: u64) -> Range<u64> {
    grain * GRAIN..((grain + 1) * GRAIN).min(size)
}

/// The whole grains that a range of zeros fills, of a source of that size; none of them behind its end, where
/// a range may begin at any byte.
fn grains_of(range: &Range<u64>, size: u64) -> Range<u64> {
    match range.start < size {
        true => range.start / GRAIN..range.end.min(size).div_ceil(GRAIN),
        false => 0..0,
    }
}

/// A source whose digests are taken down.
pub struct Recorded<'a, S, R> {
    source: &'a S,
    recorder: &'a R,
    size: u64,
}

impl<'a, S: BlockSource, R> Recorded<'a, S, R> {
    /// Has `recorder` take down what is read from the first `size` bytes of `source`.
    pub fn new(source: &'a S, recorder: &'a R, size: u64) -> Self {
        Self {
            source,
            recorder,
            size: size.min(source.size()),
        }
    }
}

impl<S: BlockSource, R: Recorder> BlockSource for Recorded<'_, S, R> {
    fn size(&self) -> u64 {
        self.size
    }

    fn grain(&self) -> u64 {
        GRAIN
    }

    async fn read_at(&self, offset: u64, buffer: Buffer) -> Result<Buffer, BlockError> {
        let buffer = self.source.read_at(offset, buffer).await?;
        let digests = digests(buffer.as_ref(), self.recorder.seed());
        self.recorder.record(offset / GRAIN, digests);
        Ok(buffer)
    }

    fn wants_zeros(&self) -> bool {
        self.source.wants_zeros()
    }

    async fn is_stored(&self, range: Range<u64>) -> Result<bool, BlockError> {
        let grains = range.start / GRAIN..range.end.div_ceil(GRAIN);
        self.recorder.has(grains).await
    }

    fn wants_checkpoint(&self) -> bool {
        self.recorder.wants_checkpoint()
    }

    fn mark(&self) {
        self.recorder.mark();
    }

    async fn checkpoint(&self) -> Result<(), BlockError> {
        self.recorder.checkpoint().await
    }

    async fn zeros(&self, range: Range<u64>) -> Result<Vec<Range<u64>>, BlockError> {
        let lost = self.source.zeros(range.clone()).await?;
        let Range { start: mut at, end } = grains_of(&range, self.size());
        while at < end {
            let count = (end - at).min(1 << 10);
            let zeros = vec![Digest::ZEROS; count as usize];
            self.recorder.record(at, zeros);
            at += count;
        }
        Ok(lost)
    }
}

impl<S: ImageSource, R: Recorder> ImageSource for Recorded<'_, S, R> {
    fn image(&self) -> &Image {
        self.source.image()
    }
}

/// What to do about data that is not what it should be.
enum Damage {
    /// It is an error.
    Refused,
    /// It is noted, and passed on.
    Noted(Mutex<Noted>),
}

/// Damage that was passed on.
#[derive(Debug, Default)]
struct Noted {
    /// Where it begins and ends, in bytes; what touches is one.
    places: BTreeMap<u64, u64>,
    /// Bytes of what is damaged beyond that.
    more: u64,
}

/// What was damaged of what was passed on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Damaged {
    /// Ranges of bytes in order, those that touch joined: the first ten thousand that were found.
    pub places: Vec<Range<u64>>,
    /// Bytes of all the others.
    pub more: u64,
}

/// A source whose data is compared with what is known of it.
pub struct Checked<'a, S, R> {
    source: &'a S,
    reference: &'a R,
    damage: Damage,
    /// Bytes of which nothing is known: that were read, or are holes of which more was known once.
    unknown: AtomicU64,
}

impl<'a, S, R> Checked<'a, S, R> {
    /// A source of which nothing can be read that is damaged.
    pub fn new(source: &'a S, reference: &'a R) -> Self {
        Self {
            source,
            reference,
            damage: Damage::Refused,
            unknown: AtomicU64::new(0),
        }
    }

    /// A source whose damage is noted.
    pub fn noting(source: &'a S, reference: &'a R) -> Self {
        Self {
            source,
            reference,
            damage: Damage::Noted(Mutex::default()),
            unknown: AtomicU64::new(0),
        }
    }

    /// How many bytes there are of which nothing is known: of those that were read, and of holes where more
    /// was known once.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// The damage that was noted.
    pub fn into_damage(self) -> Damaged {
        let Damage::Noted(noted) = self.damage else {
            return Damaged::default();
        };
        let Noted { places, more } = noted
            .into_inner()
            .unwrap_or_else(|error| error.into_inner());
        let places = places.into_iter().map(|(start, end)| start..end);
        Damaged {
            places: places.collect(),
            more,
        }
    }

    pub(super) fn damaged(&self, found: Range<u64>) -> Result<(), BlockError> {
        let Damage::Noted(noted) = &self.damage else {
            return Err(BlockError::Damaged(found));
        };
        let mut noted = noted.lock().unwrap_or_else(|error| error.into_inner());
        let Range { mut start, mut end } = found.clone();
        let places = &mut noted.places;
        let known = places.len();
        while let Some((before, reaches)) = places.range(..=end).next_back().map(|(a, b)| (*a, *b))
            && reaches >= start
        {
            places.remove(&before);
            start = start.min(before);
            end = end.max(reaches);
        }
        match places.len() == known && known >= MOST_DAMAGE {
            true => noted.more += found.end - found.start,
            false => _ = places.insert(start, end),
        }
        Ok(())
    }
}

impl<S: BlockSource, R: Reference> Checked<'_, S, R> {
    /// Looks at the grains from `first` on: those whose data is not what it should be, as bytes, and how
    /// many bytes nothing is known of.
    async fn compare(&self, first: u64, data: &[u8]) -> Result<(Vec<Range<u64>>, u64), BlockError> {
        let found = digests(data, self.reference.seed());
        let grains = first..first + found.len() as u64;
        let expected = self.reference.expected(grains.clone()).await?;
        let size = self.source.size();
        let (mut wrong, mut unknown) = (Vec::new(), 0);
        for ((grain, found), expected) in grains.zip(found).zip(expected) {
            match expected {
                Some(expected) if expected == found => {}
                Some(_) => wrong.push(bytes_of(grain, size)),
                None => {
                    let bytes = bytes_of(grain, size);
                    unknown += bytes.end - bytes.start;
                }
            }
        }
        Ok((wrong, unknown))
    }
}

impl<S: BlockSource, R: Reference> BlockSource for Checked<'_, S, R> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn grain(&self) -> u64 {
        GRAIN
    }

    fn wants_zeros(&self) -> bool {
        true
    }

    fn is_known(&self) -> bool {
        true
    }

    async fn unlike(&self, offset: u64, held: &[u8]) -> Result<Vec<Unlike>, BlockError> {
        let first = offset / GRAIN;
        let found = digests(held, self.reference.seed());
        let grains = first..first + found.len() as u64;
        let expected = self.reference.expected(grains.clone()).await?;
        let end = offset + held.len() as u64;
        let mut unlike: Vec<Unlike> = Vec::new();
        for ((grain, found), expected) in grains.zip(found).zip(expected) {
            if expected == Some(found) {
                continue;
            }
            let range = bytes_of(grain, end);
            let certain = expected.is_some();
            match unlike.last_mut() {
                Some(last) if last.range.end == range.start && last.certain == certain => {
                    last.range.end = range.end;
                }
                _ => unlike.push(Unlike { range, certain }),
            }
        }
        Ok(unlike)
    }

    async fn read_at(&self, offset: u64, buffer: Buffer) -> Result<Buffer, BlockError> {
        let first = offset / GRAIN;
        let mut buffer = self.source.read_at(offset, buffer).await?;
        let (mut wrong, unknown) = self.compare(first, buffer.as_ref()).await?;
        self.unknown.fetch_add(unknown, Ordering::Relaxed);
        if !wrong.is_empty() {
            // Another replica, or the same after a bit that flipped on its way, may be right.
            buffer = self.source.read_at(offset, buffer).await?;
            (wrong, _) = self.compare(first, buffer.as_ref()).await?;
        }
        for found in wrong {
            self.damaged(found)?;
        }
        Ok(buffer)
    }

    async fn zeros(&self, range: Range<u64>) -> Result<Vec<Range<u64>>, BlockError> {
        let size = self.size();
        let holes = self.reference.holes(grains_of(&range, size)).await?;
        let lost = holes.lost.into_iter().map(|grain| bytes_of(grain, size));
        let lost = lost.map(|range| range.end - range.start).sum();
        self.unknown.fetch_add(lost, Ordering::Relaxed);
        let mut missing: Vec<Range<u64>> = Vec::new();
        for grain in holes.data {
            let bytes = bytes_of(grain, size);
            self.damaged(bytes.clone())?;
            match missing.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => missing.push(bytes),
            }
        }
        Ok(missing)
    }
}

impl<S: ImageSource, R: Reference> ImageSource for Checked<'_, S, R> {
    fn image(&self) -> &Image {
        self.source.image()
    }
}
