//! Taking a new backup on: checked, recorded, and prepared by cinder-volume, which calls back.

use std::sync::Arc;

use api_compat::notification::BackupEvent;
use api_compat::objects::Backup;
use api_compat::rpc::volume::VolumeApi;
use api_compat::state::{BackupStatus, Event, transition};
use api_compat::user_message::{Action, Detail};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ending::Reached;
use super::volumes::Making;
use super::waiting::Awaited;
use super::{Context, Error, Manager, about, lock, now};
use crate::db::Begin;
use crate::steps::{Step, reached};
use crate::vault::Stage;

impl Manager {
    /// `create_backup`: checks, records who does it, asks cinder-volume for the device.
    pub(super) async fn create_backup(
        self: Arc<Self>,
        mut context: Context,
        message: Backup,
    ) -> Result<(), Error> {
        let id = message.id;
        info!(backup = %id, volume = %message.volume_id, "Create backup started");
        about(&mut context, id, Action::Create);
        let making = match self.making(id).await {
            Ok(making) => making,
            Err(error) => {
                let detail = Some(Detail::BackupCreateDriverError);
                self.fail_create(&context, id, &error, detail, Reached::Nothing)
                    .await;
                return Err(error);
            }
        };
        if let Err(error) = self.expect_here(&making.backup) {
            warn!(backup = %id, %error, "The backup is not begun");
            return Err(error);
        }
        self.notify(&context, &making.backup, BackupEvent::CreateStart)
            .await;
        let event = Event::Create {
            source: making.source(),
            service_up: *self.ready.borrow(),
        };
        let status = making.backup.status.unwrap_or(BackupStatus::Error);
        if let Err(refusal) = transition(status, &event) {
            error!(backup = %id, reason = refusal.reason, "Create backup refused");
            let subject = making.subject();
            return Err(self
                .refuse(&context, subject, refusal, Action::Create)
                .await);
        }
        // Before the cast: the answer may come faster than this goes on.
        let called_back = CancellationToken::new();
        let twice = lock(&self.awaiting).insert(id, Awaited::new(called_back.clone()));
        if let Some(first) = twice {
            first.cancel();
        }
        match self.begin(&context, &making, message).await {
            Ok(()) => {
                self.expect_continuation(context, id, called_back);
                Ok(())
            }
            Err(error) => {
                lock(&self.awaiting).remove(&id);
                let detail = Some(Detail::BackupCreateDriverError);
                self.fail_create(&context, id, &error, detail, Reached::Nothing)
                    .await;
                Err(error)
            }
        }
    }

    async fn begin(
        &self,
        context: &Context,
        making: &Making,
        mut message: Backup,
    ) -> Result<(), Error> {
        let row = &making.backup;
        let volume = making.source_volume()?;
        if row.snapshot_id.is_some() && making.snapshot.is_none() {
            let id = row.snapshot_id.clone().unwrap_or_default();
            return Err(Error::SnapshotNotFound(id));
        }
        let container = self.container(row).await?;
        self.own(row.id, Stage::Begun).await;
        let zone = self.record_begin(row, &container).await?;
        reached(Step::BackupRecorded);
        message.encryption_key_id = self.key_for_backup(context, row, volume).await?;
        message.service = Some(self.settings.driver.clone());
        message.container = Some(container);
        message.availability_zone = Some(zone);
        let queue = volume
            .service_topic_queue()
            .ok_or_else(|| Error::Invalid(format!("Volume {} has no host.", volume.id)))?;
        let request = VolumeApi::new(queue, self.history()).get_backup_device(&message);
        self.amqp.cast(request, context).await?;
        reached(Step::DeviceRequested);
        Ok(())
    }

    /// Records with which driver, in which pool and in which zone a backup is made; the zone.
    pub(super) async fn record_begin(
        &self,
        row: &Backup,
        container: &str,
    ) -> Result<String, Error> {
        let zone = row
            .availability_zone
            .clone()
            .filter(|zone| !zone.is_empty())
            .unwrap_or_else(|| self.settings.availability_zone.clone());
        let begin = Begin {
            backup: row.id,
            host: &self.settings.host,
            service: &self.settings.driver,
            container,
            zone: &zone,
        };
        self.db.begin_backup(begin, now().naive_utc()).await?;
        Ok(zone)
    }

    /// The pool for a new backup. The request's `container` reaches the row unchecked and may name
    /// any pool: only the configured one and those that the operator allows are taken. An
    /// incremental lives in its parent's image, wherever that is.
    pub(super) async fn container(&self, row: &Backup) -> Result<String, Error> {
        if let Some(parent) = row.parent_id
            && let Some(pool) = self.backup(parent).await?.container
            && !pool.is_empty()
        {
            return Ok(pool);
        }
        let default = self.vault.default_pool();
        let allowed = |pool: &str| {
            let mut pools = self.settings.allowed_containers.iter();
            pool == default || pools.any(|allowed| allowed == pool)
        };
        match row.container.as_deref() {
            None | Some("") => Ok(default.to_owned()),
            Some(pool) if allowed(pool) => Ok(pool.to_owned()),
            Some(pool) => Err(Error::Invalid(format!(
                "Container {pool} is not allowed: backups go to {default}, or to a pool that the \
                 operator lists in [cinderblock] allowed_containers."
            ))),
        }
    }
}
