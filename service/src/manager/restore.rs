//! Restoring a backup into a volume.

use std::sync::Arc;

use api_compat::names;
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, VolumeStatus};
use api_compat::user_message::{Action, Detail};
use api_compat::volume_metadata::{self, Change};
use tracing::{error, info, warn};

use super::{Claim, Context, Error, Manager, now};
use crate::attach::Attached;
use crate::db::entity::{backups, volumes};
use crate::db::{FailRestore, FinishRestore};
use crate::transfer::Progress;
use crate::vault::BackupRecord;

const GIB: u64 = 1 << 30;

impl Manager {
    /// `restore_backup`: writes a backup's restore point into a volume, then its metadata.
    pub(super) async fn restore_backup(
        &self,
        mut context: Context,
        backup: Backup,
        volume_id: String,
    ) -> Result<(), Error> {
        let id = backup.id;
        context.set_message_resource("VOLUME_BACKUP", &id, Action::RestoreBackup);
        let Some(claim) = self.claim(&id) else {
            warn!(backup = %id, "Already at work on this backup; a repeated message is ignored");
            return Ok(());
        };
        let _room = self.capacity.admit().await;
        info!(backup = %id, volume = %volume_id, "Restore backup started");
        let row = self
            .db
            .backup(&id)
            .await?
            .ok_or_else(|| Error::BackupNotFound(id.clone()))?;
        self.notify(&context, &row, "restore.start").await;
        let outcome = self.restore(&context, &row, &volume_id, &claim).await;
        match &outcome {
            Ok(()) => {
                info!(backup = %id, volume = %volume_id, "Finished restoring backup");
                if let Ok(Some(row)) = self.db.backup(&id).await {
                    self.notify(&context, &row, "restore.end").await;
                }
            }
            Err(error) => error!(backup = %id, volume = %volume_id, %error, "Restore backup failed"),
        }
        outcome
    }

    async fn restore(
        &self,
        context: &Context,
        row: &backups::Model,
        volume_id: &str,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let Some(volume) = self.db.volume(volume_id).await? else {
            let error = Error::VolumeNotFound(volume_id.to_owned());
            self.end_restore(row, volume_id, FailRestore::VolumeGone, &error)
                .await;
            return Err(error);
        };
        if let Err((failure, detail, error)) = self.accept(row, &volume) {
            self.end_restore(row, volume_id, failure, &error).await;
            if let Some(detail) = detail {
                self.tell_user(context, Action::RestoreBackup, &row.id, detail)
                    .await;
            }
            return Err(error);
        }
        let restored = self.run_restore(context, row, &volume, claim).await;
        let finished = match restored {
            Ok(()) => self.finish_restore(row, &volume).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &finished {
            self.end_restore(row, volume_id, FailRestore::Restoring, error)
                .await;
        }
        finished
    }

    /// Whether a restore may begin; otherwise how it ends, what the user is told, and why.
    fn accept(
        &self,
        row: &backups::Model,
        volume: &volumes::Model,
    ) -> Result<(), (FailRestore, Option<Detail>, Error)> {
        let volume_status = volume.status.as_deref().unwrap_or("None");
        if ![VolumeStatus::RESTORING_BACKUP, VolumeStatus::CREATING].contains(&volume_status) {
            return Err((
                FailRestore::Restoring,
                Some(Detail::VolumeInvalidState),
                Error::InvalidVolume(format!(
                    "Restore backup aborted, expected volume status restoring-backup,creating \
                     but got {volume_status}."
                )),
            ));
        }
        let status = row.status.as_deref().unwrap_or("None");
        if status != BackupStatus::RESTORING {
            return Err((
                FailRestore::WrongStatus,
                Some(Detail::BackupInvalidState),
                Error::InvalidBackup(format!(
                    "Restore backup aborted: expected backup status restoring but got {status}."
                )),
            ));
        }
        if !self.is_ours(row.service.as_deref()) {
            return Err((
                FailRestore::OtherService,
                None,
                Error::InvalidBackup(format!(
                    "Restore backup aborted, the backup service currently configured [{}] is not \
                     the backup service that was used to create this backup [{}].",
                    self.settings.driver,
                    row.service.as_deref().unwrap_or_default()
                )),
            ));
        }
        let (needed, have) = (row.size.unwrap_or(0), volume.size.unwrap_or(0));
        if needed > have {
            return Err((
                FailRestore::Restoring,
                Some(Detail::BackupRestoreError),
                Error::InvalidVolume(format!(
                    "Restore backup aborted, the volume's size {have} GiB is smaller than the \
                     backup's {needed} GiB."
                )),
            ));
        }
        Ok(())
    }

    async fn run_restore(
        &self,
        context: &Context,
        row: &backups::Model,
        volume: &volumes::Model,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let record = self.record(row).await?;
        // All that can be known to fail is found out before the volume is written.
        let point = self.vault.find_restore_point(&record).await?;
        let changes = self.metadata_changes(row, volume, &record).await?;

        let attached = match self.attacher.attach_volume(context, &volume.id).await {
            Ok(attached) => attached,
            Err(error) => {
                self.tell_user(context, Action::RestoreBackup, &row.id, Detail::AttachError)
                    .await;
                return Err(error.into());
            }
        };
        let written = self.write(&point, &attached, volume, claim).await;
        let detached = self.attacher.detach(context, attached).await;
        if written.is_err() {
            self.tell_user(
                context,
                Action::RestoreBackup,
                &row.id,
                Detail::BackupRestoreError,
            )
            .await;
        } else if let Err(error) = detached {
            warn!(backup = %row.id, %error, "Cannot detach the volume");
            self.tell_user(context, Action::RestoreBackup, &row.id, Detail::DetachError)
                .await;
        }
        written?;
        self.apply(volume, changes).await
    }

    async fn write(
        &self,
        point: &crate::vault::RestorePoint,
        attached: &Attached,
        volume: &volumes::Model,
        claim: &Claim<'_>,
    ) -> Result<(), Error> {
        let size = u64::try_from(volume.size.unwrap_or(0)).unwrap_or(0) * GIB;
        let progress = Arc::new(Progress::default());
        let stats = self
            .vault
            .restore(point, &attached.volume(), size, progress, &claim.cancel)
            .await?;
        info!(
            volume = %volume.id, image = %point.image, read = stats.bytes_read,
            written = stats.bytes_written, "Restored the volume's data"
        );
        Ok(())
    }

    async fn metadata_changes(
        &self,
        row: &backups::Model,
        volume: &volumes::Model,
        record: &BackupRecord,
    ) -> Result<Vec<Change>, Error> {
        let Some(text) = self.vault.read_metadata(record).await? else {
            return Ok(Vec::new());
        };
        let recorded =
            volume_metadata::read(&text).map_err(|error| Error::Metadata(error.to_string()))?;
        let target = volume_metadata::Target {
            display_name: volume.display_name.clone(),
            volume_type_id: volume.volume_type_id.clone(),
            encryption_key_id: volume.encryption_key_id.clone(),
        };
        volume_metadata::changes(&recorded, row.display_name.as_deref(), &target)
            .map_err(|error| Error::Metadata(error.to_string()))
    }

    async fn finish_restore(
        &self,
        row: &backups::Model,
        volume: &volumes::Model,
    ) -> Result<(), Error> {
        let finish = FinishRestore {
            backup: &row.id,
            volume: &volume.id,
            // A volume restored from its own backup is marked only when it carries another mark.
            mark_source: row.volume_id != volume.id,
            launched: volume.status.as_deref() == Some(VolumeStatus::CREATING),
        };
        Ok(self.db.finish_restore(&finish, now()).await?)
    }

    async fn end_restore(
        &self,
        row: &backups::Model,
        volume: &str,
        failure: FailRestore,
        error: &Error,
    ) {
        let reason = error.to_string();
        if let Err(error) = self
            .db
            .fail_restore(&row.id, volume, failure, &reason, now())
            .await
        {
            error!(backup = %row.id, %error, "Cannot record that the restore failed");
        }
    }

    /// What a backup's row says about where it lies.
    pub(super) async fn record(&self, row: &backups::Model) -> Result<BackupRecord, Error> {
        let backup =
            names::BackupId::parse(&row.id).map_err(|e| Error::InvalidBackup(e.to_string()))?;
        let volume = names::VolumeId::parse(&row.volume_id)
            .map_err(|e| Error::InvalidBackup(e.to_string()))?;
        let base = names::base_of(&volume, row.service_metadata.as_deref())
            .map_err(|e| Error::InvalidBackup(e.to_string()))?;
        let sole = !self
            .db
            .others_name_base(&row.id, &row.volume_id, row.service_metadata.as_deref())
            .await?;
        Ok(BackupRecord {
            backup,
            volume,
            pool: row.container.clone().filter(|pool| !pool.is_empty()),
            base,
            of_snapshot: row.snapshot_id.is_some(),
            sole,
        })
    }
}
