//! Going on with a backup or a restore that an earlier process of this host did not bring to its end.

use std::sync::Arc;
use std::time::Duration;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, VolumeChange, VolumeStatus};
use futures_util::future::{Either, select};
use tracing::{error, info};

use super::owner::Owner;
use super::restore::Target;
use super::startup::own_context;
use super::{Error, Manager, now};
use crate::vault::{TakenOver, Vault};

/// How many workers may die at one backup: it may be what kills them.
const DEATHS: u32 = 10;

/// After how long a worker is not going to die at it any more.
const SURVIVED: Duration = Duration::from_secs(600);

impl Manager {
    /// Goes on with an operation in the background, once it can be worked on.
    pub(super) fn resume(self: &Arc<Self>, found: &Backup) {
        let (manager, found) = (self.clone(), found.clone());
        tokio::spawn(async move {
            // One that was cut off counts as dead until it has shown that it lives.
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
            let mut ready = manager.ready.clone();
            if ready.wait_for(|ready| *ready).await.is_err() {
                return;
            }
            manager.wait_for_cinder_volume(found.volume_id).await;
            // A stop leaves it to the next start.
            if manager.tasks.is_closed() {
                return;
            }
            let going_on = manager.clone();
            manager.spawn(async move {
                if let Err(error) = going_on.go_on(&found).await {
                    error!(backup = %found.id, %error, "Cannot go on with what was left unfinished");
                }
            });
        });
    }

    async fn go_on(self: &Arc<Self>, found: &Backup) -> Result<(), Error> {
        let id = found.id;
        let (deaths, target) = match self.take_over_from_the_dead(id).await {
            Some(TakenOver::After { deaths, target, .. }) => (deaths, target),
            Some(TakenOver::By(worker)) => {
                self.look_again(found.clone(), Owner::Living(worker));
                return Ok(());
            }
            None => return Ok(()),
        };
        let row = match self.db.backup(id).await? {
            Some(row) if row.status == found.status => row,
            // Reset or deleted meanwhile.
            row => {
                if self.is_abandoned(found, row.as_ref()).await {
                    self.let_go(id).await;
                }
                self.disown(id).await;
                return Ok(());
            }
        };
        let target = match row.status {
            Some(BackupStatus::Restoring) => self.waiting_target(&row, target).await?,
            _ => target,
        };
        if deaths > DEATHS {
            error!(backup = %id, deaths, "Given up, since workers have died at this backup");
            return self.give_up(&row, target).await;
        }
        let context = own_context().for_owner(&row.user_id, &row.project_id);
        let going_on = async {
            match (row.status, target) {
                (Some(BackupStatus::Restoring), Some(volume)) => {
                    self.end_attachments(volume, &self.settings.host).await?;
                    info!(backup = %id, %volume, "Going on with the restore of the backup");
                    let restoring = self.restore_backup(context, id, volume, Target::BrokenOff);
                    restoring.await
                }
                (Some(BackupStatus::Restoring), None) => self.give_up(&row, target).await,
                _ => {
                    if row.snapshot_id.is_none() {
                        self.end_attachments(row.volume_id, &self.settings.host)
                            .await?;
                    }
                    info!(backup = %id, "Going on with the backup");
                    self.make_again(context, &row).await
                }
            }
        };
        let surviving = async {
            tokio::time::sleep(SURVIVED).await;
            let me = self.me.clone();
            let survived = self.ask(move |vault| async move { vault.survive(id, &me).await });
            survived.await
        };
        // What becomes of it is in the rows and in the log.
        let (going_on, surviving) = (Box::pin(going_on), Box::pin(surviving));
        if let Either::Right((_, going_on)) = select(going_on, surviving).await {
            let _ = going_on.await;
        }
        Ok(())
    }

    /// The volume that waits for a restore: the one that was recorded, unless that has ended, or else the one
    /// that was asked for last.
    async fn waiting_target(
        &self,
        row: &Backup,
        recorded: Option<VolumeId>,
    ) -> Result<Option<VolumeId>, Error> {
        let asked = row.restore_volume_id.as_deref();
        let asked = asked.and_then(|volume| volume.parse().ok());
        for target in [recorded, asked].into_iter().flatten() {
            if self.awaiting(target).await?.is_some() {
                return Ok(Some(target));
            }
        }
        Ok(None)
    }

    /// Waits for the cluster until it tells; none where the worker stops before.
    async fn take_over_from_the_dead(&self, backup: BackupId) -> Option<TakenOver> {
        while !self.tasks.is_closed() {
            let me = self.me.clone();
            let taking =
                self.ask(
                    move |vault| async move { vault.take_over(backup, &me.host, &me, None).await },
                );
            if let Some(taken) = taking.await {
                return Some(taken);
            }
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
        }
        None
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

    /// Ends it as Cinder does.
    async fn give_up(
        self: &Arc<Self>,
        row: &Backup,
        target: Option<VolumeId>,
    ) -> Result<(), Error> {
        let Some(_claim) = self.claim(row.id) else {
            return Ok(());
        };
        let mut row = row.clone();
        if let Some(target) = target {
            row.restore_volume_id = Some(target.to_string());
        }
        let ended = self.end_interrupted(&row).await;
        self.disown(row.id).await;
        ended
    }

    /// Ends what attachments to a worker's host a volume has. cinder-volume calls it free with the last of
    /// them, and it is not.
    pub(super) async fn end_attachments(&self, id: VolumeId, host: &str) -> Result<(), Error> {
        let attached = self.db.attachments(id, host).await?;
        let volume = self.db.volume(id).await?;
        let held = match volume.and_then(|volume| volume.status) {
            Some(held) if is_held(&held) && !attached.is_empty() => held,
            _ => return Ok(()),
        };
        let found = self.detach_all(id, &held, &attached).await?;
        if found == held {
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

/// Whether a volume has the status of one that is backed up, or restored to.
fn is_held(status: &VolumeStatus) -> bool {
    *status == VolumeStatus::BackingUp || status.awaits_restore()
}
