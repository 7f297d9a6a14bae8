//! What a backup's data was when it was stored, and what comes of it when it is something else.

use std::fs;

use cinderblock::transfer::Job;
use cinderblock::vault::{BackupPlan, Error, Method, TargetSize, Vault};

use crate::ceph_lab::{MIB, Noise, assert_same, backups, content};
use crate::{Source, objects_of, rados, restore_point, vault, vault_that};

const SIZE: u64 = 40 * MIB;

/// Restores into a volume that holds something else, and compares.
async fn restore(vault: &Vault, source: &Source, plan: &BackupPlan) -> Result<(), Error> {
    let record = source.record(plan, false);
    let point = vault.find_restore_point(&record).await.expect("found");
    let target = Source::new(SIZE).await;
    target.write(3 * MIB, Noise::new(99).bytes(5 * MIB)).await;
    let job = Job::default();
    let size = TargetSize::Exactly(SIZE);
    let restoring = vault.restore(&point, &target.volume, size, false, &job);
    let restored = restoring.await;
    if restored.is_ok() {
        let mut expected = restore_point(plan).await;
        expected.resize(SIZE as usize, 0);
        assert_same(&content(&target.image).await, &expected);
    }
    target.image.close().await;
    restored.map(drop)
}

/// The object of a backup's image that holds a byte.
pub async fn object_at(plan: &BackupPlan, offset: u64) -> String {
    let opened = backups()
        .await
        .pool
        .open(&plan.base.to_string(), None)
        .await;
    let image = opened.expect("open");
    let object = image.object_at(offset);
    assert_eq!(image.data_pool().await.expect("a name"), "backups");
    image.close().await;
    object
}

/// Writes other bytes into an object, as nobody does who keeps to RBD's rules.
pub fn spoil(object: &str, offset: u64, bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("cinderblock-{object}"));
    fs::write(&path, bytes).expect("it is written");
    let (file, offset) = (path.to_str().expect("text"), offset.to_string());
    rados(&["put", object, file, "--offset", &offset]);
    fs::remove_file(&path).expect("it is removed");
}

#[tokio::test]
async fn what_is_not_what_was_stored_is_not_restored() {
    let (vault, mut noise) = (vault(), Noise::new(51));
    let source = Source::new(SIZE).await;
    source.write(MIB, noise.bytes(17 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    source.write(9 * MIB + 5000, noise.bytes(100)).await;
    let next = source.back_up(&vault, Some(&full)).await;
    for plan in [&full, &next] {
        restore(&vault, &source, plan).await.expect("restored");
    }

    // One bit in an object that both share.
    let object = object_at(&full, 13 * MIB).await;
    let was = restore_point(&full).await[13 * MIB as usize + 70_000];
    spoil(&object, MIB + 70_000, &[was ^ 4]);
    for plan in [&full, &next] {
        let refusal = restore(&vault, &source, plan).await.expect_err("damaged");
        assert!(matches!(refusal, Error::Damaged(_)), "{refusal}");
        let text = refusal.to_string();
        let place = 13 * MIB + (64 << 10);
        for part in [&object, "pool backups", &format!("bytes {place} to ")] {
            assert!(text.contains(part), "{text}");
        }
    }
    spoil(&object, MIB + 70_000, &[was]);
    restore(&vault, &source, &next).await.expect("restored");

    // Data where there was none, and an object that is gone.
    let empty = object_at(&full, 37 * MIB).await;
    spoil(&empty, 0, &[1; 512]);
    let refusal = restore(&vault, &source, &next).await;
    // The object map knows of no such object: it is not read.
    refusal.expect("restored");
    rados(&["rm", &empty]);
    rados(&["rm", &object]);
    let refusal = restore(&vault, &source, &next).await.expect_err("damaged");
    assert!(refusal.to_string().contains(&object), "{refusal}");
    // Who has nothing else may have what is left.
    let lenient = vault_that(|engine| engine.restore_damaged = true);
    restore(&lenient, &source, &next).await.expect("restored");
    source.delete(&vault, [&full, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn a_manifest_lists_what_the_backup_wrote_and_goes_with_it() {
    let (vault, mut noise) = (vault(), Noise::new(52));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(9 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    let unchanged = source.back_up(&vault, Some(&full)).await;
    source.write(2 * MIB, noise.bytes(4096)).await;
    let zeroed = source.image.write_zeroes(5 * MIB, 3 * MIB);
    zeroed.await.expect("zero");
    let last = source.back_up(&vault, Some(&unchanged)).await;
    let length = |plan: &BackupPlan| -> Vec<u64> {
        let names = objects_of(plan);
        let stat = |name: &String| rados(&["stat", name]);
        let size = |text: String| text.rsplit(' ').next().map(|size| size.trim().parse());
        let sizes = names.iter().map(stat).map(size);
        sizes
            .map(|size| size.expect("a size").expect("a number"))
            .collect()
    };
    assert_eq!(length(&unchanged).len(), 1, "{:?}", objects_of(&unchanged));
    // A header and one part: 144 grains; or one, and a run of zeros.
    let (of_full, of_last) = (length(&full), length(&last));
    assert!(
        of_full.len() == 2 && of_full[1] < 144 * 16 + 64,
        "{of_full:?}"
    );
    assert!(of_last.len() == 2 && of_last[1] < 100, "{of_last:?}");
    source.delete(&vault, [&full, &unchanged, &last]).await;

    // One that fails leaves nothing.
    let plan = source.plan(&vault, None).await;
    let job = Job::default();
    job.cancel.cancel();
    let storing = vault.store(&plan, &source.volume, &job);
    storing.await.expect_err("cancelled");
    vault.undo(&plan, &source.volume).await;
    assert_eq!(objects_of(&plan), Vec::<String>::new());
    source.image.close().await;
}

#[tokio::test]
async fn what_builds_on_a_backup_that_goes_keeps_its_manifest_whole() {
    let (vault, mut noise) = (vault(), Noise::new(53));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(9 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    source.write(MIB, noise.bytes(MIB)).await;
    let middle = source.back_up(&vault, Some(&full)).await;
    source.write(5 * MIB, noise.bytes(MIB)).await;
    let last = source.back_up(&vault, Some(&middle)).await;
    for gone in [&middle, &full] {
        let record = source.record(gone, false);
        vault.delete(&record).await.expect("delete");
        assert_eq!(objects_of(gone), Vec::<String>::new());
        restore(&vault, &source, &last).await.expect("restored");
    }
    // What each of the three wrote.
    for offset in [3 * MIB, MIB, 5 * MIB] {
        let object = object_at(&last, offset).await;
        let held = restore_point(&last).await;
        let was = held[offset as usize..][..16].to_vec();
        let changed: Vec<u8> = was.iter().map(|byte| !byte).collect();
        spoil(&object, offset % (4 * MIB), &changed);
        let refusal = restore(&vault, &source, &last).await.expect_err("damaged");
        assert!(refusal.to_string().contains(&object), "{refusal}");
        spoil(&object, offset % (4 * MIB), &was);
    }
    restore(&vault, &source, &last).await.expect("restored");
    source.delete(&vault, [&last]).await;
    source.image.close().await;
}

#[tokio::test]
async fn volumes_may_have_any_size_and_change_it() {
    let (vault, mut noise) = (vault(), Noise::new(55));
    let source = Source::new(9 * MIB + 5000).await;
    source.write(0, noise.bytes(9 * MIB + 5000)).await;
    let mut chain = vec![source.back_up(&vault, None).await];
    // Grown, shrunk by hand, and grown again over what was cut off.
    for size in [13 * MIB + 70_000, 6 * MIB + 1000, 12 * MIB + 8] {
        source.image.resize(size).await.expect("resize");
        source.write(size - 8, noise.bytes(8)).await;
        let plan = source.back_up(&vault, chain.last()).await;
        assert!(matches!(plan.method, Method::Incremental { .. }));
        assert_same(&restore_point(&plan).await, &content(&source.image).await);
        chain.push(plan);
    }
    for plan in &chain {
        restore(&vault, &source, plan).await.expect("restored");
    }
    source.delete(&vault, &chain).await;
    source.image.close().await;
}

#[tokio::test]
async fn on_a_backup_without_a_manifest_only_what_is_known_is_checked() {
    let (vault, mut noise) = (vault(), Noise::new(54));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(9 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    // As after one of Python's.
    for object in objects_of(&full) {
        rados(&["rm", &object]);
    }
    source.write(MIB, noise.bytes(MIB)).await;
    let next = source.back_up(&vault, Some(&full)).await;
    assert!(matches!(next.method, Method::Incremental { .. }));
    for (offset, known) in [(6 * MIB, false), (MIB, true)] {
        restore(&vault, &source, &next).await.expect("restored");
        let object = object_at(&next, offset).await;
        spoil(&object, offset % (4 * MIB), &[0; 64]);
        let restored = restore(&vault, &source, &next).await;
        assert_eq!(restored.is_err(), known, "{restored:?}");
    }
    source.delete(&vault, [&full, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn what_a_volume_holds_already_is_not_read_of_its_backup() {
    let (vault, mut noise) = (vault(), Noise::new(56));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(20 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    let held = restore_point(&full).await;
    source.write(5 * MIB + 100, noise.bytes(300)).await;
    source.write(25 * MIB, noise.bytes(MIB)).await;

    let point = vault.find_restore_point(&source.record(&full, true)).await;
    let job = Job::default();
    let (point, size) = (point.expect("found"), TargetSize::Exactly(SIZE));
    let restoring = vault.restore(&point, &source.volume, size, false, &job);
    let stats = restoring.await.expect("restored");
    assert_same(&content(&source.image).await, &held);
    assert_eq!(stats.bytes_read, 64 << 10, "{stats:?}");
    source.delete(&vault, [&full]).await;
    source.image.close().await;
}
