//! What cinder-volume made for a backup, and gets back.

use api_compat::rpc::volume as volume_rpc;
use api_compat::user_message::{Action, Detail};
use tracing::warn;

use super::{Context, Error, Manager, now};
use crate::db::convert;
use crate::db::entity::backups;

impl Manager {
    /// Has the temporary volume or snapshot of a backup deleted. A failure is told to the user and
    /// logged; the backup's outcome stands.
    pub(super) async fn remove_temporary(&self, context: &Context, backup: &str) {
        let removed = async {
            match self.db.backup_even_deleted(backup).await? {
                Some(row) => self.remove_temporary_of(context, &row).await,
                None => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            warn!(backup, %error, "Cannot remove the backup's temporary volume or snapshot");
            self.tell_user(
                context,
                Action::CreateBackup,
                backup,
                Detail::BackupCreateCleanupError,
            )
            .await;
        }
    }

    async fn remove_temporary_of(
        &self,
        context: &Context,
        row: &backups::Model,
    ) -> Result<(), Error> {
        if let Some(id) = &row.temp_volume_id {
            if let Some(volume) = self.db.volume(id).await? {
                let volume = self.volume_object(&volume).await?;
                self.amqp
                    .cast(volume_rpc::delete_volume(&volume)?, context)
                    .await?;
            }
            self.db.forget_temporary_volume(&row.id, now()).await?;
        }
        if let Some(id) = &row.temp_snapshot_id {
            if let Some(snapshot) = self.db.snapshot(id).await? {
                self.db.delete_snapshot_status(id, now()).await?;
                let volume = self.db.volume(&snapshot.volume_id).await?;
                if let Some(topic) = volume.as_ref().and_then(|v| v.service_topic_queue()) {
                    let snapshot = convert::snapshot(&snapshot);
                    self.amqp
                        .cast(volume_rpc::delete_snapshot(topic, &snapshot)?, context)
                        .await?;
                }
            }
            self.db.forget_temporary_snapshot(&row.id, now()).await?;
        }
        Ok(())
    }
}
