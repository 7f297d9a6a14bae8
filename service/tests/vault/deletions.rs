//! Backups that are deleted while others are at work on the same image.

use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::ceph_lab::{MIB, backups};
use crate::{POOL, Source, new_id, vault, watchers};

#[tokio::test]
async fn a_deletion_that_was_interrupted_in_the_middle_of_an_image_is_finished() {
    let vault = vault();
    let site = backups().await;
    let source = Source::new(MIB).await;
    let full = source.back_up(&vault, None).await;
    // An image of so many objects that its removal takes a while.
    let base = full.base.to_string();
    let spec = format!("{POOL}/{base}");
    let at = format!("{spec}@{}", full.snapshot);
    site.rbd(&["snap", "rm", "--no-progress", &at]);
    site.rbd(&["rm", "--no-progress", &spec]);
    site.rbd(&["create", "--size", "128M", "--object-size", "64K", &spec]);
    site.rbd(&[
        "bench",
        "--io-type",
        "write",
        "--io-size",
        "64K",
        "--io-total",
        "128M",
        &spec,
    ]);
    let mut removal = Command::new("rbd")
        .arg("--conf")
        .arg(&site.conf)
        .args(["--rbd-concurrent-management-ops", "1", "rm", &spec])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rbd runs");
    while site.pool.open(&base, None).await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    removal.kill().expect("killed");
    removal.wait().expect("ended");
    // It cannot be opened any more, but is still listed.
    let is_listed = || site.rbd(&["ls", POOL]).contains(&base);
    assert!(is_listed(), "the removal was too fast");

    let record = source.record(&full, true);
    vault.delete(&record).await.expect("delete");
    assert!(!is_listed());
    // And what is gone already is no error.
    vault.delete(&record).await.expect("delete");
    source.image.close().await;
}

#[tokio::test]
async fn the_last_backups_of_an_image_are_deleted_at_once() {
    let vault = vault();
    let site = backups().await;
    for _ in 0..3 {
        let source = Source::new(MIB).await;
        let full = source.back_up(&vault, None).await;
        source.write(0, Bytes::from_static(&[7; 4096])).await;
        let next = source.back_up(&vault, Some(&full)).await;
        assert_eq!(full.base, next.base);
        let (one, two) = (source.record(&full, true), source.record(&next, true));
        let (one, two) = tokio::join!(vault.delete(&one), vault.delete(&two));
        one.expect("delete");
        two.expect("delete");
        assert!(!site.rbd(&["ls", POOL]).contains(&full.base.to_string()));
        source.image.close().await;
    }
}

#[tokio::test]
async fn a_snapshot_that_is_just_being_removed_holds_up_the_deletion_of_the_last_backup() {
    let vault = vault();
    let site = backups().await;
    let source = Source::new(MIB).await;
    let full = source.back_up(&vault, None).await;
    let image = format!("{POOL}/{}", full.base);
    // What has a clone stays in between for as long as that.
    let (other, clone) = (format!("{image}@other"), format!("{POOL}/{}", new_id()));
    site.rbd(&["snap", "create", "--no-progress", &other]);
    site.rbd(&["clone", "--rbd-default-clone-format", "2", &other, &clone]);
    site.rbd(&["snap", "rm", "--no-progress", &other]);

    let record = source.record(&full, true);
    let mut deleting = pin!(vault.delete(&record));
    let waits = timeout(Duration::from_secs(1), &mut deleting).await;
    assert!(waits.is_err(), "{waits:?}");
    site.rbd(&["rm", "--no-progress", &clone]);
    deleting.await.expect("delete");
    assert!(!site.rbd(&["ls", POOL]).contains(&full.base.to_string()));
    source.image.close().await;
}

#[tokio::test]
async fn an_image_that_a_dead_client_watches_is_deleted_once_the_cluster_has_forgotten_it() {
    let vault = vault();
    let site = backups().await;
    let source = Source::new(MIB).await;
    let full = source.back_up(&vault, None).await;
    let spec = format!("{POOL}/{}", full.base);
    let mut watcher = Command::new("rbd")
        .arg("--conf")
        .arg(&site.conf)
        .args(["watch", &spec])
        // It ends when there is no more to read.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rbd runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    while watchers(&full.base.to_string()) == 0 {
        let ended = watcher.try_wait().expect("it can be waited for");
        let watches_soon = ended.is_none() && Instant::now() < deadline;
        assert!(watches_soon, "nobody watches: {ended:?}");
        sleep(Duration::from_millis(100)).await;
    }

    let record = source.record(&full, true);
    let mut deleting = pin!(vault.delete(&record));
    // Not for long: the tries go on for little longer than the cluster remembers the dead.
    let busy = timeout(Duration::from_secs(1), &mut deleting).await;
    assert!(busy.is_err(), "{busy:?}");
    watcher.kill().expect("killed");
    watcher.wait().expect("ended");
    deleting.await.expect("delete");
    let is_listed = site.rbd(&["ls", POOL]).contains(&full.base.to_string());
    assert!(!is_listed);
    source.image.close().await;
}
