//! Writing a manifest while the backup's data passes.

use std::collections::{BTreeMap, BTreeSet};

use api_compat::ids::BackupId;
use api_compat::names;
use tokio::sync::Mutex;

use super::chunk::{Chunk, GRAINS};
use super::header::Header;
use super::parts::Parts;
use super::reader::block_error;
use crate::rbd::Pool;
use crate::transfer::{BlockError, Digest, Recorder};
use crate::vault::trust::Rollback;
use crate::vault::{Error, Result};

/// How many digests are kept before chunks are written: about a megabyte.
const KEPT: usize = 1 << 15;

/// A manifest that is being made.
pub struct Writer {
    pool: Pool,
    backup: BackupId,
    parts: Parts,
    header: Header,
    /// What the parent's manifest says of rollbacks.
    inherited: Option<Rollback>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<u32, Chunk>,
    kept: usize,
    written: BTreeSet<u32>,
}

impl Writer {
    pub(super) fn new(
        pool: Pool,
        backup: BackupId,
        header: Header,
        inherited: Option<Rollback>,
    ) -> Self {
        Self {
            parts: Parts::new(&pool, backup, header.set.as_deref()),
            pool,
            backup,
            header,
            inherited,
            state: Mutex::default(),
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

    /// Writes what is left, and the header last: until then there is no manifest.
    pub async fn finish(self) -> Result<()> {
        let (pool, backup) = (self.pool.clone(), self.backup);
        let header = self.complete().await?;
        let name = names::manifest_object(backup);
        Ok(pool.write_object(&name, &header.encode()).await?)
    }

    /// Writes what is left; the header that lists everything.
    pub(super) async fn complete(self) -> Result<Header> {
        let mut state = self.state.into_inner();
        while let Some((index, chunk)) = state.open.pop_first() {
            write(&self.parts, &mut state.written, index, chunk).await?;
        }
        let mut header = self.header;
        header.list(state.written);
        Ok(header)
    }

    async fn take(&self, first: u64, digests: Vec<Digest>) -> Result<()> {
        let mut state = self.state.lock().await;
        // What is not told of is zeros anyway.
        let leaves_zeros = self.header.whole && self.header.older.is_none();
        for (grain, digest) in (first..).zip(digests) {
            if leaves_zeros && digest == Digest::ZEROS {
                continue;
            }
            let (index, place) = (grain / GRAINS, grain % GRAINS);
            let index =
                u32::try_from(index).map_err(|_| Error::invalid("The image is too large"))?;
            state
                .open
                .entry(index)
                .or_default()
                .set(place as u16, digest);
        }
        state.kept = state.open.values().map(Chunk::len).sum();
        while state.kept > KEPT {
            // The data passes in about the order of the image.
            let Some((index, chunk)) = state.open.pop_first() else {
                break;
            };
            state.kept -= chunk.len();
            write(&self.parts, &mut state.written, index, chunk).await?;
        }
        Ok(())
    }
}

impl Recorder for Writer {
    fn seed(&self) -> u64 {
        self.header.seed()
    }

    async fn record(
        &self,
        first: u64,
        digests: Vec<Digest>,
    ) -> std::result::Result<(), BlockError> {
        self.take(first, digests).await.map_err(block_error)
    }
}

/// Writes a chunk, over what of it was written before.
async fn write(
    parts: &Parts,
    written: &mut BTreeSet<u32>,
    index: u32,
    mut chunk: Chunk,
) -> Result<()> {
    if written.contains(&index) {
        let older = parts.read(index).await?;
        let older = older.ok_or_else(|| Error::damaged("A part of the manifest is gone again"))?;
        chunk.lay_over(&older);
    }
    parts.write(index, &chunk).await?;
    written.insert(index);
    Ok(())
}
