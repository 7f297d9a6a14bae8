//! The digests of one part of an image, as they are stored.
//!
//! A chunk is a RADOS object: [`MAGIC`], runs in ascending order, and the seedless XXH3 (64 bits) of all
//! that. A run is its first grain (16 bits), its number of grains less one (16 bits), and one byte: 0 for
//! zeros, 1 for digests, which follow (16 bytes each). Numbers are big-endian.

use std::collections::BTreeMap;

use twox_hash::XxHash3_64;

use crate::transfer::{Digest, GRAIN};

/// How many grains a chunk covers: 1 GiB of the image.
pub const GRAINS: u64 = 1 << 14;

/// How many bytes of an image a chunk covers.
pub const BYTES: u64 = GRAINS * GRAIN;

/// No chunk is longer, in bytes: each grain as a run of its own.
pub const LIMIT: usize = MAGIC.len() + GRAINS as usize * (RUN + DIGEST) + CHECK;

const MAGIC: &[u8] = b"cinderblock chunk 1\n";
const RUN: usize = 5;
const DIGEST: usize = 16;
const CHECK: usize = 8;

/// A chunk that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("it is not a chunk of a manifest: {0}")]
pub struct NotAChunk(&'static str);

/// Digests of some of a chunk's grains.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Chunk {
    digests: BTreeMap<u16, Digest>,
}

impl Chunk {
    /// Takes the digest of a grain, counted from the chunk's beginning; whether there was none of it.
    pub fn set(&mut self, grain: u16, digest: Digest) -> bool {
        self.digests.insert(grain, digest).is_none()
    }

    /// Its digests, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Digest)> + '_ {
        self.digests.iter().map(|(grain, digest)| (*grain, *digest))
    }

    /// Takes from an older chunk what this one does not have.
    pub fn lay_over(&mut self, older: &Chunk) {
        for (grain, digest) in older.iter() {
            self.digests.entry(grain).or_insert(digest);
        }
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut rest = self.iter().peekable();
        while let Some((first, digest)) = rest.next() {
            let zeros = digest == Digest::ZEROS;
            let mut run = vec![digest];
            let mut last = first;
            let continues = |last: u16, (grain, digest): &(u16, Digest)| {
                last.checked_add(1) == Some(*grain) && (*digest == Digest::ZEROS) == zeros
            };
            while let Some((grain, digest)) = rest.next_if(|next| continues(last, next)) {
                last = grain;
                run.push(digest);
            }
            out.extend(first.to_be_bytes());
            out.extend((last - first).to_be_bytes());
            out.push((!zeros).into());
            if !zeros {
                out.extend(run.iter().flat_map(|digest| digest.0));
            }
        }
        let check = XxHash3_64::oneshot(&out);
        out.extend(check.to_be_bytes());
        out
    }

    /// Reads what [`Chunk::encode`] wrote.
    ///
    /// # Errors
    /// If it was anything else, or one bit of it is another.
    pub fn decode(stored: &[u8]) -> Result<Self, NotAChunk> {
        let (content, check) = stored
            .split_last_chunk::<CHECK>()
            .ok_or(NotAChunk("it is short"))?;
        if XxHash3_64::oneshot(content) != u64::from_be_bytes(*check) {
            return Err(NotAChunk("its checksum is wrong"));
        }
        let mut rest = content
            .strip_prefix(MAGIC)
            .ok_or(NotAChunk("it begins with something else"))?;
        let mut digests = BTreeMap::new();
        let mut next = 0;
        while let Some((head, tail)) = rest.split_first_chunk::<RUN>() {
            let [a, b, c, d, kind] = *head;
            let first = u16::from_be_bytes([a, b]);
            let last = first.checked_add(u16::from_be_bytes([c, d]));
            let last = last.filter(|last| u64::from(*last) < GRAINS && u32::from(first) >= next);
            let last = last.ok_or(NotAChunk("its runs are out of order"))?;
            next = u32::from(last) + 1;
            rest = tail;
            for grain in first..=last {
                let digest = match kind {
                    0 => Digest::ZEROS,
                    1 => {
                        let (digest, tail) = rest
                            .split_first_chunk()
                            .ok_or(NotAChunk("a digest is missing"))?;
                        rest = tail;
                        Digest(*digest)
                    }
                    _ => return Err(NotAChunk("a run is of no known kind")),
                };
                digests.insert(grain, digest);
            }
        }
        match rest.is_empty() {
            true => Ok(Self { digests }),
            false => Err(NotAChunk("a run is cut off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(digests: &[(u16, u8)]) -> Chunk {
        let mut chunk = Chunk::default();
        for (grain, byte) in digests {
            chunk.set(*grain, Digest([*byte; 16]));
        }
        chunk
    }

    #[test]
    fn runs_of_zeros_take_no_room() {
        let zeros: Vec<(u16, u8)> = (0..16384).map(|grain| (grain, 0)).collect();
        let zeros = chunk(&zeros);
        let stored = zeros.encode();
        assert_eq!(stored.len(), MAGIC.len() + RUN + CHECK);
        assert_eq!(Chunk::decode(&stored), Ok(zeros));
    }

    #[test]
    fn the_newer_one_covers_the_older_one() {
        let mut newer = chunk(&[(1, 1), (3, 0)]);
        newer.lay_over(&chunk(&[(1, 9), (2, 2), (3, 9), (16383, 4)]));
        assert_eq!(newer, chunk(&[(1, 1), (2, 2), (3, 0), (16383, 4)]));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let stored = chunk(&[(0, 1), (1, 2), (5, 0), (6, 0), (900, 3)]).encode();
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read(digests in proptest::collection::vec((0u16..16384, 0u8..3), 0..300)) {
            let chunk = chunk(&digests);
            let stored = chunk.encode();
            prop_assert!(stored.len() <= LIMIT);
            prop_assert_eq!(Chunk::decode(&stored), Ok(chunk));
        }

        /// With a right checksum, so that what lies behind it is reached.
        #[test]
        fn nothing_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), ours in any::<bool>()) {
            if ours {
                bytes = [MAGIC, &bytes].concat();
            }
            bytes.extend(XxHash3_64::oneshot(&bytes).to_be_bytes());
            if let Ok(chunk) = Chunk::decode(&bytes) {
                prop_assert!(chunk.digests.len() <= GRAINS as usize);
            }
        }
    }
}
