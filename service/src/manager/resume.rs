//! Going on with a backup or a restore that an earlier process of this host did not bring to its end.

use std::sync::Arc;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, VolumeChange, VolumeStatus};
use tracing::{error, info};

use super::owner::Owner;
use super::startup::own_context;
use super::{Error, Manager, now};
use crate::vault::{TakenOver, Vault};

/// How many workers may die at one backup: it may be what kills them.
const DEATHS: u32 = 5;

impl Manager {
    /// Goes on with an operation in the background, once the vault can be worked with.
    pub(super) fn resume(self: &Arc<Self>, found: &Backup) {
        let (manager, found) = (self.clone(), found.clone());
        self.spawn(async move {
            let mut ready = manager.ready.clone();
            if ready.wait_for(|ready| *ready).await.is_err() {
                return;
            }
            if let Err(error) = manager.resume_now(&found).await {
                error!(backup = %found.id, %error, "Cannot go on with what was left unfinished");
            }
        });
    }

    async fn resume_now(self: &Arc<Self>, found: &Backup) -> Result<(), Error> {
        let id = found.id;
        match self.take_over_from_the_dead(id).await {
            TakenOver::By(worker) => {
                self.look_again(found.clone(), Owner::Living(worker));
                return Ok(());
            }
            TakenOver::After(deaths) if deaths > DEATHS => {
                error!(backup = %id, deaths, "No other worker is going to die at this backup");
                return self.give_up(found).await;
            }
            TakenOver::After(_) => {}
        }
        let volume = match found.status {
            Some(BackupStatus::Restoring) => found.restore_volume_id.as_deref(),
            _ => None,
        };
        let volume = match volume {
            Some(id) => id.parse()?,
            None => found.volume_id,
        };
        self.wait_for_cinder_volume(volume).await;
        let attached = self.db.attachments(volume, &self.settings.host).await?;
        let context = own_context().for_owner(&found.user_id, &found.project_id);
        // What becomes of it is in the rows and in the log.
        let _ = match found.status {
            Some(BackupStatus::Restoring) => {
                info!(backup = %id, %volume, "Going on with the restore of the backup");
                self.restore_backup(context, id, volume, false).await
            }
            _ => {
                info!(backup = %id, "Going on with the backup");
                self.make_again(context, id).await
            }
        };
        self.end_attachments(volume, &attached).await
    }

    async fn take_over_from_the_dead(&self, backup: BackupId) -> TakenOver {
        loop {
            let me = self.me.clone();
            let taking = self.ask(move |vault| async move { vault.take_over(backup, &me).await });
            if let Some(taken) = taking.await {
                return taken;
            }
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
        }
    }

    /// After a reboot it may start later than this worker. Without it nothing can be attached.
    async fn wait_for_cinder_volume(&self, volume: VolumeId) {
        let waiting = async {
            while let Ok(false) = self.cinder_volume_lives(volume).await {
                tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
            }
        };
        let _ = tokio::time::timeout(self.settings.continue_timeout, waiting).await;
    }

    async fn give_up(self: &Arc<Self>, found: &Backup) -> Result<(), Error> {
        let Some(_claim) = self.claim(found.id) else {
            return Ok(());
        };
        let row = self.db.backup(found.id).await?;
        if let Some(row) = row.filter(|row| row.status == found.status) {
            self.end_interrupted(&row).await?;
        }
        self.disown(found.id).await;
        Ok(())
    }

    /// Ends what the dead process had attached: not before the volume has its status back, which
    /// cinder-volume takes from it.
    async fn end_attachments(&self, id: VolumeId, attached: &[String]) -> Result<(), Error> {
        let volume = self.db.volume(id).await?;
        let held = match volume.and_then(|volume| volume.status) {
            Some(held) if !attached.is_empty() => held,
            _ => return Ok(()),
        };
        let found = self.detach_all(id, &held, attached).await?;
        if matches!(held, VolumeStatus::Available | VolumeStatus::InUse) || found == held {
            return Ok(());
        }
        let change = VolumeChange {
            status: held,
            previous: None,
        };
        let now = now().naive_utc();
        Ok(self.db.change_volume(id, &found, &change, now).await?)
    }
}
