//! What a start does with operations that an earlier process of this host left unfinished.

use std::sync::Arc;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::messaging::RequestContext;
use api_compat::objects::Backup;
use api_compat::rpc::volume::VolumeApi;
use api_compat::state::{BackupStatus, Event, Source, VolumeStatus, transition};
use tracing::{error, info};
use uuid::Uuid;

use super::owner::Owner;
use super::waiting::is_before_its_data;
use super::{Error, Manager, now};
use crate::db::{Done, Subject};
use crate::vault::{Vault, Worker};

/// What is to be done with an unfinished operation that nobody works on.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// Its message may still wait in the queue.
    Queued,
    /// It has ended in the middle, and can be gone on with.
    Resumable,
    /// It has ended in the middle.
    Interrupted,
    /// Its deletion goes on.
    Deleting,
    /// It has ended, and its temporary things may be there still.
    Ended,
    /// Nothing.
    Finished,
}

/// Decides it from the row, from whether a process was at work on it that has ended (`dead`), and from
/// whether keys can be deleted without their users (`acts_alone`).
fn left(row: &Backup, dead: bool, acts_alone: bool) -> Left {
    match row.status {
        // Nothing was placed: it waits for a worker, or for cinder-volume's answer.
        Some(BackupStatus::Creating) if is_before_its_data(row) => Left::Queued,
        Some(BackupStatus::Restoring) if !dead => Left::Queued,
        Some(BackupStatus::Creating) => Left::Resumable,
        // The message had the token with which the key can be copied.
        Some(BackupStatus::Restoring) if row.encryption_key_id.is_some() => Left::Interrupted,
        Some(BackupStatus::Restoring) => Left::Resumable,
        Some(BackupStatus::Deleting) if row.encryption_key_id.is_none() || acts_alone => {
            Left::Deleting
        }
        // The message has the token with which the key can be deleted.
        Some(BackupStatus::Deleting) if !dead => Left::Queued,
        Some(BackupStatus::Deleting) => Left::Interrupted,
        Some(BackupStatus::Error) => Left::Ended,
        // Between its end and the tidying up.
        Some(BackupStatus::Available) if dead => Left::Ended,
        _ => Left::Finished,
    }
}

impl Manager {
    /// How many of the operations that ended last are looked at: more than run at once, so that all are found
    /// after whose end a worker died before it had tidied up.
    pub(super) const LAST: u64 = 100;

    /// Ends or resumes every unfinished operation of this host that nobody works on; to be called
    /// before the first message is taken. A backup that cannot be dealt with is logged and left.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn clean_up(self: &Arc<Self>) -> Result<(), Error> {
        let host = &self.settings.host;
        let unfinished = self.db.unfinished_backups(host).await?;
        let ended = self.db.last_ended_backups(host, Self::LAST).await?;
        let ended = self.owners(ended).await.into_iter();
        // Whoever was at work on them until now counts as alive for a moment, even if it has died.
        let tidied = ended.filter(|(_, owner)| matches!(owner, Owner::Dead(_) | Owner::Living(_)));
        let left = self.owners(unfinished).await.into_iter().chain(tidied);
        for (row, owner) in left {
            let id = row.id;
            let cleaned = match owner {
                Owner::Me => Ok(()),
                Owner::Living(_) | Owner::Unknown => {
                    self.look_again(row, owner);
                    Ok(())
                }
                Owner::Nobody => self.clean_up_one(&row, None).await,
                Owner::Dead(worker) => self.clean_up_one(&row, Some(&worker)).await,
            };
            if let Err(error) = cleaned {
                error!(backup = %id, %error, "Cannot clean up what was left unfinished");
            }
        }
        self.make_all_independent().await
    }

    /// Deals with an operation that a worker was at work on which is `dead`, or nobody.
    pub(super) async fn clean_up_one(
        self: &Arc<Self>,
        row: &Backup,
        dead: Option<&Worker>,
    ) -> Result<(), Error> {
        let mut left = left(row, dead.is_some(), self.keys.acts_alone());
        if left == Left::Queued
            && row.status == Some(BackupStatus::Creating)
            && dead.is_some()
            && self.was_prepared(row.id).await
        {
            // It waited for room, and its message is gone.
            left = Left::Resumable;
        }
        match left {
            // It is seen again in whose hands it was, if its request does not come.
            Left::Queued => {
                self.expect_message(row.clone());
                return Ok(());
            }
            // What tells of the dead one tells how many there were.
            Left::Resumable if self.is_ours(row) => {
                self.resume(row);
                return Ok(());
            }
            Left::Resumable | Left::Interrupted => self.end_interrupted(row).await?,
            Left::Deleting => {
                info!(backup = %row.id, "Resuming the deletion of the backup");
                self.resume_delete(row);
            }
            Left::Ended => self.remove_temporary_later(row.id),
            Left::Finished => {}
        }
        if let Some(dead) = dead {
            self.forget(row.id, dead).await;
        }
        Ok(())
    }

    /// Looks at an unfinished backup again when the worker that is at work on it has ended, or when
    /// it can be seen whether there is any.
    pub(super) fn look_again(self: &Arc<Self>, found: Backup, mut owner: Owner) {
        let id = found.id;
        match &owner {
            Owner::Living(worker) => info!(
                backup = %id, worker = %worker.id,
                "Another worker of this host is at work on the backup, or was a moment ago"
            ),
            _ => {
                info!(backup = %id, "Ceph does not tell whether a worker is at work on the backup")
            }
        }
        let manager = self.clone();
        tokio::spawn(async move {
            let dead = loop {
                tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
                let before = std::mem::replace(&mut owner, manager.owner(id).await);
                match &owner {
                    Owner::Living(_) | Owner::Unknown => {}
                    Owner::Me => return,
                    // Twice: a worker disowns what it is about to end, and one whose cluster was away
                    // counts as dead until it has shown that it lives.
                    Owner::Nobody if before == owner => break None,
                    Owner::Dead(worker) if before == owner => break Some(worker.clone()),
                    Owner::Nobody | Owner::Dead(_) => {}
                }
            };
            if let Err(error) = manager.look_at_what_is_left(&found, dead.as_ref()).await {
                error!(backup = %id, %error, "Cannot clean up what was left unfinished");
            }
        });
    }

    async fn look_at_what_is_left(
        self: &Arc<Self>,
        found: &Backup,
        dead: Option<&Worker>,
    ) -> Result<(), Error> {
        // Messages are taken by now, and an operation of this process may have been begun.
        let Some(_claim) = self.claim(found.id) else {
            return Ok(());
        };
        let row = self.db.backup(found.id).await?;
        if self.is_abandoned(found, row.as_ref()).await {
            self.let_go(found.id).await;
        }
        match row {
            Some(row) if row.host.as_ref() == Some(&self.settings.host) => {
                self.clean_up_one(&row, dead).await
            }
            _ => Ok(()),
        }
    }

    /// In the background, since it waits for a broker that is away.
    fn remove_temporary_later(self: &Arc<Self>, id: BackupId) {
        let manager = self.clone();
        self.spawn(async move {
            manager.remove_temporary(&own_context(), id).await;
        });
    }

    /// Ends an operation in the rows that nobody will carry out.
    pub(super) async fn end_interrupted(self: &Arc<Self>, row: &Backup) -> Result<(), Error> {
        const WHY: &str = "the service ended in the middle, or its request was lost";
        match row.status {
            Some(BackupStatus::Creating) => {
                error!(backup = %row.id, "Create backup failed: {WHY}");
                match self.making(row.id).await {
                    Ok(making) => {
                        let source = self.release(&making).await?;
                        self.interrupt(row, making.subject(), source).await?;
                    }
                    Err(error) => {
                        error!(backup = %row.id, %error, "Cannot read what the backup is made of");
                        let subject = Subject::alone(row.id, BackupStatus::Creating);
                        self.interrupt(row, subject, Source::Gone).await?;
                    }
                }
                self.remove_temporary_later(row.id);
                Ok(())
            }
            Some(BackupStatus::Restoring) => {
                let volume = row.restore_volume_id.as_deref();
                error!(backup = %row.id, volume, "Restore backup failed: {WHY}");
                self.restore_interrupted(row).await
            }
            Some(BackupStatus::Deleting) => {
                error!(backup = %row.id, "Delete backup failed: {WHY}");
                let subject = Subject::alone(row.id, BackupStatus::Deleting);
                self.interrupt(row, subject, Source::Gone).await
            }
            _ => Ok(()),
        }
    }

    async fn restore_interrupted(self: &Arc<Self>, row: &Backup) -> Result<(), Error> {
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
            host: None,
            volume: volume.as_ref().map(|volume| (volume.id, &status)),
            snapshot: None,
        };
        let source = match &volume {
            Some(volume) => Source::Volume {
                status: &status,
                previous: volume.previous_status.as_ref(),
            },
            None => Source::Gone,
        };
        self.interrupt(row, subject, source).await
    }

    /// Writes it, after the attachments of the volume have been ended: in the background if there are
    /// any, since cinder-volume may not answer.
    async fn interrupt(
        self: &Arc<Self>,
        row: &Backup,
        subject: Subject<'_>,
        source: Source<'_>,
    ) -> Result<(), Error> {
        let encrypted = row.encryption_key_id.is_some();
        let event = Event::Interrupted { source, encrypted };
        let change = transition(subject.status, &event)?;
        let attachments = match (subject.volume, &change.volume) {
            (Some((volume, _)), Some(_)) => {
                self.db.attachments(volume, &self.settings.host).await?
            }
            _ => Vec::new(),
        };
        let (Some((volume, held)), false) = (subject.volume, attachments.is_empty()) else {
            let now = now().naive_utc();
            return Ok(self.db.change(subject, &change, Done::Nothing, now).await?);
        };
        let (manager, held) = (self.clone(), held.clone());
        let (backup, status, snapshot) = (subject.backup, subject.status, subject.snapshot);
        tokio::spawn(async move {
            let ended = async {
                let found = manager.detach_all(volume, &held, &attachments).await?;
                let subject = Subject {
                    backup,
                    status,
                    host: None,
                    volume: Some((volume, &found)),
                    snapshot,
                };
                let now = now().naive_utc();
                Ok::<_, Error>(
                    manager
                        .db
                        .change(subject, &change, Done::Nothing, now)
                        .await?,
                )
            };
            if let Err(error) = ended.await {
                error!(%backup, %error, "Cannot clean up what was left unfinished");
            }
        });
        Ok(())
    }

    /// Has cinder-volume forget attachments of this host's; which of the volume's statuses may be
    /// replaced then. cinder-volume calls a volume free whose last attachment has ended.
    pub(super) async fn detach_all(
        &self,
        id: VolumeId,
        held: &VolumeStatus,
        attachments: &[String],
    ) -> Result<VolumeStatus, Error> {
        let volume = self.whole_volume(id).await?;
        for attachment in attachments {
            let Some(queue) = volume.service_topic_queue() else {
                break;
            };
            info!(volume = %id, attachment, "Ending an attachment that was left behind");
            let call = VolumeApi::new(queue, self.history()).detach_volume(&volume, attachment);
            if let Err(error) = self.amqp.call(call, &own_context()).await {
                error!(volume = %id, attachment, %error, "Cannot end an attachment");
            }
        }
        let now = self.db.volume(id).await?.and_then(|volume| volume.status);
        Ok(match now {
            Some(now @ (VolumeStatus::Available | VolumeStatus::InUse)) => now,
            // What somebody else has written meanwhile stays.
            _ => held.clone(),
        })
    }

    /// Deletes in the background, once the vault can be worked with.
    fn resume_delete(self: &Arc<Self>, row: &Backup) {
        let (manager, id) = (self.clone(), row.id);
        self.spawn(async move {
            let mut ready = manager.ready.clone();
            if ready.wait_for(|ready| *ready).await.is_ok() {
                // What became of it is in the row and in the log.
                let _ = manager.delete_backup(own_context(), id).await;
            }
        });
    }
}

/// For what nobody has asked for.
pub(super) fn own_context() -> RequestContext {
    RequestContext::admin(&format!("req-{}", Uuid::new_v4()), now())
}

#[cfg(test)]
mod tests {
    use api_compat::state::BackupStatus as B;

    use super::super::tests::row;
    use super::*;

    fn of(status: B, change: impl FnOnce(&mut Backup)) -> Backup {
        row(|row| {
            row.status = Some(status);
            change(row);
        })
    }

    #[test]
    fn what_may_wait_in_the_queue_is_given_time() {
        let begun = |row: &mut Backup| row.service = Some("ceph".to_owned());
        let placed = |row: &mut Backup| row.service_metadata = Some("{}".to_owned());
        let revived = |row: &mut Backup| {
            row.service_metadata = Some("{}".to_owned());
            row.volume_id = Uuid::nil().into();
        };
        let key = |row: &mut Backup| row.encryption_key_id = Some("key".to_owned());
        for (row, dead, expected) in [
            (of(B::Creating, |_| ()), false, Left::Queued),
            // cinder-volume may answer yet.
            (of(B::Creating, begun), true, Left::Queued),
            (of(B::Creating, placed), true, Left::Resumable),
            (of(B::Creating, placed), false, Left::Resumable),
            (of(B::Creating, revived), false, Left::Queued),
            (of(B::Restoring, |_| ()), false, Left::Queued),
            (of(B::Restoring, |_| ()), true, Left::Resumable),
            (of(B::Restoring, key), true, Left::Interrupted),
            (of(B::Deleting, |_| ()), false, Left::Deleting),
            (of(B::Deleting, key), false, Left::Queued),
            (of(B::Deleting, key), true, Left::Interrupted),
            (of(B::Error, |_| ()), false, Left::Ended),
            (of(B::Available, |_| ()), true, Left::Ended),
            (of(B::Available, |_| ()), false, Left::Finished),
        ] {
            assert_eq!(left(&row, dead, false), expected, "{row:?}, dead: {dead}");
        }
        assert_eq!(left(&of(B::Deleting, key), true, true), Left::Deleting);
    }
}
