//! What a worker does at the moment, for an operator who asks.

use std::time::{Duration, Instant};

use api_compat::ids::BackupId;
use tracing::info;

use super::claim::{Phase, Running};
use super::pace::Pace;
use super::{Manager, lock, now};
use crate::transfer::Direction;
use crate::vault::Report;

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
    fn new(backup: BackupId, running: &Running) -> Self {
        Self {
            backup,
            begun: running.begun,
            phase: running.phase,
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
    /// What this worker is at work on.
    pub fn operations(&self) -> Vec<Operation> {
        let running = lock(&self.running);
        let operations = running.iter();
        operations
            .map(|(backup, running)| Operation::new(*backup, running))
            .collect()
    }

    /// Shows whoever looks at a backup how far the operation on it is.
    pub(super) async fn show(&self, backup: BackupId, pace: &mut Pace) {
        let operation = lock(&self.running)
            .get(&backup)
            .map(|running| Operation::new(backup, running));
        if let Some(operation) = operation {
            let (me, report) = (self.me.clone(), operation.report(pace));
            let _ = self
                .ask(move |vault| async move { vault.report(backup, &me, report).await })
                .await;
        }
    }

    /// Logs how much there is to do, and how far each operation is.
    pub fn report(&self) {
        let operations = self.operations();
        info!(
            operations = operations.len(),
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
