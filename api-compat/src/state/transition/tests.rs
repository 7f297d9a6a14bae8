use super::*;

use BackupStatus as B;
use VolumeStatus as V;

fn volume<'a>(status: &'a V, previous: &'a V) -> Source<'a> {
    Source::Volume {
        status,
        previous: Some(previous),
    }
}

fn snapshot(status: &SnapshotStatus) -> Source<'_> {
    Source::Snapshot { status }
}

fn change(backup: Option<B>, volume: Option<(V, Option<V>)>) -> Change {
    Change {
        backup,
        volume: volume.map(|(status, previous)| VolumeChange { status, previous }),
        ..Change::default()
    }
}

fn refused(status: B, event: &Event<'_>) -> Refusal {
    transition(status, event).expect_err("the event is refused")
}

#[test]
fn a_backup_of_a_volume_that_waits_begins() {
    let waiting = [
        volume(&V::BackingUp, &V::Available),
        snapshot(&SnapshotStatus::BackingUp),
    ];
    for source in waiting {
        let event = Event::Create {
            source,
            service_up: true,
        };
        assert_eq!(transition(B::Creating, &event), Ok(Change::default()));
    }
    assert_eq!(
        transition(B::Creating, &Event::Continue),
        Ok(Change::default())
    );
}

#[test]
fn a_backup_of_anything_else_fails_and_leaves_the_source_alone() {
    let in_use = SnapshotStatus::Available;
    for (source, class, text) in [
        (
            volume(&V::InUse, &V::Available),
            "InvalidVolume",
            "Create backup aborted, expected volume status backing-up but got in-use.",
        ),
        (
            snapshot(&in_use),
            "InvalidSnapshot",
            "Create backup aborted, expected snapshot status backing-up but got available.",
        ),
    ] {
        let event = Event::Create {
            source,
            service_up: true,
        };
        let refusal = refused(B::Creating, &event);
        assert_eq!(refusal.failure().class, class);
        assert_eq!(refusal.detail, None);
        assert_eq!(refusal.change.backup, Some(B::Error));
        assert_eq!(refusal.change.fail_reason.as_deref(), Some(text));
        assert_eq!(
            (refusal.change.volume, refusal.change.snapshot),
            (None, None)
        );
    }
}

#[test]
fn without_a_driver_the_source_is_given_back() {
    let event = Event::Create {
        source: volume(&V::BackingUp, &V::InUse),
        service_up: false,
    };
    let refusal = refused(B::Creating, &event);
    assert_eq!(refusal.detail, Some(Detail::BackupServiceDown));
    assert_eq!(
        refusal.change.fail_reason.as_deref(),
        Some("Invalid backup: Create backup aborted due to backup service is down.")
    );
    let given_back = change(Some(B::Error), Some((V::InUse, Some(V::ErrorBackingUp))));
    assert_eq!(refusal.change.volume, given_back.volume);
    assert_eq!(refusal.change.backup, given_back.backup);
}

#[test]
fn the_end_of_a_backup() {
    let source = volume(&V::BackingUp, &V::InUse);
    let done = Event::CreateSucceeded { source };
    assert_eq!(
        transition(B::Creating, &done),
        Ok(change(
            Some(B::Available),
            Some((V::InUse, Some(V::BackingUp)))
        ))
    );
    for meanwhile in [B::Deleting, B::Deleted, B::Error] {
        assert_eq!(transition(meanwhile, &done).unwrap().backup, None);
    }
    let failed = Event::CreateFailed {
        source,
        reason: "no space",
        may_be_complete: false,
    };
    let expected = change(Some(B::Error), Some((V::InUse, Some(V::ErrorBackingUp))));
    assert_eq!(
        transition(B::Creating, &failed),
        Ok(Change {
            fail_reason: Some("no space".into()),
            ..expected
        })
    );
    let of_snapshot = Event::CreateSucceeded {
        source: snapshot(&SnapshotStatus::BackingUp),
    };
    let changed = transition(B::Creating, &of_snapshot).unwrap();
    assert_eq!(changed.snapshot, Some(SnapshotStatus::Available));
    assert_eq!(changed.volume, None);
    let gone = Event::CreateFailed {
        source: Source::Gone,
        reason: "x",
        may_be_complete: false,
    };
    assert_eq!(transition(B::Creating, &gone).unwrap().volume, None);
}

#[test]
fn a_second_delivery_changes_nothing() {
    let source = volume(&V::Available, &V::BackingUp);
    let create = Event::Create {
        source,
        service_up: true,
    };
    let restore = Event::Restore {
        target: &V::Available,
    };
    for event in [
        create,
        Event::Continue,
        restore,
        Event::Delete { service_up: true },
    ] {
        let refusal = refused(B::Available, &event);
        assert_eq!(*refusal.change, Change::default(), "{event:?}");
        assert_eq!(refusal.detail, Some(Detail::BackupInvalidState));
    }
}

#[test]
fn refusals_of_the_backups_status_are_cinders_words() {
    let source = volume(&V::BackingUp, &V::Available);
    let create = Event::Create {
        source,
        service_up: true,
    };
    let restore = Event::Restore {
        target: &V::RestoringBackup,
    };
    for (event, text) in [
        (
            create,
            "Create backup aborted, expected backup status creating but got error.",
        ),
        (
            restore,
            "Restore backup aborted: expected backup status restoring but got error.",
        ),
        (
            Event::Delete { service_up: true },
            "Delete_backup aborted, expected backup status deleting but got error.",
        ),
        (
            Event::Export,
            "Export backup aborted, expected backup status available but got error.",
        ),
        (
            Event::Import,
            "Import record aborted, expected backup status creating but got error.",
        ),
    ] {
        let refusal = refused(B::Error, &event);
        assert_eq!(refusal.to_string(), format!("Invalid backup: {text}"));
        assert_eq!(refusal.failure().class, "InvalidBackup");
    }
}

#[test]
fn a_restore_needs_a_volume_that_waits() {
    for target in [V::RestoringBackup, V::Creating] {
        let event = Event::Restore { target: &target };
        assert_eq!(transition(B::Restoring, &event), Ok(Change::default()));
    }
    let refusal = refused(B::Restoring, &Event::Restore { target: &V::InUse });
    assert_eq!(
        refusal.to_string(),
        "Invalid volume: Restore backup aborted, expected volume status \
         restoring-backup,creating but got in-use."
    );
    assert_eq!(refusal.detail, Some(Detail::VolumeInvalidState));
    let expected = change(Some(B::Available), Some((V::ErrorRestoring, None)));
    assert_eq!(*refusal.change, expected);
}

#[test]
fn the_next_of_several_volumes_from_one_backup_takes_it_back() {
    let next = Event::Restore {
        target: &V::Creating,
    };
    let taken = change(Some(B::Restoring), None);
    assert_eq!(transition(B::Available, &next), Ok(taken));
    let refusal = refused(B::Error, &next);
    assert_eq!(*refusal.change, change(None, Some((V::Error, None))));
}

#[test]
fn a_volume_that_waits_in_vain_is_not_left_waiting() {
    let target = V::RestoringBackup;
    let refusal = refused(B::Available, &Event::Restore { target: &target });
    assert_eq!(*refusal.change, change(None, Some((V::Error, None))));
}

#[test]
fn the_end_of_a_restore() {
    for (event, volume) in [
        (Event::RestoreSucceeded, V::Available),
        (Event::RestoreFailed, V::ErrorRestoring),
    ] {
        assert_eq!(
            transition(B::Restoring, &event),
            Ok(change(Some(B::Available), Some((volume, None))))
        );
        assert_eq!(transition(B::Error, &event).unwrap().backup, None);
    }
}

#[test]
fn a_delete() {
    let up = Event::Delete { service_up: true };
    assert_eq!(transition(B::Deleting, &up), Ok(Change::default()));
    let refusal = refused(B::Deleting, &Event::Delete { service_up: false });
    assert_eq!(refusal.change.backup, Some(B::ErrorDeleting));
    assert_eq!(
        refusal.change.fail_reason.as_deref(),
        Some("Delete backup is aborted due to backup service is down.")
    );
    let kept = transition(B::Deleting, &Event::KeyDeleteFailed { reason: "away" }).unwrap();
    assert_eq!(
        (kept.backup, kept.fail_reason.as_deref()),
        (Some(B::ErrorDeleting), Some("away"))
    );
    let failed = transition(B::Deleting, &Event::DeleteFailed { reason: "busy" }).unwrap();
    assert_eq!(failed.backup, Some(B::Error));
    assert_eq!(failed.fail_reason.as_deref(), Some("busy"));
}

#[test]
fn a_reset_leads_to_available_or_error_only() {
    for status in B::ALL {
        for to in [B::Available, B::Error] {
            assert_eq!(
                transition(status, &Event::Reset { to }),
                Ok(change(Some(to), None))
            );
        }
    }
    let refusal = refused(B::Error, &Event::Reset { to: B::Deleted });
    assert_eq!(*refusal.change, Change::default());
}

#[test]
fn what_a_dead_worker_left_is_cleaned_up() {
    let interrupted = |status, source, encrypted| {
        transition(status, &Event::Interrupted { source, encrypted }).unwrap()
    };
    let creating = interrupted(B::Creating, volume(&V::BackingUp, &V::InUse), false);
    assert_eq!(
        creating,
        Change {
            fail_reason: Some("incomplete backup reset on manager restart".into()),
            ..change(Some(B::Error), Some((V::InUse, None)))
        }
    );
    assert_eq!(
        interrupted(
            B::Restoring,
            volume(&V::RestoringBackup, &V::Available),
            false
        ),
        change(Some(B::Available), Some((V::ErrorRestoring, None)))
    );
    assert_eq!(
        interrupted(B::Creating, volume(&V::InUse, &V::Available), false).volume,
        None
    );
    let of_snapshot = interrupted(B::Creating, snapshot(&SnapshotStatus::BackingUp), false);
    assert_eq!(of_snapshot.snapshot, Some(SnapshotStatus::Available));
    assert_eq!(
        interrupted(B::Deleting, Source::Gone, false),
        Change::default()
    );
    assert_eq!(
        interrupted(B::Deleting, Source::Gone, true),
        change(Some(B::ErrorDeleting), None)
    );
    let available = interrupted(B::Available, volume(&V::BackingUp, &V::InUse), false);
    assert_eq!(available, Change::default());
}

#[test]
fn a_backup_that_is_deleted_while_it_is_made_gives_its_source_back() {
    let delete = |source| transition(B::Deleting, &Event::DeleteSucceeded { source });
    let released = change(Some(B::Deleted), Some((V::InUse, Some(V::ErrorBackingUp))));
    assert_eq!(delete(volume(&V::BackingUp, &V::InUse)), Ok(released));
    assert_eq!(delete(Source::Gone), Ok(change(Some(B::Deleted), None)));
}

#[test]
fn what_was_reset_or_deleted_is_not_wanted() {
    assert!(is_wanted(B::Creating, B::Creating));
    assert!(is_wanted(B::Creating, B::Available));
    assert!(is_wanted(B::Restoring, B::Restoring));
    for now in [B::Error, B::Deleting, B::Deleted, B::ErrorDeleting] {
        assert!(!is_wanted(B::Creating, now));
        assert!(!is_wanted(B::Restoring, now));
    }
    assert!(!is_wanted(B::Restoring, B::Available));
}

#[test]
fn a_backup_that_was_called_available_while_it_was_made_tells_how_that_ended() {
    let source = Source::Gone;
    let made = transition(B::Available, &Event::CreateSucceeded { source });
    assert_eq!(made, Ok(change(Some(B::Available), None)));
    let reason = "full";
    let failed = Event::CreateFailed {
        source,
        reason,
        may_be_complete: false,
    };
    let failed = transition(B::Available, &failed);
    assert_eq!(failed, Ok(Change::failed(reason)));
}

#[test]
fn a_backup_that_may_be_complete_stays_available() {
    let reason = "Lost connection to server during query";
    let in_doubt = |status, source| {
        let event = Event::CreateFailed {
            source,
            reason,
            may_be_complete: true,
        };
        transition(status, &event)
    };
    let made = in_doubt(B::Creating, Source::Gone);
    assert_eq!(made, Ok(Change::failed(reason)));
    for status in B::ALL.into_iter().filter(|status| *status != B::Creating) {
        assert_eq!(in_doubt(status, Source::Gone), Ok(Change::default()));
        // Whoever waits for it is let go all the same.
        let source = volume(&V::BackingUp, &V::InUse);
        let released = change(None, Some((V::InUse, Some(V::ErrorBackingUp))));
        assert_eq!(in_doubt(status, source), Ok(released));
    }
}
