//! What a start does with operations that an earlier process of this host left unfinished.

use std::sync::Arc;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::messaging::RequestContext;
use api_compat::objects::Backup;
use api_compat::state::{self, BackupStatus, Event, VolumeStatus, transition};
use tracing::{error, info};
use uuid::Uuid;

use super::{Error, Manager, now};
use crate::db::{Done, Subject};

impl Manager {
    /// Ends or resumes every unfinished operation of this host; to be called before the first
    /// message is taken. A backup that cannot be dealt with is logged and left.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn clean_up(self: &Arc<Self>) -> Result<(), Error> {
        let company = self.has_company().await;
        for row in self.db.unfinished_backups(&self.settings.host).await? {
            if company && let Some(owner) = self.other_owner(row.id).await {
                self.look_again(&row, owner);
            } else if let Err(error) = self.clean_up_one(&row).await {
                error!(backup = %row.id, %error, "Cannot clean up what was left unfinished");
            }
        }
        self.make_all_independent().await
    }

    pub(super) async fn clean_up_one(self: &Arc<Self>, row: &Backup) -> Result<(), Error> {
        let context = RequestContext::admin(&format!("req-{}", Uuid::new_v4()), now());
        match row.status {
            // No worker ever began it: its message still waits in the queue, most likely.
            Some(BackupStatus::Creating) if row.service.is_none() => self.expect_message(row.id),
            Some(BackupStatus::Creating) => {
                error!(backup = %row.id, "Create backup failed: the service ended in the middle");
                let making = self.making(row.id).await?;
                let event = Event::Interrupted {
                    source: making.source(),
                    encrypted: row.encryption_key_id.is_some(),
                };
                self.interrupted(making.subject(), &event).await?;
                self.remove_temporary_later(row.id, context);
            }
            Some(BackupStatus::Restoring) => {
                error!(
                    backup = %row.id, volume = row.restore_volume_id,
                    "Restore backup failed: the service ended in the middle"
                );
                self.restore_interrupted(row).await?;
            }
            Some(BackupStatus::Deleting)
                if row.encryption_key_id.is_some() && !self.keys.acts_alone() =>
            {
                let event = Event::Interrupted {
                    source: state::Source::Gone,
                    encrypted: true,
                };
                let subject = Subject::alone(row.id, BackupStatus::Deleting);
                self.interrupted(subject, &event).await?;
            }
            Some(BackupStatus::Deleting) => {
                info!(backup = %row.id, "Resuming the deletion of the backup");
                self.resume_delete(row, context);
            }
            Some(BackupStatus::Error) => self.remove_temporary_later(row.id, context),
            _ => {}
        }
        Ok(())
    }

    /// In the background, since it waits for a broker that is away.
    fn remove_temporary_later(self: &Arc<Self>, id: BackupId, context: RequestContext) {
        let manager = self.clone();
        self.spawn(async move {
            manager.remove_temporary(&context, id).await;
        });
    }

    /// Gives a backup up whose message does not come: an earlier process had taken it, and no more.
    fn expect_message(self: &Arc<Self>, id: BackupId) {
        let manager = self.clone();
        let wait = self.settings.continue_timeout;
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let given_up = async {
                let making = manager.making(id).await?;
                let row = &making.backup;
                if row.status == Some(BackupStatus::Creating) && row.service.is_none() {
                    error!(backup = %id, "Create backup failed: its request was lost");
                    let event = Event::Interrupted {
                        source: making.source(),
                        encrypted: row.encryption_key_id.is_some(),
                    };
                    manager.interrupted(making.subject(), &event).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = given_up.await {
                error!(backup = %id, %error, "Cannot give up a backup whose request was lost");
            }
        });
    }

    async fn restore_interrupted(&self, row: &Backup) -> Result<(), Error> {
        let volume = match &row.restore_volume_id {
            Some(id) => self.db.volume(id.parse::<VolumeId>()?).await?,
            None => None,
        };
        let status = volume
            .as_ref()
            .and_then(|volume| volume.status.clone())
            .unwrap_or_else(|| VolumeStatus::from(""));
        let subject = Subject {
            backup: row.id,
            status: BackupStatus::Restoring,
            volume: volume.as_ref().map(|volume| (volume.id, &status)),
            snapshot: None,
        };
        let source = match &volume {
            Some(volume) => state::Source::Volume {
                status: &status,
                previous: volume.previous_status.as_ref(),
            },
            None => state::Source::Gone,
        };
        let event = Event::Interrupted {
            source,
            encrypted: row.encryption_key_id.is_some(),
        };
        self.interrupted(subject, &event).await
    }

    async fn interrupted(&self, subject: Subject<'_>, event: &Event<'_>) -> Result<(), Error> {
        let change = transition(subject.status, event)
            .map_err(|refusal| Error::Refused(Box::new(refusal)))?;
        let now = now().naive_utc();
        Ok(self.db.change(subject, &change, Done::Nothing, now).await?)
    }

    /// Deletes in the background, once the vault can be worked with.
    fn resume_delete(self: &Arc<Self>, row: &Backup, context: RequestContext) {
        let (manager, id) = (self.clone(), row.id);
        self.spawn(async move {
            let mut ready = manager.ready.clone();
            if ready.wait_for(|ready| *ready).await.is_ok() {
                // What became of it is in the row and in the log.
                let _ = manager.delete_backup(context, id).await;
            }
        });
    }
}
