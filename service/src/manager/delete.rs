//! Deleting a backup.

use api_compat::objects::Backup;
use api_compat::state::BackupStatus;
use api_compat::user_message::{Action, Detail};
use tracing::{error, info, warn};

use super::{Context, Error, Manager, now};
use crate::db::entity::backups;

impl Manager {
    /// `delete_backup`: removes the data, then the row, and gives the quota back.
    pub(super) async fn delete_backup(
        &self,
        context: Context,
        backup: Backup,
    ) -> Result<(), Error> {
        self.delete_by_id(context, backup.id).await
    }

    pub(super) async fn delete_by_id(&self, mut context: Context, id: String) -> Result<(), Error> {
        context.set_message_resource("VOLUME_BACKUP", &id, Action::DeleteBackup);
        let Some(_claim) = self.claim(&id) else {
            warn!(backup = %id, "Already at work on this backup; a repeated message is ignored");
            return Ok(());
        };
        info!(backup = %id, "Delete backup started");
        let row = self
            .db
            .backup(&id)
            .await?
            .ok_or_else(|| Error::BackupNotFound(id.clone()))?;
        self.notify(&context, &row, "delete.start").await;
        let outcome = self.delete(&context, &row).await;
        match &outcome {
            Ok(()) => {
                info!(backup = %id, "Delete backup finished");
                self.notify(&context, &row, "delete.end").await;
            }
            Err(error) => error!(backup = %id, %error, "Delete backup failed"),
        }
        outcome
    }

    async fn delete(&self, context: &Context, row: &backups::Model) -> Result<(), Error> {
        let status = row.status.as_deref().unwrap_or("None");
        if status != BackupStatus::DELETING {
            let text = format!(
                "Delete_backup aborted, expected backup status deleting but got {status}."
            );
            self.tell_user(context, Action::DeleteBackup, &row.id, Detail::BackupInvalidState)
                .await;
            return Err(Error::InvalidBackup(text));
        }
        // A backup whose create never got as far as a driver has no data.
        if row.service.is_some() {
            self.delete_data(context, row).await?;
        }
        self.db
            .finish_delete(&row.id, &self.settings.quota, now())
            .await?;
        Ok(())
    }

    async fn delete_data(&self, context: &Context, row: &backups::Model) -> Result<(), Error> {
        if !*self.ready.borrow() {
            let text = "Delete backup is aborted due to backup service is down.";
            self.end_delete(row, BackupStatus::ERROR_DELETING, text).await;
            self.tell_user(context, Action::DeleteBackup, &row.id, Detail::BackupServiceDown)
                .await;
            return Err(Error::InvalidBackup(text.to_owned()));
        }
        if !self.is_ours(row.service.as_deref()) {
            let text = format!(
                "Delete backup aborted, the backup service currently configured [{}] is not the \
                 backup service that was used to create this backup [{}].",
                self.settings.driver,
                row.service.as_deref().unwrap_or_default()
            );
            self.end_delete(row, BackupStatus::ERROR, &text).await;
            return Err(Error::InvalidBackup(text));
        }
        let deleted = async {
            let record = self.record(row).await?;
            self.vault.delete(&record).await?;
            Ok::<_, Error>(record)
        };
        match deleted.await {
            Ok(record) => {
                self.release_source(context, row, &record).await;
                Ok(())
            }
            Err(error) => {
                self.end_delete(row, BackupStatus::ERROR, &error.to_string())
                    .await;
                self.tell_user(
                    context,
                    Action::DeleteBackup,
                    &row.id,
                    Detail::BackupDeleteDriverError,
                )
                .await;
                Err(error)
            }
        }
    }

    /// Removes the backup's snapshot from its source volume, where that still exists: otherwise
    /// they pile up and cost space. What cannot be reached is left and logged.
    async fn release_source(
        &self,
        context: &Context,
        row: &backups::Model,
        record: &crate::vault::BackupRecord,
    ) {
        if row.snapshot_id.is_some() {
            return;
        }
        let released = async {
            let Some(volume) = self.db.volume(&row.volume_id).await? else {
                return Ok(());
            };
            if volume.status.as_deref() == Some("deleting") {
                return Ok(());
            }
            let attached = self.attacher.attach_volume(context, &volume.id).await?;
            let outcome = self
                .vault
                .release_source(&attached.volume(), &record.backup)
                .await;
            self.attacher.detach(context, attached).await?;
            Ok::<_, Error>(outcome?)
        };
        if let Err(error) = released.await {
            warn!(
                backup = %row.id, volume = %row.volume_id, %error,
                "Cannot remove the backup's snapshot from its volume"
            );
        }
    }

    async fn end_delete(&self, row: &backups::Model, status: &str, reason: &str) {
        if let Err(error) = self.db.fail_delete(&row.id, status, reason, now()).await {
            error!(backup = %row.id, %error, "Cannot record that the delete failed");
        }
    }
}
