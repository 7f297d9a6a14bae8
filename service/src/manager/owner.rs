//! Telling other workers of the same host what this one is at work on, and leaving alone what they are.
//!
//! None of it is needed for the data to be right: whoever writes an image owns its exclusive lock, and
//! rows change only from the status that was read. It keeps a start from ending what runs elsewhere. So
//! an operation does not fail because its owner cannot be recorded.

use std::sync::Arc;
use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use tracing::{debug, error, info, warn};

use super::{Error, Manager};
use crate::vault::{self, Vault, Worker};

/// How long the cluster is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Manager {
    /// Shows that this worker lives, again and again.
    pub async fn live(&self) {
        loop {
            if let Err(error) = self.vault.show_life(&self.me).await {
                debug!(%error, "Cannot show other workers of this host that this one lives");
            }
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
        }
    }

    /// Tells the others that this worker has ended.
    pub async fn end_life(&self) {
        let _ = in_time(self.vault.end_life(&self.me)).await;
    }

    /// Records that this worker is at work on a backup.
    pub(super) async fn own(&self, backup: BackupId) {
        if in_time(self.vault.own(backup, &self.me)).await.is_none() {
            warn!(%backup, "Other workers of this host cannot see that this one is at work on the backup");
        }
    }

    /// Records that it no longer is.
    pub(super) async fn disown(&self, backup: BackupId) {
        if in_time(self.vault.disown(backup, &self.me)).await.is_none() {
            debug!(%backup, "What tells that this worker is at work on the backup stays");
        }
    }

    /// Whether another worker of this host lives. One that cannot be asked for counts as none.
    pub async fn has_company(&self) -> bool {
        let alive = in_time(self.vault.alive(&self.me.host)).await;
        alive.is_some_and(|alive| alive.iter().any(|worker| worker != &self.me))
    }

    /// The worker that is at work on a backup, if that is another one, and lives. One that cannot be
    /// asked for counts as none.
    pub(super) async fn other_owner(&self, backup: BackupId) -> Option<Worker> {
        let asking = async {
            let owner = self.vault.owner(backup).await?;
            let Some(owner) = owner.filter(|owner| owner != &self.me) else {
                return Ok(None);
            };
            let alive = self.vault.alive(&owner.host).await?;
            Ok(Some(owner).filter(|owner| alive.contains(owner)))
        };
        in_time(asking).await.flatten()
    }

    /// Waits until no other worker of this host is at work on a backup: several volumes may be created
    /// from one at a time.
    pub(super) async fn wait_for_others(&self, backup: BackupId) {
        while let Some(owner) = self.other_owner(backup).await {
            debug!(%backup, worker = %owner.id, "Waiting for another worker of this host");
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
        }
    }

    /// Looks at an unfinished backup again when the worker that is at work on it has ended.
    pub(super) fn look_again(self: &Arc<Self>, row: &Backup, owner: Worker) {
        info!(
            backup = %row.id, worker = %owner.id,
            "Another worker of this host is at work on the backup, or was a moment ago"
        );
        let (manager, id) = (self.clone(), row.id);
        tokio::spawn(async move {
            while manager.other_owner(id).await.as_ref() == Some(&owner) {
                tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
            }
            if let Err(error) = manager.look_at_what_is_left(id, &owner).await {
                error!(backup = %id, %error, "Cannot clean up what was left unfinished");
            }
        });
    }

    async fn look_at_what_is_left(
        self: &Arc<Self>,
        id: BackupId,
        owner: &Worker,
    ) -> Result<(), Error> {
        // Ended in order, or taken up by somebody else.
        if self.vault.owner(id).await?.as_ref() != Some(owner) {
            return Ok(());
        }
        match self.db.backup(id).await? {
            Some(row) if row.host.as_ref() == Some(&self.settings.host) => {
                self.clean_up_one(&row).await
            }
            _ => Ok(()),
        }
    }
}

/// What a cluster answers in good time.
async fn in_time<T>(asking: impl Future<Output = vault::Result<T>>) -> Option<T> {
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            debug!(%error, "Cannot ask for the owner of a backup");
            None
        }
        Err(_) => None,
    }
}
