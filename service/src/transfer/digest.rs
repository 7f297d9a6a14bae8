//! Digests of the data that passes, and sources that take or check them.

use std::future::Future;
use std::ops::Range;
use std::sync::Mutex;

use twox_hash::XxHash3_128;

use super::block::{BlockError, BlockSource, ImageSource};
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

    /// The grains of a range that are known to hold more than zeros. The range may be as long as an image.
    fn holds_data(
        &self,
        grains: Range<u64>,
    ) -> impl Future<Output = Result<Vec<u64>, BlockError>> + Send;
}

/// How many places may be damaged for that to be noted only.
const MOST_DAMAGE: usize = 10_000;

fn digests(data: &[u8], seed: u64) -> Vec<Digest> {
    let grains = data.chunks(GRAIN as usize);
    grains.map(|grain| Digest::of(grain, seed)).collect()
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
        self.recorder.record(offset / GRAIN, digests).await?;
        Ok(buffer)
    }

    async fn zeros(&self, range: Range<u64>) -> Result<(), BlockError> {
        let Range { start: mut at, end } = grains_of(&range, self.size());
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
                let full = noted.len() >= MOST_DAMAGE;
                match noted.last_mut() {
                    Some(last) if last.end == found.start => last.end = found.end,
                    _ if full => return Err(BlockError::Damaged(found)),
                    _ => noted.push(found),
                }
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
        for grain in self.reference.holds_data(grains_of(&range, size)).await? {
            self.damaged(grain * GRAIN..((grain + 1) * GRAIN).min(size))?;
        }
        Ok(())
    }
}

impl<S: ImageSource, R: Reference> ImageSource for Checked<'_, S, R> {
    fn image(&self) -> &Image {
        self.source.image()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::transfer::memory::Disk;
    use crate::transfer::{
        BlockSink, Budget, Destination, Progress, PumpOptions, TransferError, copy_whole,
    };

    /// A manifest in memory: what it does not list is zeros.
    #[derive(Default)]
    struct Book(Mutex<BTreeMap<u64, Digest>>);

    impl Book {
        fn of(&self, grain: u64) -> Digest {
            let book = self.0.lock().expect("nobody panicked");
            book.get(&grain).copied().unwrap_or(Digest::ZEROS)
        }
    }

    impl Recorder for Book {
        fn seed(&self) -> u64 {
            7
        }

        async fn record(&self, first: u64, digests: Vec<Digest>) -> Result<(), BlockError> {
            let mut book = self.0.lock().expect("nobody panicked");
            book.extend((first..).zip(digests));
            Ok(())
        }
    }

    impl Reference for Book {
        fn seed(&self) -> u64 {
            7
        }

        async fn expected(&self, grains: Range<u64>) -> Result<Vec<Option<Digest>>, BlockError> {
            Ok(grains.map(|grain| Some(self.of(grain))).collect())
        }

        async fn holds_data(&self, grains: Range<u64>) -> Result<Vec<u64>, BlockError> {
            Ok(grains
                .filter(|grain| self.of(*grain) != Digest::ZEROS)
                .collect())
        }
    }

    async fn copy(source: &impl BlockSource, sink: &impl BlockSink) -> Result<(), TransferError> {
        let options = PumpOptions::new(Budget::new(1 << 20), Destination::Similar);
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        let copied = copy_whole(source, sink, &options, &progress, &cancel).await;
        copied.map(drop)
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
            let refused = copy(&Checked::new(&spoilt, &book), &volume).await;
            refused.expect_err("it is damaged");
            let noting = Checked::noting(&spoilt, &book);
            copy(&noting, &volume).await.expect("restored");
            let damage = noting.into_damage();
            assert!(
                damage.len() == 1 && damage[0].contains(&(last as u64)),
                "{damage:?}"
            );
        }
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
}
