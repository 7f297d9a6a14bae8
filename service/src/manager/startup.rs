//! What a restart does with operations that an earlier process of this host left unfinished.

use std::sync::Arc;

use api_compat::messaging::RequestContext;
use api_compat::state::{BackupStatus, VolumeStatus};
use tracing::{error, info};

use super::{Error, Manager, now};
use crate::db::entity::backups;
use crate::db::{FailCreate, FailRestore, Source};

impl Manager {
    /// Ends or resumes every unfinished operation of this host. Runs before the first message is
    /// taken. A backup that cannot be dealt with is logged and left.
    pub async fn clean_up(self: &Arc<Self>) -> Result<(), Error> {
        let rows = self.db.unfinished_backups(&self.settings.host).await?;
        for row in rows {
            if let Err(error) = self.clean_up_one(&row).await {
                error!(backup = %row.id, %error, "Cannot clean up the unfinished operation");
            }
        }
        Ok(())
    }

    async fn clean_up_one(self: &Arc<Self>, row: &backups::Model) -> Result<(), Error> {
        let context = RequestContext::admin(now());
        match row.status.as_deref() {
            // No worker ever began it: its message still waits in the queue.
            Some(BackupStatus::CREATING) if row.service.is_none() => return Ok(()),
            Some(BackupStatus::CREATING) => {
                info!(backup = %row.id, "Resetting the backup: it was being created");
                let volume = self.db.volume(&row.volume_id).await?;
                let source = match (&row.snapshot_id, volume) {
                    (Some(id), _) => Some(Source::Snapshot { id: id.clone() }),
                    (None, Some(volume))
                        if volume.status.as_deref() == Some(VolumeStatus::BACKING_UP) =>
                    {
                        Some(Source::Volume {
                            previous_status: volume.previous_status.clone(),
                            id: volume.id,
                        })
                    }
                    _ => None,
                };
                let failure = FailCreate {
                    backup: &row.id,
                    reason: "incomplete backup reset on manager restart",
                    source,
                };
                self.db.fail_create(&failure, now()).await?;
                self.remove_temporary(&context, &row.id).await;
            }
            Some(BackupStatus::RESTORING) => {
                info!(backup = %row.id, "Resetting the backup: it was being restored");
                let volume = row.restore_volume_id.as_deref().unwrap_or_default();
                let reason = "incomplete restore reset on manager restart";
                self.db
                    .fail_restore(&row.id, volume, FailRestore::Restoring, reason, now())
                    .await?;
            }
            Some(BackupStatus::DELETING) => {
                info!(backup = %row.id, "Resuming delete");
                self.resume_delete(row.id.clone(), context);
            }
            Some(BackupStatus::ERROR) => self.remove_temporary(&context, &row.id).await,
            _ => {}
        }
        Ok(())
    }

    /// Deletes in the background, once the driver works.
    fn resume_delete(self: &Arc<Self>, backup: String, context: RequestContext) {
        let manager = self.clone();
        self.tasks.spawn(async move {
            let mut ready = manager.ready.clone();
            if ready.wait_for(|ready| *ready).await.is_ok() {
                // The outcome is in the row and in the log.
                let _ = manager.delete_by_id(context, backup).await;
            }
        });
    }
}
