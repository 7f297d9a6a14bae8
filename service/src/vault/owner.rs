//! Which worker works on a backup, and whether that worker lives: for others with the same host name.
//!
//! Two processes may share a `host`: by mistake, on purpose so that either can delete what the other
//! made, or for a moment while one is replaced. The rows name the host only. So each worker holds a lease
//! on an object of its host, and writes beside a backup that it is the one at work on it.

use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::names;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Result, Vault};
use crate::rbd::Pool;

/// How long a worker counts as alive that says nothing more.
const LEASE: Duration = Duration::from_secs(15);

/// How long a worker may take to look at an owner and to write itself down. Longer than that it has died.
const TURN: Duration = Duration::from_secs(10);

/// How often a worker looks whether it is its turn, and how often in all: whoever has it for longer has died.
const TURN_COMES: Duration = Duration::from_millis(50);
const LOOKS: usize = 40;

/// More than the object that names an owner can have.
const LIMIT: usize = 4096;

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// `[DEFAULT] host`.
    pub host: String,
    /// What tells it from others of that host.
    pub id: Uuid,
}

impl Vault {
    /// How often a worker has to show that it lives.
    pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

    /// Shows the others that a worker lives, for a few seconds.
    pub async fn show_life(&self, worker: &Worker) -> Result<()> {
        let object = names::workers_object(&worker.host);
        let pool = self.owners().await?;
        Ok(pool
            .hold_lease(&object, &worker.id.to_string(), LEASE)
            .await?)
    }

    /// Tells the others that a worker has ended.
    pub async fn end_life(&self, worker: &Worker) -> Result<()> {
        let object = names::workers_object(&worker.host);
        let pool = self.owners().await?;
        Ok(pool.end_lease(&object, &worker.id.to_string()).await?)
    }

    /// The workers of a host that live.
    pub async fn alive(&self, host: &str) -> Result<Vec<Worker>> {
        let object = names::workers_object(host);
        let alive = self.owners().await?.lease_holders(&object).await?;
        let worker = |id: &String| {
            let (host, id) = (host.to_owned(), id.parse().ok()?);
            Some(Worker { host, id })
        };
        Ok(alive.iter().filter_map(worker).collect())
    }

    /// Records that a worker is at work on a backup, whoever was before.
    pub async fn own(&self, backup: BackupId, worker: &Worker) -> Result<()> {
        let text = serde_json::to_vec(worker).unwrap_or_default();
        let object = names::owner_object(backup);
        Ok(self.owners().await?.write_object(&object, &text).await?)
    }

    /// Records that a worker is at work on a backup, unless another one is that lives; which one.
    pub async fn own_unless_owned(
        &self,
        backup: BackupId,
        worker: &Worker,
    ) -> Result<Option<Worker>> {
        // Of this question, not of the worker: that may have several.
        let (object, turn) = (
            names::workers_object(&worker.host),
            Uuid::new_v4().to_string(),
        );
        let pool = self.owners().await?;
        // Two that look at the same time would both see nobody.
        for _ in 0..LOOKS {
            if pool.take_turn(&object, &turn, TURN).await? {
                break;
            }
            tokio::time::sleep(TURN_COMES).await;
        }
        let owned = self.look_and_own(backup, worker).await;
        // Where this fails the turn is over by itself in a moment.
        let _ = pool.end_turn(&object, &turn).await;
        owned
    }

    async fn look_and_own(&self, backup: BackupId, worker: &Worker) -> Result<Option<Worker>> {
        if let Some(owner) = self.owner(backup).await?
            && &owner != worker
            && self.alive(&owner.host).await?.contains(&owner)
        {
            return Ok(Some(owner));
        }
        self.own(backup, worker).await?;
        Ok(None)
    }

    /// Who is at work on a backup; `None` when nobody is recorded.
    pub async fn owner(&self, backup: BackupId) -> Result<Option<Worker>> {
        let object = names::owner_object(backup);
        let text = self.owners().await?.read_object(&object, LIMIT).await?;
        // What is no record of this kind names nobody.
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Records that a worker is no longer at work on a backup. Another one that took it over stays.
    pub async fn disown(&self, backup: BackupId, worker: &Worker) -> Result<()> {
        if self.owner(backup).await?.as_ref() == Some(worker) {
            let object = names::owner_object(backup);
            self.owners().await?.remove_object(&object).await?;
        }
        Ok(())
    }

    /// The pool that all workers share, whatever pool a backup lies in.
    async fn owners(&self) -> Result<Pool> {
        self.pool(&self.default_pool).await
    }
}
