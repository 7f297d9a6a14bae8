//! Going on with a backup of an RBD volume that was broken off.

use api_compat::names::BackupImage;
use tracing::info;

use super::manifest::{self, Way};
use super::plan::{self, BackupSpec};
use super::snapshots::snapshots_if_exists;
use super::store::BackupPlan;
use super::{Result, Vault, Volume};
use crate::rbd::{ErrorKind, Image, Pool};
use crate::transfer::GRAIN;

impl Vault {
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

    /// Whether what an attempt that was broken off has written can be kept.
    pub(super) async fn can_resume(
        &self,
        pool: &Pool,
        plan: &BackupPlan,
        source: &Volume,
    ) -> Result<bool> {
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
}

/// Between what the data of a backup is moved that has an image of its own.
pub(super) async fn way_of(plan: &BackupPlan, from: &Image, base: &Image) -> Result<Option<Way>> {
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
