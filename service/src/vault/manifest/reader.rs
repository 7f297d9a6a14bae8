//! Looking up what a backup's data must be.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use api_compat::ids::BackupId;
use api_compat::names;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;
use tracing::warn;

use super::chunk::GRAINS;
use super::header::{self, Header, NotAHeader};
use super::parts::Parts;
use crate::rbd::{self, ErrorKind, Pool};
use crate::transfer::{BlockError, Digest, Holes, Reference};
use crate::vault::{Error, Result};

/// How many chunks are kept: the data passes in about the order of the image.
const KEPT: usize = 4;

/// How many chunks are read at a time.
pub(super) const READS: usize = 8;

/// The digests of a chunk's grains; none where nothing is known.
type Digests = Vec<Option<Digest>>;

/// A backup's manifest, with the older ones on which it builds.
pub struct Manifest {
    pool: Pool,
    /// Newest first.
    chain: Vec<(BackupId, Header)>,
    /// Whether grains without a digest are zeros.
    whole: bool,
    kept: Mutex<VecDeque<(u32, Arc<Digests>)>>,
}

impl Manifest {
    /// Opens the manifest of a backup that lies in this snapshot; `None` if it has none.
    pub async fn open(pool: &Pool, backup: BackupId, snapshot: &str) -> Result<Option<Self>> {
        let Some(header) = read_header(pool, backup, snapshot).await? else {
            return Ok(None);
        };
        let mut seen = BTreeSet::from([backup]);
        let mut chain = vec![(backup, header)];
        let mut whole = false;
        while let Some((_, newest)) = chain.last() {
            let Some(older) = newest.older.clone() else {
                whole = newest.whole;
                break;
            };
            let found = match seen.insert(older.backup) {
                true => read_header(pool, older.backup, &older.snapshot).await?,
                false => None,
            };
            // One of another seed cannot be compared with.
            let Some(header) = found.filter(|header| header.seed() == newest.seed()) else {
                warn!(%backup, missing = %older.backup, "A manifest is not whole: one that it builds on is gone");
                break;
            };
            chain.push((older.backup, header));
        }
        Ok(Some(Self {
            pool: pool.clone(),
            chain,
            whole,
            kept: Mutex::default(),
        }))
    }

    /// That of a backup of which nothing is known but what its manifest is going to be like.
    pub(super) fn unknown(pool: &Pool, backup: BackupId, header: Header) -> Self {
        Self {
            pool: pool.clone(),
            chain: vec![(backup, header)],
            whole: false,
            kept: Mutex::default(),
        }
    }

    /// Whether it knows of every grain what that must be, as far as its parts can be read.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether it is known from the same manifests, however these are being supplemented.
    pub(super) fn tells_as(&self, other: &Self) -> bool {
        let same = |(one, other): (&(BackupId, Header), &(BackupId, Header))| {
            one.0 == other.0 && one.1.tells_as(&other.1)
        };
        self.chain.len() == other.chain.len() && self.chain.iter().zip(&other.chain).all(same)
    }

    /// What the newest of them says of itself.
    pub fn header(&self) -> &Header {
        &self.chain[0].1
    }

    async fn digests(&self, index: u32) -> Result<Arc<Digests>> {
        let mut kept = self.kept.lock().await;
        if let Some((_, digests)) = kept.iter().find(|(kept, _)| *kept == index) {
            return Ok(Arc::clone(digests));
        }
        let digests = Arc::new(self.load(index).await?);
        kept.push_back((index, Arc::clone(&digests)));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        Ok(digests)
    }

    /// What is known of a chunk's grains, the newest last.
    async fn load(&self, index: u32) -> Result<Digests> {
        let otherwise = self.whole.then_some(Digest::ZEROS);
        let mut digests = vec![otherwise; GRAINS as usize];
        let mut there = Vec::new();
        for (backup, header) in self.chain.iter().rev() {
            if header.has(index) {
                there.push(Parts::new(&self.pool, *backup, header.set.as_deref()));
            }
        }
        let chunks = stream::iter(there).map(|parts| async move { parts.read(index).await });
        let mut chunks = chunks.buffered(READS);
        while let Some(chunk) = chunks.try_next().await? {
            match chunk {
                Some(chunk) => {
                    for (grain, digest) in chunk.iter() {
                        digests[usize::from(grain)] = Some(digest);
                    }
                }
                // It may have told of any of them.
                None => digests.fill(None),
            }
        }
        Ok(digests)
    }
}

impl Reference for Manifest {
    fn seed(&self) -> u64 {
        self.header().seed()
    }

    async fn expected(
        &self,
        grains: Range<u64>,
    ) -> std::result::Result<Vec<Option<Digest>>, BlockError> {
        let mut expected = Vec::with_capacity((grains.end - grains.start) as usize);
        for (index, places) in chunks_of(grains) {
            let digests = self.digests(index).await.map_err(block_error)?;
            expected.extend_from_slice(&digests[places]);
        }
        Ok(expected)
    }

    async fn holes(&self, grains: Range<u64>) -> std::result::Result<Holes, BlockError> {
        let mut holes = Holes::default();
        for (index, places) in chunks_of(grains) {
            // Most of a thin image.
            if !self.chain.iter().any(|(_, header)| header.has(index)) {
                continue;
            }
            let digests = self.digests(index).await.map_err(block_error)?;
            let first = u64::from(index) * GRAINS + places.start as u64;
            for (grain, digest) in (first..).zip(&digests[places]) {
                match digest {
                    Some(Digest::ZEROS) => {}
                    Some(_) => holes.data.push(grain),
                    // One that knows everything has lost a part; what others never knew is a hole.
                    None if self.whole => holes.lost.push(grain),
                    None => {}
                }
            }
        }
        Ok(holes)
    }
}

/// What the pool said, for whoever moves the data.
pub(super) fn block_error(error: Error) -> BlockError {
    match error {
        Error::Rbd(error) => BlockError::Rbd(error),
        error => BlockError::Io(io::Error::other(error)),
    }
}

/// A range of grains, chunk by chunk: the chunk, and the places in it.
fn chunks_of(grains: Range<u64>) -> impl Iterator<Item = (u32, Range<usize>)> {
    let mut at = grains.start;
    std::iter::from_fn(move || {
        if at >= grains.end {
            return None;
        }
        let (index, place) = (at / GRAINS, at % GRAINS);
        let count = (grains.end - at).min(GRAINS - place);
        at += count;
        Some((index as u32, place as usize..(place + count) as usize))
    })
}

/// The header of the manifest of a backup in this snapshot; one that cannot be used is as good as none.
pub(super) async fn read_header(
    pool: &Pool,
    backup: BackupId,
    snapshot: &str,
) -> Result<Option<Header>> {
    let name = names::manifest_object(backup);
    match read_stored(pool, &name).await? {
        None => Ok(None),
        Some(Ok(header)) if header.is_draft() => Ok(None),
        Some(Ok(header)) if header.snapshot == snapshot => Ok(Some(header)),
        Some(Ok(header)) => {
            warn!(
                object = name,
                describes = header.snapshot,
                wanted = snapshot,
                "A manifest is of something else"
            );
            Ok(None)
        }
        Some(Err(error)) => {
            warn!(object = name, %error, "A manifest cannot be used");
            Ok(None)
        }
    }
}

/// The header in an object, whatever it describes; `None` if there is no object.
pub(super) async fn read_stored(
    pool: &Pool,
    object: &str,
) -> Result<Option<std::result::Result<Header, NotAHeader>>> {
    let stored = match pool.read_object(object, header::LIMIT).await {
        Err(error) if !ends_it(&error) => return Ok(Some(Err(error.into()))),
        stored => stored?,
    };
    Ok(stored.map(|stored| Header::decode(&stored)))
}

/// Whether nothing else will work either. A manifest that cannot be read for another reason is as good as
/// none: the data may well be right.
pub(super) fn ends_it(error: &rbd::Error) -> bool {
    use ErrorKind::{Permission, Shutdown, Unreachable};
    matches!(error.kind(), Permission | Shutdown | Unreachable)
}
