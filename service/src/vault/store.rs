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
use super::manifest::{self, Way};
use super::plan::{self, BackupSpec, Method, NoDiff, ParentFacts};
use super::trust::{Snapshots, rollback_of};
use super::undo::Made;
use super::{Error, Result, Vault, Volume, snapshot_names};
use crate::rbd::{self, ErrorKind, Features, Image, ImageOptions, Pool, Snapshot};
use crate::transfer::{
    self, Destination, GRAIN, ImageSource, Job, PumpOptions, Recorded, Stats, TransferError,
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
        // One that had come to its end may have given that of the source back already.
        let made = match (&begun, spec.again) {
            (None, true) => self.restore_point_of(spec, base).await?,
            _ => None,
        };
        Ok(BackupPlan {
            backup: spec.backup,
            pool: spec.pool.clone(),
            base,
            method,
            no_diff,
            begun: begun.is_some(),
            snapshot: begun.or(made).unwrap_or_else(new),
            size,
            made: Arc::default(),
        })
    }

    /// The restore point of a backup that an attempt before this one has made.
    pub(super) async fn restore_point_of(
        &self,
        spec: &BackupSpec,
        base: BackupImage,
    ) -> Result<Option<String>> {
        let pool = self.pool(&spec.pool).await?;
        let there = snapshots_if_exists(&pool, &base.to_string()).await?;
        Ok(plan::snapshots_of(spec.backup, &there.unwrap_or_default()).pop())
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
            .is_some_and(|snapshots| snapshots.contains(&plan.snapshot))
        {
            info!(image = %plan.base, "The restore point is complete already");
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
            let mut options = self.pump_options(destination);
            if let Method::Incremental { from: parent } = &plan.method {
                self.settle(&base, parent, job).await?;
                let rollback = manifest.inherited();
                let believing = self.believes_map(&from, parent, &base, rollback);
                options.believe_map = believing.await?;
            }
            let recorded = Recorded::new(&from, &manifest, size);
            let stats = self.copy(plan, &recorded, &base, &options, job).await?;
            let after = from.snapshots().await?;
            let snapshots = Snapshots { before, after };
            let inherited = manifest.inherited().filter(|_| stats.extents == 0).cloned();
            if self.engine.trust_object_map {
                let rollback = rollback_of(&from, &plan.snapshot, &snapshots, inherited).await;
                manifest.set_rollback(rollback);
            }
            manifest.finish().await?;
            let mut read = vec![plan.snapshot.as_str()];
            if let Method::Incremental { from: parent } = &plan.method {
                read.push(parent);
                let stands =
                    still_stand(&pool, &plan.base.to_string(), &base_held, &[parent]).await;
                // Of the chain, not of the volume.
                stands.map_err(as_damage)?;
            }
            still_stand(&source.pool, &source.image, &from.snapshots().await?, &read).await?;
            complete(&base, plan).await?;
            Ok(stats)
        };
        let stats = stored.await;
        // Closed before anybody undoes what failed: an image that is open cannot be removed.
        base.close().await;
        from.close().await;
        stats
    }

    /// Whether what an attempt that was broken off has written can be kept.
    async fn can_resume(&self, pool: &Pool, plan: &BackupPlan, source: &Volume) -> Result<bool> {
        if !plan.begun || plan.method.builds_on_parent() {
            return Ok(false);
        }
        let Some((_, reached)) = manifest::broken_off(pool, plan).await? else {
            return Ok(false);
        };
        let base = match pool.open(&plan.base.to_string(), None).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        let from = source.pool.open(&source.image, Some(&plan.snapshot)).await;
        let way = match &from {
            Ok(from) => way_of(plan, from, &base).await,
            Err(_) => Ok(None),
        };
        base.close().await;
        if let Ok(from) = from {
            from.close().await;
        }
        let resumes = way?.is_some_and(|way| way == reached.way);
        if resumes {
            let chunks = reached.chunks.iter().count();
            info!(image = %plan.base, chunks, "Taking up what an attempt before this one has written");
        }
        Ok(resumes)
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

    /// Removes from a volume the snapshots of backups that are not `live` any more, and the oldest of
    /// the others beyond `keep` (0 keeps all), as `backup_ceph_max_snapshots` asks.
    pub async fn trim_source(&self, source: &Volume, live: &[BackupId], keep: usize) -> Result<()> {
        let listed = snapshots_if_exists(&source.pool, &source.image)
            .await?
            .unwrap_or_default();
        let surplus = plan::surplus_snapshots(&listed, live, keep);
        let surplus: Vec<&str> = surplus.iter().map(String::as_str).collect();
        remove_snapshots(&source.pool, &source.image, &surplus).await
    }

    /// Removes a backup's snapshots from its source volume.
    pub async fn release_source(&self, source: &Volume, backup: BackupId) -> Result<()> {
        let listed = snapshots_if_exists(&source.pool, &source.image)
            .await?
            .unwrap_or_default();
        let own = plan::snapshots_of(backup, &listed);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        remove_snapshots(&source.pool, &source.image, &own).await
    }
}

/// Between what the data of a backup is moved that has an image of its own.
async fn way_of(plan: &BackupPlan, from: &Image, base: &Image) -> Result<Option<Way>> {
    // Two steps might share a grain.
    let cuts_grains = !from.stripe_period().is_multiple_of(GRAIN);
    if plan.method.builds_on_parent() || cuts_grains {
        return Ok(None);
    }
    let snapshots = from.snapshots().await?;
    let read = snapshots.iter().find(|it| it.name == plan.snapshot);
    Ok(read.map(|read| Way {
        snapshot: read.id,
        image: base.object_at(0),
    }))
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
    if held.iter().any(|snapshot| snapshot.name == plan.snapshot) {
        info!(image = %plan.base, "The restore point has been made meanwhile");
        return Ok(None);
    }
    Ok(Some(held))
}

/// Makes the restore point.
pub(super) async fn complete(base: &Image, plan: &BackupPlan) -> Result<()> {
    // Before it is known what came of it: nobody else can make it.
    plan.made.restore_point.store(true, Ordering::Relaxed);
    Ok(base.create_snapshot(&plan.snapshot).await?)
}

/// Makes sure that snapshots of an image are still there which were read: of those that it had `then`,
/// the ones of these names. Where one went meanwhile, librbd noticed nothing: what it had held reads as
/// zeros, and what changed since then as unchanged.
///
/// # Errors
/// `Missing` if one is gone, or the image.
pub(super) async fn still_stand(
    pool: &Pool,
    image: &str,
    then: &[Snapshot],
    names: &[&str],
) -> Result<()> {
    let gone = |what: &str| Error::missing(format!("{what} was removed while it was read"));
    let head = match pool.open(image, None).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(gone(image)),
        opened => opened?,
    };
    let now = head.snapshots().await;
    head.close().await;
    let now = now?;
    for name in names {
        let stands = then
            .iter()
            .any(|snapshot| snapshot.name == *name && now.contains(snapshot));
        if !stands {
            return Err(gone(&format!("Snapshot {name} of {image}")));
        }
    }
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

/// The snapshots of an image, in the order of their ids; `None` when there is no such image.
pub(super) async fn snapshots_if_exists(pool: &Pool, image: &str) -> Result<Option<Vec<String>>> {
    match pool.open(image, None).await {
        Ok(image) => {
            let names = snapshot_names(&image).await;
            image.close().await;
            Ok(Some(names?))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes those of `snapshots` that exist, if the image does.
pub(super) async fn remove_snapshots(pool: &Pool, image: &str, snapshots: &[&str]) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let image = match pool.open_rw(image).await {
        Ok(image) => image,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut outcome = Ok(());
    for snapshot in snapshots {
        match image.remove_snapshot(snapshot).await {
            Err(error) if error.kind() != ErrorKind::NotFound => outcome = Err(error.into()),
            _ => {}
        }
    }
    image.close().await;
    outcome
}

pub(super) async fn remove_if_exists(pool: &Pool, image: &str) -> Result<()> {
    match pool.remove_image(image).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
