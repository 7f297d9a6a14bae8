//! Restoring a backup into a volume.

use std::time::Instant;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::notification::BackupEvent;
use api_compat::objects::{Backup, Volume as VolumeObject};
use api_compat::state::driver::{self, Operation};
use api_compat::state::{
    BackupStatus, Change, Event, Refusal, VolumeChange, VolumeStatus, transition,
};
use api_compat::user_message::{Action, Detail, ResourceType, UserMessage};
use api_compat::volume_metadata::Change as MetadataChange;
use tracing::{error, info, warn};

use super::claim::Claim;
use super::disk::Disk;
use super::keys::Rekeying;
use super::owner::taken_over;
use super::volumes::size_of;
use super::{Context, Error, Manager, about, now};
use crate::db::{Done, Subject};
use crate::steps::{Step, reached};
use crate::transfer::Direction;
use crate::vault::{RestorePoint, TargetSize};

/// What a volume is to which a backup is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// It was made for that.
    New,
    /// It may hold anything.
    Used,
    /// The worker died that restored to it.
    BrokenOff,
}

/// A backup, and the volume that it is restored to.
struct Restoring {
    backup: Backup,
    volume: VolumeObject,
    /// The volume's.
    status: VolumeStatus,
    target: Target,
}

impl Restoring {
    fn subject(&self) -> Subject<'_> {
        Subject {
            backup: self.backup.id,
            status: self.backup.status.unwrap_or(BackupStatus::Error),
            host: None,
            volume: Some((self.volume.id, &self.status)),
            snapshot: None,
        }
    }

    /// How large the volume's image is to be.
    fn size(&self, encrypted: bool) -> TargetSize {
        let size = size_of(&self.volume);
        match encrypted {
            true => TargetSize::AtLeast(size),
            false => TargetSize::Exactly(size),
        }
    }
}

/// What is known of a restore before its first byte.
struct Prepared {
    point: RestorePoint,
    /// What the metadata object changes of the volume.
    changes: Vec<MetadataChange>,
    keys: Rekeying,
}

impl Manager {
    /// `restore_backup`: writes a backup's restore point into a volume, then its metadata.
    pub(super) async fn restore_backup(
        &self,
        mut context: Context,
        id: BackupId,
        volume: VolumeId,
        target: Target,
    ) -> Result<(), Error> {
        about(&mut context, id, Action::Restore);
        let claim = self.claim_next(id).await;
        self.own_in_turn(&claim, volume).await;
        info!(backup = %id, %volume, "Restore backup started");
        let outcome = self.restore(&context, volume, target, &claim).await;
        // Before others are told, which waits for a broker that is away: whoever finds it recorded would go on.
        self.disown(id).await;
        if outcome.is_ok() {
            let backup = self.backup(id).await?;
            self.notify(&context, &backup, BackupEvent::RestoreEnd)
                .await;
        }
        match &outcome {
            Ok(()) => info!(backup = %id, %volume, "Finished restoring the backup"),
            Err(error @ Error::CalledOff) => {
                info!(backup = %id, %volume, %error, "Restore backup ended");
            }
            Err(error) => error!(backup = %id, %volume, %error, "Restore backup failed"),
        }
        outcome
    }

    async fn restore(
        &self,
        context: &Context,
        volume_id: VolumeId,
        target: Target,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let found = self.restoring(context, claim.backup, volume_id, target);
        let restoring = found.await?;
        self.notify(context, &restoring.backup, BackupEvent::RestoreStart)
            .await;
        if claim.cancel().is_cancelled() {
            // While it waited for its turn.
            if restoring.status.awaits_restore() {
                self.give_target_up(volume_id, &restoring.status).await?;
            }
            return Err(Error::CalledOff);
        }
        let accepting = || async {
            let found = self.restoring(context, claim.backup, volume_id, target);
            self.accept(context, found.await?).await
        };
        let restoring = Self::write_anew(accepting).await?;
        reached(Step::RestoreAccepted);

        // The backup is taken: others that wait for room do not find it as it was.
        let _room = claim.admit(context, BackupStatus::Restoring).await;
        let outcome = match claim.cancel().is_cancelled() {
            true => Err(Error::CalledOff),
            false => self.run(context, &restoring, claim).await,
        };
        let written = Self::write_anew(|| self.write_end(&restoring, outcome.is_ok())).await;
        if let Err(error @ Error::Elsewhere(_)) = &written {
            // It writes into the volume.
            info!(backup = %claim.backup, %error, "The restore is left to another worker");
        } else if outcome.is_err()
            && let Err(error) = &written
        {
            error!(backup = %claim.backup, %error, "Cannot write what became of the backup");
        }
        outcome?;
        written?;
        reached(Step::RestoreEnded);
        Ok(())
    }

    /// Reads what is to be restored, and to where.
    async fn restoring(
        &self,
        context: &Context,
        id: BackupId,
        volume: VolumeId,
        target: Target,
    ) -> Result<Restoring, Error> {
        let (backup, row) = (self.backup(id).await, self.db.volume(volume).await?);
        let status = row.as_ref().and_then(|row| row.status.clone());
        let status = status.unwrap_or_else(|| VolumeStatus::from(""));
        match (backup, row) {
            (Ok(backup), Some(volume)) => Ok(Restoring {
                backup,
                volume,
                status,
                target,
            }),
            (Ok(backup), None) => Err(self.volume_is_gone(context, &backup, volume).await),
            (Err(error), _) => {
                if matches!(error, Error::BackupNotFound(_)) && status.awaits_restore() {
                    self.give_target_up(volume, &status).await?;
                }
                Err(error)
            }
        }
    }

    /// Writes how a restore ended. The backup is read again: it may have been reset meanwhile, and
    /// keeps that status.
    async fn write_end(&self, restoring: &Restoring, done: bool) -> Result<(), Error> {
        let Some(backup) = self.db.backup(restoring.backup.id).await? else {
            let volume = restoring.volume.id;
            self.give_target_up(volume, &restoring.status).await?;
            return Err(Error::CalledOff);
        };
        let event = match done {
            true => Event::RestoreSucceeded,
            false => Event::RestoreFailed,
        };
        let status = backup.status.unwrap_or(BackupStatus::Error);
        let change = transition(status, &event)?;
        let launched = match (done, &restoring.status) {
            (true, VolumeStatus::Creating) => Done::Launched,
            _ => Done::Nothing,
        };
        // After the row was read: whoever takes it over tells so before it changes the row.
        if self.is_taken_over(backup.id, restoring.volume.id).await {
            return Err(taken_over(backup.id));
        }
        let subject = Subject {
            status,
            host: backup.host.as_deref(),
            ..restoring.subject()
        };
        let now = now().naive_utc();
        Ok(self.db.change(subject, &change, launched, now).await?)
    }

    /// The status of a volume, if it waits for a restore.
    pub(super) async fn awaiting(&self, volume: VolumeId) -> Result<Option<VolumeStatus>, Error> {
        let row = self.db.volume(volume).await?;
        let status = row.and_then(|row| row.status);
        Ok(status.filter(VolumeStatus::awaits_restore))
    }

    /// Marks a volume to which a backup was restored that is gone, if it has that status still.
    pub(super) async fn give_target_up(
        &self,
        volume: VolumeId,
        found: &VolumeStatus,
    ) -> Result<(), Error> {
        let failed = VolumeChange {
            status: VolumeStatus::ErrorRestoring,
            previous: None,
        };
        let now = now().naive_utc();
        Ok(self.db.change_volume(volume, found, &failed, now).await?)
    }

    /// The backup goes back to `available`: nobody will restore to a volume that is not there.
    async fn volume_is_gone(&self, context: &Context, backup: &Backup, volume: VolumeId) -> Error {
        let detail = Detail::BackupRestoreError;
        self.tell_user(context, Action::Restore, backup.id, detail)
            .await;
        let status = backup.status.unwrap_or(BackupStatus::Error);
        if status == BackupStatus::Restoring {
            let subject = Subject::alone(backup.id, status);
            let change = Change {
                backup: Some(BackupStatus::Available),
                ..Change::default()
            };
            self.write(subject, &change, Done::Nothing).await;
        }
        Error::VolumeNotFound(volume.to_string())
    }

    /// Refuses what must not be begun, and takes the backup for this restore.
    async fn accept(
        &self,
        context: &Context,
        mut restoring: Restoring,
    ) -> Result<Restoring, Error> {
        let backup = &restoring.backup;
        let target = &restoring.status;
        let status = backup.status.unwrap_or(BackupStatus::Error);
        let decided = match transition(status, &Event::Restore { target }) {
            Ok(_) if !self.is_ours(backup) => Err(driver::refuse(
                Operation::Restore,
                &self.settings.driver,
                backup.service.as_deref().unwrap_or_default(),
            )),
            decided => decided,
        };
        let change = match decided {
            Ok(change) => change,
            Err(refusal) => return Err(self.refuse_restore(context, &restoring, refusal).await),
        };
        let (needed, have) = (backup.size.unwrap_or(0), restoring.volume.size.unwrap_or(0));
        if needed > have {
            let detail = Detail::BackupRestoreError;
            self.tell_user(context, Action::Restore, backup.id, detail)
                .await;
            let failed = transition(status, &Event::RestoreFailed)?;
            self.write(restoring.subject(), &failed, Done::Nothing)
                .await;
            return Err(Error::Invalid(format!(
                "The volume's size {have} GiB is smaller than the backup's {needed} GiB."
            )));
        }
        if let Some(taken) = change.backup {
            let (subject, now) = (Subject::alone(backup.id, status), now().naive_utc());
            self.db.change(subject, &change, Done::Nothing, now).await?;
            restoring.backup.status = Some(taken);
        }
        Ok(restoring)
    }

    async fn refuse_restore(
        &self,
        context: &Context,
        restoring: &Restoring,
        refusal: Refusal,
    ) -> Error {
        // Python's message about a volume names the volume under the type of a backup.
        if refusal.detail == Some(Detail::VolumeInvalidState) {
            let message = UserMessage {
                action: Action::Restore,
                detail: Detail::VolumeInvalidState,
                resource_type: ResourceType::Backup,
                resource_uuid: restoring.volume.id.to_string(),
            };
            self.store_message(context, &message).await;
            self.write(restoring.subject(), &refusal.change, Done::Nothing)
                .await;
            return refusal.into();
        }
        let subject = restoring.subject();
        self.refuse(context, subject, refusal, Action::Restore)
            .await
    }

    async fn run(
        &self,
        context: &Context,
        restoring: &Restoring,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let outcome = match self.prepare(context, restoring, claim).await {
            Ok(prepared) => {
                let carried_out = self.carry_out(context, restoring, &prepared, claim).await;
                if carried_out.is_err() {
                    let copy = prepared.keys.copy.as_deref();
                    self.drop_unused(context, restoring.volume.id, copy).await;
                }
                carried_out
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome {
            let detail = error.detail_or(Detail::BackupRestoreError);
            let id = restoring.backup.id;
            self.tell_failure(context, Action::Restore, id, error, detail)
                .await;
        }
        outcome
    }

    /// Finds out, before the volume is written, what can be known to fail.
    async fn prepare(
        &self,
        context: &Context,
        restoring: &Restoring,
        claim: &Claim<'_>,
    ) -> Result<Prepared, Error> {
        let record = self.record(&restoring.backup).await?;
        let finding = self.vault.find_restore_point(&record);
        let point = claim.carry(Box::pin(finding)).await?;
        let reading = self.metadata_changes(&restoring.volume, &record);
        let mut changes = claim.carry(Box::pin(reading)).await?;
        let (backup, volume) = (&restoring.backup, &restoring.volume);
        let keys = self
            .key_for_volume(context, backup, volume, &mut changes)
            .await?;
        Ok(Prepared {
            point,
            changes,
            keys,
        })
    }

    async fn carry_out(
        &self,
        context: &Context,
        restoring: &Restoring,
        prepared: &Prepared,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let (id, volume) = (restoring.backup.id, restoring.volume.id);
        let attached = self.attach_target(context, volume, claim).await?;
        reached(Step::TargetAttached);
        let target = Disk::from(&attached);
        let written = match self.is_still_asked_for(restoring).await {
            // Nothing keeps one from writing to it that is not dead after all.
            Ok(true) if restoring.target == Target::BrokenOff && target.image().is_none() => {
                let reason = "A restore that broke off is not gone on with on a device.";
                Err(Error::Invalid(reason.to_owned()))
            }
            Ok(true) => {
                let writing = self.write_volume(context, prepared, &target, restoring, claim);
                writing.await
            }
            Ok(false) => Err(Error::CalledOff),
            Err(error) => Err(error),
        };
        drop(target);
        let detached = self.attacher.detach(context, attached).await;
        reached(Step::TargetDetached);
        written?;
        if let Err(error) = detached {
            warn!(backup = %id, %error, "Cannot detach the volume");
            self.tell_user(context, Action::Restore, id, Detail::DetachError)
                .await;
        }
        let now = now().naive_utc();
        let changes = &prepared.changes;
        self.db.restore_metadata(volume, changes, now).await?;
        reached(Step::MetadataRestored);
        self.keys_restored(context, &restoring.backup, volume, &prepared.keys)
            .await;
        if let Err(error) = self.mark_source(&restoring.backup, volume).await {
            warn!(backup = %id, %volume, %error, "Cannot note in the volume where its data is from");
        }
        Ok(())
    }

    /// Looks at the rows once more before the first byte: a reset may have reached another worker, and
    /// the volume be in use again.
    async fn is_still_asked_for(&self, restoring: &Restoring) -> Result<bool, Error> {
        let backup = self.backup(restoring.backup.id).await?;
        let volume = self.db.volume(restoring.volume.id).await?;
        let waits = volume.is_some_and(|volume| volume.status.as_ref() == Some(&restoring.status));
        Ok(waits && backup.status == Some(BackupStatus::Restoring))
    }

    /// The same once nobody else can write the volume any more.
    async fn may_write(&self, restoring: &Restoring, claim: &Claim<'_>) -> bool {
        let (backup, volume) = (restoring.backup.id, restoring.volume.id);
        !claim.cancel().is_cancelled()
            && matches!(self.is_still_asked_for(restoring).await, Ok(true))
            && !self.is_taken_over(backup, volume).await
    }

    /// Deletes the copy of a key that was made for a volume, unless the volume has it for all that.
    async fn drop_unused(&self, context: &Context, volume: VolumeId, copy: Option<&str>) {
        match self.db.volume(volume).await {
            Ok(Some(row)) if row.encryption_key_id.as_deref() == copy => {}
            Ok(_) => self.drop_copy(context, copy).await,
            Err(error) => warn!(%volume, %error, "A key may be left in the key manager"),
        }
    }

    async fn write_volume(
        &self,
        context: &Context,
        prepared: &Prepared,
        target: &Disk,
        restoring: &Restoring,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let point = &prepared.point;
        let size = restoring.size(prepared.keys.encrypted);
        let job = claim.job(Direction::Restore, context);
        let begun = Instant::now();
        let extent = (size, restoring.target == Target::New);
        let writing = async {
            let wanted = Box::pin(self.may_write(restoring, claim));
            let writing = target.restore(&self.vault, point, extent, &job, wanted);
            let stats = writing.await?;
            reached(Step::DataRestored);
            Ok((stats, begun.elapsed()))
        };
        let (stats, took) = self
            .while_it_is(
                BackupStatus::Restoring,
                claim,
                context,
                &job.progress,
                Box::pin(writing),
            )
            .await?;
        info!(
            backup = %restoring.backup.id, volume = %restoring.volume.id, image = %point.image,
            bytes_read = stats.bytes_read, bytes_written = stats.bytes_written,
            bytes_discarded = stats.bytes_discarded,
            seconds = format_args!("{:.1}", took.as_secs_f64()),
            "Restored the volume's data"
        );
        Ok(())
    }
}
