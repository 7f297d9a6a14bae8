//! What cinder-volume made only for a backup, and gets back.

use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::rpc::volume::VolumeApi;
use tracing::warn;

use super::{Context, Error, Manager, now};

impl Manager {
    /// Has the temporary volume or snapshot of a backup deleted, if it has one; whether that could be
    /// done. A failure is logged; what became of the backup stands.
    pub(super) async fn remove_temporary(&self, context: &Context, id: BackupId) -> bool {
        let removed = async {
            match self.db.backup_even_deleted(id).await? {
                Some(backup) => self.remove_temporary_of(context, &backup).await,
                None => Ok(()),
            }
        };
        let removed = removed.await;
        if let Err(error) = &removed {
            warn!(backup = %id, %error, "Cannot remove the temporary volume or snapshot");
        }
        removed.is_ok()
    }

    async fn remove_temporary_of(&self, context: &Context, backup: &Backup) -> Result<(), Error> {
        if backup.temp_volume_id.is_none() && backup.temp_snapshot_id.is_none() {
            return Ok(());
        }
        let history = self.history();
        if let Some(id) = &backup.temp_volume_id
            && let Some(volume) = self.db.volume(id.parse()?).await?
            && let Some(queue) = volume.service_topic_queue()
        {
            let delete = VolumeApi::new(queue, history).delete_volume(&volume);
            self.amqp.cast(delete, context).await?;
        }
        if let Some(id) = &backup.temp_snapshot_id
            && let Some(snapshot) = self.db.snapshot(id.parse()?).await?
            && let Some(volume) = snapshot.volume_id
            && let Some(volume) = self.db.volume(volume).await?
            && let Some(queue) = volume.service_topic_queue()
        {
            let now = now().naive_utc();
            self.db.mark_snapshot_deleting(snapshot.id, now).await?;
            let delete = VolumeApi::new(queue, history).delete_snapshot(&snapshot);
            self.amqp.cast(delete, context).await?;
        }
        let now = now().naive_utc();
        Ok(self.db.forget_temporary(backup.id, now).await?)
    }
}
