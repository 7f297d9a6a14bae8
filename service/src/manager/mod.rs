//! Cinder's workflows, one file each.
//!
//! The rules that every workflow keeps: the status inside a message is only a hint, the row is
//! read again and changed by a conditional update; what was begun is undone when it fails, on both
//! sides; the reason goes to the backup's `fail_reason`, to the user's messages and to the log.

mod capacity;
mod create;
mod delete;
mod error;
mod records;
mod restore;
mod startup;
mod status;
mod volume;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_compat::messaging::{Failure, RequestContext};
use api_compat::notification;
use api_compat::rpc::backup::BackupMethod;
use api_compat::user_message::{Action, Detail, UserMessage};
use chrono::{NaiveDateTime, Utc};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::amqp::Amqp;
use crate::attach::Attacher;
use crate::db::{self, Database, entity};
use crate::vault::Vault;

use capacity::Capacity;
pub use error::Error;

/// Who this worker is, and how it behaves; from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[DEFAULT] host`.
    pub host: String,
    /// `storage_availability_zone`.
    pub availability_zone: String,
    /// `backup_driver`, as it is written into the rows.
    pub driver: String,
    /// `backup_ceph_max_snapshots`; 0 keeps all.
    pub max_source_snapshots: usize,
    /// `volume_name_template`.
    pub volume_name_template: String,
    /// Pools that a request may name besides the configured one.
    pub allowed_containers: Vec<String>,
    /// How long to wait for cinder-volume's `continue_backup`.
    pub continue_timeout: Duration,
    /// `backup_max_operations`; 0 does not limit.
    pub max_operations: usize,
    /// Notification topics; none when notifications are off.
    pub notification_topics: Vec<String>,
    /// `message_ttl`.
    pub message_ttl: Duration,
    /// Seconds after which a quota usage is computed anew (`until_refresh`, `max_age`).
    pub quota: db::QuotaRules,
}

/// Serves the requests of the backup API.
pub struct Manager {
    settings: Settings,
    db: Database,
    amqp: Amqp,
    vault: Vault,
    attacher: Attacher,
    /// Whether the driver works: a backup is refused while it does not.
    ready: watch::Receiver<bool>,
    capacity: Capacity,
    running: Mutex<HashMap<String, CancellationToken>>,
    awaiting: Mutex<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
}

/// Who asks, and in which request.
type Context = RequestContext;

impl Manager {
    /// A manager; `ready` tells whether the vault can be reached.
    pub fn new(
        settings: Settings,
        db: Database,
        amqp: Amqp,
        vault: Vault,
        attacher: Attacher,
        ready: watch::Receiver<bool>,
    ) -> Self {
        Self {
            capacity: Capacity::new(settings.max_operations),
            settings,
            db,
            amqp,
            vault,
            attacher,
            ready,
            running: Mutex::default(),
            awaiting: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// The vault, for the worker to check its health.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Waits until every operation has ended; new ones are not begun by this.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts the operation that a request asks for. The answer, for a call, comes from the
    /// future; a cast's outcome is in the rows.
    pub async fn serve(
        self: Arc<Self>,
        method: BackupMethod,
        context: Context,
    ) -> Result<Value, Failure> {
        let outcome = match method {
            BackupMethod::CreateBackup { backup } => {
                self.clone().create_backup(context, backup).await
            }
            BackupMethod::ContinueBackup {
                backup,
                backup_device,
            } => self.continue_backup(context, backup, backup_device).await,
            BackupMethod::RestoreBackup {
                backup,
                volume_id,
                volume_is_new: _,
            } => self.restore_backup(context, backup, volume_id).await,
            BackupMethod::DeleteBackup { backup } => self.delete_backup(context, backup).await,
            BackupMethod::ExportRecord { backup } => {
                return self.export_record(&backup).await.map_err(Failure::from);
            }
            BackupMethod::ImportRecord {
                backup,
                backup_service,
                backup_url,
                backup_hosts,
            } => {
                self.import_record(context, backup, backup_service, backup_url, backup_hosts)
                    .await
            }
            BackupMethod::ResetStatus { backup, status } => {
                self.reset_status(context, backup, status).await
            }
            BackupMethod::CheckSupportToForceDelete => return Ok(Value::Bool(false)),
            // The worker answers these itself.
            BackupMethod::PublishServiceCapabilities
            | BackupMethod::SetLogLevels { .. }
            | BackupMethod::GetLogLevels { .. } => Ok(()),
        };
        outcome.map(|()| Value::Null).map_err(Failure::from)
    }

    /// Claims a backup for one operation; `None` when another one of this worker has it.
    fn claim(&self, backup: &str) -> Option<Claim<'_>> {
        let mut running = lock(&self.running);
        if running.contains_key(backup) {
            return None;
        }
        let cancel = CancellationToken::new();
        running.insert(backup.to_owned(), cancel.clone());
        Some(Claim {
            manager: self,
            backup: backup.to_owned(),
            cancel,
        })
    }

    /// Tells the user what became of a request. Failing to do so is logged and changes nothing.
    async fn tell_user(&self, context: &Context, action: Action, backup: &str, detail: Detail) {
        let Some(project) = context.project_id() else {
            debug!(backup, "No user to tell: the request has no project");
            return;
        };
        let message = UserMessage::for_backup(action, detail, backup, project, context.request_id());
        if let Err(error) = self
            .db
            .insert_message(&message, self.settings.message_ttl, now())
            .await
        {
            warn!(backup, %error, "Cannot store the message for the user");
        }
    }

    /// Sends a notification about a backup, such as `create.start`.
    async fn notify(&self, context: &Context, backup: &entity::backups::Model, suffix: &str) {
        if self.settings.notification_topics.is_empty() {
            return;
        }
        let message = notification::backup_usage(
            &self.settings.host,
            suffix,
            &db::convert::usage(backup),
            context,
            now(),
        );
        self.amqp
            .notify(&self.settings.notification_topics, message)
            .await;
    }

    /// Whether a row's `service` is the driver that runs here; a row without one is nobody's.
    fn is_ours(&self, service: Option<&str>) -> bool {
        service.is_none_or(|service| self.settings.driver.starts_with(service))
    }
}

/// One operation's claim on a backup, given back when dropped.
struct Claim<'a> {
    manager: &'a Manager,
    backup: String,
    cancel: CancellationToken,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.manager.running).remove(&self.backup);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A map stays whole when its holder panics: inserting and removing are single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> NaiveDateTime {
    Utc::now().naive_utc()
}
