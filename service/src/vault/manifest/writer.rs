//! Writing a manifest while the backup's data passes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_compat::ids::BackupId;
use api_compat::names;

use super::checkpoint::{Checkpoint, Way};
use super::chunk::{Chunk, GRAINS};
use super::header::Header;
use super::parts::Parts;
use super::reader::{Manifest, block_error};
use crate::rbd::Pool;
use crate::transfer::{BlockError, Digest, Recorder, Reference};
use crate::vault::trust::Rollback;
use crate::vault::{Error, Result};

/// How many digests are taken before they are written: about a megabyte.
const KEPT: usize = 1 << 15;

/// A manifest that is being made.
///
/// No chunk of it has the digest of a grain that is not yet safe in the backup's image: so a draft tells
/// how far the backup is.
pub struct Writer {
    pool: Pool,
    backup: BackupId,
    parts: Parts,
    header: Header,
    /// What the parent's manifest says of rollbacks.
    inherited: Option<Rollback>,
    resumption: Option<Resumption>,
    state: Mutex<State>,
}

/// What it takes for somebody else to go on.
pub struct Resumption {
    /// Between what the data is moved.
    pub way: Way,
    /// How often it is noted how far the backup is.
    pub interval: Duration,
    /// What an attempt before this one has noted.
    pub found: Option<Manifest>,
}

struct State {
    /// Since the last mark.
    taken: Digests,
    since: Instant,
    /// Before it, and not yet written.
    marked: BTreeMap<u32, Chunk>,
    written: BTreeSet<u32>,
}

#[derive(Default)]
struct Digests {
    chunks: BTreeMap<u32, Chunk>,
    count: usize,
}

impl Writer {
    pub(super) fn new(
        pool: Pool,
        backup: BackupId,
        header: Header,
        inherited: Option<Rollback>,
        resumption: Option<Resumption>,
    ) -> Self {
        let found = resumption.iter().filter_map(|it| it.found.as_ref());
        let written = found.flat_map(|found| found.header().chunks()).collect();
        Self {
            parts: Parts::new(&pool, backup, header.set.as_deref()),
            pool,
            backup,
            header,
            inherited,
            resumption,
            state: Mutex::new(State {
                taken: Digests::default(),
                since: Instant::now(),
                marked: BTreeMap::new(),
                written,
            }),
        }
    }

    /// What the manifest will say of itself, but for the chunks.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// How a rollback to a snapshot older than the parent would show.
    pub fn inherited(&self) -> Option<&Rollback> {
        self.inherited.as_ref()
    }

    /// Notes how a rollback to a snapshot older than this backup would show.
    pub fn set_rollback(&mut self, rollback: Option<Rollback>) {
        self.header.rollback = rollback;
    }

    /// Writes that there is going to be a manifest, and how far it is.
    pub(super) async fn write_draft(&self) -> Result<()> {
        let mut draft = self.header.draft();
        draft.checkpoint = self.resumption.as_ref().map(|it| Checkpoint {
            way: it.way.clone(),
            chunks: self.state().written.iter().copied().collect(),
        });
        self.write_header(&draft).await
    }

    /// Writes what is left, and the header last: until then there is no manifest.
    pub async fn finish(self) -> Result<()> {
        let header = self.complete().await?;
        self.write_header(&header).await
    }

    /// Writes what is left; the header that lists everything.
    pub(super) async fn complete(&self) -> Result<Header> {
        self.mark();
        self.write_marked().await?;
        let mut header = self.header.clone();
        header.list(self.state().written.iter().copied().collect());
        Ok(header)
    }

    async fn write_header(&self, header: &Header) -> Result<()> {
        let name = names::manifest_object(self.backup);
        Ok(self.pool.write_object(&name, &header.encode()).await?)
    }

    /// Writes the digests that were taken before the last mark. What is not written when this is dropped is
    /// written the next time.
    async fn write_marked(&self) -> Result<()> {
        loop {
            let next = {
                let state = self.state();
                let next = state.marked.first_key_value();
                next.map(|(index, chunk)| (*index, chunk.clone(), state.written.contains(index)))
            };
            let Some((index, mut chunk, there)) = next else {
                return Ok(());
            };
            if there {
                let older = self.parts.read(index).await?;
                let gone = || Error::damaged("A part of the manifest is gone again");
                chunk.lay_over(&older.ok_or_else(gone)?);
            }
            self.parts.write(index, &chunk).await?;
            let mut state = self.state();
            state.marked.remove(&index);
            state.written.insert(index);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Writer {
    fn seed(&self) -> u64 {
        self.header.seed()
    }

    fn record(&self, first: u64, digests: Vec<Digest>) {
        let mut state = self.state();
        let taken = &mut state.taken;
        for (grain, digest) in (first..).zip(digests) {
            let (index, place) = (grain / GRAINS, grain % GRAINS);
            // No image has as many chunks as there are numbers for them.
            let chunk = taken.chunks.entry(index as u32).or_default();
            if chunk.set(place as u16, digest) {
                taken.count += 1;
            }
        }
    }

    async fn has(&self, grains: Range<u64>) -> std::result::Result<bool, BlockError> {
        let found = self.resumption.as_ref().and_then(|it| it.found.as_ref());
        let Some(found) = found else {
            return Ok(false);
        };
        Ok(found.expected(grains).await?.iter().all(Option::is_some))
    }

    fn wants_checkpoint(&self) -> bool {
        let state = self.state();
        let waits = |it: &Resumption| state.taken.count > 0 && state.since.elapsed() >= it.interval;
        state.taken.count > KEPT || self.resumption.as_ref().is_some_and(waits)
    }

    fn mark(&self) {
        let mut state = self.state();
        let taken = std::mem::take(&mut state.taken);
        for (index, mut chunk) in taken.chunks {
            if let Some(older) = state.marked.remove(&index) {
                chunk.lay_over(&older);
            }
            state.marked.insert(index, chunk);
        }
        state.since = Instant::now();
    }

    async fn checkpoint(&self) -> std::result::Result<(), BlockError> {
        let writing = async {
            self.write_marked().await?;
            match self.resumption {
                Some(_) => self.write_draft().await,
                None => Ok(()),
            }
        };
        writing.await.map_err(block_error)
    }
}
