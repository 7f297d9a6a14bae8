//! Digests of the data that passes, and sources that take or check them.

use std::future::Future;
use std::ops::Range;
use std::sync::Mutex;

use xxhash_rust::xxh3::Xxh3;

use super::block::{BlockError, BlockSource, ImageSource};
use super::budget::Buffer;
use super::runs::is_zero;
use crate::rbd::Image;

/// What is digested at once, in bytes, from the beginning of a device. The last grain of a device that
/// does not end with one is continued with zeros.
pub const GRAIN: u64 = 64 << 10;

static ZEROS: [u8; GRAIN as usize] = [0; GRAIN as usize];

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
        let mut state = Xxh3::with_seed(seed);
        state.update(data);
        state.update(&ZEROS[data.len().min(ZEROS.len())..]);
        Self(state.digest128().to_be_bytes())
    }
}

/// Takes down the digests of what passes.
pub trait Recorder: Sync {
    /// What digests are seeded with.
    fn seed(&self) -> u64;

    /// Takes the digests of successive grains.
    fn record(
        &self,
        first: u64,
        digests: Vec<Digest>,
    ) -> impl Future<Output = Result<(), BlockError>> + Send;
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
}

fn digests(data: &[u8], seed: u64) -> Vec<Digest> {
    let grains = data.chunks(GRAIN as usize);
    grains.map(|grain| Digest::of(grain, seed)).collect()
}

/// A source whose digests are taken down.
pub struct Recorded<'a, S, R> {
    source: &'a S,
    recorder: &'a R,
}

impl<'a, S, R> Recorded<'a, S, R> {
    /// Has `recorder` take down what is read from `source`.
    pub fn new(source: &'a S, recorder: &'a R) -> Self {
        Self { source, recorder }
    }
}

impl<S: BlockSource, R: Recorder> BlockSource for Recorded<'_, S, R> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn grain(&self) -> u64 {
        GRAIN
    }

    async fn read_at(&self, offset: u64, buffer: Buffer) -> Result<Buffer, BlockError> {
        let buffer = self.source.read_at(offset, buffer).await?;
        let digests = digests(buffer.as_ref(), self.recorder.seed());
        self.recorder.record(offset / GRAIN, digests).await?;
        Ok(buffer)
    }

    async fn zeros(&self, range: Range<u64>) -> Result<(), BlockError> {
        let end = range.end.min(self.size()).div_ceil(GRAIN);
        let mut at = range.start / GRAIN;
        while at < end {
            let count = (end - at).min(1 << 10);
            let zeros = vec![Digest::ZEROS; count as usize];
            self.recorder.record(at, zeros).await?;
            at += count;
        }
        Ok(())
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
    Noted(Mutex<Vec<Range<u64>>>),
}

/// A source whose data is compared with what is known of it.
pub struct Checked<'a, S, R> {
    source: &'a S,
    reference: &'a R,
    damage: Damage,
}

impl<'a, S, R> Checked<'a, S, R> {
    /// A source of which nothing can be read that is damaged.
    pub fn new(source: &'a S, reference: &'a R) -> Self {
        Self {
            source,
            reference,
            damage: Damage::Refused,
        }
    }

    /// A source whose damage is noted.
    pub fn noting(source: &'a S, reference: &'a R) -> Self {
        Self {
            source,
            reference,
            damage: Damage::Noted(Mutex::default()),
        }
    }

    /// The damage that was noted: ranges of bytes in order, those that touch joined.
    pub fn into_damage(self) -> Vec<Range<u64>> {
        let mut found = match self.damage {
            Damage::Refused => Vec::new(),
            Damage::Noted(found) => found
                .into_inner()
                .unwrap_or_else(|error| error.into_inner()),
        };
        found.sort_by_key(|range| range.start);
        found.dedup_by(|next, range| {
            let touches = next.start <= range.end;
            if touches {
                range.end = range.end.max(next.end);
            }
            touches
        });
        found
    }

    fn damaged(&self, found: Range<u64>) -> Result<(), BlockError> {
        match &self.damage {
            Damage::Refused => Err(BlockError::Damaged(found)),
            Damage::Noted(noted) => {
                let mut noted = noted.lock().unwrap_or_else(|error| error.into_inner());
                noted.push(found);
                Ok(())
            }
        }
    }
}

impl<S: BlockSource, R: Reference> Checked<'_, S, R> {
    /// The grains from `first` on whose data is not what it should be, as bytes.
    async fn compare(&self, first: u64, data: &[u8]) -> Result<Vec<Range<u64>>, BlockError> {
        let found = digests(data, self.reference.seed());
        let grains = first..first + found.len() as u64;
        let expected = self.reference.expected(grains.clone()).await?;
        let size = self.source.size();
        let wrong = grains.zip(found).zip(expected);
        let wrong = wrong.filter(|((_, found), expected)| expected.is_some_and(|it| it != *found));
        Ok(wrong
            .map(|((grain, _), _)| grain * GRAIN..((grain + 1) * GRAIN).min(size))
            .collect())
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

    async fn read_at(&self, offset: u64, buffer: Buffer) -> Result<Buffer, BlockError> {
        let first = offset / GRAIN;
        let mut buffer = self.source.read_at(offset, buffer).await?;
        let mut wrong = self.compare(first, buffer.as_ref()).await?;
        if !wrong.is_empty() {
            // Another replica, or the same after a bit that flipped on its way, may be right.
            buffer = self.source.read_at(offset, buffer).await?;
            wrong = self.compare(first, buffer.as_ref()).await?;
        }
        for found in wrong {
            self.damaged(found)?;
        }
        Ok(buffer)
    }

    async fn zeros(&self, range: Range<u64>) -> Result<(), BlockError> {
        let size = self.size();
        let end = range.end.min(size).div_ceil(GRAIN);
        let mut at = range.start / GRAIN;
        while at < end {
            let next = end.min(at + (1 << 10));
            let expected = self.reference.expected(at..next).await?;
            for (grain, expected) in (at..next).zip(expected) {
                if expected.is_some_and(|digest| digest != Digest::ZEROS) {
                    self.damaged(grain * GRAIN..((grain + 1) * GRAIN).min(size))?;
                }
            }
            at = next;
        }
        Ok(())
    }
}

impl<S: ImageSource, R: Reference> ImageSource for Checked<'_, S, R> {
    fn image(&self) -> &Image {
        self.source.image()
    }
}
