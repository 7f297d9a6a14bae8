//! Backups that may be deleted in any order: `[cinderblock] independent_backups`.

use api_compat::ids::BackupId;
use tracing::{info, warn};

use super::{Error, Manager, now};

impl Manager {
    /// Lets the backups of this host that were made as increments count as whole ones.
    ///
    /// # Errors
    /// When the rows cannot be read or written.
    pub(super) async fn make_all_independent(&self) -> Result<(), Error> {
        if !self.settings.independent_backups {
            return Ok(());
        }
        let mut increments = self.db.increments(&self.settings.host).await?;
        increments.retain(|increment| self.is_ours(increment));
        if increments.is_empty() {
            return Ok(());
        }
        let ids: Vec<BackupId> = increments.iter().map(|increment| increment.id).collect();
        self.db.make_independent(&ids, now().naive_utc()).await?;
        info!(
            backups = ids.len(),
            "Incremental backups may be deleted in any order"
        );
        Ok(())
    }

    /// Lets a backup whose making has ended count as a whole one.
    pub(super) async fn make_independent(&self, id: BackupId) {
        if !self.settings.independent_backups {
            return;
        }
        if let Err(error) = self.db.make_independent(&[id], now().naive_utc()).await {
            warn!(backup = %id, %error, "The backup cannot be made independent of its parent");
        }
    }
}
