//! Creating a backup: accepted here, prepared by cinder-volume, carried out when that calls back.

use std::sync::Arc;

use api_compat::names::{self, BackupId, VolumeId};
use api_compat::objects::{Backup, BackupDeviceInfo};
use api_compat::rpc::volume as volume_rpc;
use api_compat::state::{BackupStatus, SnapshotStatus, VolumeStatus};
use api_compat::user_message::{Action, Detail};
use api_compat::volume_metadata;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};

use super::{Claim, Context, Error, Manager, lock, now};
use crate::attach::Attached;
use crate::db::entity::{backups, snapshots, volumes};
use crate::db::{FailCreate, FinishCreate, Source};
use crate::transfer::Progress;
use crate::vault::{BackupPlan, BackupSpec, Method, Parent, Volume};

/// The rows that a create works on.
struct Subject {
    backup: backups::Model,
    volume: volumes::Model,
    snapshot: Option<snapshots::Model>,
}

impl Subject {
    /// Whose status is given back when the backup ends.
    fn source(&self) -> Source {
        match &self.snapshot {
            Some(snapshot) => Source::Snapshot {
                id: snapshot.id.clone(),
            },
            None => Source::Volume {
                id: self.volume.id.clone(),
                previous_status: self.volume.previous_status.clone(),
            },
        }
    }
}

impl Manager {
    /// `create_backup`: checks, records who does it, asks cinder-volume for the device.
    pub(super) async fn create_backup(
        self: Arc<Self>,
        mut context: Context,
        backup: Backup,
    ) -> Result<(), Error> {
        let id = backup.id.clone();
        info!(backup = %id, volume = %backup.volume_id, "Create backup started");
        context.set_message_resource("VOLUME_BACKUP", &id, Action::CreateBackup);
        let subject = match self.load(&id).await {
            Ok(subject) => subject,
            Err(error) => {
                self.fail_without_source(&id, &error).await;
                return Err(error);
            }
        };
        self.notify(&context, &subject.backup, "create.start").await;
        if let Err(error) = check_source(&subject) {
            // The volume is in somebody else's hands: its status is left alone.
            self.fail_without_source(&id, &error).await;
            return Err(error);
        }
        let begun = self.begin(&context, &subject, backup).await;
        if let Err(error) = &begun {
            self.fail_create(&context, &subject, error, None).await;
        } else {
            self.expect_continuation(context, subject);
        }
        begun
    }

    async fn load(&self, id: &str) -> Result<Subject, Error> {
        let backup = self
            .db
            .backup(id)
            .await?
            .ok_or_else(|| Error::BackupNotFound(id.to_owned()))?;
        let volume = self
            .db
            .volume(&backup.volume_id)
            .await?
            .ok_or_else(|| Error::VolumeNotFound(backup.volume_id.clone()))?;
        let snapshot = match &backup.snapshot_id {
            Some(id) => Some(
                self.db
                    .snapshot(id)
                    .await?
                    .ok_or_else(|| Error::SnapshotNotFound(id.clone()))?,
            ),
            None => None,
        };
        Ok(Subject {
            backup,
            volume,
            snapshot,
        })
    }

    async fn begin(
        &self,
        context: &Context,
        subject: &Subject,
        mut message: Backup,
    ) -> Result<(), Error> {
        let row = &subject.backup;
        expect_creating(row)?;
        if !*self.ready.borrow() {
            self.tell_user(context, Action::CreateBackup, &row.id, Detail::BackupServiceDown)
                .await;
            return Err(Error::InvalidBackup(
                "Create backup aborted due to backup service is down.".to_owned(),
            ));
        }
        if subject.volume.encryption_key_id.is_some() {
            return Err(Error::InvalidVolume(
                "Encrypted volumes cannot be backed up: this worker has no access to the key \
                 manager."
                    .to_owned(),
            ));
        }
        let container = self.container(row).await?;
        let zone = row
            .availability_zone
            .clone()
            .unwrap_or_else(|| self.settings.availability_zone.clone());
        self.db
            .begin_create(&row.id, &self.settings.driver, &container, &zone, now())
            .await?;
        message.service = Some(self.settings.driver.clone());
        message.container = Some(container);
        message.availability_zone = Some(zone);
        let topic = subject
            .volume
            .cluster_name
            .as_deref()
            .or(subject.volume.host.as_deref())
            .ok_or_else(|| {
                Error::InvalidVolume(format!("Volume {} has no host.", subject.volume.id))
            })?;
        self.amqp
            .cast(volume_rpc::get_backup_device(topic, &message), context)
            .await?;
        Ok(())
    }

    /// The pool for a new backup. The request's `container` reaches the row unchecked, so it may
    /// name any pool; only the configured one, those that the operator allows, and the parent's
    /// are taken.
    async fn container(&self, row: &backups::Model) -> Result<String, Error> {
        let parent = match &row.parent_id {
            Some(parent) => self.db.backup(parent).await?,
            None => None,
        };
        if let Some(pool) = parent.and_then(|parent| parent.container) {
            // An incremental lives in its parent's image, wherever that is.
            return Ok(pool);
        }
        let default = self.vault.default_pool();
        match row.container.as_deref() {
            None | Some("") => Ok(default.to_owned()),
            Some(pool)
                if pool == default
                    || self.settings.allowed_containers.iter().any(|p| p == pool) =>
            {
                Ok(pool.to_owned())
            }
            Some(pool) => Err(Error::InvalidBackup(format!(
                "Container {pool} is not allowed; ask your operator to add it to \
                 allowed_containers."
            ))),
        }
    }

    /// Fails the backup when cinder-volume never calls back: its cast, or ours, may be lost.
    fn expect_continuation(self: Arc<Self>, context: Context, subject: Subject) {
        let id = subject.backup.id.clone();
        let called_back = CancellationToken::new();
        lock(&self.awaiting).insert(id.clone(), called_back.clone());
        let wait = self.settings.continue_timeout;
        let manager = self.clone();
        tokio::spawn(
            async move {
                if tokio::time::timeout(wait, called_back.cancelled())
                    .await
                    .is_ok()
                {
                    return;
                }
                lock(&manager.awaiting).remove(&id);
                let error = Error::InvalidBackup(format!(
                    "cinder-volume did not answer within {} s",
                    wait.as_secs()
                ));
                error!(backup = %id, %error, "Create backup failed");
                manager.fail_create(&context, &subject, &error, None).await;
            }
            .in_current_span(),
        );
    }

    /// `continue_backup`: the device is ready, the data can be moved.
    pub(super) async fn continue_backup(
        &self,
        context: Context,
        backup: Backup,
        device: BackupDeviceInfo,
    ) -> Result<(), Error> {
        let id = backup.id;
        if let Some(called_back) = lock(&self.awaiting).remove(&id) {
            called_back.cancel();
        }
        let Some(claim) = self.claim(&id) else {
            warn!(backup = %id, "Already at work on this backup; a repeated message is ignored");
            return Ok(());
        };
        let _room = self.capacity.admit().await;
        let subject = match self.load(&id).await {
            Ok(subject) => subject,
            Err(error) => {
                self.fail_without_source(&id, &error).await;
                self.remove_temporary(&context, &id).await;
                return Err(error);
            }
        };
        let outcome = match self.expect_ours(&subject.backup) {
            Ok(()) => self.run(&context, &subject, &device, &claim).await,
            Err(error) => {
                // A late or forged call changes nothing but the temporary volume made for it.
                self.remove_temporary(&context, &id).await;
                return Err(error);
            }
        };
        self.remove_temporary(&context, &id).await;
        if outcome.is_ok() {
            info!(backup = %id, "Create backup finished");
            if let Ok(Some(row)) = self.db.backup(&id).await {
                self.notify(&context, &row, "create.end").await;
            }
        }
        outcome
    }

    fn expect_ours(&self, row: &backups::Model) -> Result<(), Error> {
        expect_creating(row)?;
        if row.host.as_deref() != Some(self.settings.host.as_str()) {
            return Err(Error::InvalidBackup(format!(
                "Backup {} is made by host {}, not by {}.",
                row.id,
                row.host.as_deref().unwrap_or("none"),
                self.settings.host
            )));
        }
        Ok(())
    }

    /// Attaches, stores, detaches, and writes the outcome into the rows.
    async fn run(
        &self,
        context: &Context,
        subject: &Subject,
        device: &BackupDeviceInfo,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let attached = match self.attacher.attach_device(context, device).await {
            Ok(attached) => attached,
            Err(error) => {
                let error = Error::from(error);
                self.fail_create(context, subject, &error, Some(Detail::AttachError))
                    .await;
                return Err(error);
            }
        };
        let stored = self.store(subject, &attached, claim).await;
        if let Err(error) = self.attacher.detach(context, attached).await {
            // The data is complete: a volume that does not let go must not cost the backup.
            warn!(backup = %subject.backup.id, %error, "Cannot detach the volume");
            self.tell_user(context, Action::CreateBackup, &subject.backup.id, Detail::DetachError)
                .await;
        }
        let finished = match stored {
            Ok(plan) => self.finish(subject, &plan).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &finished {
            self.fail_create(
                context,
                subject,
                error,
                Some(Detail::BackupCreateDriverError),
            )
            .await;
        }
        finished
    }

    async fn store(
        &self,
        subject: &Subject,
        attached: &Attached,
        claim: &Claim<'_>,
    ) -> Result<BackupPlan, Error> {
        let row = &subject.backup;
        let source = attached.volume();
        let spec = self.spec(row).await?;
        let taken_at = chrono::Utc::now().timestamp_micros() as f64 / 1e6;
        let plan = self.vault.plan_backup(&spec, &source, taken_at).await?;
        let forced = plan.method == Method::ForcedFull && row.snapshot_id.is_none();
        // Before the first byte: whoever finds this row after a crash knows where its data lies.
        self.db
            .place_backup(
                &row.id,
                &names::service_metadata(&plan.base),
                forced,
                now(),
            )
            .await?;
        if forced {
            warn!(
                backup = %row.id, parent = ?row.parent_id,
                "The volume no longer has the parent's snapshot: making a full backup instead"
            );
        }
        match self.transfer(subject, &plan, &source, claim).await {
            Ok(()) => Ok(plan),
            Err(error) => {
                self.vault.undo(&plan, &source).await;
                Err(error)
            }
        }
    }

    async fn transfer(
        &self,
        subject: &Subject,
        plan: &BackupPlan,
        source: &Volume,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let progress = Arc::new(Progress::default());
        let stats = self
            .vault
            .store(plan, source, progress, &claim.cancel)
            .await?;
        let text = self.metadata_text(&subject.volume).await?;
        self.vault
            .write_metadata(&plan.pool, &plan.backup, &text)
            .await?;
        info!(
            backup = %plan.backup, image = %plan.base, read = stats.bytes_read,
            written = stats.bytes_written, "Stored the volume's data"
        );
        if subject.snapshot.is_none() {
            self.vault
                .trim_source(source, self.settings.max_source_snapshots)
                .await;
        } else {
            // The temporary volume goes away, and nothing can build on its snapshot.
            self.vault.release_source(source, &plan.backup).await?;
        }
        Ok(())
    }

    async fn spec(&self, row: &backups::Model) -> Result<BackupSpec, Error> {
        let backup = BackupId::parse(&row.id).map_err(|e| Error::InvalidBackup(e.to_string()))?;
        let volume =
            VolumeId::parse(&row.volume_id).map_err(|e| Error::InvalidBackup(e.to_string()))?;
        let parent = match (&row.parent_id, &row.snapshot_id) {
            // A snapshot's temporary volume shares no snapshot with any backup.
            (Some(parent), None) => Some(self.parent(parent, &volume).await?),
            _ => None,
        };
        Ok(BackupSpec {
            backup,
            volume,
            pool: row
                .container
                .clone()
                .unwrap_or_else(|| self.vault.default_pool().to_owned()),
            parent,
        })
    }

    async fn parent(&self, id: &str, volume: &VolumeId) -> Result<Parent, Error> {
        let row = self
            .db
            .backup(id)
            .await?
            .ok_or_else(|| Error::BackupNotFound(id.to_owned()))?;
        let backup = BackupId::parse(id).map_err(|e| Error::InvalidBackup(e.to_string()))?;
        let base = names::base_of(volume, row.service_metadata.as_deref())
            .map_err(|e| Error::InvalidBackup(e.to_string()))?
            .unwrap_or_else(|| names::legacy_base_image(volume));
        Ok(Parent { backup, base })
    }

    async fn metadata_text(&self, volume: &volumes::Model) -> Result<String, Error> {
        let columns = crate::db::convert::volume_columns(volume);
        let metadata = self.db.volume_metadata(&volume.id).await?;
        let glance = self.db.glance_metadata(&volume.id).await?;
        Ok(volume_metadata::write(&columns, &metadata, &glance))
    }

    async fn finish(&self, subject: &Subject, plan: &BackupPlan) -> Result<(), Error> {
        self.db
            .finish_create(
                &FinishCreate {
                    backup: &subject.backup.id,
                    size: subject.volume.size,
                    service_metadata: &names::service_metadata(&plan.base),
                    source: subject.source(),
                },
                now(),
            )
            .await?;
        Ok(())
    }

    /// Writes a failure into the rows: the backup's reason, and its source's status back.
    async fn fail_create(
        &self,
        context: &Context,
        subject: &Subject,
        error: &Error,
        detail: Option<Detail>,
    ) {
        let id = &subject.backup.id;
        error!(backup = %id, %error, "Create backup failed");
        let failure = FailCreate {
            backup: id,
            reason: &error.to_string(),
            source: Some(subject.source()),
        };
        if let Err(error) = self.db.fail_create(&failure, now()).await {
            error!(backup = %id, %error, "Cannot record that the backup failed");
        }
        if let Some(detail) = detail {
            self.tell_user(context, Action::CreateBackup, id, detail)
                .await;
        }
    }

    async fn fail_without_source(&self, id: &str, error: &Error) {
        error!(backup = %id, %error, "Create backup failed");
        let failure = FailCreate {
            backup: id,
            reason: &error.to_string(),
            source: None,
        };
        if let Err(error) = self.db.fail_create(&failure, now()).await {
            error!(backup = %id, %error, "Cannot record that the backup failed");
        }
    }
}

fn check_source(subject: &Subject) -> Result<(), Error> {
    match &subject.snapshot {
        Some(snapshot) if snapshot.status.as_deref() != Some(SnapshotStatus::BACKING_UP) => {
            Err(Error::InvalidSnapshot(format!(
                "Create backup aborted, expected snapshot status backing-up but got {}.",
                snapshot.status.as_deref().unwrap_or("None")
            )))
        }
        None if subject.volume.status.as_deref() != Some(VolumeStatus::BACKING_UP) => {
            Err(Error::InvalidVolume(format!(
                "Create backup aborted, expected volume status backing-up but got {}.",
                subject.volume.status.as_deref().unwrap_or("None")
            )))
        }
        _ => Ok(()),
    }
}

fn expect_creating(row: &backups::Model) -> Result<(), Error> {
    if row.status.as_deref() == Some(BackupStatus::CREATING) {
        return Ok(());
    }
    Err(Error::InvalidBackup(format!(
        "Create backup aborted, expected backup status creating but got {}.",
        row.status.as_deref().unwrap_or("None")
    )))
}
