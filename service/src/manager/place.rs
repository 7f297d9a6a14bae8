//! Where a backup lies: recorded before its first byte (the first of two attempts that does so makes it),
//! and read again by whoever restores or deletes it.

use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::service_metadata;
use api_compat::state::BackupStatus;
use api_compat::user_message::{Action, Detail, UserMessage};
use tracing::{info, warn};

use super::disk::Disk;
use super::{Context, Error, Manager, now};
use crate::db::{ErrorKind, Place};
use crate::vault::{BackupPlan, BackupRecord, Method, Stage};

impl Manager {
    /// Records where a backup will lie, before the first byte: whoever finds its row after a crash
    /// knows where its data is. `was` is what this attempt has recorded before; what is recorded now.
    ///
    /// # Errors
    /// `Elsewhere` if another worker, which got the same request, was first.
    pub(super) async fn place(
        &self,
        row: &Backup,
        source: &Disk,
        plan: &BackupPlan,
        was: Option<String>,
    ) -> Result<String, Error> {
        let metadata = match source {
            Disk::Image(_) => service_metadata::format(&plan.base),
            Disk::Device(_) => service_metadata::format_of_device(&plan.base),
        };
        let place = Place {
            backup: row.id,
            host: &self.settings.host,
            service_metadata: &metadata,
            was: was.as_deref(),
            detach: is_forced(row, plan),
        };
        if let Err(error) = self.db.place_backup(place, now().naive_utc()).await {
            if error.kind() != ErrorKind::Conflict {
                return Err(error.into());
            }
            let row = self.backup(row.id).await?;
            return Err(match row.status {
                Some(BackupStatus::Creating) => made_by_another(row.id),
                Some(BackupStatus::Available) if row.service_metadata.is_some() => {
                    made_by_another(row.id)
                }
                _ => Error::CalledOff,
            });
        }
        // Another worker may have recorded itself meanwhile, and found that it comes late.
        self.own(row.id, Stage::Prepared).await;
        Ok(metadata)
    }

    /// What a backup's row says about where it lies.
    pub(super) async fn record(&self, row: &Backup) -> Result<BackupRecord, Error> {
        let sole = !self.db.shares_base(row).await?;
        Ok(BackupRecord::of(row, sole)?)
    }

    /// Tells, once, that a backup is a full one although it has a parent; whether that has been told.
    /// Nobody but the log need hear that one takes longer, since it is compared with its parent.
    pub(super) async fn tell_forced(
        &self,
        context: &Context,
        row: &Backup,
        plan: &BackupPlan,
        told: bool,
    ) -> bool {
        let forced = is_forced(row, plan);
        if plan.method == Method::Compared {
            info!(
                backup = %row.id, parent = row.parent_id.map(tracing::field::display),
                reason = plan.no_diff.map(tracing::field::display),
                "Comparing the volume with its backup, since nobody tells what changed"
            );
        }
        if forced && !told {
            warn!(
                backup = %row.id, parent = row.parent_id.map(tracing::field::display),
                reason = plan.no_diff.map(tracing::field::display),
                "Making a full backup instead of an incremental one"
            );
            let detail = Detail::IncrementalForcesFull;
            let message = UserMessage::about_volume(Action::Create, detail, row.volume_id);
            self.store_message(context, &message).await;
        }
        forced
    }
}

fn is_forced(row: &Backup, plan: &BackupPlan) -> bool {
    row.parent_id.is_some() && !plan.method.builds_on_parent()
}

pub(super) fn made_by_another(id: BackupId) -> Error {
    Error::Elsewhere(format!(
        "Another attempt makes backup {id}, or has made it."
    ))
}
