//! Taking a new backup on: checked, recorded, and prepared by cinder-volume, which calls back.

use std::sync::Arc;

use api_compat::ids::BackupId;
use api_compat::notification::BackupEvent;
use api_compat::objects::{Backup, Volume as VolumeObject};
use api_compat::rpc::volume::VolumeApi;
use api_compat::state::{BackupStatus, Change, Event, Source, transition};
use api_compat::user_message::{Action, Detail};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info};

use super::volumes::Making;
use super::{Context, Error, Manager, about, lock, now};
use crate::db::{Begin, Done, Subject};

/// What a create that failed has come to, given its source and the reason.
type Ending = for<'a> fn(Source<'a>, &'a str) -> Event<'a>;

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
            Err(error @ Error::BackupNotFound(_)) => return Err(error),
            Err(error) => {
                let detail = Some(Detail::BackupCreateDriverError);
                self.fail_create(&context, id, &error, detail).await;
                return Err(error);
            }
        };
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
        let twice = lock(&self.awaiting).insert(id, called_back.clone());
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
                self.fail_create(&context, id, &error, detail).await;
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
        let volume = source_volume(making)?;
        if row.snapshot_id.is_some() && making.snapshot.is_none() {
            let id = row.snapshot_id.clone().unwrap_or_default();
            return Err(Error::SnapshotNotFound(id));
        }
        let container = self.container(row).await?;
        let zone = row
            .availability_zone
            .clone()
            .filter(|zone| !zone.is_empty())
            .unwrap_or_else(|| self.settings.availability_zone.clone());
        let begin = Begin {
            backup: row.id,
            service: &self.settings.driver,
            container: &container,
            zone: &zone,
        };
        self.own(row.id).await;
        self.db.begin_backup(begin, now().naive_utc()).await?;
        message.encryption_key_id = self.key_for_backup(context, row, volume).await?;
        message.service = Some(self.settings.driver.clone());
        message.container = Some(container);
        message.availability_zone = Some(zone);
        let queue = volume
            .service_topic_queue()
            .ok_or_else(|| Error::Invalid(format!("Volume {} has no host.", volume.id)))?;
        let request = VolumeApi::new(queue, self.history()).get_backup_device(&message);
        Ok(self.amqp.cast(request, context).await?)
    }

    /// The pool for a new backup. The request's `container` reaches the row unchecked and may name
    /// any pool: only the configured one and those that the operator allows are taken. An
    /// incremental lives in its parent's image, wherever that is.
    async fn container(&self, row: &Backup) -> Result<String, Error> {
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

    /// Fails the backup when cinder-volume never calls back: one of the two casts may be lost.
    fn expect_continuation(
        self: Arc<Self>,
        context: Context,
        id: BackupId,
        called_back: CancellationToken,
    ) {
        let wait = self.settings.continue_timeout;
        let watch = async move {
            if tokio::time::timeout(wait, called_back.cancelled())
                .await
                .is_ok()
            {
                return;
            }
            lock(&self.awaiting).remove(&id);
            let Some(_claim) = self.claim(id) else {
                return;
            };
            // Which got the answer.
            if self.other_owner(id).await.is_some() {
                return;
            }
            let error = Error::Invalid(format!(
                "cinder-volume did not answer within {} s.",
                wait.as_secs()
            ));
            let detail = Some(Detail::BackupCreateDeviceError);
            self.fail_create(&context, id, &error, detail).await;
        };
        tokio::spawn(watch.in_current_span());
    }

    /// Tells of a failure, in the log, in the rows (the reason, and the source's status back) and,
    /// with `detail`, to the user. A backup that is not being created any more keeps its status,
    /// which is somebody else's by now.
    pub(super) async fn fail_create(
        &self,
        context: &Context,
        id: BackupId,
        error: &Error,
        detail: Option<Detail>,
    ) {
        let failed: Ending = |source, reason| Event::CreateFailed { source, reason };
        self.end_create(context, id, error, detail, failed).await;
    }

    /// The same for a backup whose data is complete: its end may have been written after all.
    pub(super) async fn doubt_create(
        &self,
        context: &Context,
        id: BackupId,
        error: &Error,
        detail: Option<Detail>,
    ) {
        let in_doubt: Ending = |source, reason| Event::CreateInDoubt { source, reason };
        self.end_create(context, id, error, detail, in_doubt).await;
    }

    async fn end_create(
        &self,
        context: &Context,
        id: BackupId,
        error: &Error,
        detail: Option<Detail>,
        ending: Ending,
    ) {
        // What somebody asked for is no failure.
        let detail = detail.filter(|_| !matches!(error, Error::CalledOff));
        match error {
            Error::CalledOff => info!(backup = %id, %error, "Create backup ended"),
            _ => error!(backup = %id, %error, "Create backup failed"),
        }
        let reason = &error.to_string();
        if let Err(error) = Self::write_anew(|| self.write_ending(id, reason, ending)).await {
            error!(backup = %id, %error, "Cannot write what became of the backup");
        }
        if let Some(detail) = detail {
            self.tell_user(context, Action::Create, id, detail).await;
        }
        self.make_independent(id).await;
        self.disown(id).await;
    }

    async fn write_ending(&self, id: BackupId, reason: &str, ending: Ending) -> Result<(), Error> {
        let now = now().naive_utc();
        let (making, status) = match self.making(id).await {
            Ok(making) => {
                let status = making.backup.status.unwrap_or(BackupStatus::Error);
                (Some(making), status)
            }
            Err(error) => {
                error!(backup = %id, %error, "Cannot read what the backup is made of");
                (None, BackupStatus::Creating)
            }
        };
        let source = making.as_ref().map_or(Source::Gone, Making::held);
        let Ok(change) = transition(status, &ending(source, reason)) else {
            return Ok(());
        };
        if change == Change::default() {
            return Ok(());
        }
        let alone = || Subject::alone(id, status);
        let subject = making.as_ref().map_or_else(alone, Making::subject);
        Ok(self.db.change(subject, &change, Done::Nothing, now).await?)
    }
}

pub(super) fn source_volume(making: &Making) -> Result<&VolumeObject, Error> {
    let id = making.backup.volume_id;
    let volume = making.volume.as_ref();
    volume.ok_or_else(|| Error::VolumeNotFound(id.to_string()))
}
