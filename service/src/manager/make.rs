//! Making a backup, once cinder-volume has prepared its source.

use std::time::{Duration, Instant};

use api_compat::ids::BackupId;
use api_compat::names::{self, BackupImage};
use api_compat::notification::BackupEvent;
use api_compat::objects::{Backup, BackupDeviceInfo};
use api_compat::state::{BackupStatus, Event, Source, transition};
use api_compat::user_message::{Action, Detail};
use tracing::{info, warn};

use super::claim::Claim;
use super::disk::{Disk, undo};
use super::ending::Reached;
use super::owner::Owner;
use super::place::made_by_another;
use super::volumes::{Making, Prepared};
use super::{Context, Error, Manager, about, lock, now};
use crate::db::Done;
use crate::rbd::ErrorKind;
use crate::steps::{self, Step};
use crate::transfer::Direction;
use crate::turns::Turn;
use crate::vault::{BackupPlan, BackupSpec, Parent, Stage, Volume};

/// How long removing what a failed backup wrote is waited for. The removal of a large image goes on.
const UNDO: Duration = Duration::from_secs(30);

/// How long a backup that is complete waits until old snapshots are gone from its volume.
const TIDY: Duration = Duration::from_secs(30);

impl Manager {
    /// `continue_backup`: the device is ready, the data can be moved.
    pub(super) async fn continue_backup(
        &self,
        mut context: Context,
        id: BackupId,
        device: BackupDeviceInfo,
    ) -> Result<(), Error> {
        about(&mut context, id, Action::Create);
        let called_back = lock(&self.awaiting).remove(&id);
        if let Some(called_back) = &called_back {
            called_back.cancel();
        }
        let claim = self.claim_next(id).await;
        let outcome = match self.admit(&claim, Reached::Nothing).await {
            Ok(making) => {
                let prepared = Prepared::told(&making.backup, &device);
                self.make_in_turn(&context, &prepared, &claim, Reached::Nothing)
                    .await
            }
            Err(error) => {
                warn!(backup = %id, %error, "The backup is not continued");
                // What this process has begun holds its source.
                if called_back.is_some() {
                    self.fail_create(&context, id, &error, None, Reached::Nothing)
                        .await;
                }
                Err(error)
            }
        };
        self.end_make(&context, id, outcome).await
    }

    /// Makes a backup on which a worker has died for which cinder-volume had answered.
    pub(super) async fn make_again(&self, mut context: Context, row: &Backup) -> Result<(), Error> {
        let id = row.id;
        about(&mut context, id, Action::Create);
        let reached = match row.service_metadata {
            Some(_) => Reached::Placed,
            None => Reached::Nothing,
        };
        let claim = self.claim_next(id).await;
        let prepared = match self.making_of(row.clone()).await {
            Ok(making) if matches!(making.held(), Source::Gone) => Err(no_longer_held()),
            Ok(_) => Prepared::noted(row),
            Err(error) => Err(error),
        };
        let outcome = match prepared {
            Ok(prepared) => {
                self.make_in_turn(&context, &prepared, &claim, reached)
                    .await
            }
            Err(error) => {
                self.fail_create(&context, id, &error, None, reached).await;
                Err(error)
            }
        };
        self.end_make(&context, id, outcome).await
    }

    /// Gives back what cinder-volume made only for the backup.
    async fn end_make(
        &self,
        context: &Context,
        id: BackupId,
        outcome: Result<(), Error>,
    ) -> Result<(), Error> {
        // Whoever makes it may be reading from that.
        if matches!(outcome, Err(Error::Elsewhere(_))) {
            self.disown(id).await;
            return outcome;
        }
        // Whoever has been told of a failure need not hear of another.
        if !self.remove_temporary(context, id).await && outcome.is_ok() {
            let detail = Detail::BackupCreateCleanupError;
            self.tell_user(context, Action::Create, id, detail).await;
        }
        outcome
    }

    /// Makes it when there is room. Others see who waits for that, and that its process lives.
    async fn make_in_turn(
        &self,
        context: &Context,
        prepared: &Prepared,
        claim: &Claim<'_>,
        reached: Reached,
    ) -> Result<(), Error> {
        let id = claim.backup;
        self.own(id, Stage::Prepared).await;
        let room = claim.admit(context, BackupStatus::Creating).await;
        match self.admit(claim, reached).await {
            Ok(making) => {
                let making = (&making, prepared);
                self.make(context, making, claim, room, reached).await
            }
            Err(error) => {
                self.fail_create(context, id, &error, None, reached).await;
                Err(error)
            }
        }
    }

    /// Looks whether a backup for which cinder-volume has answered is still to be made, and here.
    async fn admit(&self, claim: &Claim<'_>, reached: Reached) -> Result<Making, Error> {
        if claim.cancel().is_cancelled() {
            return Err(Error::CalledOff);
        }
        let making = self.making(claim.backup).await?;
        let row = &making.backup;
        let status = row.status.unwrap_or(BackupStatus::Error);
        if reached != Reached::Nothing && status == BackupStatus::Available {
            return Err(made_by_another(row.id));
        }
        if let Err(refusal) = transition(status, &Event::Continue) {
            return Err(refusal.into());
        }
        self.expect_here(row)?;
        if reached == Reached::Nothing && row.service_metadata.is_some() {
            return Err(made_by_another(row.id));
        }
        if reached != Reached::Nothing && matches!(making.held(), Source::Gone) {
            return Err(no_longer_held());
        }
        Ok(making)
    }

    /// Refuses a backup that has been given to another host.
    pub(super) fn expect_here(&self, row: &Backup) -> Result<(), Error> {
        if row.host.as_ref() == Some(&self.settings.host) {
            return Ok(());
        }
        let (id, host) = (row.id, row.host.as_deref().unwrap_or("none"));
        Err(Error::Elsewhere(format!(
            "Backup {id} belongs to host {host}."
        )))
    }

    async fn make(
        &self,
        context: &Context,
        (making, prepared): (&Making, &Prepared),
        claim: &Claim<'_>,
        room: Option<Turn>,
        mut reached: Reached,
    ) -> Result<(), Error> {
        let row = &making.backup;
        let attached = match self.attach_prepared(context, prepared, claim).await {
            Ok(attached) => attached,
            Err(error) => {
                let detail = Some(Detail::AttachError);
                self.fail_create(context, row.id, &error, detail, reached)
                    .await;
                return Err(error);
            }
        };
        steps::reached(Step::SourceAttached);
        let source = Disk::from(&attached);
        let storing = self.store(context, making, &source, claim, &mut reached);
        let stored = storing.await;
        let image = source.image();
        // A device that is open cannot be detached.
        drop(source);
        // Others need not wait until everybody has been told.
        drop(room);
        if let Err(error) = self.attacher.detach(context, attached).await {
            // The data is complete: a volume that does not let go must not cost the backup.
            warn!(backup = %row.id, %error, "Cannot detach the volume");
            if stored.is_ok() {
                self.tell_user(context, Action::Create, row.id, Detail::DetachError)
                    .await;
            }
        }
        steps::reached(Step::SourceDetached);
        let plan = match stored {
            Ok(plan) => plan,
            Err(error) => {
                let detail = Some(error.detail_or(Detail::BackupCreateDriverError));
                self.fail_create(context, row.id, &error, detail, reached)
                    .await;
                return Err(error);
            }
        };
        let finished = self.finish_create(context, claim.backup, &plan).await;
        match &finished {
            Ok(()) => {
                self.make_independent(row.id).await;
                self.disown(row.id).await;
            }
            Err(error) => {
                if let Error::BackupNotFound(_) = error {
                    // Deleted by force in the last moment: nobody else knows of the data.
                    self.undo(row.id, &plan, image.as_ref()).await;
                }
                let detail = Some(Detail::BackupCreateDriverError);
                self.fail_create(context, row.id, error, detail, Reached::Data)
                    .await;
            }
        }
        finished
    }

    /// Removes what a backup has written; whether it could be done in good time.
    async fn undo(&self, id: BackupId, plan: &BackupPlan, image: Option<&Volume>) -> bool {
        let undoing = undo(&self.vault, plan, image);
        let undone = tokio::time::timeout(UNDO, undoing).await.is_ok();
        if !undone {
            warn!(backup = %id, "What a backup that failed wrote is left to its deletion");
        }
        undone
    }

    /// Moves the data. When this returns an error, nothing of the backup is left in either pool, unless a
    /// cluster did not answer.
    async fn store(
        &self,
        context: &Context,
        making: &Making,
        source: &Disk,
        claim: &Claim<'_>,
        reached: &mut Reached,
    ) -> Result<BackupPlan, Error> {
        let row = &making.backup;
        let again = *reached != Reached::Nothing;
        let spec = BackupSpec {
            again,
            ..self.spec(row).await?
        };
        let size = making.size(making.source_volume()?);
        let planning = source.plan(&self.vault, &spec, size);
        let mut plan = claim.carry(Box::pin(planning)).await?;
        // By the attempt before this one.
        let mut placed = row.service_metadata.clone().filter(|_| again);
        let mut told = false;
        loop {
            placed = Some(self.place(row, source, &plan, placed).await?);
            steps::reached(Step::BackupPlaced);
            *reached = Reached::Placed;
            told = self.tell_forced(context, row, &plan, told).await;
            let transfer = self.transfer(context, making, &plan, source, claim);
            let Err(error) = transfer.await else {
                return Ok(plan);
            };
            if self.is_made_elsewhere(row.id).await {
                return Err(made_by_another(row.id));
            }
            if !self.undo(row.id, &plan, source.image().as_ref()).await {
                return Err(error);
            }
            let instead = match &error {
                // Whoever writes it may be at work on this very backup.
                Error::Vault(error) if again && error.kind() == Some(ErrorKind::Busy) => None,
                Error::Vault(error) => plan.instead(error),
                _ => None,
            };
            let Some(instead) = instead else {
                return Err(error);
            };
            warn!(
                backup = %row.id, %error, failed = %plan.method, next = %instead.method,
                "The backup failed; making it in another way"
            );
            plan = instead;
        }
    }

    async fn transfer(
        &self,
        context: &Context,
        making: &Making,
        plan: &BackupPlan,
        source: &Disk,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let text = self.metadata_text(making.source_volume()?).await?;
        let job = claim.job(Direction::Backup, context);
        let begun = Instant::now();
        let storing = async {
            let stats = source.store(&self.vault, plan, &job).await?;
            let (pool, backup) = (&plan.pool, plan.backup);
            self.vault.write_metadata(pool, backup, &text).await?;
            steps::reached(Step::MetadataWritten);
            Ok((stats, begun.elapsed()))
        };
        let (stats, took) = self
            .while_it_is(
                BackupStatus::Creating,
                claim,
                context,
                &job.progress,
                Box::pin(storing),
            )
            .await?;
        self.count_objects(plan.backup, &job.progress).await;
        info!(
            backup = %plan.backup, image = %plan.base, method = %plan.method,
            bytes_read = stats.bytes_read, bytes_written = stats.bytes_written,
            bytes_unchanged = stats.bytes_unchanged,
            seconds = format_args!("{:.1}", took.as_secs_f64()),
            "Stored the volume's data"
        );
        // A device keeps no snapshots of backups.
        if let Disk::Image(source) = source
            && let Err(error) = claim
                .carry(Box::pin(self.tidy_in_time(making, source)))
                .await
        {
            // The backup itself is complete.
            warn!(
                backup = %plan.backup, image = %source.image, %error,
                "Cannot remove backup snapshots of the volume that are of no use any more"
            );
        }
        Ok(())
    }

    async fn tidy_in_time(&self, making: &Making, source: &Volume) -> Result<(), Error> {
        tokio::time::timeout(TIDY, self.tidy_source(making, source)).await?
    }

    /// Removes from a source the snapshots on which no incremental can build: those of backups that
    /// are gone, and those beyond the number to keep.
    async fn tidy_source(&self, making: &Making, source: &Volume) -> Result<(), Error> {
        let row = &making.backup;
        if row.snapshot_id.is_some() {
            // The temporary volume goes away.
            return Ok(self.vault.release_source(source, row.id).await?);
        }
        let live = self.db.backups_of(row.volume_id).await?;
        let keep = self.settings.max_source_snapshots;
        Ok(self.vault.trim_source(source, &live, keep).await?)
    }

    async fn spec(&self, row: &Backup) -> Result<BackupSpec, Error> {
        let parent = match (row.parent_id, &row.snapshot_id) {
            // The temporary volume of a snapshot shares no snapshot with any backup.
            (Some(parent), None) => Some(self.parent(parent).await?),
            _ => None,
        };
        let pool = self.container(row).await?;
        if row.container.as_ref() != Some(&pool) {
            // A worker of Python's has begun it, and has left the pool to whoever goes on.
            self.record_begin(row, &pool).await?;
        }
        Ok(BackupSpec {
            backup: row.id,
            volume: row.volume_id,
            pool,
            parent,
            again: false,
        })
    }

    async fn parent(&self, id: BackupId) -> Result<Parent, Error> {
        let row = self.backup(id).await?;
        let recorded = names::recorded_image(row.volume_id, row.service_metadata.as_deref())?;
        Ok(Parent {
            backup: id,
            base: recorded.unwrap_or(BackupImage::legacy(row.volume_id)),
        })
    }

    /// Writes that a backup is complete.
    async fn finish_create(
        &self,
        context: &Context,
        id: BackupId,
        plan: &BackupPlan,
    ) -> Result<(), Error> {
        Self::write_anew(|| self.try_finish(context, id, plan)).await
    }

    async fn try_finish(
        &self,
        context: &Context,
        id: BackupId,
        plan: &BackupPlan,
    ) -> Result<(), Error> {
        // Read again: a forced full backup has lost its parent, and the volume may have been
        // deleted or reset meanwhile.
        let making = self.making(id).await?;
        self.expect_here(&making.backup)?;
        // One of this host. One of another has changed the row before it goes on, or will find it changed.
        if let Owner::Living(other) = self.owner(id).await
            && other.host == self.settings.host
        {
            return Err(made_by_another(id));
        }
        let source = self.release(&making).await?;
        let status = making.backup.status.unwrap_or(BackupStatus::Error);
        let change = transition(status, &Event::CreateSucceeded { source })?;
        let done = match change.backup {
            Some(_) => Done::Created {
                size: making.volume.as_ref().and_then(|volume| volume.size),
                parent: making
                    .backup
                    .parent_id
                    .filter(|_| !self.settings.independent_backups),
            },
            None => Done::Nothing,
        };
        let now = now().naive_utc();
        let subject = self.of_this_host(making.subject());
        self.db.change(subject, &change, done, now).await?;
        steps::reached(Step::BackupAvailable);
        if change.backup.is_none() {
            info!(backup = %id, %status, "Create backup aborted: its status was changed meanwhile");
            return Ok(());
        }
        info!(backup = %id, image = %plan.base, "Create backup finished");
        // The backup stands: that nobody can be told is no failure of it.
        if let Ok(row) = self.backup(id).await {
            self.notify(context, &row, BackupEvent::CreateEnd).await;
        }
        Ok(())
    }
}

/// Somebody has given the source of a backup back, and may use it.
fn no_longer_held() -> Error {
    Error::Invalid("Its volume or snapshot is no longer being backed up.".to_owned())
}
