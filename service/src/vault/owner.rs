//! Which worker works on a backup, and whether that worker lives.
//!
//! Two processes may share a `host`: by mistake, on purpose so that either can delete what the other
//! made, or for a moment while one is replaced. The rows name the host only. So each worker holds a lease
//! on an object of its host, and writes beside a backup that it is the one at work on it. Workers of other
//! hosts see by the same what they may take over.

use std::time::Duration;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::names;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::turn::in_turn;
use super::{Result, Vault};
use crate::rbd::Pool;

/// How long a worker may take to look at an owner and to write itself down. Longer than that it has died.
const TURN: Duration = Duration::from_secs(10);

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

/// How far a worker has come with what it is at work on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It has taken it on, and may wait for others.
    #[default]
    Begun,
    /// It waits for nobody any more: whoever goes on need not, either.
    Prepared,
}

/// What is written beside a backup.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Who is at work on it.
    #[serde(flatten)]
    worker: Worker,
    /// How far it has come.
    #[serde(default)]
    stage: Stage,
    /// The volume to which it restores it.
    #[serde(default)]
    target: Option<VolumeId>,
    /// How many workers have died at that.
    #[serde(default)]
    died: u32,
}

impl Record {
    fn new(worker: &Worker) -> Self {
        Self {
            worker: worker.clone(),
            stage: Stage::Begun,
            target: None,
            died: 0,
        }
    }
}

/// What came of asking to restore a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owned {
    /// It may be restored now.
    Yes {
        /// The volume of another worker that died while it restored the backup to that. It is not recorded
        /// any more.
        left: Option<VolumeId>,
    },
    /// Another worker is at work on it.
    By(Worker),
}

/// What came of taking a backup over from a worker that has died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenOver {
    /// It is taken.
    After {
        /// How many workers have died at it.
        deaths: u32,
        /// The volume to which the last of them restored it.
        target: Option<VolumeId>,
        /// How far the last of them had come.
        stage: Stage,
    },
    /// Another worker was faster.
    By(Worker),
}

impl Vault {
    /// How long a worker counts as alive that says nothing more.
    pub const LEASE: Duration = Duration::from_secs(15);

    /// How often a worker has to show that it lives.
    pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

    /// Shows the others that a worker lives, for a few seconds.
    pub async fn show_life(&self, worker: &Worker) -> Result<()> {
        let object = names::workers_object(&worker.host);
        let pool = self.owners().await?;
        Ok(pool
            .hold_lease(&object, &worker.id.to_string(), Self::LEASE)
            .await?)
    }

    /// Tells the others that a worker has ended.
    pub async fn end_life(&self, worker: &Worker) -> Result<()> {
        let object = names::workers_object(&worker.host);
        let pool = self.owners().await?;
        Ok(pool.end_lease(&object, &worker.id.to_string()).await?)
    }

    /// Whether workers of a host have ever shown here that they live: those of Python's never do.
    pub async fn knows(&self, host: &str) -> Result<bool> {
        let object = names::workers_object(host);
        let there = self.owners().await?.read_object(&object, LIMIT).await?;
        Ok(there.is_some())
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

    /// Records that a worker is at work on a backup, whoever was before; unless one of another host is, and
    /// lives: that has taken it over.
    pub async fn own(&self, backup: BackupId, worker: &Worker, stage: Stage) -> Result<()> {
        let found = self.ownership(backup).await?;
        if let Some(Record { worker: other, .. }) = &found
            && other.host != worker.host
            && self.alive(&other.host).await?.contains(other)
        {
            return Ok(());
        }
        let mine = found.filter(|found| &found.worker == worker);
        if mine.as_ref().is_some_and(|mine| mine.stage >= stage) {
            return Ok(());
        }
        let record = Record {
            stage,
            ..mine.unwrap_or_else(|| Record::new(worker))
        };
        self.write_owner(backup, &record).await
    }

    /// How far the worker had come that is recorded.
    pub async fn stage(&self, backup: BackupId) -> Result<Option<Stage>> {
        let found = self.owner_and_stage(backup).await?;
        Ok(found.map(|(_, stage)| stage))
    }

    pub(super) async fn owner_and_stage(
        &self,
        backup: BackupId,
    ) -> Result<Option<(Worker, Stage)>> {
        let found = self.ownership(backup).await?;
        Ok(found.map(|found| (found.worker, found.stage)))
    }

    /// Records that a worker has been at work on a backup for so long that it is not going to die at it.
    pub async fn survive(&self, backup: BackupId, worker: &Worker) -> Result<()> {
        match self.ownership(backup).await? {
            Some(found) if &found.worker == worker && found.died > 0 => {
                let record = Record { died: 0, ..found };
                self.write_owner(backup, &record).await
            }
            _ => Ok(()),
        }
    }

    async fn write_owner(&self, backup: BackupId, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).unwrap_or_default();
        let object = names::owner_object(backup);
        Ok(self.owners().await?.write_object(&object, &text).await?)
    }

    /// Records that a worker restores a backup to a volume, unless another one is at work on the backup that
    /// lives.
    pub async fn own_unless_owned(
        &self,
        backup: BackupId,
        worker: &Worker,
        target: VolumeId,
    ) -> Result<Owned> {
        let owning = async {
            if let Some(other) = self.living_owner(backup, worker).await? {
                return Ok(Owned::By(other));
            }
            let found = self.ownership(backup).await?;
            let dead = found.as_ref().filter(|it| it.worker != *worker);
            let left = dead.and_then(|it| it.target.filter(|left| *left != target));
            // That of another volume has ended, or died with its worker.
            let same = found.filter(|it| it.worker == *worker && it.target == Some(target));
            let record = Record {
                target: Some(target),
                ..same.unwrap_or_else(|| Record::new(worker))
            };
            self.write_owner(backup, &record).await?;
            Ok(Owned::Yes { left })
        };
        self.in_turn(&worker.host, owning).await
    }

    /// Records that a worker goes on with what another one of `host` was at work on that has died, or
    /// nobody knows who. `target` is the volume to which that restored it, unless it has told.
    pub async fn take_over(
        &self,
        backup: BackupId,
        host: &str,
        worker: &Worker,
        target: Option<VolumeId>,
    ) -> Result<TakenOver> {
        let taking = async {
            if let Some(other) = self.living_owner(backup, worker).await? {
                return Ok(TakenOver::By(other));
            }
            let found = self.ownership(backup).await?;
            // It may be there again, and has not come to this one yet.
            if found.is_none()
                && host != worker.host
                && let Some(back) = self.alive(host).await?.pop()
            {
                return Ok(TakenOver::By(back));
            }
            let mut record = found.unwrap_or_else(|| Record::new(worker));
            // An earlier question of this worker's may have been carried out although nobody waited for it.
            if record.worker != *worker || record.died == 0 {
                record.died = record.died.saturating_add(1);
                record.worker = worker.clone();
                record.target = record.target.or(target);
                self.write_owner(backup, &record).await?;
            }
            Ok(TakenOver::After {
                deaths: record.died,
                target: record.target,
                stage: record.stage,
            })
        };
        self.in_turn(host, taking).await
    }

    /// Does what looks at an owner first and then writes one: two workers that look at the same time for what
    /// is a host's would both see nobody.
    async fn in_turn<T>(&self, host: &str, looking: impl Future<Output = Result<T>>) -> Result<T> {
        let object = names::workers_object(host);
        in_turn(&self.owners().await?, &object, TURN, looking).await
    }

    /// Another worker that is at work on a backup, and lives.
    async fn living_owner(&self, backup: BackupId, worker: &Worker) -> Result<Option<Worker>> {
        let other = self.owner(backup).await?.filter(|owner| owner != worker);
        match other {
            Some(owner) if self.alive(&owner.host).await?.contains(&owner) => Ok(Some(owner)),
            _ => Ok(None),
        }
    }

    /// Who is at work on a backup, and the volume to which that worker restores it.
    pub async fn owner_and_target(
        &self,
        backup: BackupId,
    ) -> Result<Option<(Worker, Option<VolumeId>)>> {
        let found = self.ownership(backup).await?;
        Ok(found.map(|found| (found.worker, found.target)))
    }

    /// Who is at work on a backup; `None` when nobody is recorded.
    pub async fn owner(&self, backup: BackupId) -> Result<Option<Worker>> {
        let found = self.ownership(backup).await?;
        Ok(found.map(|found| found.worker))
    }

    async fn ownership(&self, backup: BackupId) -> Result<Option<Record>> {
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
    pub(super) async fn owners(&self) -> Result<Pool> {
        self.pool(&self.default_pool).await
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn owners() {
        cinderblock_fuzz::run("owners", |input| {
            if let Ok(record) = serde_json::from_slice::<Record>(input) {
                let stored = serde_json::to_vec(&record).expect("ours is JSON");
                let again: Record = serde_json::from_slice(&stored).expect("ours");
                assert_eq!(again.worker, record.worker);
                assert_eq!(again.target, record.target);
                assert_eq!((again.stage, again.died), (record.stage, record.died));
                // It becomes the name of an object.
                let object = names::workers_object(&record.worker.host);
                assert!(!object.contains(|c: char| c.is_control()), "{object:?}");
            }
        });
    }
}
