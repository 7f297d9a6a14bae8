//! Taking back what a backup that failed has made.

use std::sync::atomic::{AtomicBool, Ordering};

use api_compat::names;
use tracing::warn;

use super::snapshots::remove_snapshots;
use super::store::remove_if_exists;
use super::turn::in_turn_of;
use super::{BackupPlan, Result, Vault, Volume, manifest};

/// What one attempt to make a backup has made, and may take back. The same request may reach two
/// workers, and what the other one has made may be the backup.
#[derive(Debug, Default)]
pub struct Made {
    pub(super) image: AtomicBool,
    pub(super) on_source: AtomicBool,
    pub(super) manifest: AtomicBool,
    pub(super) restore_point: AtomicBool,
}

impl Vault {
    /// Removes whatever a failed backup made, on both sides. Failures are logged, since the backup's
    /// own error is what counts.
    pub async fn undo(&self, plan: &BackupPlan, source: &Volume) {
        let snapshots = match plan.made.on_source.load(Ordering::Relaxed) {
            true => vec![plan.snapshot.as_str()],
            false => Vec::new(),
        };
        // Side by side: one of the clusters may be gone.
        let ((), taken) = tokio::join!(
            self.undo_copy(plan),
            remove_snapshots(&source.pool, &source.image, &snapshots)
        );
        if let Err(error) = taken {
            warn!(
                image = %source.image, snapshot = %plan.snapshot, %error,
                "Cannot remove the snapshot of a failed backup from its volume"
            );
        }
    }

    /// The same for a backup that leaves nothing on its source.
    pub async fn undo_copy(&self, plan: &BackupPlan) {
        if let Err(error) = self.undo_base(plan).await {
            warn!(image = %plan.base, %error, "Cannot remove what a failed backup left in the pool");
        }
    }

    async fn undo_base(&self, plan: &BackupPlan) -> Result<()> {
        let pool = self.pool(&plan.pool).await?;
        let base = plan.base.to_string();
        let made_it = plan.made.restore_point.load(Ordering::Relaxed);
        if made_it {
            remove_snapshots(&pool, &base, &[&plan.snapshot]).await?;
        }
        if !plan.method.builds_on_parent() && plan.made.image.load(Ordering::Relaxed) {
            remove_if_exists(&pool, &base).await?;
        }
        if plan.made.manifest.load(Ordering::Relaxed) {
            let removing = manifest::remove(&pool, plan.backup);
            in_turn_of(&pool, plan.base.volume(), removing).await?;
        }
        if made_it {
            let metadata = names::metadata_object(plan.backup);
            pool.remove_object(&metadata).await?;
        }
        Ok(())
    }
}
