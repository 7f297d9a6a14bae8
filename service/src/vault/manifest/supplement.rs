//! Writing what a complete backup's manifest does not know, or all of it.

use api_compat::ids::BackupId;
use api_compat::names;
use tracing::{info, warn};

use super::header::{Header, NotAHeader};
use super::parts::Parts;
use super::reader::{Manifest, read_stored};
use super::writer::Writer;
use super::{Result, random, remove, remove_others, replace};
use crate::rbd::Pool;
use crate::vault::Error;

/// A manifest that gets what it does not have, while the backup is read from its beginning to its end.
///
/// Its parts are a set of their own until it is complete, so that whoever reads the manifest meanwhile, and
/// after whatever ends this before its time, finds what was there before. The header tells of the set, so
/// that it goes with the backup. Of two that supplement one manifest, the one that began last counts.
pub struct Supplement {
    /// What is known of the backup: it must not be recorded if it reads as anything else.
    pub known: Manifest,
    /// Takes the digests.
    pub writer: Writer,
    pending: Pending,
}

/// The set of parts that is being written.
struct Pending {
    pool: Pool,
    backup: BackupId,
    set: Option<String>,
}

impl Supplement {
    /// Begins with the manifest of a backup in this snapshot, which is of so many bytes.
    ///
    /// # Errors
    /// `Damaged` if there is a manifest that this release, or just now nobody, can read.
    pub async fn begin(pool: &Pool, backup: BackupId, snapshot: &str, size: u64) -> Result<Self> {
        let before = found(pool, backup, snapshot).await?;
        let known = match &before {
            Some(_) => Manifest::open(pool, backup, snapshot).await?,
            None => None,
        };
        if before.is_none() {
            // What cannot be used is in the way.
            remove(pool, backup).await?;
        }
        let set = Some(format!("{:08x}", random() as u32));
        let seed = before.as_ref().map_or_else(random, Header::seed);
        let mut finished = Header::new(snapshot, size, seed);
        finished.set = set.clone();
        match before {
            Some(before) => {
                finished.rollback = before.rollback.clone();
                take_place(pool, backup, before, &set).await?;
            }
            None => {
                let mut draft = finished.draft();
                draft.others = vec![set.clone()];
                let name = names::manifest_object(backup);
                pool.write_object(&name, &draft.encode()).await?;
            }
        }
        Ok(Self {
            known: known.unwrap_or_else(|| Manifest::unknown(pool, backup, finished.clone())),
            writer: Writer::new(pool.clone(), backup, finished, None, None),
            pending: Pending {
                pool: pool.clone(),
                backup,
                set,
            },
        })
    }

    /// Puts what was written in the place of what was there.
    ///
    /// # Errors
    /// `Missing` if the manifest went meanwhile, or somebody else has begun to supplement it.
    pub async fn finish(self) -> Result<()> {
        let pending = self.pending;
        let mut finished = self.writer.complete().await?;
        let Some(before) = pending.header().await? else {
            pending.discard(&finished).await?;
            return Err(begun_anew(pending.backup));
        };
        // Told of for as long as any of it may be there.
        if !before.is_draft() {
            finished.others = vec![before.set.clone()];
        }
        if !pending.replace(&before, &finished).await? {
            pending.discard(&finished).await?;
            return Err(begun_anew(pending.backup));
        }
        remove_others(&pending.pool, pending.backup, &finished).await?;
        let told = finished.clone();
        finished.others.clear();
        pending.replace(&told, &finished).await.map(drop)
    }

    /// Leaves what was there before.
    pub async fn give_up(self) -> Result<()> {
        let pending = self.pending;
        pending.discard(self.writer.header()).await?;
        match pending.header().await? {
            Some(draft) if draft.is_draft() => remove(&pending.pool, pending.backup).await,
            Some(before) => {
                let mut after = before.clone();
                after.others.retain(|set| *set != pending.set);
                pending.replace(&before, &after).await.map(drop)
            }
            None => Ok(()),
        }
    }
}

impl Pending {
    /// The header, if it still tells of this set.
    async fn header(&self) -> Result<Option<Header>> {
        let stored = read_stored(&self.pool, &names::manifest_object(self.backup)).await?;
        let header = stored.and_then(std::result::Result::ok);
        Ok(header.filter(|header| header.others.contains(&self.set)))
    }

    async fn replace(&self, read: &Header, header: &Header) -> Result<bool> {
        replace(&self.pool, self.backup, read, header).await
    }

    async fn discard(&self, header: &Header) -> Result<()> {
        let parts = Parts::new(&self.pool, self.backup, self.set.as_deref());
        parts.remove(header.possible_chunks()).await
    }
}

/// Tells in a manifest's header that a set is being written. Whatever other one was, goes.
async fn take_place(
    pool: &Pool,
    backup: BackupId,
    before: Header,
    set: &Option<String>,
) -> Result<()> {
    let mut both = before.clone();
    both.others.push(set.clone());
    let mut alone = before.clone();
    alone.others = vec![set.clone()];
    if !replace(pool, backup, &before, &both).await? {
        return Err(begun_anew(backup));
    }
    if before.others.is_empty() {
        return Ok(());
    }
    info!(%backup, "Taking the place of an attempt that was broken off, or of another one");
    remove_others(pool, backup, &before).await?;
    match replace(pool, backup, &both, &alone).await? {
        true => Ok(()),
        false => Err(begun_anew(backup)),
    }
}

fn begun_anew(backup: BackupId) -> Error {
    Error::missing(format!(
        "The manifest of backup {backup} was removed or begun anew meanwhile"
    ))
}

/// The header of a manifest that can be supplemented.
async fn found(pool: &Pool, backup: BackupId, snapshot: &str) -> Result<Option<Header>> {
    let name = names::manifest_object(backup);
    match read_stored(pool, &name).await? {
        Some(Ok(header)) if !header.is_draft() && header.snapshot == snapshot => Ok(Some(header)),
        // It may be right.
        Some(Err(error @ (NotAHeader::Unreadable(_) | NotAHeader::Unknown { .. }))) => {
            Err(Error::damaged(format!("{name} is left alone: {error}")))
        }
        Some(Err(error)) => {
            warn!(object = name, %error, "A manifest is made anew");
            Ok(None)
        }
        None | Some(Ok(_)) => Ok(None),
    }
}
