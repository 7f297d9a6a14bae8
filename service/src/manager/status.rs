//! `reset_status`: an operator sets a backup's status by hand. An operation that is under way ends.

use api_compat::ids::BackupId;
use api_compat::notification::BackupEvent;
use api_compat::state::driver::{self, Operation};
use api_compat::state::{BackupStatus, Event, is_wanted, transition};
use tracing::{error, info};

use super::ending::Reached;
use super::owner::Owner;
use super::{Context, Error, Manager, lock, now};
use crate::db::{Done, Subject};

impl Manager {
    /// Sets the status. A backup that is set to `error` gives its temporary volume back.
    pub(super) async fn reset_status(
        &self,
        context: Context,
        id: BackupId,
        to: BackupStatus,
    ) -> Result<(), Error> {
        info!(backup = %id, status = %to, "Reset backup status started");
        let reset = self.reset(&context, id, to).await;
        if let Err(error) = &reset {
            error!(backup = %id, %error, "Reset backup status failed");
        }
        reset
    }

    async fn reset(&self, context: &Context, id: BackupId, to: BackupStatus) -> Result<(), Error> {
        let row = self.backup(id).await?;
        let status = row.status.unwrap_or(BackupStatus::Error);
        if !self.is_ours(&row) {
            let theirs = row.service.as_deref().unwrap_or_default();
            let refusal = driver::refuse(Operation::ResetStatus, &self.settings.driver, theirs);
            return Err(refusal.into());
        }
        let change = transition(status, &Event::Reset { to })?;
        let subject = Subject::alone(id, status);
        let now = now().naive_utc();
        self.db.change(subject, &change, Done::Nothing, now).await?;
        if !is_wanted(status, to) {
            self.call_off(context, id).await;
        }
        if to == BackupStatus::Error && !self.is_at_work(id).await {
            self.remove_temporary(context, id).await;
        }
        let row = self.backup(id).await?;
        self.notify(context, &row, BackupEvent::ResetStatusEnd)
            .await;
        Ok(())
    }

    /// Whether an operation of this host works on a backup. At its end it gives back what
    /// cinder-volume made for it, which it may still read.
    async fn is_at_work(&self, id: BackupId) -> bool {
        let here = lock(&self.running).contains_key(&id);
        here || matches!(self.owner(id).await, Owner::Living(_) | Owner::Unknown)
    }

    /// Ends whatever still works on a backup or waits for it: its result is not wanted any more.
    async fn call_off(&self, context: &Context, id: BackupId) {
        let awaited = lock(&self.awaiting).remove(&id);
        if let Some(awaited) = awaited {
            awaited.cancel();
            let called_off = &Error::CalledOff;
            self.fail_create(context, id, called_off, None, Reached::Nothing)
                .await;
        }
        if let Some(running) = lock(&self.running).get(&id) {
            running.cancel.cancel();
        }
    }
}
