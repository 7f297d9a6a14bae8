//! Deleting a backup.

use api_compat::backup_record;
use api_compat::ids::BackupId;
use api_compat::notification::BackupEvent;
use api_compat::objects::Backup;
use api_compat::state::driver::{self, Operation};
use api_compat::state::{BackupStatus, Event, Source, VolumeStatus, transition};
use api_compat::user_message::{Action, Detail};
use tracing::{error, info, warn};

use super::{Context, Error, Manager, about, lock, now};
use crate::db::{Done, Subject};
use crate::vault::Volume;

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
        let _claim = self.take_over(id).await;
        info!(backup = %id, "Delete backup started");
        let row = self.backup(id).await?;
        self.notify(&context, &row, BackupEvent::DeleteStart).await;
        let outcome = self.delete(&context, &row).await;
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

    async fn delete(&self, context: &Context, row: &Backup) -> Result<(), Error> {
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
        if begun && let Err(error) = self.delete_data(context, row).await {
            let reason = &error.to_string();
            if let Ok(change) = transition(status, &Event::DeleteFailed { reason }) {
                self.write(subject, &change, Done::Nothing).await;
            }
            let detail = Detail::BackupDeleteDriverError;
            self.tell_user(context, Action::Delete, row.id, detail)
                .await;
            return Err(error);
        }
        // Deleted by force while it was being made, perhaps by another worker: its source waits.
        let making = self.making(row.id).await?;
        let source = match self.db.is_backed_up_by_another(row).await? {
            true => Source::Gone,
            false => making.held(),
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

    async fn delete_data(&self, context: &Context, row: &Backup) -> Result<(), Error> {
        let record = self.record(row).await?;
        self.vault.delete(&record).await?;
        if let Err(error) = self.release_source(context, row).await {
            warn!(
                backup = %row.id, volume = %row.volume_id, %error,
                "Cannot remove the backup's snapshot from its volume"
            );
        }
        Ok(())
    }

    /// Removes the backup's snapshot from its source volume, where that still exists: nothing
    /// builds on it any more, and it would cost space for as long as the volume lives.
    async fn release_source(&self, context: &Context, row: &Backup) -> Result<(), Error> {
        if row.snapshot_id.is_some() {
            return Ok(());
        }
        let Some(volume) = self.db.volume(row.volume_id).await? else {
            return Ok(());
        };
        // Asking for a connection to a volume that is in use must not disturb its user, which is
        // certain only of volumes in Ceph. A backup without a base image is not of one.
        let reachable = match &volume.status {
            Some(VolumeStatus::Available) => true,
            Some(VolumeStatus::InUse) => self.attacher.is_in_ceph(&volume),
            _ => false,
        };
        if row.service_metadata.is_none() || !reachable {
            return Ok(());
        }
        let attached = self.attach(context, volume.id).await?;
        let source = Volume {
            pool: attached.pool.clone(),
            image: attached.image.clone(),
        };
        let released = self.vault.release_source(&source, row.id).await;
        self.attacher.detach(context, attached).await?;
        Ok(released?)
    }
}
