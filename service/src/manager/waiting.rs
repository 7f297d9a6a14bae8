//! What may still come: cinder-volume's answer, and requests that a start finds only in the rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api_compat::backup_record;
use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, is_wanted};
use api_compat::user_message::Detail;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info};

use super::ending::Reached;
use super::owner::Owner;
use super::startup::own_context;
use super::{Context, Error, Manager, lock, now};
use crate::vault::Vault;

/// How long a request that waits in this host's queue may take to be carried out, once it is taken
/// from there again.
const QUEUED: Duration = Duration::from_secs(30);

/// A backup for which cinder-volume has been asked.
pub(super) struct Awaited {
    /// Since when it is waited for.
    pub since: Instant,
    called_back: CancellationToken,
}

impl Awaited {
    pub fn new(called_back: CancellationToken) -> Self {
        Self {
            since: Instant::now(),
            called_back,
        }
    }

    /// Ends the wait.
    pub fn cancel(&self) {
        self.called_back.cancel();
    }
}

/// Whether to wait for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// It came, or is not wanted any more.
    Over,
    /// It may be coming: look again after so long.
    Longer(Duration),
    /// It does not come.
    InVain,
}

impl Manager {
    /// Fails the backup when cinder-volume never calls back: one of the two casts may be lost.
    pub(super) fn expect_continuation(
        self: Arc<Self>,
        context: Context,
        id: BackupId,
        called_back: CancellationToken,
    ) {
        let watch = async move {
            let mut pause = self.settings.continue_timeout;
            loop {
                if tokio::time::timeout(pause, called_back.cancelled())
                    .await
                    .is_ok()
                {
                    return;
                }
                match self.look_for_device(id).await {
                    Wait::Longer(wait) => pause = wait,
                    Wait::Over => {
                        lock(&self.awaiting).remove(&id);
                        // What this worker wrote when it began may stand there still.
                        let Some(_claim) = self.claim(id) else {
                            return;
                        };
                        return self.disown(id).await;
                    }
                    Wait::InVain => break,
                }
            }
            lock(&self.awaiting).remove(&id);
            let _claim = self.claim_next(id).await;
            let error = match self.backup(id).await {
                Ok(row) if !is_being_made(&row) => Error::CalledOff,
                Err(error @ Error::BackupNotFound(_)) => error,
                _ => Error::Invalid(format!(
                    "cinder-volume did not answer within {} s.",
                    self.settings.continue_timeout.as_secs()
                )),
            };
            let detail = Some(Detail::BackupCreateDeviceError);
            self.fail_create(&context, id, &error, detail, Reached::Nothing)
                .await;
            let row = self.db.backup(id).await;
            let anothers = |row: Option<Backup>| {
                row.is_some_and(|row| {
                    Reached::Nothing.is_anothers(&row) || self.expect_here(&row).is_err()
                })
            };
            if !row.map_or(true, anothers) {
                self.remove_temporary(&context, id).await;
            }
        };
        tokio::spawn(watch.in_current_span());
    }

    async fn look_for_device(&self, id: BackupId) -> Wait {
        let row = match self.db.backup(id).await {
            Ok(Some(row)) if is_being_made(&row) => row,
            // It failed or was deleted, perhaps by somebody who does not know what it holds.
            Ok(_) if !self.holds_its_source(id).await => return Wait::Over,
            _ => return Wait::InVain,
        };
        if Reached::Nothing.is_anothers(&row) || self.expect_here(&row).is_err() {
            return Wait::Over;
        }
        match self.owner(id).await {
            // It got the answer, and waits for room.
            Owner::Living(_) | Owner::Unknown => Wait::Longer(Vault::SIGN_OF_LIFE),
            Owner::Me | Owner::Nobody | Owner::Dead(_) => self.while_others_work(&row).await,
        }
    }

    async fn holds_its_source(&self, id: BackupId) -> bool {
        let held = async {
            match self.db.backup_even_deleted(id).await? {
                Some(row) => self.is_held_for(&self.making_of(row).await?).await,
                None => Ok(false),
            }
        };
        held.await.unwrap_or(true)
    }

    /// Waits for those who leave no mark: Python's worker, which may have taken the request, and
    /// cinder-volume, which may copy the whole volume for a backup.
    async fn while_others_work(&self, row: &Backup) -> Wait {
        if self.has_strangers().await {
            info!(backup = %row.id, "A worker of Python's may have taken the request");
            return Wait::Longer(self.settings.continue_timeout);
        }
        if row.status != Some(BackupStatus::Creating) {
            return Wait::InVain;
        }
        match self.is_being_prepared(row).await {
            Ok(true) => {
                info!(backup = %row.id, "cinder-volume still prepares what is to be backed up");
                Wait::Longer(self.settings.continue_timeout)
            }
            Ok(false) => Wait::InVain,
            Err(error) => {
                debug!(backup = %row.id, %error, "Cannot see whether cinder-volume is at work");
                Wait::InVain
            }
        }
    }

    /// Whether cinder-volume lives and makes the temporary volume or snapshot of a backup.
    pub(super) async fn is_being_prepared(&self, row: &Backup) -> Result<bool, Error> {
        let Some(volume) = self.db.volume(row.volume_id).await? else {
            return Ok(false);
        };
        let lives = self.cinder_volume_lives(row.volume_id).await?;
        // By as much clocks may differ before services count as down.
        let skew = chrono::Duration::from_std(self.settings.service_down_time).unwrap_or_default();
        Ok(lives && self.db.is_being_prepared(row, &volume, skew).await?)
    }

    /// Ends what a start found in a row when the request does not come that would carry it out.
    pub(super) fn expect_message(self: &Arc<Self>, mut found: Backup) {
        let manager = self.clone();
        let mut pause = self.settings.continue_timeout.min(QUEUED);
        info!(backup = %found.id, "The backup waits for a request that may still be in the queue");
        tokio::spawn(async move {
            let begun = Instant::now();
            loop {
                tokio::time::sleep(pause).await;
                match manager.look_for_message(&mut found, begun.elapsed()).await {
                    Wait::Longer(wait) => pause = wait,
                    Wait::Over => return,
                    Wait::InVain => break,
                }
            }
            if let Err(error) = manager.end_unless_changed(&found).await {
                let backup = found.id;
                error!(%backup, %error, "Cannot give up a backup whose request was lost");
            }
        });
    }

    async fn look_for_message(&self, found: &mut Backup, waited: Duration) -> Wait {
        // The request came, and its answer is waited for here.
        if lock(&self.awaiting).contains_key(&found.id) {
            return Wait::Over;
        }
        let row = match self.db.backup(found.id).await {
            Ok(Some(row)) if is_untouched(found, &row) => row,
            // Something else was written into it, or the same is asked for again.
            Ok(Some(row))
                if found.status == row.status && row.status != Some(BackupStatus::Creating) =>
            {
                *found = row;
                return Wait::Longer(self.settings.continue_timeout.min(QUEUED));
            }
            Ok(row) => {
                let abandoned = self.is_abandoned(found, row.as_ref()).await;
                return match abandoned && !matches!(self.owner(found.id).await, Owner::Living(_)) {
                    true => Wait::InVain,
                    false => Wait::Over,
                };
            }
            Err(_) => return Wait::InVain,
        };
        match self.owner(row.id).await {
            Owner::Me => Wait::Over,
            Owner::Living(_) | Owner::Unknown => Wait::Longer(Vault::SIGN_OF_LIFE),
            Owner::Nobody | Owner::Dead(_) => match self.while_others_work(&row).await {
                Wait::InVain
                    if waited < self.settings.continue_timeout && !self.is_asked(&row).await =>
                {
                    Wait::Longer(QUEUED)
                }
                wait => wait,
            },
        }
    }

    /// Whether everybody has been asked who has a part in what a row waits for: a backup that no worker
    /// has taken on may wait for cinder-scheduler, and one that a worker has for cinder-volume.
    async fn is_asked(&self, row: &Backup) -> bool {
        if row.status != Some(BackupStatus::Creating) {
            return true;
        }
        let asking = self.cinder_volume_lives(row.volume_id);
        row.service.is_some() && asking.await.unwrap_or(false)
    }

    /// Whether cinder-volume serves a volume, as far as its reports tell.
    pub(super) async fn cinder_volume_lives(&self, volume: VolumeId) -> Result<bool, Error> {
        let Some(volume) = self.db.volume(volume).await? else {
            return Ok(false);
        };
        let down = chrono::Duration::from_std(self.settings.service_down_time);
        let since = now() - down.unwrap_or_default();
        Ok(self.db.serves_volume(&volume, since.naive_utc()).await?)
    }

    async fn end_unless_changed(self: &Arc<Self>, found: &Backup) -> Result<(), Error> {
        // An operation of this process would be what was waited for.
        let Some(_claim) = self.claim(found.id) else {
            return Ok(());
        };
        match self.db.backup(found.id).await? {
            Some(row) if is_untouched(found, &row) => self.end_interrupted(&row).await,
            row => {
                if self.is_abandoned(found, row.as_ref()).await {
                    self.let_go(found.id).await;
                }
                Ok(())
            }
        }
    }

    /// Whether a backup that was found being made has been reset or deleted since, by somebody who does
    /// not know what it holds.
    pub(super) async fn is_abandoned(&self, found: &Backup, row: Option<&Backup>) -> bool {
        let was_made = found.status == Some(BackupStatus::Creating);
        let ended = |row: &Backup| row.status != Some(BackupStatus::Creating) && !is_made(row);
        was_made && row.is_none_or(ended) && self.holds_its_source(found.id).await
    }

    /// Gives back what a backup holds that was abandoned.
    pub(super) async fn let_go(&self, id: BackupId) {
        let (context, called_off) = (own_context(), &Error::CalledOff);
        self.fail_create(&context, id, called_off, None, Reached::Nothing)
            .await;
        self.remove_temporary(&context, id).await;
    }
}

/// Whether somebody makes a backup, or has made it.
fn is_made(row: &Backup) -> bool {
    !is_before_its_data(row) && Reached::Nothing.is_anothers(row)
}

fn is_being_made(row: &Backup) -> bool {
    row.status
        .is_some_and(|status| is_wanted(BackupStatus::Creating, status))
}

/// Whether nobody has begun what a row waited for when it was found.
fn is_untouched(found: &Backup, now: &Backup) -> bool {
    found.status == now.status
        && found.host == now.host
        && match now.status {
            // cinder-volume writes into the row.
            Some(BackupStatus::Creating) => is_before_its_data(now),
            _ => found.updated_at == now.updated_at,
        }
}

/// Whether a backup that is being made, or imported, has not got as far as its data.
pub(super) fn is_before_its_data(row: &Backup) -> bool {
    backup_record::is_awaited(row) || row.service_metadata.is_none()
}

#[cfg(test)]
mod tests {
    use api_compat::state::BackupStatus as B;

    use super::super::tests::row;
    use super::*;

    #[test]
    fn a_row_that_anybody_has_begun_with_is_touched() {
        let of = |status, seconds: i64| {
            row(|row| {
                row.status = Some(status);
                row.updated_at = chrono::DateTime::from_timestamp(seconds, 0);
            })
        };
        // The same operation was asked for again.
        assert!(is_untouched(&of(B::Restoring, 1), &of(B::Restoring, 1)));
        assert!(!is_untouched(&of(B::Restoring, 1), &of(B::Restoring, 2)));
        assert!(!is_untouched(&of(B::Restoring, 1), &of(B::Available, 1)));
        // A worker has taken it on, and waits for cinder-volume.
        assert!(is_untouched(&of(B::Creating, 1), &of(B::Creating, 2)));
        let placed = |row: &mut Backup| row.service_metadata = Some("{}".to_owned());
        assert!(!is_untouched(&of(B::Creating, 1), &row(placed)));
    }
}
