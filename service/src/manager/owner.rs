//! Telling other workers of the same host what this one is at work on, and leaving alone what they are.
//!
//! None of it is needed for the data to be right: whoever writes an image owns its exclusive lock, and
//! rows change only from the status that was read. It keeps a start from ending what runs elsewhere. So
//! an operation does not fail because its owner cannot be recorded.

use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::rpc::backup::TOPIC;
use futures_util::{StreamExt, stream};
use tracing::{debug, warn};

use super::Manager;
use crate::vault::{self, Vault, Worker};

/// How long the cluster is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many backups are asked for at once.
const AT_ONCE: usize = 32;

/// Who is at work on a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody is recorded: it was not begun, or has ended in order.
    Nobody,
    /// This process.
    Me,
    /// Another process that lives.
    Living(Worker),
    /// Another process, which has ended in the middle.
    Dead(Worker),
    /// The cluster does not tell.
    Unknown,
}

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

    /// Forgets a worker that was at work on a backup and has ended, once that is dealt with.
    pub(super) async fn bury(&self, backup: BackupId, dead: &Worker) {
        if in_time(self.vault.disown(backup, dead)).await.is_none() {
            debug!(%backup, "What tells that a worker was at work on the backup stays");
        }
    }

    /// Whether another worker of this host lives. One that cannot be asked for counts as none.
    pub async fn has_company(&self) -> bool {
        let alive = in_time(self.vault.alive(&self.me.host)).await;
        alive.is_some_and(|alive| alive.iter().any(|worker| worker != &self.me))
    }

    /// Who is at work on a backup.
    pub(super) async fn owner(&self, backup: BackupId) -> Owner {
        let asking = async {
            let Some(owner) = self.vault.owner(backup).await? else {
                return Ok(Owner::Nobody);
            };
            if owner == self.me {
                return Ok(Owner::Me);
            }
            let alive = self.vault.alive(&owner.host).await?;
            Ok(match alive.contains(&owner) {
                true => Owner::Living(owner),
                false => Owner::Dead(owner),
            })
        };
        in_time(asking).await.unwrap_or(Owner::Unknown)
    }

    /// Waits until no other worker of this host is at work on a backup: several volumes may be created
    /// from one at a time.
    pub(super) async fn wait_for_others(&self, backup: BackupId) {
        while let Owner::Living(owner) = self.owner(backup).await {
            debug!(%backup, worker = %owner.id, "Waiting for another worker of this host");
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
        }
    }

    /// Whether a worker takes requests to this host that is none of ours: Python's tells nobody what it
    /// is at work on. Where that cannot be seen there may be one.
    pub(super) async fn has_strangers(&self) -> bool {
        let host = &self.settings.host;
        let asking = self.amqp.consumers(TOPIC, host);
        let consumers = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(consumers)) => usize::try_from(consumers).unwrap_or(usize::MAX),
            Ok(Err(reason)) => {
                debug!(reason, "Cannot see who takes the requests to this host");
                return true;
            }
            Err(_) => return true,
        };
        let ours = in_time(self.vault.alive(host)).await;
        consumers > ours.map_or(1, |alive| alive.len().max(1))
    }

    /// Who is at work on each of some backups. All are asked for at once, so that the answer takes no
    /// longer than that about one.
    pub(super) async fn owners(&self, backups: Vec<Backup>) -> Vec<(Backup, Owner)> {
        let alive = in_time(self.vault.alive(&self.me.host)).await;
        if alive.is_none() {
            let unknown = |backup| (backup, Owner::Unknown);
            return backups.into_iter().map(unknown).collect();
        }
        let mut asked = stream::iter(backups)
            .map(async |backup| {
                let owner = self.owner(backup.id).await;
                (backup, owner)
            })
            .buffered(AT_ONCE);
        let mut found = Vec::new();
        while let Some(owned) = asked.next().await {
            found.push(owned);
        }
        found
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
