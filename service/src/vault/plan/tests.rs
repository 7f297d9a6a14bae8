use super::*;
use crate::rbd;
use crate::transfer::BlockError;

const VOLUME: &str = "06a314a8-3f21-44ef-b19e-2fb9b505d554";
const FULL: &str = "246c011b-8fab-4538-90c2-f0ded6b69811";
const OTHER: &str = "870e3751-9141-4c1a-8fdc-6f19af2279c4";

fn id(text: &str) -> BackupId {
    text.parse().expect("an id")
}

fn snapshot(backup: &str) -> String {
    format!("backup.{backup}.snap.1763672614.45")
}

fn parent() -> Parent {
    Parent {
        backup: id(FULL),
        base: own(FULL),
    }
}

fn own(backup: &str) -> BackupImage {
    BackupImage::own(VOLUME.parse().expect("an id"), id(backup))
}

fn legacy() -> BackupImage {
    BackupImage::legacy(VOLUME.parse().expect("an id"))
}

fn deletion(record: &BackupRecord, candidate: &Candidate, metadata_object: bool) -> Deletion {
    let deletion = record.deletion(candidate, metadata_object);
    deletion.expect("what to remove")
}

fn record(backup: &str, base: Option<BackupImage>) -> BackupRecord {
    BackupRecord {
        backup: id(backup),
        volume: VOLUME.parse().expect("an id"),
        pool: None,
        base,
        of_snapshot: false,
        sole: true,
    }
}

fn candidate(image: BackupImage, backups: &[&str]) -> Candidate {
    Candidate {
        image,
        snapshots: backups.iter().map(|backup| snapshot(backup)).collect(),
    }
}

fn facts(base: Option<&[&str]>, source: &[&str]) -> ParentFacts {
    let names = |backups: &[&str]| backups.iter().map(|backup| snapshot(backup)).collect();
    ParentFacts {
        base_snapshots: base.map(names),
        source_snapshots: Some(names(source)),
    }
}

#[test]
fn an_incremental_builds_on_the_snapshot_that_both_sides_have() {
    let facts = facts(Some(&[FULL, OTHER]), &[OTHER, FULL]);
    let from = snapshot(FULL);
    let incremental = (Method::Incremental { from }, None);
    assert_eq!(choose(&parent(), &facts), incremental);
}

#[test]
fn where_snapshots_are_missing_the_image_is_compared() {
    for (in_base, on_source, method, why) in [
        (
            Some(&[FULL][..]),
            &[OTHER][..],
            Method::Compared,
            NoDiff::NotOnSource,
        ),
        (
            Some(&[OTHER]),
            &[FULL],
            Method::Compared,
            NoDiff::NoRestorePoint,
        ),
        (
            Some(&[FULL, FULL]),
            &[FULL],
            Method::Compared,
            NoDiff::Ambiguous(2),
        ),
        // Python's whole copy of what is not in Ceph looks like that.
        (Some(&[]), &[FULL], Method::Full, NoDiff::NoRestorePoint),
        (None, &[FULL], Method::Full, NoDiff::NoImage),
    ] {
        let chosen = choose(&parent(), &facts(in_base, on_source));
        assert_eq!(chosen, (method, Some(why)));
    }
    let device = ParentFacts {
        source_snapshots: None,
        ..facts(Some(&[FULL]), &[])
    };
    let compared = (Method::Compared, Some(NoDiff::NotInCeph));
    assert_eq!(choose(&parent(), &device), compared);
}

#[test]
fn the_oldest_backup_snapshots_are_surplus() {
    let listed = [snapshot(FULL), "by-hand".to_owned(), snapshot(OTHER)];
    let live = [id(FULL), id(OTHER)];
    assert_eq!(surplus_snapshots(&listed, &live, 1), [snapshot(FULL)]);
    assert!(surplus_snapshots(&listed, &live, 2).is_empty());
    assert!(surplus_snapshots(&listed, &live, 0).is_empty());
}

#[test]
fn snapshots_of_backups_that_are_gone_are_surplus() {
    let listed = [snapshot(FULL), "by-hand".to_owned(), snapshot(OTHER)];
    assert_eq!(
        surplus_snapshots(&listed, &[id(FULL)], 0),
        [snapshot(OTHER)]
    );
    assert_eq!(
        surplus_snapshots(&listed, &[id(OTHER)], 1),
        [snapshot(FULL)]
    );
}

#[test]
fn a_restore_point_is_a_snapshot_of_the_backups_own() {
    let record = record(OTHER, Some(own(FULL)));
    let found = [candidate(own(FULL), &[FULL, OTHER])];
    let point = record.restore_point(&found, true).expect("an answer");
    assert_eq!(point, Some((own(FULL), Some(snapshot(OTHER)))));
    // A chain that lost it is no copy of this backup.
    let found = [candidate(own(FULL), &[FULL])];
    assert_eq!(record.restore_point(&found, true).expect("an answer"), None);
}

#[test]
fn an_image_that_a_row_names_is_no_copy_without_a_snapshot() {
    // Its deletion came so far, and newer backups that are gone have written to the image.
    let record = record(FULL, Some(own(FULL)));
    let mut image = candidate(own(FULL), &[]);
    for _ in 0..2 {
        let found = std::slice::from_ref(&image);
        assert_eq!(record.restore_point(found, true).expect("an answer"), None);
        image.snapshots.push("by-hand".to_owned());
    }
}

#[test]
fn a_copy_without_a_snapshot_counts_when_it_is_complete() {
    let record = record(FULL, None);
    let found = [candidate(own(FULL), &[])];
    let point = record.restore_point(&found, true).expect("an answer");
    assert_eq!(point, Some((own(FULL), None)));
    assert_eq!(
        record.restore_point(&found, false).expect("an answer"),
        None
    );
}

#[test]
fn the_shared_image_is_only_its_owners() {
    let shared = candidate(legacy(), &[]);
    let mut record = record(FULL, None);
    // Of a volume, not of a snapshot: its data was never there.
    assert!(!deletion(&record, &shared, true).remove_image);
    record.of_snapshot = true;
    // A second backup of a snapshot, which failed since the image existed.
    assert!(!deletion(&record, &shared, false).remove_image);
    assert!(deletion(&record, &shared, true).remove_image);
    assert!(matches!(
        record.restore_point(std::slice::from_ref(&shared), true),
        Ok(Some((_, None)))
    ));
    // Another one may be what the image holds.
    record.sole = false;
    assert!(!deletion(&record, &shared, true).remove_image);
    let refusal = record.restore_point(std::slice::from_ref(&shared), true);
    assert!(matches!(refusal, Err(Error::Damaged(_))));
    record.sole = true;
    // Somebody else's snapshots are in it.
    let shared = candidate(legacy(), &[OTHER]);
    assert!(!deletion(&record, &shared, true).remove_image);
}

#[test]
fn the_last_of_a_chain_takes_the_image_with_it() {
    let mut last = record(OTHER, Some(own(FULL)));
    let first = deletion(&last, &candidate(own(FULL), &[FULL, OTHER]), true);
    assert_eq!(first.snapshots, [snapshot(OTHER)]);
    assert!(!first.remove_image);
    assert!(deletion(&last, &candidate(own(FULL), &[OTHER]), true).remove_image);
    // Interrupted between the two steps, and repeated.
    assert!(deletion(&last, &candidate(own(FULL), &[]), true).remove_image);
    // Another backup is being made in that image, and has no snapshot there yet.
    last.sole = false;
    assert!(!deletion(&last, &candidate(own(FULL), &[OTHER]), true).remove_image);
    assert!(!deletion(&last, &candidate(own(FULL), &[]), true).remove_image);
}

#[test]
fn snapshots_of_backups_without_a_row_are_named_and_left() {
    let mut last = record(FULL, Some(own(FULL)));
    let mut image = candidate(own(FULL), &[FULL, OTHER]);
    image.snapshots.push("by-hand".to_owned());
    let unknown = deletion(&last, &image, true);
    assert_eq!(unknown.unknown, [snapshot(OTHER)]);
    assert_eq!(unknown.snapshots, [snapshot(FULL)]);
    assert!(!unknown.remove_image);
    // Where another row names the image, it may be that one's.
    last.sole = false;
    assert!(deletion(&last, &image, true).unknown.is_empty());
    // Rows of old backups name no image.
    let shared = candidate(legacy(), &[FULL, OTHER]);
    for base in [None, Some(legacy())] {
        let last = record(FULL, base);
        assert!(deletion(&last, &shared, true).unknown.is_empty());
    }
}

#[test]
fn an_image_with_a_snapshot_made_by_hand_is_left_as_it_is() {
    let mut last = record(FULL, Some(own(FULL)));
    let mut image = candidate(own(FULL), &[FULL]);
    image.snapshots.push(".mirror.primary.1234.5678".to_owned());
    assert!(deletion(&last, &image, true).remove_image);
    image.snapshots.push("by-hand".to_owned());
    let refusal = last.deletion(&image, true).expect_err("a refusal");
    assert!(matches!(&refusal, Error::Damaged(_)));
    let text = refusal.to_string();
    assert!(text.contains(": by-hand."), "{text}");
    // The image stays with another backup.
    last.sole = false;
    assert_eq!(deletion(&last, &image, true).snapshots, [snapshot(FULL)]);
}

#[test]
fn what_failed_is_made_in_another_way_unless_that_fails_alike() {
    let from = snapshot(FULL);
    let incremental = Method::Incremental { from };
    let ceph = |errno| rbd::Error::from_code("do", "something", -i64::from(errno));
    let write = |errno| {
        Error::Transfer(TransferError::Write {
            offset: 0,
            length: 1,
            error: BlockError::Rbd(ceph(errno)),
        })
    };
    let list = |errno| Error::Transfer(TransferError::Plan(BlockError::Rbd(ceph(errno))));
    let eio = libc::EIO;
    let (compared, full, whole) = (Method::Compared, Method::Full, Method::Whole);
    for (error, after_incremental, after_compared, after_full) in [
        (Error::missing("gone"), Some(&compared), Some(&full), None),
        (Error::damaged("odd"), Some(&compared), Some(&full), None),
        (Error::WrongMap(0..1), Some(&compared), None, None),
        (
            Error::Rbd(ceph(libc::EBUSY)),
            Some(&full),
            Some(&full),
            None,
        ),
        (write(eio), Some(&full), Some(&full), None),
        (list(eio), Some(&compared), Some(&full), Some(&whole)),
        (
            list(libc::ENOENT),
            Some(&compared),
            Some(&full),
            Some(&whole),
        ),
        // These hold for every copy.
        (write(libc::ENOSPC), None, None, None),
        (list(libc::ESHUTDOWN), None, None, None),
        (Error::Rbd(ceph(libc::EPERM)), None, None, None),
        (Error::Volume(ceph(libc::ENOENT)), None, None, None),
        (Error::Transfer(TransferError::Cancelled), None, None, None),
    ] {
        for (method, next) in [
            (&incremental, after_incremental),
            (&compared, after_compared),
            (&full, after_full),
            (&whole, None),
        ] {
            assert_eq!(instead(method, &error).as_ref(), next, "{method}: {error}");
        }
    }
}
