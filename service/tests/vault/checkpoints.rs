//! Full backups that are broken off in the middle, and made by another attempt.

use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::names;
use chrono::Utc;
use cinderblock::transfer::{Job, Stats};
use cinderblock::vault::{BackupPlan, BackupSpec, Known, Vault};
use serde_json::Value;

use crate::ceph_lab::{MIB, Noise, assert_same, backups, conf, content, tool};
use crate::{POOL, Source, objects_of, restore_point, vault_that};

const SIZE: u64 = 96 * MIB;

/// A vault that notes at once how far a backup is, which it makes in a few steps at a time.
fn vault() -> Vault {
    vault_that(|engine| {
        engine.checkpoint_interval = Duration::ZERO;
        engine.depth = 3;
    })
}

async fn plan(vault: &Vault, source: &Source, backup: BackupId) -> BackupPlan {
    let spec = BackupSpec {
        again: true,
        backup,
        volume: source.id,
        pool: POOL.to_owned(),
        parent: None,
    };
    let planned = vault.plan_backup(&spec, &source.volume, Utc::now()).await;
    planned.expect("a plan")
}

/// Begins a backup, and breaks it off when some of it has been noted, but not all.
async fn break_off(vault: &Vault, source: &Source) -> BackupPlan {
    let plan = plan(vault, source, crate::new_id().parse().expect("an id")).await;
    let (job, pool) = (Job::default(), backups().await.pool);
    let manifest = names::manifest_object(plan.backup);
    let watching = async {
        while !is_noted(&pool.read_object(&manifest, 1 << 20).await.expect("read")) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        job.cancel.cancel();
    };
    let storing = vault.store(&plan, &source.volume, &job);
    let (stored, ()) = tokio::join!(storing, watching);
    stored.expect_err("cancelled");
    assert!(job.progress.done() < job.progress.planned());
    plan
}

fn is_noted(header: &Option<Vec<u8>>) -> bool {
    let header: Option<Value> = header
        .as_deref()
        .and_then(|it| serde_json::from_slice(it).ok());
    let chunks = header.as_ref().map(|it| &it["checkpoint"]["chunks"]);
    chunks
        .and_then(Value::as_array)
        .is_some_and(|chunks| !chunks.is_empty())
}

/// Makes a backup that was broken off; how many bytes of it did not have to be moved.
async fn go_on(vault: &Vault, source: &Source, backup: BackupId) -> (BackupPlan, Stats) {
    let plan = plan(vault, source, backup).await;
    let job = Job::default();
    let stored = vault.store(&plan, &source.volume, &job).await;
    (plan, stored.expect("stored"))
}

/// Makes a backup that was broken off, nothing of which can be kept.
async fn assert_made_anew(vault: &Vault, source: Source, backup: BackupId) {
    let (plan, stats) = go_on(vault, &source, backup).await;
    assert_eq!(stats.bytes_unchanged, 0);
    assert_same(&restore_point(&plan).await, &content(&source.image).await);
    source.delete(vault, [&plan]).await;
    source.image.close().await;
}

/// Everything is known of a backup, and right.
async fn assert_known(vault: &Vault, source: &Source, plan: &BackupPlan) {
    let record = source.record(plan, true);
    let verified = vault.verify(&record, false, &Job::default()).await;
    let verified = verified.expect("verified");
    assert_eq!((verified.known, verified.bytes_unknown), (Known::Whole, 0));
    assert_eq!(verified.damage, []);
}

async fn source(noise: &mut Noise) -> Source {
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(90 * MIB)).await;
    // Grains that hold nothing, in the middle of others.
    let zeroed = source.image.write_zeroes(MIB + (64 << 10), 3 * MIB);
    zeroed.await.expect("zero");
    source
}

#[tokio::test]
async fn what_is_safe_is_not_moved_again() {
    let (vault, mut noise) = (vault(), Noise::new(61));
    let source = source(&mut noise).await;
    let broken = break_off(&vault, &source).await;
    let then = content(&source.image).await;
    // What the volume becomes meanwhile is nothing to this backup.
    source.write(0, noise.bytes(20 * MIB)).await;

    let (plan, stats) = go_on(&vault, &source, broken.backup).await;
    assert_eq!(plan.snapshot, broken.snapshot);
    assert!(stats.bytes_unchanged >= 2 * MIB, "{stats:?}");
    assert!(
        stats.bytes_read <= 90 * MIB - stats.bytes_unchanged,
        "{stats:?}"
    );
    assert_same(&restore_point(&plan).await, &then);
    assert_known(&vault, &source, &plan).await;
    let next = source.back_up(&vault, Some(&plan)).await;
    assert_same(&restore_point(&next).await, &content(&source.image).await);
    source.delete(&vault, [&plan, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn an_image_that_was_made_anew_is_not_taken_for_the_one_that_was_written() {
    let (vault, mut noise) = (vault(), Noise::new(62));
    let source = source(&mut noise).await;
    let broken = break_off(&vault, &source).await;
    let (conf, image) = (
        conf("LAB_BACKUPS_CEPH_CONF"),
        format!("{POOL}/{}", broken.base),
    );
    tool("rbd", &conf, &["rm", "--no-progress", &image]);
    tool("rbd", &conf, &["create", "--size", "96M", &image]);
    assert_made_anew(&vault, source, broken.backup).await;
}

#[tokio::test]
async fn a_snapshot_that_was_taken_anew_is_not_taken_for_the_one_that_was_read() {
    let (vault, mut noise) = (vault(), Noise::new(63));
    let source = source(&mut noise).await;
    let broken = break_off(&vault, &source).await;
    let removed = source.image.remove_snapshot(&broken.snapshot).await;
    removed.expect("removed");
    source.write(0, noise.bytes(90 * MIB)).await;
    let taken = source.image.create_snapshot(&broken.snapshot).await;
    taken.expect("taken");
    assert_made_anew(&vault, source, broken.backup).await;
}

#[tokio::test]
async fn a_backup_that_was_complete_is_found_without_its_snapshot_on_the_volume() {
    let (vault, mut noise) = (vault(), Noise::new(64));
    let source = source(&mut noise).await;
    let backup = crate::new_id().parse().expect("an id");
    let (first, _) = go_on(&vault, &source, backup).await;
    // A temporary volume gives it back before the row is written.
    let released = vault.release_source(&source.volume, backup).await;
    released.expect("released");
    let held = restore_point(&first).await;
    let (plan, stats) = go_on(&vault, &source, backup).await;
    assert_eq!(plan.snapshot, first.snapshot);
    assert_eq!(stats, Stats::default());
    assert_same(&restore_point(&plan).await, &held);
    source.delete(&vault, [&plan]).await;
    source.image.close().await;
}

/// Both knew of no snapshot of the backup's when they named it, each after its own time.
#[tokio::test]
async fn what_two_workers_begin_has_one_restore_point() {
    let (vault, mut noise) = (vault(), Noise::new(87));
    let source = source(&mut noise).await;
    let backup = crate::new_id().parse().expect("an id");
    let first = plan(&vault, &source, backup).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = plan(&vault, &source, backup).await;
    assert_ne!(first.snapshot, second.snapshot);
    source.store(&vault, &second).await;
    let stored = content(&source.image).await;
    source.write(0, noise.bytes(MIB)).await;

    let job = Job::default();
    let late = vault.store(&first, &source.volume, &job).await;
    assert_eq!(late.expect("stored"), Stats::default());
    assert_same(&restore_point(&second).await, &stored);
    assert_known(&vault, &source, &second).await;
    // Whoever comes after them both finds what was made.
    let third = plan(&vault, &source, backup).await;
    assert_eq!(third.snapshot, second.snapshot);
    source.delete(&vault, [&second]).await;
    source.image.close().await;
}

#[tokio::test]
async fn what_a_damaged_part_tells_of_is_moved_again() {
    let (vault, mut noise) = (vault(), Noise::new(88));
    let source = source(&mut noise).await;
    let broken = break_off(&vault, &source).await;
    let part = objects_of(&broken);
    let part = part.iter().find(|name| name.contains(".manifest."));
    let part = part.expect("it was noted");
    let pool = backups().await.pool;
    pool.write_object(part, b"no part").await.expect("written");
    let (plan, stats) = go_on(&vault, &source, broken.backup).await;
    assert_eq!(stats.bytes_unchanged, 0);
    assert_known(&vault, &source, &plan).await;
    source.delete(&vault, [&plan]).await;
    source.image.close().await;
}
