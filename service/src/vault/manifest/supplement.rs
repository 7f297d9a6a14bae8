//! Writing what a complete backup's manifest does not know, or all of it.

use api_compat::ids::BackupId;
use api_compat::names;

use super::chunk;
use super::header::Header;
use super::reader::{Manifest, read_header};
use super::writer::Writer;
use super::{Result, random, remove};
use crate::rbd::Pool;

/// A manifest that gets what it does not have, while the backup is read from its beginning to its end.
pub struct Supplement {
    /// What is known of the backup: it must not be recorded if it reads as anything else.
    pub known: Manifest,
    /// Takes the digests.
    pub writer: Writer,
    /// The header until then; none where nothing was known.
    before: Option<Header>,
}

impl Supplement {
    /// Begins with the manifest of a backup in this snapshot, which is of so many bytes.
    pub async fn begin(pool: &Pool, backup: BackupId, snapshot: &str, size: u64) -> Result<Self> {
        let before = read_header(pool, backup, snapshot).await?;
        let seed = before.as_ref().map_or_else(random, Header::seed);
        let finished = Header::new(snapshot, size, seed);
        let (interim, known) = match &before {
            Some(before) => {
                // Whatever ends this before its time, no chunk is left of which nobody knows.
                let mut interim = before.clone();
                interim.list(0..size.div_ceil(chunk::BYTES) as u32);
                (interim, Manifest::open(pool, backup, snapshot).await?)
            }
            None => {
                // What cannot be used is in the way.
                remove(pool, backup).await?;
                (finished.draft(), None)
            }
        };
        let known = known.unwrap_or_else(|| Manifest::unknown(pool, backup, finished.clone()));
        pool.write_object(&names::manifest_object(backup), &interim.encode())
            .await?;
        let chunks: Vec<u32> = before.iter().flat_map(Header::chunks).collect();
        let writer = Writer::new(pool.clone(), backup, finished, None).onto(chunks);
        Ok(Self {
            known,
            writer,
            before,
        })
    }

    /// Ends it where the backup could not be read to its end: what is known by then is known.
    pub async fn give_up(self, pool: &Pool, backup: BackupId) -> Result<()> {
        match self.before {
            Some(before) => self.writer.give_up(before).await,
            None => remove(pool, backup).await,
        }
    }
}
