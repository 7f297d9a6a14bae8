//! Backups of volumes that are block devices or files, and restores into such.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use api_compat::names::BackupSnapshot;
use chrono::{DateTime, Utc};
use tracing::info;

use super::plan::{self, BackupSpec};
use super::snapshots::snapshots_if_exists;
use super::store::{complete, own_unless_made};
use super::{BackupPlan, Error, RestorePoint, Result, TargetSize, Vault};
use crate::transfer::{self, Destination, Device, Job, PumpOptions, Recorded, Stats};

/// The shortest run of zeros for which a device is asked to give space back.
const ZERO_GRAIN: usize = 64 << 10;

impl Vault {
    /// Decides how to make a backup of a volume of `size` bytes that is a device. Changes nothing.
    ///
    /// A device does not tell what changed: it is compared with the image of the backup's parent, or
    /// copied as a whole if there is none. `now` is the time that the snapshot's name shall carry.
    ///
    /// # Errors
    /// `Invalid` if the volume has no size.
    pub async fn plan_copy(
        &self,
        spec: &BackupSpec,
        size: u64,
        now: DateTime<Utc>,
    ) -> Result<BackupPlan> {
        if size == 0 {
            return Err(Error::invalid("Need non-zero volume size"));
        }
        let (base, method, no_diff) = self.choose(spec, None).await?;
        // An attempt that did not come to its end may have made the restore point.
        let made = self.restore_point_of(spec, base).await?;
        let snapshot = made.unwrap_or_else(|| BackupSnapshot::new(spec.backup, now).to_string());
        Ok(BackupPlan {
            backup: spec.backup,
            pool: spec.pool.clone(),
            base,
            method,
            no_diff,
            begun: false,
            snapshot,
            size,
            made: Arc::default(),
        })
    }

    /// Makes the backup of a device: when this returns, its restore point stands. Repeating it is
    /// safe, as with [`Vault::store`].
    ///
    /// What the device has beyond the volume's size is left out. What a file lacks reads as zeros, as
    /// the end of a sparse one does.
    ///
    /// # Errors
    /// `Invalid` if a block device is smaller than the volume: it is not the volume's, or not whole.
    pub async fn store_device(
        &self,
        plan: &BackupPlan,
        source: &Device,
        job: &Job,
    ) -> Result<Stats> {
        if !source.is_file() && source.size() < plan.size {
            return Err(Error::invalid(format!(
                "{} holds {} bytes, and the volume has {}",
                source.path().display(),
                source.size(),
                plan.size
            )));
        }
        let pool = self.pool(&plan.pool).await?;
        let there = snapshots_if_exists(&pool, &plan.base.to_string()).await?;
        if there.is_some_and(|it| plan::is_made(plan.backup, it.iter().map(String::as_str))) {
            info!(image = %plan.base, "The restore point is complete already");
            return Ok(Stats::default());
        }
        let destination = self.prepare_base(&pool, plan).await?;
        let base = pool.open_rw(&plan.base.to_string()).await?;
        let stored = async {
            if own_unless_made(&base, plan).await?.is_none() {
                return Ok(Stats::default());
            }
            if base.known_size() != plan.size {
                base.resize(plan.size).await?;
            }
            let mut options = self.device_options(destination);
            // What a file lacks is zeros, whatever the image of the chain holds there.
            options.zero_excess = true;
            plan.made.manifest.store(true, Ordering::Relaxed);
            let manifest = self.begin_manifest(&pool, plan, plan.size, None).await?;
            let source = Recorded::new(source, &manifest, plan.size);
            let copying = transfer::copy_whole(&source, &base, &options, job);
            let stats = copying.await?;
            manifest.finish().await?;
            complete(&base, plan).await?;
            Ok(stats)
        };
        let stats = stored.await;
        // Closed before anybody undoes what failed: an image that is open cannot be removed.
        base.close().await;
        stats
    }

    /// Writes a restore point into a device that is a volume of that size; then it reads as
    /// after [`Vault::restore`]. What it holds is never believed to be zeros: a `new` volume may show
    /// what its storage held before.
    pub async fn restore_device(
        &self,
        point: &RestorePoint,
        target: &Device,
        size: TargetSize,
        new: bool,
        job: &Job,
    ) -> Result<Stats> {
        let pool = self.pool(&point.pool).await?;
        let source = pool.open(&point.image, point.snapshot.as_deref()).await?;
        let written = async {
            let size = size.of(target.size(), source.known_size())?;
            let target = target.sized(size).await.map_err(Error::Device)?;
            let destination = match new {
                true => Destination::MayHoldData,
                false => Destination::Similar,
            };
            let options = self.device_options(destination);
            let opened = self.opened(point, &pool, &source);
            opened.copy_to(&target, &options, job).await
        };
        let stats = written.await;
        source.close().await;
        stats
    }

    fn device_options(&self, destination: Destination) -> PumpOptions {
        let usual = self.pump_options(destination);
        let zero_grain = match destination {
            Destination::Fresh => usual.zero_grain,
            Destination::MayHoldData | Destination::Similar => ZERO_GRAIN,
        };
        PumpOptions {
            operation_size: usual.operation_size.min(self.engine.chunk_size),
            zero_grain,
            compare_zeros: false,
            zero_excess: self.engine.zero_excess,
            ..usual
        }
    }
}
