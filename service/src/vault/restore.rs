//! Finding a backup's restore point and writing it into a volume.

use std::ops::Range;
use std::pin::Pin;

use api_compat::ids::BackupId;
use api_compat::names::BackupSnapshot;
use tracing::warn;

use super::damage;
use super::manifest::Manifest;
use super::plan::Candidate;
use super::snapshots::{snapshots_if_exists, still_stand};
use super::store::own;
use super::{BackupRecord, Error, Result, Vault, Volume};
use crate::rbd::{DiffQuery, Image, Pool};
use crate::transfer::{
    self, BlockError, BlockSink, Checked, Destination, Job, PumpOptions, Stats, TransferError,
};

/// Where a backup can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// The pool.
    pub pool: String,
    /// The image.
    pub image: String,
    /// The snapshot; `None` for a full copy that Python made without one.
    pub snapshot: Option<String>,
}

impl RestorePoint {
    /// The backup and the snapshot that a manifest describes; none where it cannot have one.
    pub(super) fn described(&self) -> Option<(BackupId, &str)> {
        let snapshot = self.snapshot.as_deref()?;
        Some((BackupSnapshot::parse(snapshot)?.backup()?, snapshot))
    }
}

/// A restore point whose image is open.
pub(super) struct Opened<'a> {
    point: &'a RestorePoint,
    pool: &'a Pool,
    image: &'a Image,
    /// Whether it is read although it is damaged.
    damaged_too: bool,
}

impl Opened<'_> {
    /// Writes it into a volume, and compares what it reads with the backup's manifest, if there is one.
    ///
    /// # Errors
    /// `Missing` if it was removed meanwhile: what it had held then reads as zeros. `Damaged` if it is not
    /// what was stored.
    pub(super) async fn copy_to<K: BlockSink>(
        &self,
        target: &K,
        options: &PumpOptions,
        job: &Job,
    ) -> Result<Stats> {
        let Some(manifest) = self.manifest().await? else {
            let copying = transfer::copy_all(self.image, target, options, job);
            let stats = copying.await?;
            self.still_stands().await?;
            return Ok(stats);
        };
        let source = match self.damaged_too {
            true => Checked::noting(self.image, &manifest),
            false => Checked::new(self.image, &manifest),
        };
        let stats = match transfer::copy_all(&source, target, options, job).await {
            Err(TransferError::Read {
                error: BlockError::Damaged(range),
                ..
            }) => {
                // Without its snapshot it reads as zeros, which is no damage.
                self.still_stands().await?;
                return Err(Error::damaged(self.describe(range).await));
            }
            copied => copied?,
        };
        self.still_stands().await?;
        let unknown = source.unknown();
        if manifest.is_whole() && unknown > 0 {
            warn!(
                image = self.image.name(),
                bytes = unknown,
                "Parts of the manifest are gone: nobody knows whether what was restored is what was stored"
            );
        }
        let damage = source.into_damage();
        for range in damage.places {
            warn!("{}. It is restored as it is", self.describe(range).await);
        }
        if damage.more > 0 {
            warn!(
                image = self.image.name(),
                bytes = damage.more,
                "There is more damage. It is restored as it is"
            );
        }
        Ok(stats)
    }

    /// Makes sure that the restore point is still what was opened.
    pub(super) async fn still_stands(&self) -> Result<()> {
        let names: Vec<&str> = self.point.snapshot.as_deref().into_iter().collect();
        let then = self.image.snapshots().await?;
        still_stand(self.pool, &self.point.image, &then, &names).await
    }

    pub(super) async fn manifest(&self) -> Result<Option<Manifest>> {
        match self.point.described() {
            Some((backup, snapshot)) => Manifest::open(self.pool, backup, snapshot).await,
            None => Ok(None),
        }
    }

    async fn describe(&self, damage: Range<u64>) -> String {
        let whole = damage::begin(self.image, damage).await;
        format!("The backup is damaged: {whole}")
    }
}

/// How large an image is that a backup is written into, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSize {
    /// So large.
    Exactly(u64),
    /// So large, or as large as it is, or as the backup is: an encrypted image begins with a header,
    /// which counts for nothing in the size of its volume.
    AtLeast(u64),
}

impl TargetSize {
    /// The size of an image of `current` bytes that takes `needed` bytes.
    pub(super) fn of(self, current: u64, needed: u64) -> Result<u64> {
        match self {
            Self::Exactly(size) if needed > size => Err(Error::invalid(format!(
                "The backup holds {needed} bytes, which do not fit into a volume of {size} bytes"
            ))),
            Self::Exactly(size) => Ok(size),
            Self::AtLeast(size) => Ok(size.max(current).max(needed)),
        }
    }
}

impl Vault {
    /// Finds where a backup can be read: opened by name, without listing the pool.
    pub async fn find_restore_point(&self, record: &BackupRecord) -> Result<RestorePoint> {
        let pool = self.pool_of(record).await?;
        let found = self.find(&pool, record).await?;
        let complete = self.has_metadata(record).await?;
        match record.restore_point(&found, complete)? {
            Some((image, snapshot)) => Ok(RestorePoint {
                pool: pool.name().to_owned(),
                image: image.to_string(),
                snapshot,
            }),
            None => Err(Error::missing(format!(
                "No restore point of backup {} exists in pool {} (looked in {})",
                record.backup,
                pool.name(),
                record
                    .candidates()
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// Whether the image exists that a backup's record names.
    pub async fn has_base(&self, record: &BackupRecord) -> Result<bool> {
        let Some(base) = record.base else {
            return Ok(false);
        };
        let pool = self.pool_of(record).await?;
        let found = snapshots_if_exists(&pool, &base.to_string()).await?;
        Ok(found.is_some())
    }

    pub(super) async fn find(&self, pool: &Pool, record: &BackupRecord) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for image in record.candidates() {
            if let Some(snapshots) = snapshots_if_exists(pool, &image.to_string()).await? {
                found.push(Candidate { image, snapshots });
            }
        }
        Ok(found)
    }

    pub(super) fn opened<'a>(
        &self,
        point: &'a RestorePoint,
        pool: &'a Pool,
        image: &'a Image,
    ) -> Opened<'a> {
        Opened {
            point,
            pool,
            image,
            damaged_too: self.engine.restore_damaged,
        }
    }

    /// Writes a restore point into a volume of that size. Afterwards the volume reads as the
    /// backup did, followed by zeroes, and no space is taken where the backup takes none.
    ///
    /// `new` promises that the volume was never written; it is believed unless the image's object
    /// map shows otherwise.
    pub async fn restore(
        &self,
        point: &RestorePoint,
        target: &Volume,
        size: TargetSize,
        new: bool,
        job: &Job,
    ) -> Result<Stats> {
        let always = Box::pin(async { true });
        self.restore_if(point, target, (size, new), job, always)
            .await
    }

    /// The same if that is `wanted` once nobody else can write the volume any more: somebody may have done
    /// it meanwhile, and the volume be in use.
    ///
    /// # Errors
    /// `Cancelled` if it is not.
    pub async fn restore_if(
        &self,
        point: &RestorePoint,
        target: &Volume,
        (size, new): (TargetSize, bool),
        job: &Job,
        wanted: Pin<Box<dyn Future<Output = bool> + Send + '_>>,
    ) -> Result<Stats> {
        let pool = self.pool(&point.pool).await?;
        let source = pool.open(&point.image, point.snapshot.as_deref()).await?;
        let image = target.open().await?;
        let written = async {
            let size = size.of(image.known_size(), source.known_size())?;
            own(&image).await?;
            if !wanted.await {
                return Err(TransferError::Cancelled.into());
            }
            if image.known_size() != size {
                image.resize(size).await?;
            }
            let destination = match new && is_blank(&image).await? {
                true => Destination::Fresh,
                false => Destination::Similar,
            };
            let options = self.pump_options(destination);
            let opened = self.opened(point, &pool, &source);
            opened.copy_to(&image, &options, job).await
        };
        let stats = written.await;
        image.close().await;
        source.close().await;
        stats
    }
}

/// Whether nothing is allocated in an image, as far as its object map can tell at once.
async fn is_blank(image: &Image) -> Result<bool> {
    if !image.has_valid_fast_diff() {
        return Ok(true);
    }
    let everything = DiffQuery {
        from: None,
        range: 0..image.known_size(),
        include_parent: true,
        whole_objects: true,
    };
    Ok(!image.differs(everything).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_volume_has_its_size() {
        let exactly = TargetSize::Exactly(100);
        assert_eq!(exactly.of(50, 100).unwrap(), 100);
        assert_eq!(exactly.of(110, 80).unwrap(), 100);
        assert!(exactly.of(110, 101).is_err());
    }

    #[test]
    fn an_encrypted_volume_keeps_the_room_for_its_header() {
        let at_least = TargetSize::AtLeast(100);
        assert_eq!(at_least.of(102, 102).unwrap(), 102);
        assert_eq!(at_least.of(100, 102).unwrap(), 102);
        assert_eq!(at_least.of(202, 102).unwrap(), 202);
        assert_eq!(at_least.of(50, 52).unwrap(), 100);
    }
}
