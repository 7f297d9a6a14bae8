//! What a worker does at the moment, for an operator who asks the process.

use tracing::info;

use super::claim::Running;
use super::{Manager, lock};

impl Manager {
    /// Logs how much there is to do, and how far each operation is.
    pub fn report(&self) {
        let running: Vec<_> = lock(&self.running)
            .iter()
            .map(|(backup, running)| (*backup, running.clone()))
            .collect();
        info!(
            operations = running.len(),
            awaiting_cinder_volume = lock(&self.awaiting).len(),
            vault_answers = *self.ready.borrow(),
            paused = self.capacity.limits.is_paused(),
            "State of this worker"
        );
        for (backup, running) in running {
            let Running {
                begun,
                cancel,
                phase,
                progress,
                ..
            } = running;
            let progress = progress.as_deref();
            info!(
                %backup,
                seconds = begun.elapsed().as_secs(),
                %phase,
                bytes_done = progress.map(|progress| progress.done()),
                bytes_planned = progress.map(|progress| progress.planned()),
                called_off = cancel.is_cancelled(),
                "At work on a backup"
            );
        }
    }
}
