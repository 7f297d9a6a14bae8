//! Cinder's workflows, one file each.
//!
//! The rules that every workflow keeps: the status inside a message is only a hint, the row is
//! read again; what may happen is decided by `api_compat::state`, and written by a conditional
//! update; what was begun is undone when it fails, on both sides; the reason goes to the backup's
//! `fail_reason`, to the user's messages and to the log.

mod capacity;
mod claim;
mod create;
mod delete;
mod disk;
mod ending;
mod error;
mod independent;
mod keys;
mod make;
mod metadata;
mod owner;
mod pace;
mod place;
mod records;
mod report;
mod restore;
mod resume;
mod stall;
mod startup;
mod status;
mod takeover;
mod temporary;
mod volumes;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api_compat::ids::BackupId;
use api_compat::messaging::{Failure, RequestContext};
use api_compat::notification::{BackupEvent, Notification};
use api_compat::objects::{Backup, ObjectHistory};
use api_compat::rpc::BackupMethod;
use api_compat::state::{Change, Refusal, driver};
use api_compat::user_message::{Action, Detail, ResourceType, UserMessage};
use backon::{ConstantBuilder, Retryable};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::amqp::Amqp;
use crate::attach::Attacher;
use crate::db::{Database, Done, ErrorKind, QuotaRules, Subject};
use crate::keys::KeyManager;
use crate::vault::{Vault, Worker};

use capacity::Capacity;
pub use capacity::Ceilings;
pub use claim::Phase;
use claim::Running;
pub use error::Error;
use owner::QUESTIONS;
use records::ImportRequest;
use report::TELLING;
pub use report::{Data, Operation};
use restore::Target;
use waiting::Awaited;

/// How many deletes work in the backups' cluster at once.
const DELETES: usize = 16;

/// How many deletes look for a snapshot on a volume at once.
const RELEASES: usize = 8;

/// How often the end of an operation is written when its rows change meanwhile.
const WRITES: usize = 5;

/// Who asks, and in which request.
type Context = RequestContext;

/// Who this worker is, and how it behaves; from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[DEFAULT] host`.
    pub host: String,
    /// `storage_availability_zone`.
    pub availability_zone: String,
    /// `backup_driver`, as it is written into the rows.
    pub driver: String,
    /// How often it is told how far an operation is (`backup_timer_interval`).
    pub progress_interval: Duration,
    /// `backup_ceph_max_snapshots`; 0 keeps all.
    pub max_source_snapshots: usize,
    /// Pools that a request may name besides the configured one.
    pub allowed_containers: Vec<String>,
    /// Whether an increment counts as a whole backup once it is complete.
    pub independent_backups: bool,
    /// How long to wait for cinder-volume's `continue_backup`, and for requests of which a start
    /// finds rows.
    pub continue_timeout: Duration,
    /// How long another worker shows no sign of life before this one goes on with what it began; never
    /// if `None`.
    pub takeover_after: Option<Duration>,
    /// `service_down_time`.
    pub service_down_time: Duration,
    /// How much is done at once, at first.
    pub ceilings: Ceilings,
    /// `message_ttl`.
    pub message_ttl: Duration,
    /// How usages are kept.
    pub quota: QuotaRules,
}

/// Serves the requests of the backup API.
pub struct Manager {
    settings: Settings,
    /// The versions of objects in which other services are spoken to.
    history: Mutex<ObjectHistory>,
    /// This process, as others of the same host see it.
    me: Worker,
    db: Database,
    amqp: Amqp,
    vault: Arc<Vault>,
    attacher: Attacher,
    keys: KeyManager,
    /// Whether the driver works: a backup is refused while it does not.
    ready: watch::Receiver<bool>,
    capacity: Capacity,
    /// Backups that an operation of this process works on.
    running: Mutex<HashMap<BackupId, Running>>,
    /// Backups for which cinder-volume has been asked; cancelled when it answers.
    awaiting: Mutex<HashMap<BackupId, Awaited>>,
    /// The deletes that work in the backups' cluster. Each holds threads for as long as that does not
    /// answer.
    deleting: Semaphore,
    /// The deletes that look for a snapshot on a volume, for which the same holds.
    releasing: Semaphore,
    /// Backups that are still recorded as this worker's after their operations have ended.
    left_owned: Mutex<HashSet<BackupId>>,
    /// Whether another worker of this host lived when that was seen last.
    company: AtomicBool,
    /// The questions about owners that are open.
    questions: Arc<Semaphore>,
    /// What is being told of operations.
    telling: Arc<Semaphore>,
    /// Whether workers of Python's take requests to this host, and when that was looked at.
    strangers: tokio::sync::Mutex<Option<(Instant, bool)>>,
    tasks: TaskTracker,
}

impl Manager {
    /// A manager; `ready` tells whether the vault can be worked with.
    pub fn new(
        settings: Settings,
        db: Database,
        amqp: Amqp,
        vault: Vault,
        attacher: Attacher,
        keys: KeyManager,
        ready: watch::Receiver<bool>,
    ) -> Self {
        Self {
            capacity: Capacity::new(&settings.ceilings),
            me: Worker {
                host: settings.host.clone(),
                id: Uuid::new_v4(),
            },
            settings,
            history: Mutex::default(),
            // A request that was taken on is carried out or given up in the rows, whenever those can
            // be reached again: nobody would send it once more.
            db: db.enduring(),
            amqp,
            vault: Arc::new(vault),
            attacher,
            keys,
            ready,
            running: Mutex::default(),
            awaiting: Mutex::default(),
            deleting: Semaphore::new(DELETES),
            releasing: Semaphore::new(RELEASES),
            left_owned: Mutex::default(),
            company: AtomicBool::new(false),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            telling: Arc::new(Semaphore::new(TELLING)),
            strangers: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// From now on other services are sent objects of these versions; Cinder 29's until then.
    pub fn speak(&self, history: ObjectHistory) {
        *lock(&self.history) = history;
    }

    fn history(&self) -> ObjectHistory {
        *lock(&self.history)
    }

    /// Finds out what takes a while, before the first request needs it.
    pub async fn look_around(&self) {
        self.attacher.look_around().await;
    }

    /// Changes how much is done at once, also by what is under way.
    pub fn limit(&self, ceilings: &Ceilings) {
        self.capacity.set(ceilings);
    }

    /// Has transfers rest, or go on. Whether that is a change.
    pub fn pause(&self, paused: bool) -> bool {
        self.capacity.limits.pause(paused)
    }

    /// The backup pools, for whoever watches their health.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Starts an operation in the background; [`Manager::drained`] waits for it.
    pub fn spawn(&self, operation: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(operation);
    }

    /// The backups on which operations work now.
    pub fn busy(&self) -> Vec<BackupId> {
        lock(&self.running).keys().copied().collect()
    }

    /// Waits until every operation that was spawned has ended.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Carries out what a request asks for. The value answers a call; what became of a cast is in
    /// the rows.
    ///
    /// # Errors
    /// What Python's worker would raise.
    pub async fn serve(
        self: Arc<Self>,
        method: BackupMethod,
        context: Context,
    ) -> Result<Value, Failure> {
        let done = |()| Value::Null;
        let outcome = match method {
            BackupMethod::CreateBackup { backup } => {
                self.create_backup(context, *backup).await.map(done)
            }
            BackupMethod::ContinueBackup {
                backup,
                backup_device,
            } => {
                let id = backup.id;
                self.continue_backup(context, id, backup_device)
                    .await
                    .map(done)
            }
            BackupMethod::RestoreBackup {
                backup,
                volume_id,
                volume_is_new,
            } => {
                let target = match volume_is_new {
                    true => Target::New,
                    false => Target::Used,
                };
                self.restore_backup(context, backup.id, volume_id, target)
                    .await
                    .map(done)
            }
            BackupMethod::DeleteBackup { backup } => {
                self.delete_backup(context, backup.id).await.map(done)
            }
            BackupMethod::ExportRecord { backup } => self.export_record(backup.id).await,
            BackupMethod::ImportRecord {
                backup,
                backup_service,
                backup_url,
                backup_hosts,
            } => {
                let request = ImportRequest {
                    service: backup_service,
                    url: backup_url,
                    hosts: backup_hosts,
                };
                self.import_record(context, *backup, request)
                    .await
                    .map(done)
            }
            BackupMethod::ResetStatus { backup, status } => self
                .reset_status(context, backup.id, status)
                .await
                .map(done),
            BackupMethod::CheckSupportToForceDelete => Ok(Value::Bool(true)),
            BackupMethod::Ping => Ok(Value::from("pong")),
            // These are about the process: the worker answers them itself.
            BackupMethod::PublishServiceCapabilities
            | BackupMethod::SetLogLevels { .. }
            | BackupMethod::GetLogLevels { .. } => Ok(Value::Null),
        };
        outcome.map_err(|error| Failure::from(&error))
    }

    async fn backup(&self, id: BackupId) -> Result<Backup, Error> {
        let row = self.db.backup(id).await?;
        row.ok_or_else(|| Error::BackupNotFound(id.to_string()))
    }

    /// Writes what a refusal asks for, tells the user, and hands the refusal on as an error.
    async fn refuse(
        &self,
        context: &Context,
        subject: Subject<'_>,
        refusal: Refusal,
        action: Action,
    ) -> Error {
        self.write(subject, &refusal.change, Done::Nothing).await;
        if let Some(detail) = refusal.detail {
            self.tell_user(context, action, subject.backup, detail)
                .await;
        }
        refusal.into()
    }

    /// Writes the end of an operation that failed. A database that is away is waited for; there is
    /// nobody left to tell of another failure but the log.
    async fn write(&self, subject: Subject<'_>, change: &Change, done: Done<'_>) {
        if change == &Change::default() {
            return;
        }
        let now = now().naive_utc();
        if let Err(error) = self.db.change(subject, change, done, now).await {
            error!(backup = %subject.backup, %error, "Cannot write what became of the backup");
        }
    }

    /// Writes what was decided on rows that are read anew whenever somebody changes them meanwhile.
    async fn write_anew<T, F>(mut write: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let again = ConstantBuilder::new()
            .with_delay(Duration::ZERO)
            .with_max_times(WRITES);
        let conflict = |error: &Error| match error {
            Error::Database(error) => error.kind() == ErrorKind::Conflict,
            _ => false,
        };
        (|| write()).retry(again).when(conflict).await
    }

    /// Tells the user of a failure, unless it is what somebody asked for.
    async fn tell_failure(
        &self,
        context: &Context,
        action: Action,
        id: BackupId,
        error: &Error,
        detail: Detail,
    ) {
        if !matches!(error, Error::CalledOff) {
            self.tell_user(context, action, id, detail).await;
        }
    }

    /// Tells the user what became of a request. Failing to do so changes nothing.
    async fn tell_user(&self, context: &Context, action: Action, id: BackupId, detail: Detail) {
        let message = UserMessage::about_backup(action, detail, id);
        self.store_message(context, &message).await;
    }

    async fn store_message(&self, context: &Context, message: &UserMessage) {
        let Some(project) = context.project_id() else {
            debug!("The request has no project: there is no user to tell");
            return;
        };
        let (keep, now) = (self.settings.message_ttl, now().naive_utc());
        let stored = self
            .db
            .insert_message(message, project, context.request_id(), keep, now)
            .await;
        if let Err(error) = stored {
            warn!(event = message.event_id(), %error, "Cannot store the message for the user");
        }
    }

    /// Says on the notification topics what happens to a backup.
    async fn notify(&self, context: &Context, backup: &Backup, event: BackupEvent) {
        let (host, id) = (&self.settings.host, Uuid::new_v4());
        let notification = Notification::new(event, backup, host, context, id, now());
        self.amqp.notify(notification).await;
    }

    fn is_ours(&self, backup: &Backup) -> bool {
        driver::is_ours(&self.settings.driver, backup.service.as_deref())
    }
}

/// Marks a request as being about a backup, for the user messages of whoever gets it next.
fn about(context: &mut Context, backup: BackupId, action: Action) {
    context.set_message(ResourceType::Backup, &backup.to_string(), action);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A map stays whole when its holder panics: inserting and removing are single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A row of a backup that nobody has begun, changed.
    pub fn row(change: impl FnOnce(&mut Backup)) -> Backup {
        let row = json!({
            "id": Uuid::from_u128(1), "volume_id": Uuid::from_u128(2), "user_id": "u",
            "project_id": "p", "status": "creating",
        });
        let mut row = serde_json::from_value(row).expect("a backup");
        change(&mut row);
        row
    }
}
