//! The objects that hold a manifest's chunks.

use api_compat::ids::BackupId;
use api_compat::names;
use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::warn;

use super::chunk::{self, Chunk};
use super::reader::ends_it;
use crate::rbd::Pool;
use crate::vault::Result;

/// How many objects are removed at a time.
const REMOVALS: usize = 16;

/// The chunks of one manifest.
pub struct Parts {
    pool: Pool,
    backup: BackupId,
    /// What tells them from others of the same backup, if there are any.
    set: Option<String>,
}

impl Parts {
    /// Those of a backup's manifest whose header names this set.
    pub fn new(pool: &Pool, backup: BackupId, set: Option<&str>) -> Self {
        Self {
            pool: pool.clone(),
            backup,
            set: set.map(str::to_owned),
        }
    }

    fn name(&self, index: u32) -> String {
        names::manifest_chunk_object(self.backup, self.set.as_deref(), index)
    }

    /// A chunk that the header lists; none if it is gone or damaged.
    pub async fn read(&self, index: u32) -> Result<Option<Chunk>> {
        let name = self.name(index);
        let stored = match self.pool.read_object(&name, chunk::LIMIT).await {
            Err(error) if !ends_it(&error) => {
                warn!(object = name, %error, "A part of a manifest cannot be read");
                return Ok(None);
            }
            stored => stored?,
        };
        let Some(stored) = stored else {
            warn!(object = name, "A part of a manifest is gone");
            return Ok(None);
        };
        match Chunk::decode(&stored) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(error) => {
                warn!(object = name, %error, "A part of a manifest cannot be used");
                Ok(None)
            }
        }
    }

    /// Writes a chunk in place of what is there.
    pub async fn write(&self, index: u32, chunk: &Chunk) -> Result<()> {
        let name = self.name(index);
        Ok(self.pool.write_object(&name, &chunk.encode()).await?)
    }

    /// Removes chunks, of which some need not be there.
    pub async fn remove(&self, chunks: impl IntoIterator<Item = u32>) -> Result<()> {
        let removals = chunks.into_iter().map(|index| async move {
            let name = self.name(index);
            self.pool.remove_object(&name).await.map(drop)
        });
        let mut removals = stream::iter(removals).buffer_unordered(REMOVALS);
        while removals.try_next().await?.is_some() {}
        Ok(())
    }
}
