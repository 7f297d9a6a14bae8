//! Making a backup, once cinder-volume has prepared its source.

use std::sync::Arc;

use api_compat::ids::BackupId;
use api_compat::names::{self, BackupImage, Lineage};
use api_compat::notification::BackupEvent;
use api_compat::objects::{Backup, BackupDeviceInfo, Volume as VolumeObject};
use api_compat::service_metadata;
use api_compat::state::{BackupStatus, Event, transition};
use api_compat::user_message::{Action, Detail, UserMessage};
use api_compat::volume_metadata::{self, VolumeColumns};
use chrono::Utc;
use tracing::{error, info, warn};

use super::claim::Claim;
use super::create::source_volume;
use super::volumes::Making;
use super::{Context, Error, Manager, about, lock, now};
use crate::attach::Attached;
use crate::db::Done;
use crate::transfer::Progress;
use crate::vault::{BackupPlan, BackupSpec, Method, Parent, Volume};

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
        let Some(claim) = self.claim(id) else {
            return Ok(());
        };
        let _room = claim.admit().await;
        let outcome = match self.admit(&claim).await {
            Ok(making) => self.make(&context, &device, &making, &claim).await,
            Err(error) => {
                // What this process has begun holds its source.
                if called_back.is_some() {
                    self.fail_create(&context, id, &error, None).await;
                }
                Err(error)
            }
        };
        self.remove_temporary(&context, id).await;
        if let Err(error) = &outcome {
            error!(backup = %id, %error, "Create backup failed");
        }
        outcome
    }

    /// Looks whether a backup for which cinder-volume has answered is still to be made, and here.
    async fn admit(&self, claim: &Claim<'_>) -> Result<Making, Error> {
        if claim.cancel().is_cancelled() {
            return Err(Error::CalledOff);
        }
        let making = self.making(claim.backup).await?;
        let row = &making.backup;
        let status = row.status.unwrap_or(BackupStatus::Error);
        if let Err(refusal) = transition(status, &Event::Continue) {
            return Err(Error::Refused(Box::new(refusal)));
        }
        if row.host.as_ref() != Some(&self.settings.host) {
            return Err(Error::Invalid(format!(
                "Backup {} belongs to host {}.",
                row.id,
                row.host.as_deref().unwrap_or("none")
            )));
        }
        Ok(making)
    }

    async fn make(
        &self,
        context: &Context,
        device: &BackupDeviceInfo,
        making: &Making,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let row = &making.backup;
        let attached = match self.attach_device(context, device).await {
            Ok(attached) => attached,
            Err(error) => {
                let detail = Some(Detail::AttachError);
                self.fail_create(context, row.id, &error, detail).await;
                return Err(error);
            }
        };
        let stored = self.store(context, making, &attached, claim).await;
        if let Err(error) = self.attacher.detach(context, attached).await {
            // The data is complete: a volume that does not let go must not cost the backup.
            warn!(backup = %row.id, %error, "Cannot detach the volume");
            self.tell_user(context, Action::Create, row.id, Detail::DetachError)
                .await;
        }
        let finished = match stored {
            Ok(plan) => self.finish_create(context, claim.backup, &plan).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &finished {
            let detail = Some(Detail::BackupCreateDriverError);
            self.fail_create(context, row.id, error, detail).await;
        }
        finished
    }

    /// Moves the data. When this returns an error, nothing of the backup is left in either pool.
    async fn store(
        &self,
        context: &Context,
        making: &Making,
        attached: &Attached,
        claim: &Claim<'_>,
    ) -> Result<BackupPlan, Error> {
        let row = &making.backup;
        let source = Volume {
            pool: attached.pool.clone(),
            image: attached.image.clone(),
        };
        let spec = self.spec(row).await?;
        let plan = self.vault.plan_backup(&spec, &source, now()).await?;
        let forced = plan.method == Method::ForcedFull;
        // Before the first byte: whoever finds this row after a crash knows where its data lies.
        let metadata = service_metadata::format(&plan.base);
        self.db
            .place_backup(row.id, &metadata, forced, now().naive_utc())
            .await?;
        if forced {
            warn!(
                backup = %row.id,
                "The volume no longer has the parent's snapshot: making a full backup instead"
            );
            let detail = Detail::IncrementalForcesFull;
            let message = UserMessage::about_volume(Action::Create, detail, row.volume_id);
            self.store_message(context, &message).await;
        }
        if let Err(error) = self.transfer(making, &plan, &source, claim).await {
            self.vault.undo(&plan, &source).await;
            return Err(error);
        }
        Ok(plan)
    }

    async fn transfer(
        &self,
        making: &Making,
        plan: &BackupPlan,
        source: &Volume,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let progress = Arc::new(Progress::default());
        let storing = self.vault.store(plan, source, progress, claim.cancel());
        let stats = self
            .while_it_is(BackupStatus::Creating, claim, storing)
            .await?;
        let text = self.metadata_text(source_volume(making)?).await?;
        self.vault
            .write_metadata(&plan.pool, plan.backup, &text)
            .await?;
        info!(
            backup = %plan.backup, image = %plan.base, bytes_read = stats.bytes_read,
            bytes_written = stats.bytes_written, "Stored the volume's data"
        );
        if making.backup.snapshot_id.is_none() {
            let keep = self.settings.max_source_snapshots;
            self.vault.trim_source(source, keep).await;
        } else {
            // The temporary volume goes away, and nothing can build on its snapshot.
            self.vault.release_source(source, plan.backup).await?;
        }
        Ok(())
    }

    async fn spec(&self, row: &Backup) -> Result<BackupSpec, Error> {
        let parent = match (row.parent_id, &row.snapshot_id) {
            // The temporary volume of a snapshot shares no snapshot with any backup.
            (Some(parent), None) => Some(self.parent(parent).await?),
            _ => None,
        };
        Ok(BackupSpec {
            backup: row.id,
            volume: row.volume_id,
            pool: row
                .container
                .clone()
                .unwrap_or_else(|| self.vault.default_pool().to_owned()),
            parent,
        })
    }

    async fn parent(&self, id: BackupId) -> Result<Parent, Error> {
        let row = self.backup(id).await?;
        let recorded = names::base_image(Lineage {
            backup: id,
            volume: row.volume_id,
            service_metadata: row.service_metadata.as_deref(),
            parent: None,
        })?;
        let base = match &row.service_metadata {
            Some(text) if !text.is_empty() => recorded,
            _ => BackupImage::legacy(row.volume_id),
        };
        Ok(Parent { backup: id, base })
    }

    async fn metadata_text(&self, volume: &VolumeObject) -> Result<String, Error> {
        let user = self.db.volume_metadata(volume.id).await?;
        let glance = self.db.glance_metadata(volume.id).await?;
        Ok(volume_metadata::encode(
            &VolumeColumns::from(volume),
            &user,
            &glance,
        ))
    }

    async fn finish_create(
        &self,
        context: &Context,
        id: BackupId,
        plan: &BackupPlan,
    ) -> Result<(), Error> {
        // Read again: a forced full backup has lost its parent, and the volume may have been
        // deleted or reset meanwhile.
        let making = self.making(id).await?;
        let source = making.held();
        let status = making.backup.status.unwrap_or(BackupStatus::Error);
        let change = transition(status, &Event::CreateSucceeded { source })
            .map_err(|refusal| Error::Refused(Box::new(refusal)))?;
        let done = Done::Created {
            size: making.volume.as_ref().and_then(|volume| volume.size),
            parent: making.backup.parent_id,
        };
        if change.backup.is_none() {
            info!(backup = %id, %status, "Create backup aborted: its status was changed meanwhile");
            let now = Utc::now().naive_utc();
            self.db
                .change(making.subject(), &change, Done::Nothing, now)
                .await?;
            return Ok(());
        }
        let now = Utc::now().naive_utc();
        self.db.change(making.subject(), &change, done, now).await?;
        info!(backup = %id, image = %plan.base, "Create backup finished");
        // The backup stands: that nobody can be told is no failure of it.
        if let Ok(row) = self.backup(id).await {
            self.notify(context, &row, BackupEvent::CreateEnd).await;
        }
        Ok(())
    }
}
