//! Writing what a complete backup's manifest does not know, or all of it.

use api_compat::ids::{BackupId, VolumeId};
use api_compat::names;
use tracing::{info, warn};

use super::header::{Header, NotAHeader};
use super::parts::Parts;
use super::reader::{Manifest, read_stored};
use super::writer::Writer;
use super::{Result, begun_anew, random, remove, remove_others, replace};
use crate::rbd::Pool;
use crate::vault::Error;
use crate::vault::turn::in_turn_of;

/// A manifest that gets what it does not have, while the backup is read from its beginning to its end.
///
/// Its parts are a set of their own until it is complete, so that whoever reads the manifest meanwhile, and
/// after whatever ends this before its time, finds what was there before. The header tells of the set, so
/// that it goes with the backup. Of two that supplement one manifest, the one that began last counts; and
/// none counts if what was known when it began is known otherwise by then, as after a deletion of what the
/// backup builds on.
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
    volume: VolumeId,
    set: Option<String>,
    /// The header that tells of it.
    interim: Header,
}

impl Supplement {
    /// Begins with the manifest of a backup of a volume in this snapshot, which is of so many bytes, if that
    /// `stands` still: a deletion removes it before the manifest.
    ///
    /// # Errors
    /// `Damaged` if there is a manifest that this release, or just now nobody, can read.
    pub async fn begin(
        pool: &Pool,
        (backup, volume): (BackupId, VolumeId),
        snapshot: &str,
        size: u64,
        stands: impl Future<Output = Result<()>>,
    ) -> Result<Self> {
        let beginning = async {
            stands.await?;
            Self::begin_in_turn(pool, (backup, volume), snapshot, size).await
        };
        in_turn_of(pool, volume, beginning).await
    }

    async fn begin_in_turn(
        pool: &Pool,
        (backup, volume): (BackupId, VolumeId),
        snapshot: &str,
        size: u64,
    ) -> Result<Self> {
        let before = found(pool, backup, snapshot).await?;
        let set = Some(format!("{:08x}", random() as u32));
        let seed = before.as_ref().map_or_else(random, Header::seed);
        let mut finished = Header::new(snapshot, size, seed);
        finished.set = set.clone();
        let (known, interim) = match before {
            Some(before) => {
                finished.rollback = before.rollback.clone();
                let known = Manifest::open(pool, backup, snapshot).await?;
                let mut interim = before.clone();
                interim.others.push(set.clone());
                replace(pool, backup, &before, &interim).await?;
                if !before.others.is_empty() {
                    info!(%backup, "Taking the place of an attempt that was broken off, or of another one");
                    remove_others(pool, backup, &before).await?;
                }
                (known, interim)
            }
            None => {
                // What cannot be used is in the way.
                remove(pool, backup).await?;
                let mut draft = finished.draft();
                draft.others = vec![set.clone()];
                let name = names::manifest_object(backup);
                pool.write_object(&name, &draft.encode()).await?;
                (None, draft)
            }
        };
        Ok(Self {
            known: known.unwrap_or_else(|| Manifest::unknown(pool, backup, finished.clone())),
            writer: Writer::new(pool.clone(), backup, finished, None, None),
            pending: Pending {
                pool: pool.clone(),
                backup,
                volume,
                set,
                interim,
            },
        })
    }

    /// Puts what was written in the place of what was there.
    ///
    /// # Errors
    /// `Missing` if the manifest went meanwhile, or somebody else has begun to supplement it, or more is
    /// known than when this one began.
    pub async fn finish(self) -> Result<()> {
        let pending = &self.pending;
        let ending = async {
            let completed = self.writer.complete().await;
            let replaced = match completed {
                Ok(finished) => self.take_place(finished).await,
                Err(error) => Err(error),
            };
            match replaced {
                Ok(finished) => pending.tidy(finished).await,
                Err(gone @ Error::Missing(_)) => {
                    pending.discard(self.writer.header()).await?;
                    Err(gone)
                }
                // It may have been carried out all the same.
                Err(error) => Err(error),
            }
        };
        in_turn_of(&pending.pool, pending.volume, ending).await
    }

    /// Writes the header of the finished manifest, which tells of all others for as long as any part of
    /// those may be there.
    async fn take_place(&self, mut finished: Header) -> Result<Header> {
        let Pending {
            pool,
            backup,
            set,
            interim,
            ..
        } = &self.pending;
        if !interim.is_draft() {
            let now = Manifest::open(pool, *backup, &interim.snapshot).await?;
            if !now.is_some_and(|now| now.tells_as(&self.known)) {
                return Err(begun_anew(*backup));
            }
            finished.others.push(interim.set.clone());
        }
        let others = interim.others.iter().filter(|other| *other != set);
        finished.others.extend(others.cloned());
        replace(pool, *backup, interim, &finished).await?;
        Ok(finished)
    }

    /// Leaves what was there before.
    pub async fn give_up(self) -> Result<()> {
        let pending = &self.pending;
        let leaving = async {
            pending.discard(self.writer.header()).await?;
            if pending.header().await?.as_ref() != Some(&pending.interim) {
                return Ok(());
            }
            if pending.interim.is_draft() {
                return remove(&pending.pool, pending.backup).await;
            }
            let mut before = pending.interim.clone();
            before.others.retain(|set| *set != pending.set);
            replace(&pending.pool, pending.backup, &pending.interim, &before).await
        };
        in_turn_of(&pending.pool, pending.volume, leaving).await
    }
}

impl Pending {
    async fn header(&self) -> Result<Option<Header>> {
        let stored = read_stored(&self.pool, &names::manifest_object(self.backup)).await?;
        Ok(stored.and_then(std::result::Result::ok))
    }

    /// Removes what the finished manifest has taken the place of.
    async fn tidy(&self, mut finished: Header) -> Result<()> {
        remove_others(&self.pool, self.backup, &finished).await?;
        let told = finished.clone();
        finished.others.clear();
        replace(&self.pool, self.backup, &told, &finished).await
    }

    async fn discard(&self, header: &Header) -> Result<()> {
        let parts = Parts::new(&self.pool, self.backup, self.set.as_deref());
        parts.remove(header.possible_chunks()).await
    }
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
