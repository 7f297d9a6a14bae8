//! One function decides what every event does to a backup, its volume and its snapshot.
//!
//! Texts, statuses and exception classes are those of cinder/backup/manager.py. One thing is
//! different on purpose: Python looks at the status inside the message and marks the backup as
//! failed if it is not the expected one. Here `status` is the one in the database, so an
//! unexpected one means that the operation is over or was never begun (a second delivery of the
//! message, an operator's reset), and the row is left alone.

use super::event::{Blame, Change, Event, Refusal, Source, VolumeChange};
use super::status::{BackupStatus, SnapshotStatus, VolumeStatus};
use crate::user_message::Detail;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// Decides what `event` does to a backup whose row has `status`.
///
/// # Errors
/// [`Refusal`], with Cinder's words, if the event must not happen in this status.
pub fn transition(status: BackupStatus, event: &Event<'_>) -> Result<Change, Refusal> {
    match *event {
        Event::Create { source, service_up } => create(status, source, service_up),
        Event::Continue => expect(status, BackupStatus::Creating, "Continue backup"),
        Event::CreateSucceeded { source } => Ok(Change {
            // A backup that is no longer being made was deleted or reset meanwhile.
            backup: is_wanted(BackupStatus::Creating, status).then_some(BackupStatus::Available),
            ..release(source, VolumeStatus::BackingUp)
        }),
        Event::CreateFailed {
            source,
            reason,
            may_be_complete,
        } => Ok(create_failed(status, source, reason, may_be_complete)),
        Event::Restore { target } => restore(status, target),
        Event::RestoreSucceeded => Ok(restored(status, VolumeStatus::Available)),
        Event::RestoreFailed => Ok(restored(status, VolumeStatus::ErrorRestoring)),
        Event::Delete { service_up } => delete(status, service_up),
        Event::DeleteSucceeded { source } => Ok(Change {
            backup: Some(BackupStatus::Deleted),
            ..release(source, VolumeStatus::ErrorBackingUp)
        }),
        Event::DeleteFailed { reason } => Ok(Change::failed(reason)),
        Event::KeyDeleteFailed { reason } => Ok(Change {
            // As Python's worker leaves it, once it has been started again.
            backup: Some(BackupStatus::ErrorDeleting),
            ..Change::failed(reason)
        }),
        Event::Export => expect(status, BackupStatus::Available, "Export backup"),
        Event::Import => expect(status, BackupStatus::Creating, "Import record"),
        Event::ImportSucceeded => Ok(Change::of_backup(BackupStatus::Available)),
        Event::ImportFailed { reason } => Ok(Change::failed(reason)),
        Event::Reset { to } => reset(to),
        Event::Interrupted { source, encrypted } => Ok(interrupted(status, source, encrypted)),
    }
}

/// Whether the result of an operation is wanted that began when the backup was in `begun` and finds
/// it in `now`.
///
/// A backup that an operator calls `available` while it is being made must become so.
pub fn is_wanted(begun: BackupStatus, now: BackupStatus) -> bool {
    now == begun || (begun == BackupStatus::Creating && now == BackupStatus::Available)
}

/// Gives the source back to its user, and keeps in the volume's previous status how it went.
fn release(source: Source<'_>, outcome: VolumeStatus) -> Change {
    match source {
        Source::Volume { previous, .. } => Change {
            volume: Some(VolumeChange {
                status: previous.cloned().unwrap_or(VolumeStatus::Available),
                previous: Some(outcome),
            }),
            ..Change::default()
        },
        Source::Snapshot { .. } => Change {
            snapshot: Some(SnapshotStatus::Available),
            ..Change::default()
        },
        Source::Gone => Change::default(),
    }
}

fn create(status: BackupStatus, source: Source<'_>, service_up: bool) -> Result<Change, Refusal> {
    const OPERATION: &str = "Create backup";
    expect(status, BackupStatus::Creating, OPERATION)?;
    let busy = match source {
        Source::Volume { status, .. } if *status != VolumeStatus::BackingUp => {
            Some((Blame::Volume, "volume", status.as_str()))
        }
        Source::Snapshot { status } if *status != SnapshotStatus::BackingUp => {
            Some((Blame::Snapshot, "snapshot", status.as_str()))
        }
        _ => None,
    };
    if let Some((blame, what, got)) = busy {
        let reason = unexpected(OPERATION, what, "backing-up", got);
        return Err(Refusal {
            change: Box::new(Change::failed(&reason)),
            ..Refusal::new(blame, reason)
        });
    }
    if !service_up {
        let reason = "Create backup aborted due to backup service is down.";
        let refusal = Refusal::new(Blame::Backup, reason.to_owned());
        return Err(Refusal {
            change: Box::new(Change {
                backup: Some(BackupStatus::Error),
                fail_reason: Some(refusal.to_string()),
                ..release(source, VolumeStatus::ErrorBackingUp)
            }),
            detail: Some(Detail::BackupServiceDown),
            ..refusal
        });
    }
    Ok(Change::default())
}

fn create_failed(
    status: BackupStatus,
    source: Source<'_>,
    reason: &str,
    may_be_complete: bool,
) -> Change {
    let fails = match may_be_complete {
        // One that is `available` may be so because its end was written after all.
        true => status == BackupStatus::Creating,
        // Nor may one stay so that an operator has called so, and that has no data.
        false => is_wanted(BackupStatus::Creating, status),
    };
    Change {
        backup: fails.then_some(BackupStatus::Error),
        fail_reason: fails.then(|| reason.to_owned()),
        ..release(source, VolumeStatus::ErrorBackingUp)
    }
}

fn restore(status: BackupStatus, target: &VolumeStatus) -> Result<Change, Refusal> {
    const OPERATION: &str = "Restore backup";
    let restoring = status == BackupStatus::Restoring;
    let waiting = target.awaits_restore();
    // Several volumes may be created from one backup: cinder-volume asks for each, and the first that
    // is done has made the backup `available` again.
    if status == BackupStatus::Available && *target == VolumeStatus::Creating {
        return Ok(Change::of_backup(BackupStatus::Restoring));
    }
    if restoring && !waiting {
        let expected = "restoring-backup,creating";
        let reason = unexpected(OPERATION, "volume", expected, target.as_str());
        return Err(Refusal {
            change: Box::new(restored(status, VolumeStatus::ErrorRestoring)),
            detail: Some(Detail::VolumeInvalidState),
            ..Refusal::new(Blame::Volume, reason)
        });
    }
    expect(status, BackupStatus::Restoring, OPERATION).map_err(|refusal| Refusal {
        // Nobody will ever restore to a volume that still waits.
        change: match waiting {
            true => Box::new(Change::of_volume(VolumeStatus::Error)),
            false => Box::default(),
        },
        reason: format!(
            "Restore backup aborted: expected backup status restoring but got {status}."
        ),
        ..refusal
    })
}

fn restored(status: BackupStatus, target: VolumeStatus) -> Change {
    Change {
        backup: (status == BackupStatus::Restoring).then_some(BackupStatus::Available),
        ..Change::of_volume(target)
    }
}

fn delete(status: BackupStatus, service_up: bool) -> Result<Change, Refusal> {
    expect(status, BackupStatus::Deleting, "Delete_backup")?;
    if !service_up {
        let reason = "Delete backup is aborted due to backup service is down.";
        let change = Change {
            backup: Some(BackupStatus::ErrorDeleting),
            ..Change::failed(reason)
        };
        return Err(Refusal {
            change: Box::new(change),
            detail: Some(Detail::BackupServiceDown),
            ..Refusal::new(Blame::Backup, reason.to_owned())
        });
    }
    Ok(Change::default())
}

fn reset(to: BackupStatus) -> Result<Change, Refusal> {
    match to {
        BackupStatus::Available | BackupStatus::Error => Ok(Change::of_backup(to)),
        _ => Err(Refusal::new(
            Blame::Backup,
            format!("Reset backup status aborted, a backup cannot be reset to status {to}."),
        )),
    }
}

fn interrupted(status: BackupStatus, source: Source<'_>, encrypted: bool) -> Change {
    let released = match source {
        Source::Volume { status, previous } => match status {
            VolumeStatus::BackingUp => {
                Change::of_volume(previous.cloned().unwrap_or(VolumeStatus::Available))
            }
            VolumeStatus::RestoringBackup => Change::of_volume(VolumeStatus::ErrorRestoring),
            _ => Change::default(),
        },
        Source::Snapshot {
            status: SnapshotStatus::BackingUp,
        } => release(source, VolumeStatus::BackingUp),
        Source::Snapshot { .. } | Source::Gone => Change::default(),
    };
    match status {
        BackupStatus::Creating => Change {
            backup: Some(BackupStatus::Error),
            fail_reason: Some("incomplete backup reset on manager restart".to_owned()),
            ..released
        },
        BackupStatus::Restoring => Change {
            backup: Some(BackupStatus::Available),
            ..released
        },
        BackupStatus::Deleting if encrypted => Change::of_backup(BackupStatus::ErrorDeleting),
        _ => Change::default(),
    }
}

/// Refuses, and changes nothing, unless the backup has the status that the operation needs.
fn expect(status: BackupStatus, needed: BackupStatus, operation: &str) -> Result<Change, Refusal> {
    if status == needed {
        return Ok(Change::default());
    }
    let reason = unexpected(operation, "backup", needed.as_str(), status.as_str());
    Err(Refusal {
        detail: Some(Detail::BackupInvalidState),
        ..Refusal::new(Blame::Backup, reason)
    })
}

fn unexpected(operation: &str, what: &str, expected: &str, got: &str) -> String {
    format!("{operation} aborted, expected {what} status {expected} but got {got}.")
}
