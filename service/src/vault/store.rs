//! Making a backup of an RBD volume.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::names::{BackupImage, BackupSnapshot};
use backon::{ConstantBuilder, Retryable};
use chrono::{DateTime, Utc};
use tracing::info;

use super::delete::remove_image;
use super::plan::{self, BackupSpec, Method, NoDiff, ParentFacts};
use super::resume::way_of;
use super::snapshots::{snapshot_names, snapshots_if_exists, still_stand};
use super::trust::{Snapshots, rollback_of};
use super::turn::in_turn_of;
use super::undo::Made;
use super::{Error, Result, Vault, Volume};
use crate::rbd::{self, ErrorKind, Features, Image, ImageOptions, Pool, Snapshot};
use crate::steps::{Step, reached};
use crate::transfer::{
    self, Destination, ImageSource, Job, PumpOptions, Recorded, Stats, TransferError,
};

/// What will be done to make one backup.
#[derive(Debug, Clone)]
pub struct BackupPlan {
    /// The backup.
    pub backup: BackupId,
    /// The pool that receives it.
    pub pool: String,
    /// The image that receives it.
    pub base: BackupImage,
    /// Full or incremental.
    pub method: Method,
    /// Why nobody tells what changed, although it has a parent.
    pub no_diff: Option<NoDiff>,
    /// The snapshot to take, of the source first and of the base image when the data is there.
    pub snapshot: String,
    /// The source's size in bytes.
    pub size: u64,
    /// Whether an attempt before this one has taken the snapshot of the source.
    pub begun: bool,
    /// What this attempt has made so far.
    pub made: Arc<Made>,
}

impl BackupPlan {
    /// Another way to make the same backup after this one has failed; none where that would fail for
    /// the same reason.
    pub fn instead(&self, error: &Error) -> Option<Self> {
        let method = plan::instead(&self.method, error)?;
        let failed = self.method.builds_on_parent().then_some(NoDiff::Failed);
        let base = match method.builds_on_parent() {
            true => self.base,
            false => BackupImage::own(self.base.volume(), self.backup),
        };
        Some(Self {
            base,
            method,
            no_diff: self.no_diff.or(failed),
            ..self.clone()
        })
    }
}

impl Vault {
    /// Decides how to make a backup, from what stands in both pools now. Changes nothing.
    ///
    /// `now` is the time that the snapshot's name shall carry.
    pub async fn plan_backup(
        &self,
        spec: &BackupSpec,
        source: &Volume,
        now: DateTime<Utc>,
    ) -> Result<BackupPlan> {
        let image = source.open_read_only().await?;
        let source_snapshots = snapshot_names(&image).await;
        let size = image.known_size();
        image.close().await;
        let source_snapshots = source_snapshots?;
        if size == 0 {
            return Err(Error::invalid("Need non-zero volume size"));
        }

        // A snapshot that carries this backup's id was taken by an attempt that did not end.
        let begun = plan::snapshots_of(spec.backup, &source_snapshots).pop();
        let new = || BackupSnapshot::new(spec.backup, now).to_string();
        let (base, method, no_diff) = self.choose(spec, Some(source_snapshots)).await?;
        // One that had come to its end may have given that of the source back already, or two have taken one.
        let made = match spec.again {
            true => self.restore_point_of(spec, base).await?,
            false => None,
        };
        Ok(BackupPlan {
            backup: spec.backup,
            pool: spec.pool.clone(),
            base,
            method,
            no_diff,
            begun: begun.is_some(),
            snapshot: made.or(begun).unwrap_or_else(new),
            size,
            made: Arc::default(),
        })
    }

    /// Where a backup goes, and how; `source_snapshots` is `None` for a source that is not in Ceph.
    pub(super) async fn choose(
        &self,
        spec: &BackupSpec,
        source_snapshots: Option<Vec<String>>,
    ) -> Result<(BackupImage, Method, Option<NoDiff>)> {
        let own = BackupImage::own(spec.volume, spec.backup);
        // Whether there is a pool is known before anything is recorded.
        let pool = self.pool(&spec.pool).await?;
        let Some(parent) = &spec.parent else {
            return Ok((own, Method::Full, None));
        };
        let facts = ParentFacts {
            base_snapshots: snapshots_if_exists(&pool, &parent.base.to_string()).await?,
            source_snapshots,
        };
        let (method, no_diff) = plan::choose(parent, &facts);
        let base = match method.builds_on_parent() {
            true => parent.base,
            false => own,
        };
        Ok((base, method, no_diff))
    }

    /// Makes the backup: when this returns, its restore point stands.
    ///
    /// Repeating it after an interruption is safe: the source's snapshot is kept, and a restore point that
    /// stands already ends it at once. Of a full backup only those bytes are moved again of which it was
    /// not noted that they are safe.
    pub async fn store(&self, plan: &BackupPlan, source: &Volume, job: &Job) -> Result<Stats> {
        let pool = self.pool(&plan.pool).await?;
        let base = plan.base.to_string();
        if snapshots_if_exists(&pool, &base)
            .await?
            .is_some_and(|there| plan::is_made(plan.backup, there.iter().map(String::as_str)))
        {
            info!(image = %plan.base, "The restore point is complete already");
            // Whoever made it may have been killed in its turn.
            in_turn_of(&pool, plan.base.volume(), async { Ok(()) }).await?;
            return Ok(Stats::default());
        }
        let resumes = self.can_resume(&pool, plan, source).await?;
        let destination = match resumes {
            true => Destination::Fresh,
            false => self.prepare_base(&pool, plan).await?,
        };

        let head = source.open().await?;
        let before = head.snapshots().await;
        let taken = match head.create_snapshot(&plan.snapshot).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
            taken => {
                // Also when it is not known what came of it.
                plan.made.on_source.store(true, Ordering::Relaxed);
                taken.and(before.map(Some))
            }
        };
        head.close().await;
        let before = taken?;
        reached(Step::SourceSnapshotTaken);

        let snapshot = Some(plan.snapshot.as_str());
        let from = source.pool.open(&source.image, snapshot).await?;
        let base = pool.open_rw(&base).await?;
        let stored = async {
            let Some(base_held) = own_unless_made(&base, plan).await? else {
                return Ok(Stats::default());
            };
            plan.made.manifest.store(true, Ordering::Relaxed);
            let size = from.known_size();
            let mut manifest = match (way_of(plan, &from, &base).await?, resumes) {
                (Some(way), true) => {
                    // Whoever made them works on them no more.
                    plan.made.image.store(true, Ordering::Relaxed);
                    plan.made.on_source.store(true, Ordering::Relaxed);
                    self.resume_manifest(&pool, plan, way).await?
                }
                (way, _) => self.begin_manifest(&pool, plan, size, way).await?,
            };
            reached(Step::ManifestBegun);
            let mut options = self.pump_options(destination);
            if let Method::Incremental { from: parent } = &plan.method {
                self.settle(&base, parent, job).await?;
                let rollback = manifest.inherited();
                let believing = self.believes_map(&from, parent, &base, rollback);
                options.believe_map = believing.await?;
            }
            let recorded = Recorded::new(&from, &manifest, size);
            let stats = self.copy(plan, &recorded, &base, &options, job).await?;
            reached(Step::DataStored);
            let after = from.snapshots().await?;
            let snapshots = Snapshots { before, after };
            let inherited = manifest.inherited().filter(|_| stats.extents == 0).cloned();
            if self.engine.trust_object_map {
                let rollback = rollback_of(&from, &plan.snapshot, &snapshots, inherited).await;
                manifest.set_rollback(rollback);
            }
            manifest.finish().await?;
            reached(Step::ManifestComplete);
            let mut read = vec![plan.snapshot.as_str()];
            if let Method::Incremental { from: parent } = &plan.method {
                read.push(parent);
            }
            still_stand(&source.pool, &source.image, &from.snapshots().await?, &read).await?;
            match &plan.method {
                Method::Incremental { from: parent } => {
                    let ending = async {
                        let image = plan.base.to_string();
                        let stands = still_stand(&pool, &image, &base_held, &[parent]).await;
                        // Of the chain, not of the volume.
                        stands.map_err(as_damage)?;
                        complete(&base, plan).await
                    };
                    // Whoever deletes the parent finds the restore point, or has removed the parent's.
                    in_turn_of(&pool, plan.base.volume(), ending).await?;
                }
                Method::Full | Method::Whole | Method::Compared => complete(&base, plan).await?,
            }
            Ok(stats)
        };
        let stats = stored.await;
        // Closed before anybody undoes what failed: an image that is open cannot be removed.
        base.close().await;
        from.close().await;
        stats
    }

    pub(super) async fn prepare_base(&self, pool: &Pool, plan: &BackupPlan) -> Result<Destination> {
        match plan.method {
            Method::Incremental { .. } => return Ok(Destination::MayHoldData),
            Method::Compared => return Ok(Destination::Similar),
            Method::Full | Method::Whole => {}
        }
        // What an interrupted attempt left in an image of this backup's own is of no use. A client that
        // died is remembered for half a minute.
        remove_image(pool, &plan.base.to_string()).await?;
        let mut features = Features::LAYERING
            | Features::EXCLUSIVE_LOCK
            | Features::OBJECT_MAP
            | Features::FAST_DIFF;
        if self.format.journaling {
            features |= Features::JOURNALING;
        }
        let options = ImageOptions {
            size: plan.size,
            features: Some(features),
            stripe_unit: self.format.stripe_unit,
            stripe_count: self.format.stripe_count,
        };
        let created = pool.create_image(&plan.base.to_string(), &options).await;
        // Also when it is not known what came of it, but not when somebody else was faster.
        let others = |error: &rbd::Error| error.kind() == ErrorKind::AlreadyExists;
        plan.made
            .image
            .store(!created.as_ref().is_err_and(others), Ordering::Relaxed);
        created?;
        reached(Step::BaseCreated);
        Ok(Destination::Fresh)
    }

    async fn copy<S: ImageSource>(
        &self,
        plan: &BackupPlan,
        from: &S,
        base: &Image,
        options: &PumpOptions,
        job: &Job,
    ) -> Result<Stats> {
        // As at the snapshot: the volume may have grown, or been shrunk by hand.
        if base.known_size() != from.size() {
            base.resize(from.size()).await?;
        }
        let since = match &plan.method {
            Method::Incremental { from } => Some(from.as_str()),
            Method::Full => None,
            Method::Compared => {
                let copying = transfer::copy_all(from, base, options, job);
                return Ok(copying.await?);
            }
            Method::Whole => {
                let copying = transfer::copy_whole(from, base, options, job);
                return Ok(copying.await?);
            }
        };
        Ok(transfer::copy_diff(from, since, base, options, job).await?)
    }

    /// Makes sure that an image reads as it did at its snapshot `from`, on which an incremental
    /// builds.
    ///
    /// It does not where an incremental was broken off, or a newer backup was deleted: what those
    /// wrote is still there, and a range that the volume got and lost again since is in no diff.
    async fn settle(&self, base: &Image, from: &str, job: &Job) -> Result<()> {
        let options = self.pump_options(Destination::Similar);
        let taken_back = transfer::take_back(base, from, &options, job).await;
        let stats = taken_back.map_err(|error| match error {
            // Of the chain, not of the volume.
            TransferError::Read { .. } | TransferError::Plan(_) => Error::damaged(format!(
                "{} cannot be taken back to {from}: {error}",
                base.name()
            )),
            error => error.into(),
        })?;
        if stats != Stats::default() {
            info!(
                image = base.name(),
                snapshot = from,
                bytes_written = stats.bytes_written,
                "Took back what a backup that is gone had written"
            );
        }
        Ok(())
    }

    pub(super) fn pump_options(&self, destination: Destination) -> PumpOptions {
        PumpOptions {
            depth: self.engine.depth,
            scanners: self.engine.scanners,
            ..PumpOptions::new(self.engine.budget.clone(), destination)
        }
    }
}

/// Becomes the only writer of a base image; the snapshots that it has by then, or `None` if the restore
/// point stands. Until it does nobody else may write what it is going to hold: a backup that another
/// worker was told to give up may still be at it, or end well.
pub(super) async fn own_unless_made(
    base: &Image,
    plan: &BackupPlan,
) -> Result<Option<Vec<Snapshot>>> {
    own(base).await?;
    let held = base.snapshots().await?;
    if plan::is_made(plan.backup, held.iter().map(|it| it.name.as_str())) {
        info!(image = %plan.base, "The restore point has been made meanwhile");
        return Ok(None);
    }
    Ok(Some(held))
}

/// Makes the restore point.
pub(super) async fn complete(base: &Image, plan: &BackupPlan) -> Result<()> {
    // Before it is known what came of it: nobody else can make it.
    plan.made.restore_point.store(true, Ordering::Relaxed);
    base.create_snapshot(&plan.snapshot).await?;
    reached(Step::RestorePointMade);
    Ok(())
}

fn as_damage(error: Error) -> Error {
    match error {
        Error::Missing(reason) => Error::Damaged(reason),
        error => error,
    }
}

/// Becomes the only writer of an image. Another one is given the time that it takes to notice that
/// its backup is no longer wanted.
pub(super) async fn own(image: &Image) -> Result<()> {
    let patience = ConstantBuilder::default()
        .with_delay(Duration::from_secs(2))
        .with_max_times(30);
    let owned = (|| image.own())
        .retry(patience)
        .when(|error| error.kind() == ErrorKind::Busy)
        .notify(|_, pause| {
            info!(
                image = image.name(),
                "Another client writes to it; trying again in {} s",
                pause.as_secs()
            );
        });
    Ok(owned.await?)
}

pub(super) async fn remove_if_exists(pool: &Pool, image: &str) -> Result<()> {
    match pool.remove_image(image).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
