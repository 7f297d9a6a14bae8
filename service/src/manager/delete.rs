//! Deleting a backup.

use std::sync::Arc;
use std::time::Duration;

use api_compat::backup_record;
use api_compat::ids::{BackupId, VolumeId};
use api_compat::notification::BackupEvent;
use api_compat::objects::Backup;
use api_compat::service_metadata;
use api_compat::state::driver::{self, Operation};
use api_compat::state::{BackupStatus, Event, VolumeStatus, transition};
use api_compat::user_message::{Action, Detail};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::claim::Claim;
use super::ending::SETTLE;
use super::{Context, Error, Manager, about, lock, now};
use crate::db::{Done, Subject};
use crate::steps::{Step, reached};
use crate::vault::Stage;

/// How long a delete waits until the backup's snapshot is gone from its volume. The backup itself is
/// gone by then.
const RELEASE: Duration = Duration::from_secs(30);

impl Manager {
    /// `delete_backup`: removes the data, then the row, and gives the quota back.
    pub(super) async fn delete_backup(
        self: &Arc<Self>,
        mut context: Context,
        id: BackupId,
    ) -> Result<(), Error> {
        about(&mut context, id, Action::Delete);
        info!(backup = %id, "Delete backup started");
        let row = self.backup(id).await?;
        self.notify(&context, &row, BackupEvent::DeleteStart).await;
        let outcome = self.accept_and_delete(&context, &row).await;
        match &outcome {
            Ok(()) => {
                info!(backup = %id, "Delete backup finished");
                self.remove_temporary(&context, id).await;
                if let Some(row) = self.db.backup_even_deleted(id).await? {
                    self.notify(&context, &row, BackupEvent::DeleteEnd).await;
                }
            }
            // By the deletion that this one waited for.
            Err(Error::BackupNotFound(_)) => info!(backup = %id, "The backup is gone already"),
            Err(error @ Error::CalledOff) => info!(backup = %id, %error, "Delete backup ended"),
            Err(error) => error!(backup = %id, %error, "Delete backup failed"),
        }
        outcome
    }

    async fn accept_and_delete(
        self: &Arc<Self>,
        context: &Context,
        row: &Backup,
    ) -> Result<(), Error> {
        // Before anything is ended for it: a request may come twice, or late.
        self.accept_delete(context, row).await?;
        // Nobody waits for cinder-volume any more, nor for what it is going to answer.
        if let Some(awaited) = lock(&self.awaiting).remove(&row.id) {
            awaited.cancel();
        }
        let claim = self.take_over(row.id).await;
        let row = self.backup(row.id).await?;
        self.accept_delete(context, &row).await?;
        self.delete(context, &row, &claim).await
    }

    /// Refuses what must not be deleted, or not here, or not now.
    async fn accept_delete(&self, context: &Context, row: &Backup) -> Result<(), Error> {
        let status = row.status.unwrap_or(BackupStatus::Error);
        let event = Event::Delete {
            service_up: !has_begun(row) || *self.ready.borrow(),
        };
        let refusal = match transition(status, &event) {
            Err(refusal) => refusal,
            Ok(_) if self.is_ours(row) => return Ok(()),
            Ok(_) => driver::refuse(
                Operation::Delete,
                &self.settings.driver,
                row.service.as_deref().unwrap_or_default(),
            ),
        };
        let subject = Subject::alone(row.id, status);
        Err(self.refuse(context, subject, refusal, Action::Delete).await)
    }

    async fn delete(
        self: &Arc<Self>,
        context: &Context,
        row: &Backup,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        if let Err(error) = self.check_key(row) {
            self.fail_delete(context, row, &error).await;
            return Err(error);
        }
        if has_begun(row) {
            self.own(row.id, Stage::Prepared).await;
            let deleted = self.delete_data(context, row, claim).await;
            if let Err(error) = deleted {
                // Also where a reset called it off: part of the data may be gone.
                self.fail_delete(context, row, &error).await;
                self.disown(row.id).await;
                return Err(error);
            }
        }
        let key_deleted = self.delete_key(context, row).await;
        if has_begun(row) {
            // While there is a row that leads to it.
            self.disown(row.id).await;
        }
        key_deleted?;
        let written = Self::write_anew(|| self.write_deleted(row.id)).await;
        reached(Step::RowDeleted);
        match &written {
            Ok(()) => {}
            Err(Error::BackupNotFound(_)) => return written,
            Err(error) => {
                self.fail_delete(context, row, error).await;
                return written;
            }
        }
        // The backup is gone, whatever becomes of this.
        if let Err(error) = self.release_target(row).await {
            error!(backup = %row.id, %error, "Cannot give up the volume of a restore");
        }
        Ok(())
    }

    /// Writes that a backup is gone, whatever it is called by now: it has no data any more.
    async fn write_deleted(&self, id: BackupId) -> Result<(), Error> {
        let making = self.making(id).await?;
        let making = match self.is_held_for(&making).await? {
            false => making,
            // cinder-api takes a volume for a new backup before that has a row.
            true => {
                tokio::time::sleep(SETTLE).await;
                self.making(id).await?
            }
        };
        // Deleted by force while it was being made, perhaps by another worker: its source waits.
        let source = self.release(&making).await?;
        let row = &making.backup;
        let status = row.status.unwrap_or(BackupStatus::Error);
        let change = transition(status, &Event::DeleteSucceeded { source })?;
        let done = Done::Deleted {
            parent: row.parent_id,
            project: Some(row.project_id.as_str()).filter(|project| !project.is_empty()),
            size: row.size.unwrap_or(0),
            rules: &self.settings.quota,
        };
        let now = now().naive_utc();
        Ok(self.db.change(making.subject(), &change, done, now).await?)
    }

    /// Gives up the volume to which the backup was being restored: whoever did so may be gone, or
    /// find nothing that tells of it.
    async fn release_target(&self, row: &Backup) -> Result<(), Error> {
        let Some(id) = &row.restore_volume_id else {
            return Ok(());
        };
        if self.db.is_being_restored_to(id).await? {
            return Ok(());
        }
        let held = VolumeStatus::RestoringBackup;
        self.give_target_up(id.parse()?, &held).await
    }

    async fn fail_delete(&self, context: &Context, row: &Backup, error: &Error) {
        let reason = &error.to_string();
        // Whatever it was called meanwhile, part of its data may be gone.
        let status = match self.backup(row.id).await {
            // Another host has taken it over, and deletes it.
            Ok(row) if self.expect_here(&row).is_err() => return,
            Ok(row) => row.status,
            Err(_) => row.status,
        };
        let status = status.unwrap_or(BackupStatus::Error);
        if let Ok(change) = transition(status, &Event::DeleteFailed { reason }) {
            let subject = self.of_this_host(Subject::alone(row.id, status));
            self.write(subject, &change, Done::Nothing).await;
        }
        let detail = Detail::BackupDeleteDriverError;
        self.tell_failure(context, Action::Delete, row.id, error, detail)
            .await;
    }

    async fn delete_data(
        self: &Arc<Self>,
        context: &Context,
        row: &Backup,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let record = self.record(row).await?;
        // Side by side: each is a snapshot that takes monitors their time. What builds on this backup, if it
        // cannot be deleted, is compared with it.
        let releasing = self.begin_release(context, row);
        {
            let _turn = tokio::select! {
                turn = self.deleting.acquire() => turn,
                () = claim.cancel().cancelled() => return Err(Error::CalledOff),
            };
            claim.carry(Box::pin(self.vault.delete(&record))).await?;
        }
        if let Some(releasing) = releasing {
            let released = claim
                .carry(Box::pin(tokio::time::timeout(RELEASE, releasing)))
                .await;
            let error = match released {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(error))) | Err(error) => error.to_string(),
                Ok(Err(panicked)) => panicked.to_string(),
            };
            warn!(
                backup = %row.id, volume = %row.volume_id, error,
                "Cannot remove the backup's snapshot from its volume; the volume's next backup will"
            );
        }
        Ok(())
    }

    /// Begins to remove a backup's snapshot from its source volume, if there can be one: a backup of a
    /// snapshot leaves none, nor does one of a device or without a base image. In a task of its own, since
    /// calls to a cluster that is gone cannot be taken back.
    fn begin_release(
        self: &Arc<Self>,
        context: &Context,
        row: &Backup,
    ) -> Option<JoinHandle<Result<(), Error>>> {
        let metadata = row.service_metadata.as_deref()?;
        if row.snapshot_id.is_some() || service_metadata::is_of_device(metadata) {
            return None;
        }
        let (manager, context) = (Arc::clone(self), context.clone());
        let (backup, volume) = (row.id, row.volume_id);
        Some(tokio::spawn(async move {
            let _turn = manager.releasing.acquire().await;
            manager.release_source(&context, backup, volume).await
        }))
    }

    /// Removes the backup's snapshot from its source volume, where that still exists: nothing
    /// builds on it any more, and it would cost space for as long as the volume lives.
    async fn release_source(
        &self,
        context: &Context,
        backup: BackupId,
        volume: VolumeId,
    ) -> Result<(), Error> {
        let Some(row) = self.db.volume(volume).await? else {
            return Ok(());
        };
        // A volume that comes or goes is not disturbed.
        let status = row.status.as_ref().map(VolumeStatus::as_str);
        if matches!(
            status,
            None | Some("creating" | "deleting" | "error_deleting")
        ) {
            return Ok(());
        }
        let source = self.locate(context, volume).await?;
        Ok(self.vault.release_source(&source, backup).await?)
    }
}

/// Whether a backup has got as far as a driver. One that has not has no data and needs none; the row
/// of an import that failed owns none, whatever its columns still say.
fn has_begun(row: &Backup) -> bool {
    let service = row.service.as_deref().unwrap_or_default();
    !backup_record::is_awaited(row) && !service.is_empty()
}
