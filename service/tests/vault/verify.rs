//! Reading backups again, and writing down what they hold.

use std::collections::BTreeSet;
use std::pin::Pin;

use cinderblock::transfer::Job;
use cinderblock::vault::{BackupPlan, Error, Known, Vault, Verified};

use crate::ceph_lab::{MIB, Noise, assert_same};
use crate::manifests::{object_at, spoil};
use crate::{Source, objects_of, rados, restore_point, vault};

const SIZE: u64 = 40 * MIB;

async fn try_verify(
    vault: &Vault,
    source: &Source,
    plan: &BackupPlan,
    record: bool,
) -> Result<Verified, Error> {
    let job = Job::default();
    let backup = source.record(plan, false);
    vault.verify(&backup, record, &job).await
}

async fn verify(vault: &Vault, source: &Source, plan: &BackupPlan) -> Verified {
    let verified = try_verify(vault, source, plan, false).await;
    verified.expect("it was read")
}

async fn record(vault: &Vault, source: &Source, plan: &BackupPlan) -> Verified {
    let verified = try_verify(vault, source, plan, true).await;
    verified.expect("it was read")
}

/// As Python's worker leaves a backup.
fn forget_manifest(plan: &BackupPlan) {
    for object in objects_of(plan) {
        rados(&["rm", &object]);
    }
}

/// A byte of a restore point, and what it is not.
async fn byte(plan: &BackupPlan, offset: u64) -> (u8, u8) {
    let was = restore_point(plan).await[offset as usize];
    (was, was ^ 0x10)
}

/// The sets to which the parts of a manifest belong.
fn sets(plan: &BackupPlan) -> BTreeSet<String> {
    let objects = objects_of(plan);
    let parts = objects.iter().filter(|name| name.contains(".manifest."));
    let set = |name: &String| name.rsplit_once('.').map(|(set, _)| set.to_owned());
    parts.filter_map(set).collect()
}

/// A volume with a backup as Python's worker leaves it, and one of ours that builds on that.
async fn python_s_and_ours(vault: &Vault, seed: u64) -> (Source, BackupPlan, BackupPlan) {
    let mut noise = Noise::new(seed);
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(30 * MIB)).await;
    let full = source.back_up(vault, None).await;
    forget_manifest(&full);
    source.write(MIB, noise.bytes(MIB)).await;
    let next = source.back_up(vault, Some(&full)).await;
    (source, full, next)
}

/// Begins to write down what a backup holds, and stops in the middle of reading it.
async fn begin_record<F: Future>(recording: F, job: &Job) -> Pin<Box<F>> {
    let mut recording = Box::pin(recording);
    tokio::select! {
        biased;
        () = async {
            while job.progress.done() == 0 {
                tokio::task::yield_now().await;
            }
        } => {}
        _ = &mut recording => panic!("it was too fast"),
    }
    recording
}

#[tokio::test]
async fn every_damaged_part_is_told_by_offset_object_and_pool() {
    let (vault, mut noise) = (vault(), Noise::new(61));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(18 * MIB)).await;
    source.write(30 * MIB, noise.bytes(100)).await;
    let full = source.back_up(&vault, None).await;
    source.write(17 * MIB, noise.bytes(MIB)).await;
    let next = source.back_up(&vault, Some(&full)).await;
    for plan in [&full, &next] {
        let sound = verify(&vault, &source, plan).await;
        assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));
        assert_eq!(sound.damage, []);
        // What is there, and not the size.
        assert!(
            (18 * MIB..21 * MIB).contains(&sound.bytes_read),
            "{sound:?}"
        );
    }

    // Two that touch, in two objects, one elsewhere, and an object that is gone.
    let objects = [4, 8, 12, 28].map(|at| at * MIB);
    let mut names = Vec::new();
    for offset in objects {
        names.push(object_at(&full, offset).await);
    }
    for (object, offset) in [(0, 8 * MIB - 1), (1, 8 * MIB + 1), (2, 14 * MIB + 70_000)] {
        let (_, is) = byte(&full, offset).await;
        spoil(&names[object], offset % (4 * MIB), &[is]);
    }
    rados(&["rm", &names[3]]);
    let found = verify(&vault, &source, &full).await;
    let grain = 64 << 10;
    let expected = [
        (8 * MIB - grain, names[0].clone()),
        (8 * MIB, names[1].clone()),
        (14 * MIB + grain, names[2].clone()),
        (30 * MIB, names[3].clone()),
    ];
    let places = |found: &Verified| -> Vec<(u64, String)> {
        let damage = found.damage.iter();
        damage.map(|it| (it.offset, it.object.clone())).collect()
    };
    assert_eq!(places(&found), expected);
    for damage in &found.damage {
        assert_eq!((damage.length, damage.pool.as_str()), (grain, "backups"));
    }
    // The increment wrote none of them.
    let next_too = verify(&vault, &source, &next).await;
    assert_eq!(places(&next_too), expected);
    // Damage is not taken for right.
    let recorded = record(&vault, &source, &full).await;
    assert_eq!(
        (recorded.known, recorded.damage),
        (Known::Whole, found.damage)
    );
    source.delete(&vault, [&full, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn a_backup_of_python_s_gets_a_manifest() {
    let (vault, mut noise) = (vault(), Noise::new(62));
    let source = Source::new(SIZE).await;
    source.write(MIB, noise.bytes(9 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    let held = restore_point(&full).await;
    forget_manifest(&full);
    let nothing = verify(&vault, &source, &full).await;
    assert_eq!((nothing.known, nothing.bytes_read), (Known::Nothing, 0));
    assert_eq!(objects_of(&full), Vec::<String>::new());

    let recorded = record(&vault, &source, &full).await;
    assert_eq!(recorded.known, Known::Recorded);
    let sound = verify(&vault, &source, &full).await;
    assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));
    assert_eq!(sound.damage, []);
    // What builds on it knows everything.
    source.write(20 * MIB, noise.bytes(MIB)).await;
    let next = source.back_up(&vault, Some(&full)).await;
    let sound = verify(&vault, &source, &next).await;
    assert_eq!((sound.known, sound.damage.len()), (Known::Whole, 0));

    let object = object_at(&full, 6 * MIB).await;
    let (was, is) = byte(&full, 6 * MIB).await;
    spoil(&object, 2 * MIB, &[is]);
    for plan in [&full, &next] {
        let found = verify(&vault, &source, plan).await;
        assert_eq!(found.damage.len(), 1);
        assert_eq!(found.damage[0].object, object);
    }
    spoil(&object, 2 * MIB, &[was]);
    assert_same(&restore_point(&full).await, &held);
    source.delete(&vault, [&full, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn what_is_known_in_part_becomes_known_as_a_whole() {
    let (vault, mut noise) = (vault(), Noise::new(63));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(9 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    forget_manifest(&full);
    source.write(MIB, noise.bytes(MIB)).await;
    let next = source.back_up(&vault, Some(&full)).await;
    let partly = verify(&vault, &source, &next).await;
    assert_eq!(
        (partly.known, partly.bytes_unknown),
        (Known::Partly, 8 * MIB)
    );

    // What is known is wrong: the rest is not believed either.
    let object = object_at(&next, MIB).await;
    let (was, is) = byte(&next, MIB).await;
    spoil(&object, MIB, &[is]);
    let refused = record(&vault, &source, &next).await;
    assert_eq!((refused.known, refused.damage.len()), (Known::Partly, 1));
    spoil(&object, MIB, &[was]);
    let partly = verify(&vault, &source, &next).await;
    assert_eq!((partly.known, partly.damage.len()), (Known::Partly, 0));

    // One that breaks off leaves what was known.
    let job = Job::default();
    job.cancel.cancel();
    let backup = source.record(&next, false);
    let broken_off = vault.verify(&backup, true, &job).await;
    broken_off.expect_err("cancelled");
    let partly = verify(&vault, &source, &next).await;
    assert_eq!(
        (partly.known, partly.bytes_unknown),
        (Known::Partly, 8 * MIB)
    );

    let recorded = record(&vault, &source, &next).await;
    assert_eq!(recorded.known, Known::Recorded);
    let sound = verify(&vault, &source, &next).await;
    assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));
    // It does not need its parent's.
    vault
        .delete(&source.record(&full, false))
        .await
        .expect("delete");
    let sound = verify(&vault, &source, &next).await;
    assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));
    assert_eq!(sound.damage, []);

    // A part of the manifest that is lost is known again, too.
    let objects = objects_of(&next);
    let part = objects.iter().find(|name| name.contains(".manifest."));
    rados(&["rm", part.expect("a part")]);
    let partly = verify(&vault, &source, &next).await;
    assert_eq!((partly.known, partly.bytes_unknown), (Known::Whole, SIZE));
    let recorded = record(&vault, &source, &next).await;
    assert_eq!(recorded.known, Known::Recorded);
    let sound = verify(&vault, &source, &next).await;
    assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));

    // Nobody knows any more what should be there.
    let objects = objects_of(&next);
    let part = objects.iter().find(|name| name.contains(".manifest."));
    rados(&["rm", part.expect("a part")]);
    rados(&["rm", &object]);
    let lost = verify(&vault, &source, &next).await;
    assert_eq!((lost.known, lost.bytes_unknown), (Known::Whole, SIZE));
    source.delete(&vault, [&next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn what_is_recorded_anew_is_not_mixed_with_what_was_known() {
    let (vault, mut noise) = (vault(), Noise::new(64));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(9 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    source.write(MIB, noise.bytes(MIB)).await;
    let next = source.back_up(&vault, Some(&full)).await;
    forget_manifest(&full);
    // With digests of another seed than those of what builds on it.
    let recorded = record(&vault, &source, &full).await;
    assert_eq!(recorded.known, Known::Recorded);
    let partly = verify(&vault, &source, &next).await;
    assert_eq!((partly.known, partly.damage.len()), (Known::Partly, 0));
    let gone = source.record(&full, false);
    vault.delete(&gone).await.expect("delete");
    let partly = verify(&vault, &source, &next).await;
    assert_eq!((partly.known, partly.damage.len()), (Known::Partly, 0));
    let recorded = record(&vault, &source, &next).await;
    assert_eq!(recorded.known, Known::Recorded);

    // A part that is damaged itself.
    let objects = objects_of(&next);
    let part = objects.iter().find(|name| name.contains(".manifest."));
    spoil(part.expect("a part"), 100, &[1, 2, 3]);
    let partly = verify(&vault, &source, &next).await;
    assert_eq!((partly.bytes_unknown, partly.damage.len()), (SIZE, 0));
    let recorded = record(&vault, &source, &next).await;
    assert_eq!(recorded.known, Known::Recorded);
    let sound = verify(&vault, &source, &next).await;
    assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));
    source.delete(&vault, [&next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn whoever_ends_a_record_in_the_middle_leaves_what_was_known() {
    let vault = vault();
    let (source, full, next) = python_s_and_ours(&vault, 65).await;
    for (plan, known) in [(&full, Known::Nothing), (&next, Known::Partly)] {
        // As by `kill -9`, once it reads.
        let job = Job::default();
        let backup = source.record(plan, false);
        drop(begin_record(vault.verify(&backup, true, &job), &job).await);
        let found = verify(&vault, &source, plan).await;
        assert_eq!((found.known, found.damage.len()), (known, 0));
    }
    // The next one takes its place and leaves nothing of it; another one goes with its backup.
    let recorded = record(&vault, &source, &next).await;
    assert_eq!(recorded.known, Known::Recorded);
    let sound = verify(&vault, &source, &next).await;
    assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));
    assert_eq!(sets(&next).len(), 1, "{:?}", objects_of(&next));

    source.delete(&vault, [&full, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn of_two_records_the_one_that_began_last_counts() {
    let vault = vault();
    let (source, full, next) = python_s_and_ours(&vault, 66).await;
    // Without a manifest; with one that knows a part.
    for plan in [&full, &next] {
        let (job, backup) = (Job::default(), source.record(plan, false));
        let first = begin_record(vault.verify(&backup, true, &job), &job).await;
        let second = record(&vault, &source, plan).await;
        assert_eq!(second.known, Known::Recorded);
        let first = first.await.expect_err("the second one counts").to_string();
        assert!(first.contains("begun anew"), "{first}");
        let sound = verify(&vault, &source, plan).await;
        assert_eq!((sound.known, sound.bytes_unknown), (Known::Whole, 0));
        assert_eq!(sets(plan).len(), 1, "{:?}", objects_of(plan));
    }
    source.delete(&vault, [&full, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn what_is_given_to_a_backup_while_it_is_recorded_is_not_lost() {
    let (vault, mut noise) = (vault(), Noise::new(67));
    let source = Source::new(3 << 30).await;
    source.write(0, noise.bytes(2 * MIB)).await;
    let first = source.back_up(&vault, None).await;
    forget_manifest(&first);
    // In a part of its own, of which the next one has nothing.
    source.write(2 << 30, noise.bytes(MIB)).await;
    let second = source.back_up(&vault, Some(&first)).await;
    source.write(8 * MIB, noise.bytes(30 * MIB)).await;
    let third = source.back_up(&vault, Some(&second)).await;
    let known = verify(&vault, &source, &third).await;
    assert_eq!((known.known, known.bytes_unknown), (Known::Partly, 2 * MIB));

    let (job, backup) = (Job::default(), source.record(&third, false));
    let recording = begin_record(vault.verify(&backup, true, &job), &job).await;
    let gone = source.record(&second, false);
    vault.delete(&gone).await.expect("delete");
    let refused = recording.await.expect_err("more is known").to_string();
    assert!(refused.contains("begun anew"), "{refused}");
    let known = verify(&vault, &source, &third).await;
    assert_eq!((known.known, known.bytes_unknown), (Known::Partly, 2 * MIB));
    // What was given is known: damage there is noticed, and not recorded.
    let object = object_at(&third, 2 << 30).await;
    spoil(&object, 0, &[0x55; 16]);
    let damaged = record(&vault, &source, &third).await;
    assert_eq!((damaged.known, damaged.damage.len()), (Known::Partly, 1));
    source.delete(&vault, [&first, &third]).await;
    source.image.close().await;
}
