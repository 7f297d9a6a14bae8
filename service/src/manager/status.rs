//! `reset_status`: an operator or project sets a backup's status by hand.

use api_compat::objects::Backup;
use api_compat::state::BackupStatus;
use tracing::info;

use super::{Context, Error, Manager, now};

impl Manager {
    /// Sets the status; a backup set to `error` gives its temporary volume back.
    pub(super) async fn reset_status(
        &self,
        context: Context,
        backup: Backup,
        status: String,
    ) -> Result<(), Error> {
        let id = backup.id;
        info!(backup = %id, %status, "Reset backup status started");
        if ![BackupStatus::AVAILABLE, BackupStatus::ERROR].contains(&status.as_str()) {
            return Err(Error::InvalidBackup(format!(
                "Cannot reset a backup's status to {status}."
            )));
        }
        let row = self
            .db
            .backup(&id)
            .await?
            .ok_or_else(|| Error::BackupNotFound(id.clone()))?;
        if !self.is_ours(row.service.as_deref()) {
            return Err(Error::InvalidBackup(format!(
                "Reset backup status aborted, the backup service currently configured [{}] is not \
                 the backup service that was used to create this backup [{}].",
                self.settings.driver,
                row.service.as_deref().unwrap_or_default()
            )));
        }
        self.db.set_backup_status(&id, &status, now()).await?;
        if status == BackupStatus::ERROR {
            self.remove_temporary(&context, &id).await;
        }
        let row = self.db.backup(&id).await?.unwrap_or(row);
        self.notify(&context, &row, "reset_status.end").await;
        Ok(())
    }
}
