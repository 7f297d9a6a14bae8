//! What a worker tells of its work on a backup, for whoever looks.
//!
//! It is an attribute of the object that names the worker, so that it goes when that goes.

use api_compat::ids::BackupId;
use api_compat::names;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Result, Stage, Vault, Worker};

const ATTRIBUTE: &str = "report";

/// More than a report can have.
const LIMIT: usize = 4096;

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it is at, as `moving_data`.
    pub phase: String,
    /// Since when the worker is at it.
    pub begun_at: DateTime<Utc>,
    /// When this was told.
    pub reported_at: DateTime<Utc>,
    /// Bytes that are moved, or found to be zero or the same.
    pub bytes_done: Option<u64>,
    /// Bytes that are to be dealt with, at most.
    pub bytes_planned: Option<u64>,
    /// Bytes a second in the last seconds.
    pub bytes_per_second: Option<u64>,
    /// How long it takes at that rate.
    pub seconds_left: Option<u64>,
}

/// Who is at work on a backup, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The worker that is recorded.
    pub worker: Worker,
    /// Whether it lives.
    pub lives: bool,
    /// Whether it has all that it needs from others.
    pub stage: Stage,
    /// What it told.
    pub report: Option<Report>,
}

impl Work {
    /// What the worker told, without the rate and what follows from it where the worker is dead, or told it
    /// longer ago than one that says nothing counts as alive.
    #[must_use]
    pub fn current(self, now: DateTime<Utc>) -> Option<Report> {
        let report = self.report?;
        let age = (now - report.reported_at).to_std().unwrap_or_default();
        let is_old = age > Vault::LEASE;
        Some(match is_old || !self.lives {
            false => report,
            true => Report {
                bytes_per_second: None,
                seconds_left: None,
                ..report
            },
        })
    }
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Who wrote it: what another one did that has died does not count.
    worker: Uuid,
    #[serde(flatten)]
    report: Report,
}

impl Vault {
    /// Tells how far a worker is with a backup. Nothing is written, and false returned, where nobody is
    /// recorded to be at work on it.
    pub async fn report(&self, backup: BackupId, worker: &Worker, report: Report) -> Result<bool> {
        let worker = worker.id;
        let text = serde_json::to_vec(&Stored { worker, report }).unwrap_or_default();
        let (object, pool) = (names::owner_object(backup), self.owners().await?);
        Ok(pool.set_attribute(&object, ATTRIBUTE, &text).await?)
    }

    /// Who is at work on a backup, and how far; `None` when nobody is recorded.
    pub async fn work(&self, backup: BackupId) -> Result<Option<Work>> {
        let Some((worker, stage)) = self.owner_and_stage(backup).await? else {
            return Ok(None);
        };
        let lives = self.alive(&worker.host).await?.contains(&worker);
        let (object, pool) = (names::owner_object(backup), self.owners().await?);
        let text = pool.attribute(&object, ATTRIBUTE, LIMIT).await?;
        let stored = text.and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
        let report = stored.filter(|stored| stored.worker == worker.id);
        Ok(Some(Work {
            worker,
            lives,
            stage,
            report: report.map(|stored| stored.report),
        }))
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn reports() {
        cinderblock_fuzz::run("reports", |input| {
            let Ok(stored) = serde_json::from_slice::<Stored>(input) else {
                return;
            };
            let text = serde_json::to_vec(&stored).expect("ours is JSON");
            let again: Stored = serde_json::from_slice(&text).expect("ours");
            assert_eq!(again.report, stored.report);
            let worker = Worker {
                host: "h".to_owned(),
                id: stored.worker,
            };
            let work = Work {
                worker,
                lives: true,
                stage: Stage::Begun,
                report: Some(stored.report.clone()),
            };
            // Clocks differ, and a report may be of any time.
            for now in [
                DateTime::UNIX_EPOCH,
                DateTime::<Utc>::MAX_UTC,
                DateTime::<Utc>::MIN_UTC,
            ] {
                let current = work.clone().current(now).expect("there is one");
                assert_eq!(current.phase, stored.report.phase);
                assert!(current.bytes_per_second.is_none() || current == stored.report);
            }
        });
    }
}
