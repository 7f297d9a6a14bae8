//! Deleting a backup.

use std::time::Duration;

use api_compat::backup_record;
use api_compat::ids::BackupId;
use api_compat::notification::BackupEvent;
use api_compat::objects::Backup;
use api_compat::state::driver::{self, Operation};
use api_compat::state::{BackupStatus, Event, Source, VolumeStatus, transition};
use api_compat::user_message::{Action, Detail};
use tracing::{error, info, warn};

use super::claim::Claim;
use super::volumes::Making;
use super::{Context, Error, Manager, about, lock, now};
use crate::db::{Done, Subject};
use crate::vault::Volume;

/// How long a volume's cluster may take to give up a snapshot. The backup itself is gone by then.
const RELEASE: Duration = Duration::from_secs(30);

/// How long cinder-api may take from the status of a volume to the row of its backup.
const SETTLE: Duration = Duration::from_secs(3);

impl Manager {
    /// `delete_backup`: removes the data, then the row, and gives the quota back.
    pub(super) async fn delete_backup(
        &self,
        mut context: Context,
        id: BackupId,
    ) -> Result<(), Error> {
        about(&mut context, id, Action::Delete);
        // Nobody waits for cinder-volume any more, nor for what it is going to answer.
        if let Some(awaited) = lock(&self.awaiting).remove(&id) {
            awaited.cancel();
        }
        let claim = self.take_over(id).await;
        info!(backup = %id, "Delete backup started");
        let row = self.backup(id).await?;
        self.notify(&context, &row, BackupEvent::DeleteStart).await;
        let outcome = self.delete(&context, &row, &claim).await;
        match &outcome {
            Ok(()) => {
                info!(backup = %id, "Delete backup finished");
                if let Some(row) = self.db.backup_even_deleted(id).await? {
                    self.notify(&context, &row, BackupEvent::DeleteEnd).await;
                }
            }
            Err(error) => error!(backup = %id, %error, "Delete backup failed"),
        }
        outcome
    }

    async fn delete(
        &self,
        context: &Context,
        row: &Backup,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let status = row.status.unwrap_or(BackupStatus::Error);
        let subject = Subject::alone(row.id, status);
        // A backup whose create never got as far as a driver has no data and needs none; the row
        // of an import that failed owns none, whatever its columns still say.
        let begun = !backup_record::is_awaited(row)
            && row
                .service
                .as_deref()
                .is_some_and(|service| !service.is_empty());
        let event = Event::Delete {
            service_up: !begun || *self.ready.borrow(),
        };
        let refused = match transition(status, &event) {
            Err(refusal) => Some(refusal),
            Ok(_) if !self.is_ours(row) => Some(driver::refuse(
                Operation::Delete,
                &self.settings.driver,
                row.service.as_deref().unwrap_or_default(),
            )),
            Ok(_) => None,
        };
        if let Some(refusal) = refused {
            return Err(self.refuse(context, subject, refusal, Action::Delete).await);
        }
        if begun && let Err(error) = self.delete_data(context, row, claim).await {
            // What called it off is a deletion, too: the row is its own.
            if !matches!(error, Error::CalledOff) {
                self.fail_delete(context, row, &error).await;
            }
            return Err(error);
        }
        let making = self.making(row.id).await?;
        let making = match self.is_held_for(&making).await? {
            false => making,
            // cinder-api takes a volume for a new backup before that has a row.
            true => {
                tokio::time::sleep(SETTLE).await;
                self.making(row.id).await?
            }
        };
        // Deleted by force while it was being made, perhaps by another worker: its source waits.
        let source = match self.is_held_for(&making).await? {
            true => making.held(),
            false => Source::Gone,
        };
        let change = transition(status, &Event::DeleteSucceeded { source })
            .map_err(|refusal| Error::Refused(Box::new(refusal)))?;
        let done = Done::Deleted {
            parent: row.parent_id,
            project: Some(row.project_id.as_str()).filter(|project| !project.is_empty()),
            size: row.size.unwrap_or(0),
            rules: &self.settings.quota,
        };
        let now = now().naive_utc();
        Ok(self.db.change(making.subject(), &change, done, now).await?)
    }

    /// Whether the source has the status of one that is being backed up, and this is the only backup
    /// for which that can be.
    async fn is_held_for(&self, making: &Making) -> Result<bool, Error> {
        let held = !matches!(making.held(), Source::Gone);
        Ok(held && !self.db.is_backed_up_by_another(&making.backup).await?)
    }

    async fn fail_delete(&self, context: &Context, row: &Backup, error: &Error) {
        let reason = &error.to_string();
        // Whatever it was called meanwhile, part of its data may be gone.
        let status = match self.backup(row.id).await {
            Ok(row) => row.status,
            Err(_) => row.status,
        };
        let status = status.unwrap_or(BackupStatus::Error);
        if let Ok(change) = transition(status, &Event::DeleteFailed { reason }) {
            let subject = Subject::alone(row.id, status);
            self.write(subject, &change, Done::Nothing).await;
        }
        let detail = Detail::BackupDeleteDriverError;
        self.tell_user(context, Action::Delete, row.id, detail)
            .await;
    }

    async fn delete_data(
        &self,
        context: &Context,
        row: &Backup,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let record = self.record(row).await?;
        claim.carry(self.vault.delete(&record)).await?;
        if let Err(error) = self.release_source(context, row, claim).await {
            warn!(
                backup = %row.id, volume = %row.volume_id, %error,
                "Cannot remove the backup's snapshot from its volume; the volume's next backup will"
            );
        }
        Ok(())
    }

    /// Removes the backup's snapshot from its source volume, where that still exists: nothing
    /// builds on it any more, and it would cost space for as long as the volume lives.
    async fn release_source(
        &self,
        context: &Context,
        row: &Backup,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        // A backup of a snapshot leaves none, nor does one without a base image.
        if row.snapshot_id.is_some() || row.service_metadata.is_none() {
            return Ok(());
        }
        let Some(volume) = self.db.volume(row.volume_id).await? else {
            return Ok(());
        };
        // A volume that comes or goes is not disturbed.
        let status = volume.status.as_ref().map(VolumeStatus::as_str);
        if matches!(
            status,
            None | Some("creating" | "deleting" | "error_deleting")
        ) {
            return Ok(());
        }
        let attached = self.attach(context, volume.id).await?;
        let source = Volume {
            pool: attached.pool.clone(),
            image: attached.image.clone(),
        };
        let releasing = tokio::time::timeout(RELEASE, self.vault.release_source(&source, row.id));
        let released = claim.carry(releasing).await;
        self.attacher.detach(context, attached).await?;
        Ok(released??)
    }
}
