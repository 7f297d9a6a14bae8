//! Writing a manifest while the backup's data passes.

use std::collections::{BTreeMap, BTreeSet};

use api_compat::ids::BackupId;
use api_compat::names;
use tokio::sync::Mutex;

use super::chunk::{self, Chunk, GRAINS};
use super::header::Header;
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
            pool,
            backup,
            header,
            inherited,
            state: Mutex::default(),
        }
    }

    /// Keeps what was written before of these chunks.
    pub(super) fn onto(mut self, chunks: impl IntoIterator<Item = u32>) -> Self {
        self.state.get_mut().written.extend(chunks);
        self
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
        let mut state = self.state.into_inner();
        while let Some((index, chunk)) = state.open.pop_first() {
            write(&self.pool, self.backup, &mut state.written, index, chunk).await?;
        }
        write_header(&self.pool, self.backup, self.header, state.written).await
    }

    /// Ends with what has been written so far, for which `header` holds.
    pub(super) async fn give_up(self, header: Header) -> Result<()> {
        let written = self.state.into_inner().written;
        write_header(&self.pool, self.backup, header, written).await
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
            write(&self.pool, self.backup, &mut state.written, index, chunk).await?;
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

async fn write_header(
    pool: &Pool,
    backup: BackupId,
    mut header: Header,
    chunks: BTreeSet<u32>,
) -> Result<()> {
    header.list(chunks);
    let name = names::manifest_object(backup);
    Ok(pool.write_object(&name, &header.encode()).await?)
}

/// Writes a chunk, over what of it was written before.
async fn write(
    pool: &Pool,
    backup: BackupId,
    written: &mut BTreeSet<u32>,
    index: u32,
    mut chunk: Chunk,
) -> Result<()> {
    let name = names::manifest_chunk_object(backup, index);
    if written.contains(&index)
        && let Some(stored) = pool.read_object(&name, chunk::LIMIT).await?
    {
        let older =
            Chunk::decode(&stored).map_err(|error| Error::damaged(format!("{name}: {error}")))?;
        chunk.lay_over(&older);
    }
    pool.write_object(&name, &chunk.encode()).await?;
    written.insert(index);
    Ok(())
}
