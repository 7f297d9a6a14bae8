//! What a worker does at the moment, for an operator who asks.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use api_compat::ids::BackupId;
use tracing::info;

use super::claim::{Phase, Running};
use super::pace::Pace;
use super::{Manager, lock, now};
use crate::transfer::Direction;
use crate::vault::Report;

/// How often it is told how far operations are.
const TOLD: Duration = Duration::from_secs(2);

/// Over how long a rate is a mean: with a low limit little is moved at a time.
const RATE: Duration = Duration::from_secs(20);

/// How much is being told at once, at most: what a cluster does not take holds a thread.
pub(super) const TELLING: usize = 2;

/// An operation on a backup, as it is now.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The backup.
    pub backup: BackupId,
    /// Since when.
    pub begun: Instant,
    /// What it is at.
    pub phase: Phase,
    /// Once data is moved.
    pub data: Option<Data>,
    /// Whether somebody does not want its result any more.
    pub called_off: bool,
}

/// How far the data of an operation is, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Which way it goes.
    pub direction: Direction,
    /// Moved, or found to be zero or the same.
    pub done: u64,
    /// To be dealt with, at most.
    pub planned: u64,
}

impl Operation {
    fn new(backup: BackupId, running: &Running, paused: bool) -> Self {
        Self {
            backup,
            begun: running.begun,
            phase: match running.phase {
                Phase::MovingData if paused => Phase::Paused,
                phase => phase,
            },
            data: running.moving.as_ref().map(|(direction, progress)| Data {
                direction: *direction,
                done: progress.done(),
                planned: progress.planned(),
            }),
            called_off: running.cancel.is_cancelled(),
        }
    }

    /// What is told others of it.
    fn report(&self, pace: &mut Pace) -> Report {
        let reported_at = now();
        let told = self.data.and_then(|it| pace.look(it.planned, it.done));
        Report {
            phase: self.phase.to_string(),
            begun_at: reported_at - self.begun.elapsed(),
            reported_at,
            bytes_done: self.data.map(|data| data.done),
            bytes_planned: self.data.map(|data| data.planned),
            bytes_per_second: told.map(|told| told.rate),
            seconds_left: told.and_then(|told| told.left.as_ref().map(Duration::as_secs)),
        }
    }
}

impl Manager {
    /// What this worker is at work on, or waits for.
    pub fn operations(&self) -> Vec<Operation> {
        let awaiting: Vec<Operation> = lock(&self.awaiting)
            .iter()
            .map(|(backup, awaited)| Operation {
                backup: *backup,
                begun: awaited.since,
                phase: Phase::WaitingForCinderVolume,
                data: None,
                called_off: false,
            })
            .collect();
        let paused = self.capacity.limits.is_paused();
        let running = lock(&self.running);
        let running = running.iter();
        running
            .map(|(backup, running)| Operation::new(*backup, running, paused))
            .chain(awaiting)
            .collect()
    }

    /// Tells whoever looks at a backup how far the operation on it is, again and again.
    pub async fn tell(&self) {
        let mut told: HashMap<BackupId, (Phase, Pace)> = HashMap::new();
        loop {
            tokio::time::sleep(TOLD).await;
            let operations = self.operations();
            let under_way: HashSet<BackupId> = operations.iter().map(|it| it.backup).collect();
            told.retain(|backup, _| under_way.contains(backup));
            for operation in operations {
                let known = told.get(&operation.backup).map(|(phase, _)| *phase);
                let news = match operation.phase {
                    Phase::MovingData => true,
                    // That one tells of it.
                    Phase::WaitingForAnotherWorker => false,
                    // Thousands may wait.
                    phase => known != Some(phase),
                };
                if !news {
                    continue;
                }
                let (backup, phase) = (operation.backup, operation.phase);
                let mut pace = match told.remove(&backup) {
                    Some((known, pace)) if known == phase => pace,
                    _ => {
                        let done = operation.data.map_or(0, |data| data.done);
                        Pace::new(TOLD / 2, done).over(RATE)
                    }
                };
                let (me, vault) = (self.me.clone(), self.vault.clone());
                let report = operation.report(&mut pace);
                let telling = async move { vault.report(backup, &me, report).await };
                if Self::ask_among(&self.telling, telling).await == Some(true) {
                    told.insert(backup, (phase, pace));
                }
            }
        }
    }

    /// Logs how much there is to do, and how far each operation is.
    pub fn report(&self) {
        let operations = self.operations();
        info!(
            operations = lock(&self.running).len(),
            awaiting_cinder_volume = lock(&self.awaiting).len(),
            vault_answers = *self.ready.borrow(),
            paused = self.capacity.limits.is_paused(),
            "State of this worker"
        );
        for operation in operations {
            info!(
                backup = %operation.backup,
                seconds = operation.begun.elapsed().as_secs(),
                phase = %operation.phase,
                bytes_done = operation.data.map(|data| data.done),
                bytes_planned = operation.data.map(|data| data.planned),
                called_off = operation.called_off,
                "At work on a backup"
            );
        }
    }
}
