//! How the making of a backup ends that does not succeed: told, written, and its source let go.

use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, Change, Event, Source, is_wanted, transition};
use api_compat::user_message::{Action, Detail};
use tracing::{error, info};

use super::owner::Owner;
use super::volumes::Making;
use super::{Context, Error, Manager, now};
use crate::db::{Done, Subject};

/// How long cinder-api may take from the status of a volume to the row of its backup.
pub(super) const SETTLE: Duration = Duration::from_secs(3);

/// How far an attempt to make a backup has got. The same request may reach two workers of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// It has not recorded where the backup will lie: whoever has is another.
    Nothing,
    /// It has, and the data is not there.
    Placed,
    /// The data is there.
    Data,
}

impl Reached {
    /// Whether another attempt makes the backup, or has made it: this one must not end it.
    pub fn is_anothers(self, row: &Backup) -> bool {
        let wanted = row
            .status
            .is_some_and(|status| is_wanted(BackupStatus::Creating, status));
        self == Self::Nothing && row.service_metadata.is_some() && wanted
    }
}

impl Manager {
    /// Tells of a failure, in the log, in the rows (the reason, and the source's status back) and,
    /// with `detail`, to the user. A backup that is not being created any more keeps its status,
    /// which is somebody else's by now, and one that another attempt makes is left alone.
    pub(super) async fn fail_create(
        &self,
        context: &Context,
        id: BackupId,
        error: &Error,
        detail: Option<Detail>,
        reached: Reached,
    ) {
        let anothers = matches!(error, Error::Elsewhere(_)) && reached != Reached::Nothing;
        if anothers || self.is_made_elsewhere(id).await {
            info!(backup = %id, %error, "Another worker makes the backup, or has made it");
            return;
        }
        match (self.backup(id).await, error) {
            (Ok(row), _) if reached.is_anothers(&row) => {
                info!(backup = %id, "Another attempt makes the backup, or has made it");
                return self.disown(id).await;
            }
            (Err(Error::BackupNotFound(_)), _) => {
                info!(backup = %id, "The backup is gone: letting go what it was made of");
            }
            // What somebody asked for is no failure.
            (_, Error::CalledOff) => info!(backup = %id, %error, "Create backup ended"),
            _ => {
                error!(backup = %id, %error, "Create backup failed");
                if let Some(detail) = detail {
                    self.tell_user(context, Action::Create, id, detail).await;
                }
            }
        }
        let reason = &error.to_string();
        let written = Self::write_anew(|| self.write_failure(id, reason, reached)).await;
        if let Err(error) = written {
            error!(backup = %id, %error, "Cannot write what became of the backup");
        }
        self.make_independent(id).await;
        self.disown(id).await;
    }

    /// Whether another worker makes a backup that this one was at work on, or has made it.
    pub(super) async fn is_made_elsewhere(&self, id: BackupId) -> bool {
        let owner = self.owner(id).await;
        let Ok(row) = self.db.backup(id).await else {
            // What cannot be known to be this one's is left alone.
            return true;
        };
        is_made_elsewhere(&owner, row.as_ref(), &self.settings.host)
    }

    async fn write_failure(
        &self,
        id: BackupId,
        reason: &str,
        reached: Reached,
    ) -> Result<(), Error> {
        let failed = |source| Event::CreateFailed {
            source,
            reason,
            may_be_complete: reached == Reached::Data,
        };
        let making = match self.making(id).await {
            Ok(making) if reached.is_anothers(&making.backup) => return Ok(()),
            Ok(making) => making,
            Err(Error::BackupNotFound(_)) => return self.release_deleted(id).await,
            Err(error) => {
                error!(backup = %id, %error, "Cannot read what the backup is made of");
                let subject = Subject::alone(id, BackupStatus::Creating);
                return self.write_change(subject, &failed(Source::Gone)).await;
            }
        };
        let source = self.release(&making).await?;
        if self.expect_here(&making.backup).is_err() {
            return Ok(());
        }
        let subject = self.of_this_host(making.subject());
        self.write_change(subject, &failed(source)).await
    }

    /// A subject that is left alone if another host has taken it over.
    pub(super) fn of_this_host<'a>(&'a self, subject: Subject<'a>) -> Subject<'a> {
        Subject {
            host: Some(&self.settings.host),
            ..subject
        }
    }

    async fn write_change(&self, subject: Subject<'_>, event: &Event<'_>) -> Result<(), Error> {
        let change = transition(subject.status, event)?;
        if change == Change::default() {
            return Ok(());
        }
        let now = now().naive_utc();
        Ok(self.db.change(subject, &change, Done::Nothing, now).await?)
    }

    /// What gets its status back at the end of a backup: nothing where another backup needs it.
    pub(super) async fn release<'a>(&self, making: &'a Making) -> Result<Source<'a>, Error> {
        match self.is_held_for(making).await? {
            true => Ok(making.held()),
            false => Ok(Source::Gone),
        }
    }

    /// Whether the source has the status of one that is being backed up, and this is the only backup
    /// for which that can be.
    pub(super) async fn is_held_for(&self, making: &Making) -> Result<bool, Error> {
        let held = !matches!(making.held(), Source::Gone);
        Ok(held && !self.db.is_backed_up_by_another(&making.backup).await?)
    }

    /// Lets go what a backup was made of whose row is gone: who removed that, a worker of Python's or
    /// a database's administrator, may have left the rest as it was.
    pub(super) async fn release_deleted(&self, id: BackupId) -> Result<(), Error> {
        let Some(row) = self.db.backup_even_deleted(id).await? else {
            return Ok(());
        };
        let making = self.making_of(row.clone()).await?;
        if !self.is_held_for(&making).await? {
            return Ok(());
        }
        // cinder-api takes a volume for a new backup before that has a row.
        tokio::time::sleep(SETTLE).await;
        let making = self.making_of(row).await?;
        let source = self.release(&making).await?;
        let change = transition(BackupStatus::Deleting, &Event::DeleteSucceeded { source })?;
        let now = now().naive_utc();
        Ok(self
            .db
            .change_source(making.subject(), &change, now)
            .await?)
    }
}

/// Another worker of the same host may have completed it, too, and be gone.
fn is_made_elsewhere(owner: &Owner, row: Option<&Backup>, host: &str) -> bool {
    let Some(row) = row else {
        return matches!(owner, Owner::Living(_));
    };
    let complete = row.status == Some(BackupStatus::Available);
    let elsewhere = row.host.as_deref() != Some(host);
    // Whatever stands beside it: the row is what its writes go by.
    elsewhere
        || match owner {
            Owner::Me | Owner::Unknown => false,
            Owner::Living(_) => true,
            Owner::Nobody | Owner::Dead(_) => complete,
        }
}

#[cfg(test)]
mod tests {
    use api_compat::state::BackupStatus as B;

    use super::super::tests::row;
    use super::*;
    use crate::vault::Worker;

    #[test]
    fn what_another_worker_makes_or_has_made_is_left_to_it() {
        let worker = Worker {
            host: "other".to_owned(),
            id: uuid::Uuid::nil(),
        };
        let living = || Owner::Living(worker.clone());
        let dead = || Owner::Dead(worker.clone());
        for (owner, host, status, elsewhere) in [
            (Owner::Me, "me", B::Creating, false),
            // It has said so although another one had taken it over.
            (Owner::Me, "other", B::Creating, true),
            // Called so by hand.
            (Owner::Me, "me", B::Available, false),
            (living(), "me", B::Creating, true),
            // It could not be recorded who makes it.
            (Owner::Nobody, "me", B::Creating, false),
            (Owner::Nobody, "me", B::Available, true),
            (Owner::Nobody, "other", B::Creating, true),
            (dead(), "me", B::Creating, false),
            (dead(), "other", B::Error, true),
            (Owner::Unknown, "me", B::Available, false),
            (Owner::Unknown, "other", B::Creating, true),
        ] {
            let row = row(|row| {
                row.status = Some(status);
                row.host = Some(host.to_owned());
            });
            let found = is_made_elsewhere(&owner, Some(&row), "me");
            assert_eq!(found, elsewhere, "{owner:?} {host} {status}");
        }
        assert!(is_made_elsewhere(&living(), None, "me"));
        assert!(!is_made_elsewhere(&Owner::Nobody, None, "me"));
    }

    #[test]
    fn what_another_attempt_has_placed_is_left_to_it_while_it_is_wanted() {
        let base = Some(r#"{"base": "volume-1.backup.2"}"#);
        for (reached, status, placed, anothers) in [
            (Reached::Nothing, B::Creating, base, true),
            // Complete: whoever waited for cinder-volume was not told.
            (Reached::Nothing, B::Available, base, true),
            (Reached::Nothing, B::Creating, None, false),
            // Called so by hand, without any data.
            (Reached::Nothing, B::Available, None, false),
            (Reached::Nothing, B::Error, base, false),
            (Reached::Nothing, B::Deleting, base, false),
            (Reached::Placed, B::Creating, base, false),
            (Reached::Data, B::Creating, base, false),
        ] {
            let row = row(|row| {
                row.status = Some(status);
                row.service_metadata = placed.map(str::to_owned);
            });
            assert_eq!(reached.is_anothers(&row), anothers, "{reached:?} {status}");
        }
    }
}
