//! Reading a backup again, to see whether it is what was stored.

use std::ops::Range;

use api_compat::ids::VolumeId;
use tracing::{info, warn};

use super::damage::{Damage, locate};
use super::manifest::{self, Manifest, Supplement};
use super::restore::Opened;
use super::turn::in_turn_of;
use super::{BackupRecord, Error, RestorePoint, Result, Vault};
use crate::rbd::{Image, Pool};
use crate::transfer::{
    self, BlockError, Checked, Destination, ImageSource, Job, Nowhere, Recorded, Stats,
    TransferError,
};

/// What came of reading a backup again.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Where it lies.
    pub point: RestorePoint,
    /// How much of it is known.
    pub known: Known,
    /// Bytes that were read; the rest is where there is nothing, and must not be anything.
    pub bytes_read: u64,
    /// Bytes of which nobody knows what they must be: of those, and of what is nothing now where a part of
    /// the manifest is lost.
    pub bytes_unknown: u64,
    /// Where it is not what was stored, in order: the first ten thousand places that were found.
    pub damage: Vec<Damage>,
    /// Bytes of all the others.
    pub bytes_damaged_more: u64,
}

/// How much a backup's manifest knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Everything.
    Whole,
    /// Some of it: the backup builds on one without a manifest.
    Partly,
    /// There is no manifest: Python's worker made the backup, or an older release. It is not read.
    Nothing,
    /// All that there is was written down just now: from now on damage will be noticed.
    Recorded,
}

impl Vault {
    /// Reads a whole backup and compares it with its manifest.
    ///
    /// With `record`, what the manifest does not know is taken for right and written down, if what it
    /// does know is right.
    ///
    /// # Errors
    /// What keeps it from being read, or `Cancelled`. Damage is no error.
    pub async fn verify(&self, backup: &BackupRecord, record: bool, job: &Job) -> Result<Verified> {
        let point = self.find_restore_point(backup).await?;
        let pool = self.pool(&point.pool).await?;
        let image = pool.open(&point.image, point.snapshot.as_deref()).await?;
        let verification = Verification {
            vault: self,
            opened: self.opened(&point, &pool, &image),
            point: &point,
            pool: &pool,
            image: &image,
            volume: backup.volume,
            job,
        };
        let verified = verification.run(record).await;
        image.close().await;
        verified
    }
}

struct Verification<'a> {
    vault: &'a Vault,
    opened: Opened<'a>,
    point: &'a RestorePoint,
    pool: &'a Pool,
    image: &'a Image,
    volume: VolumeId,
    job: &'a Job,
}

impl Verification<'_> {
    async fn run(&self, record: bool) -> Result<Verified> {
        let manifest = self.opened.manifest().await?;
        let manifest = manifest.as_ref();
        if !record {
            return self.look(manifest).await;
        }
        if manifest.is_some_and(Manifest::is_whole) {
            let found = self.look(manifest).await?;
            // Parts of a manifest may be gone, too.
            if found.bytes_unknown == 0 || !found.damage.is_empty() {
                return Ok(found);
            }
        }
        match self.record().await? {
            Some(recorded) => Ok(recorded),
            None => self.look(manifest).await,
        }
    }

    async fn look(&self, manifest: Option<&Manifest>) -> Result<Verified> {
        match manifest {
            Some(manifest) => self.compare(manifest).await,
            None => Ok(self.verified(Known::Nothing, 0)),
        }
    }

    async fn compare(&self, manifest: &Manifest) -> Result<Verified> {
        let source = Checked::noting(self.image, manifest);
        let bytes_read = self.read(&source).await?.bytes_read;
        self.opened.still_stands().await?;
        let known = match manifest.is_whole() {
            true => Known::Whole,
            false => Known::Partly,
        };
        let mut verified = self.verified(known, bytes_read);
        verified.bytes_unknown = source.unknown();
        let damage = source.into_damage();
        verified.bytes_damaged_more = damage.more;
        for range in damage.places {
            verified.damage.extend(locate(self.image, range).await);
        }
        Ok(verified)
    }

    /// Writes down what is not known yet; `None` if what is known is wrong, or there can be no manifest.
    async fn record(&self) -> Result<Option<Verified>> {
        let Some((backup, snapshot)) = self.point.described() else {
            return Ok(None);
        };
        let size = self.image.known_size();
        let of = (backup, self.volume);
        let stands = self.opened.still_stands();
        let supplement = Supplement::begin(self.pool, of, snapshot, size, stands).await?;
        let checked = Checked::new(self.image, &supplement.known);
        let read = self
            .read(&Recorded::new(&checked, &supplement.writer, size))
            .await;
        // Without its snapshot it would read as zeros.
        let stands = self.opened.still_stands().await;
        let stats = match (read, stands) {
            (Ok(stats), Ok(())) => stats,
            (read, stands) => {
                if let Err(error) = supplement.give_up().await {
                    warn!(%backup, %error, "Cannot leave the manifest as it was");
                }
                stands?;
                return match read.map_err(damage_of) {
                    Err(Err(error)) => Err(error),
                    Err(Ok(_)) | Ok(_) => Ok(None),
                };
            }
        };
        supplement.finish().await?;
        match self.opened.still_stands().await {
            // Deleted just now, perhaps before there was anything to be deleted of a manifest.
            Err(gone @ Error::Missing(_)) => {
                let removing = manifest::remove(self.pool, backup);
                in_turn_of(self.pool, self.volume, removing).await?;
                return Err(gone);
            }
            stands => stands?,
        }
        info!(%backup, "Wrote down what the backup holds");
        Ok(Some(self.verified(Known::Recorded, stats.bytes_read)))
    }

    async fn read<S: ImageSource>(&self, source: &S) -> std::result::Result<Stats, TransferError> {
        let options = self.vault.pump_options(Destination::Fresh);
        let nowhere = Nowhere::new(source.size());
        transfer::copy_all(source, &nowhere, &options, self.job).await
    }

    fn verified(&self, known: Known, bytes_read: u64) -> Verified {
        Verified {
            point: self.point.clone(),
            known,
            bytes_read,
            bytes_unknown: 0,
            damage: Vec::new(),
            bytes_damaged_more: 0,
        }
    }
}

/// The damage that ended a transfer, if that did.
fn damage_of(error: TransferError) -> Result<Range<u64>> {
    match error {
        TransferError::Read {
            error: BlockError::Damaged(range),
            ..
        } => Ok(range),
        error => Err(Error::from(error)),
    }
}
