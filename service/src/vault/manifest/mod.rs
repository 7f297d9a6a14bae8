//! What a backup's data was when it was stored: a digest of every grain.
//!
//! A manifest is a header, `backup.<id>.manifest`, and chunks beside it, `backup.<id>.manifest.<n>`, with
//! the digests of what the backup wrote. For what it did not write, the header names the manifest of the
//! backup that it builds on. A manifest that is being made has a draft for a header. It is complete before
//! the restore point that it describes, so that one that stands has its manifest, whatever happens then.
//! Complete manifests build on each other: whoever changes one takes a turn on its volume, and replaces only
//! what was read. Where that cannot be, less is known of a backup than could be, and never what is wrong.
//!
//! Python's workers know none of this: a backup of theirs has no manifest, and one of ours that builds on
//! it knows only what it wrote itself.

mod checkpoint;
mod chunk;
#[cfg(test)]
mod fuzz;
mod header;
mod list;
mod parts;
mod reader;
mod supplement;
mod writer;

use std::collections::BTreeSet;

use api_compat::ids::BackupId;
use api_compat::names::{self, BackupSnapshot};
use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::warn;

use super::plan::Method;
use super::{BackupPlan, Error, Result, Vault, random};
use crate::rbd::{ErrorKind, Pool};
use checkpoint::Checkpoint;
pub(super) use checkpoint::Way;
use chunk::Chunk;
use header::{Header, Older};
use parts::Parts;
pub(super) use reader::Manifest;
use reader::{READS, read_header, read_stored};
pub(super) use supplement::Supplement;
use writer::Resumption;
pub(super) use writer::Writer;

impl Vault {
    /// Begins the manifest of a backup of `size` bytes. Nobody else may write the backup meanwhile. With a
    /// `way` an attempt that is broken off can be taken up.
    pub(super) async fn begin_manifest(
        &self,
        pool: &Pool,
        plan: &BackupPlan,
        size: u64,
        way: Option<Way>,
    ) -> Result<Writer> {
        // What an attempt that was broken off has written would be told of as this one's.
        remove(pool, plan.backup).await?;
        let (header, inherited) = match &plan.method {
            Method::Incremental { from } => {
                let parents = parents_header(pool, from).await?;
                let rollback = parents.as_ref().and_then(|(it, _)| it.rollback.clone());
                (on_parent(parents, from, &plan.snapshot, size), rollback)
            }
            Method::Full | Method::Whole | Method::Compared => {
                (Header::new(&plan.snapshot, size, random()), None)
            }
        };
        let resumption = way.map(|way| self.resumption(way, None));
        let writer = Writer::new(pool.clone(), plan.backup, header, inherited, resumption);
        writer.write_draft().await?;
        Ok(writer)
    }

    /// Takes up the manifest of a full backup whose making was broken off. Nobody else may write the backup
    /// meanwhile.
    ///
    /// # Errors
    /// `Missing` if there is none that was made in this way.
    pub(super) async fn resume_manifest(
        &self,
        pool: &Pool,
        plan: &BackupPlan,
        way: Way,
    ) -> Result<Writer> {
        let found = broken_off(pool, plan).await?;
        let Some((header, reached)) = found.filter(|(_, reached)| reached.way == way) else {
            let gone = "What an attempt before this one has noted was removed or begun anew";
            return Err(Error::missing(gone));
        };
        // What a part tells of that cannot be read is moved again.
        let parts = Parts::new(pool, plan.backup, header.set.as_deref());
        let parts = &parts;
        let read = stream::iter(reached.chunks.iter())
            .map(async |index| Ok::<_, Error>(parts.read(index).await?.map(|_| index)));
        let readable: Vec<Option<u32>> = read.buffered(READS).try_collect().await?;
        let mut known = header.clone();
        known.list(readable.into_iter().flatten().collect());
        let found = Manifest::unknown(pool, plan.backup, known);
        let resumption = self.resumption(way, Some(found));
        Ok(Writer::new(
            pool.clone(),
            plan.backup,
            header,
            None,
            Some(resumption),
        ))
    }

    fn resumption(&self, way: Way, found: Option<Manifest>) -> Resumption {
        Resumption {
            way,
            interval: self.engine.checkpoint_interval,
            found,
        }
    }
}

/// The draft of a backup whose making was broken off, and how far that was; none if it cannot be taken up.
pub(super) async fn broken_off(
    pool: &Pool,
    plan: &BackupPlan,
) -> Result<Option<(Header, Checkpoint)>> {
    let stored = read_stored(pool, &names::manifest_object(plan.backup)).await?;
    let draft = stored.and_then(std::result::Result::ok);
    let draft =
        draft.filter(|it| it.is_draft() && it.snapshot == plan.snapshot && it.size == plan.size);
    Ok(draft.and_then(|mut draft| {
        let reached = draft.checkpoint.take()?;
        Some((draft, reached))
    }))
}

/// The header of the parent's manifest, if it has one, and the parent.
async fn parents_header(pool: &Pool, from: &str) -> Result<Option<(Header, BackupId)>> {
    match BackupSnapshot::parse(from).and_then(|snapshot| snapshot.backup()) {
        Some(parent) => Ok(read_header(pool, parent, from).await?.zip(Some(parent))),
        None => Ok(None),
    }
}

/// The header of a backup that builds on its parent's snapshot.
fn on_parent(parents: Option<(Header, BackupId)>, from: &str, snapshot: &str, size: u64) -> Header {
    match parents {
        // Behind a shorter end the parent's digests hold no more.
        Some((older, backup)) if older.size <= size => {
            let mut header = Header::new(snapshot, size, older.seed());
            header.older = Some(Older {
                backup,
                snapshot: from.to_owned(),
            });
            header
        }
        _ => {
            let mut header = Header::new(snapshot, size, random());
            header.whole = false;
            header
        }
    }
}

/// Removes a backup's manifest, also one that was broken off. Nothing may build on it.
pub(super) async fn remove(pool: &Pool, backup: BackupId) -> Result<()> {
    let name = names::manifest_object(backup);
    let Some(stored) = read_stored(pool, &name).await? else {
        return Ok(());
    };
    match stored {
        Ok(header) => {
            let parts = Parts::new(pool, backup, header.set.as_deref());
            match (header.is_draft(), header.others.is_empty()) {
                (false, _) => parts.remove(header.chunks()).await?,
                (true, true) => parts.remove(header.possible_chunks()).await?,
                // One that a supplement began.
                (true, false) => {}
            }
            remove_others(pool, backup, &header).await?;
        }
        Err(error) => warn!(object = name, %error, "The parts of a manifest are left behind"),
    }
    pool.remove_object(&name).await?;
    Ok(())
}

/// Removes the chunks of the other sets of which a header tells.
async fn remove_others(pool: &Pool, backup: BackupId, header: &Header) -> Result<()> {
    for set in &header.others {
        let parts = Parts::new(pool, backup, set.as_deref());
        parts.remove(header.possible_chunks()).await?;
    }
    Ok(())
}

/// Writes a header in place of the one that was read.
///
/// # Errors
/// `Missing` if that is not there any more: somebody has written another one who has no turn, or removed it.
async fn replace(pool: &Pool, backup: BackupId, read: &Header, header: &Header) -> Result<()> {
    let name = names::manifest_object(backup);
    let (read, header) = (read.encode(), header.encode());
    match pool.replace_object(&name, &read, &header).await? {
        true => Ok(()),
        false => Err(begun_anew(backup)),
    }
}

fn begun_anew(backup: BackupId) -> Error {
    Error::missing(format!(
        "The manifest of backup {backup} was removed or begun anew meanwhile"
    ))
}

/// Gives the manifests of `others` that build on a backup's what they have from it: after that it can go.
/// Repeating it after an interruption is safe, since a manifest gets only what it does not have. Where there
/// is no room, less is known of the others from then on.
pub(super) async fn give_on(pool: &Pool, backup: BackupId, others: &[BackupId]) -> Result<()> {
    let Some(Ok(given)) = read_stored(pool, &names::manifest_object(backup)).await? else {
        return Ok(());
    };
    if given.is_draft() {
        return Ok(());
    }
    for other in others {
        match give_to(pool, (backup, &given), *other).await {
            // It may be gone by now, too.
            Err(error)
                if error.kind() == Some(ErrorKind::NoSpace)
                    || matches!(error, Error::Missing(_)) =>
            {
                warn!(backup = %other, %error, "A manifest loses what it builds on");
            }
            given => given?,
        }
    }
    Ok(())
}

async fn give_to(pool: &Pool, (backup, given): (BackupId, &Header), other: BackupId) -> Result<()> {
    let name = names::manifest_object(other);
    let Some(Ok(header)) = read_stored(pool, &name).await? else {
        return Ok(());
    };
    let builds = |older: &Older| older.backup == backup && older.snapshot == given.snapshot;
    // One of another seed was recorded anew: its digests cannot be told beside those of this one.
    if !header.older.as_ref().is_some_and(builds) || header.seed() != given.seed() {
        return Ok(());
    }
    match take_over(pool, (backup, given), (other, header.clone())).await {
        Ok(taken) => replace(pool, other, &header, &taken).await,
        Err(error) => {
            // No header tells of what was added.
            let to = Parts::new(pool, other, header.set.as_deref());
            let added = given.chunks().filter(|index| !header.has(*index));
            to.remove(added).await?;
            Err(error)
        }
    }
}

/// Writes what a manifest lacks of one that it builds on; the header that makes it independent of that.
async fn take_over(
    pool: &Pool,
    (backup, given): (BackupId, &Header),
    (other, mut header): (BackupId, Header),
) -> Result<Header> {
    let mut chunks: BTreeSet<u32> = header.chunks().collect();
    let mut lost = false;
    let from = Parts::new(pool, backup, given.set.as_deref());
    let to = Parts::new(pool, other, header.set.as_deref());
    for index in given.chunks() {
        let Some(older) = from.read(index).await? else {
            lost = true;
            continue;
        };
        let mut own = match header.has(index) {
            true => to.read(index).await?,
            false => Some(Chunk::default()),
        };
        if let Some(own) = &mut own {
            own.lay_over(&older);
            to.write(index, own).await?;
            chunks.insert(index);
        }
    }
    header.list(chunks.into_iter().collect());
    header.older = given.older.clone().filter(|_| !lost);
    header.whole = given.whole && !lost;
    Ok(header)
}
