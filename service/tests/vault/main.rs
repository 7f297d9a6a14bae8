//! Backups in a real pool, with everything that may have happened to it.

#[path = "../ceph_lab/mod.rs"]
mod ceph_lab;
mod checkpoints;
mod deletions;
mod devices;
mod fallback;
mod manifests;
mod meanwhile;
mod owners;
mod restores;
mod trust;
mod verify;

use std::pin::{Pin, pin};
use std::time::Duration;

use api_compat::ids::{BackupId, VolumeId};
use bytes::Bytes;
use ceph_lab::{MIB, Noise, Scratch, assert_same, backups, conf, content, tool, volumes};
use chrono::Utc;
use cinderblock::rbd::{ClusterOptions, Image};
use cinderblock::transfer::{Budget, Job};
use cinderblock::vault::{
    BackupPlan, BackupRecord, BackupSpec, Engine, Error, ImageFormat, Method, Parent, Vault, Volume,
};
use tokio::time::timeout;
use uuid::Uuid;

const POOL: &str = "backups";

fn vault() -> Vault {
    vault_that(|_| {})
}

fn vault_that(change: impl FnOnce(&mut Engine)) -> Vault {
    let conf = conf("LAB_BACKUPS_CEPH_CONF");
    vault_of(ClusterOptions::new("admin").conf_file(conf), change)
}

fn vault_of(cluster: ClusterOptions, change: impl FnOnce(&mut Engine)) -> Vault {
    let mut engine = Engine {
        budget: Budget::new(64 << 20),
        depth: 16,
        scanners: 8,
        trust_object_map: true,
        checkpoint_interval: Duration::from_secs(30),
        restore_damaged: false,
        chunk_size: 128 << 20,
        zero_excess: true,
    };
    change(&mut engine);
    Vault::new(cluster, POOL.to_owned(), ImageFormat::default(), engine)
}

/// A volume, and what is backed up of it.
struct Source {
    id: VolumeId,
    volume: Volume,
    image: Image,
    _name: Scratch,
}

impl Source {
    async fn new(size: u64) -> Self {
        let site = volumes().await;
        let (name, image) = site.usual_image(size).await;
        Self {
            id: new_id().parse().expect("an id"),
            volume: Volume {
                pool: site.pool.clone(),
                image: name.name.clone(),
            },
            image,
            _name: name,
        }
    }

    async fn write(&self, offset: u64, data: Bytes) {
        self.image.write(offset, data).await.expect("write");
    }

    async fn plan(&self, vault: &Vault, parent: Option<&BackupPlan>) -> BackupPlan {
        let spec = BackupSpec {
            again: false,
            backup: new_id().parse().expect("an id"),
            volume: self.id,
            pool: POOL.to_owned(),
            parent: parent.map(|parent| Parent {
                backup: parent.backup,
                base: parent.base,
            }),
        };
        let plan = vault.plan_backup(&spec, &self.volume, Utc::now()).await;
        plan.expect("a plan")
    }

    async fn try_store(&self, vault: &Vault, plan: &BackupPlan) -> Result<(), Error> {
        let job = Job::default();
        let stored = vault.store(plan, &self.volume, &job).await;
        stored.map(drop)
    }

    async fn store(&self, vault: &Vault, plan: &BackupPlan) {
        self.try_store(vault, plan).await.expect("stored");
    }

    async fn back_up(&self, vault: &Vault, parent: Option<&BackupPlan>) -> BackupPlan {
        let plan = self.plan(vault, parent).await;
        self.store(vault, &plan).await;
        plan
    }

    /// Deletes a whole chain from its end.
    async fn delete<'a, I>(&self, vault: &Vault, chain: I)
    where
        I: IntoIterator<Item = &'a BackupPlan>,
        I::IntoIter: DoubleEndedIterator + ExactSizeIterator,
    {
        for (at, plan) in chain.into_iter().enumerate().rev() {
            let record = self.record(plan, at == 0);
            vault.delete(&record).await.expect("delete");
            assert_eq!(objects_of(plan), Vec::<String>::new());
        }
        let left = tool("rbd", &conf("LAB_BACKUPS_CEPH_CONF"), &["ls", POOL]);
        assert!(!left.contains(&self.id.to_string()), "{left}");
    }

    fn record(&self, plan: &BackupPlan, sole: bool) -> BackupRecord {
        BackupRecord {
            backup: plan.backup,
            volume: self.id,
            pool: None,
            base: Some(plan.base),
            of_snapshot: false,
            sole,
        }
    }

    async fn snapshots(&self) -> Vec<String> {
        let listed = self.image.snapshots().await.expect("snapshots");
        listed.into_iter().map(|snapshot| snapshot.name).collect()
    }
}

fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// The objects beside the images that carry a backup's id.
fn objects_of(plan: &BackupPlan) -> Vec<String> {
    let listed = rados(&["ls"]);
    let ours = |name: &&str| name.starts_with(&format!("backup.{}", plan.backup));
    let mut names: Vec<String> = listed.lines().filter(ours).map(str::to_owned).collect();
    names.sort();
    names
}

fn rados(arguments: &[&str]) -> String {
    let conf = conf("LAB_BACKUPS_CEPH_CONF");
    tool("rados", &conf, &[&["-p", POOL], arguments].concat())
}

/// What a backup's restore point holds.
async fn restore_point(plan: &BackupPlan) -> Vec<u8> {
    let pool = backups().await.pool;
    let image = pool
        .open(&plan.base.to_string(), Some(&plan.snapshot))
        .await;
    let image = image.expect("open");
    let held = content(&image).await;
    image.close().await;
    held
}

/// How many clients watch an image: whoever has it open for writing does.
fn watchers(image: &str) -> usize {
    let spec = format!("{POOL}/{image}");
    let status = tool("rbd", &conf("LAB_BACKUPS_CEPH_CONF"), &["status", &spec]);
    status.matches("watcher=").count()
}

/// Drives a backup until it waits for its base image, which somebody else writes: by then it has its
/// snapshot, and has opened what it reads.
async fn assert_waits(mut storing: Pin<&mut impl Future>, plan: &BackupPlan) {
    let mut goes_on_for = async |pause| {
        let early = timeout(pause, &mut storing).await;
        assert!(early.is_err(), "it did not wait");
    };
    // The other one and this one.
    while watchers(&plan.base.to_string()) < 2 {
        goes_on_for(Duration::from_millis(100)).await;
    }
    goes_on_for(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn an_incremental_waits_for_whoever_still_writes_its_base_and_takes_that_back() {
    let mut noise = Noise::new(1);
    let vault = vault();
    let source = Source::new(24 * MIB).await;
    source.write(0, noise.bytes(5 * MIB)).await;
    let full = source.back_up(&vault, None).await;

    // As a worker that has not noticed yet that its backup was deleted by force.
    let rival = backups().await.pool.open_rw(&full.base.to_string()).await;
    let rival = rival.expect("open");
    rival.own().await.expect("own");
    rival.write(3 * MIB, noise.bytes(MIB)).await.expect("write");
    source.write(MIB, noise.bytes(4096)).await;
    let expected = content(&source.image).await;
    let plan = source.plan(&vault, Some(&full)).await;
    assert!(matches!(plan.method, Method::Incremental { .. }));
    {
        let mut storing = pin!(source.store(&vault, &plan));
        assert_waits(storing.as_mut(), &plan).await;
        let late = noise.bytes(5 * MIB);
        rival.write(0, late.clone()).await.expect("write");
        rival.write(15 * MIB, late).await.expect("write");
        rival.close().await;
        storing.await;
    }
    assert_same(&restore_point(&plan).await, &expected);
    source.delete(&vault, [&full, &plan]).await;
    source.image.close().await;
}

#[tokio::test]
async fn an_incremental_during_which_a_snapshot_leaves_the_volume_fails() {
    let mut noise = Noise::new(5);
    let vault = vault();
    let source = Source::new(24 * MIB).await;
    source.write(0, noise.bytes(20 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    // An object that only the parent's snapshot holds.
    let zeroed = source.image.write_zeroes(4 * MIB, 4 * MIB).await;
    zeroed.expect("zero");
    for own in [true, false] {
        let plan = source.plan(&vault, Some(&full)).await;
        let rival = backups().await.pool.open_rw(&full.base.to_string()).await;
        let rival = rival.expect("open");
        rival.own().await.expect("own");
        let gone = if own { &plan.snapshot } else { &full.snapshot };
        let mut storing = pin!(source.try_store(&vault, &plan));
        assert_waits(storing.as_mut(), &plan).await;
        let image = &source.image;
        image.remove_snapshot(gone).await.expect("remove");
        // One of the same name is another one.
        image.create_snapshot(gone).await.expect("create");
        rival.close().await;
        let refusal = storing
            .await
            .expect_err("a snapshot is missing")
            .to_string();
        assert!(refusal.contains(gone), "{refusal}");
        vault.undo(&plan, &source.volume).await;
    }
    let site = backups().await;
    let left = site.rbd(&["snap", "ls", &format!("{POOL}/{}", full.base)]);
    assert_eq!(left.matches("backup.").count(), 1, "{left}");
    source.delete(&vault, [&full]).await;
    source.image.close().await;
}

#[tokio::test]
async fn backups_at_the_begin_and_in_the_middle_of_a_chain_go_and_the_others_stay_whole() {
    let mut noise = Noise::new(2);
    let vault = vault();
    let source = Source::new(24 * MIB).await;
    let mut chain: Vec<(BackupPlan, Vec<u8>)> = Vec::new();
    // The middle one goes first, then the full one; an incremental is made after each.
    for gone in [None, None, None, Some(1), Some(0), None] {
        if let Some(gone) = gone {
            let (plan, _) = chain.remove(gone);
            let record = source.record(&plan, false);
            vault.delete(&record).await.expect("delete");
        }
        source
            .write(noise.below(16 * MIB), noise.bytes(5 * MIB))
            .await;
        let zeroes = source.image.write_zeroes(noise.below(20 * MIB), 3 * MIB);
        zeroes.await.expect("zero");
        let parent = chain.last().map(|(plan, _)| plan);
        let plan = source.back_up(&vault, parent).await;
        let builds = matches!(plan.method, Method::Incremental { .. });
        assert_eq!(builds, parent.is_some());
        chain.push((plan, content(&source.image).await));
        for (plan, expected) in &chain {
            assert_same(&restore_point(plan).await, expected);
        }
    }
    source
        .delete(&vault, chain.iter().map(|(plan, _)| plan))
        .await;
    source.image.close().await;
}

#[tokio::test]
async fn a_pool_that_cannot_be_found_is_no_pool_without_the_backup() {
    let source = Source::new(MIB).await;
    let full = source.back_up(&vault(), None).await;
    let cluster = ClusterOptions::new("admin").conf_file("/nonexistent/ceph.conf");
    let unconfigured = vault_of(cluster, |_| {});
    let refusal = unconfigured.delete(&source.record(&full, true)).await;
    let refusal = refusal.expect_err("nothing was deleted");
    assert!(!refusal.is_not_found(), "{refusal}");

    let elsewhere = BackupRecord {
        pool: Some("no-such-pool".to_owned()),
        ..source.record(&full, true)
    };
    // It was made there, and the pool may have another name by now.
    let refusal = vault().delete(&elsewhere).await;
    let refusal = refusal.expect_err("nothing was deleted").to_string();
    assert!(refusal.contains("Pool no-such-pool"), "{refusal}");
    let never_begun = BackupRecord {
        base: None,
        ..elsewhere
    };
    vault()
        .delete(&never_begun)
        .await
        .expect("there is nothing");
    assert_same(&restore_point(&full).await, &content(&source.image).await);
    vault()
        .delete(&source.record(&full, true))
        .await
        .expect("delete");
    source.image.close().await;
}

#[tokio::test]
async fn snapshots_that_no_incremental_needs_leave_the_volume() {
    let vault = vault();
    let source = Source::new(MIB).await;
    let full = source.back_up(&vault, None).await;
    let second = source.back_up(&vault, Some(&full)).await;
    let third = source.back_up(&vault, Some(&second)).await;
    source
        .image
        .create_snapshot("by-hand")
        .await
        .expect("snapshot");
    let live: Vec<BackupId> = [&second, &third].map(|plan| plan.backup).into();
    let trim = |keep| vault.trim_source(&source.volume, &live, keep);
    trim(0).await.expect("trim");
    let kept = [&second.snapshot, &third.snapshot, "by-hand"];
    assert_eq!(source.snapshots().await, kept);
    trim(1).await.expect("trim");
    assert_eq!(source.snapshots().await, [&third.snapshot, "by-hand"]);
    vault
        .release_source(&source.volume, third.backup)
        .await
        .expect("release");
    assert_eq!(source.snapshots().await, ["by-hand"]);
    source.delete(&vault, [&full, &second, &third]).await;
    source.image.close().await;
}

#[tokio::test]
async fn a_full_backup_whose_deletion_failed_is_whole_or_gone_but_never_something_newer() {
    let mut noise = Noise::new(4);
    let vault = vault();
    let site = backups().await;
    let source = Source::new(8 * MIB).await;
    source.write(0, noise.bytes(MIB)).await;
    let full = source.back_up(&vault, None).await;
    let expected = content(&source.image).await;
    source.write(0, noise.bytes(MIB)).await;
    let second = source.back_up(&vault, Some(&full)).await;
    let record = source.record(&second, false);
    vault.delete(&record).await.expect("delete");

    let base = format!("{POOL}/{}", full.base);
    let by_hand = format!("{base}@by-hand");
    site.rbd(&["snap", "create", "--no-progress", &by_hand]);
    let record = source.record(&full, true);
    let refusal = vault.delete(&record).await.expect_err("refused");
    assert!(refusal.to_string().contains("by-hand"), "{refusal}");
    // An operator calls it available again, since it could not be deleted: that is true.
    assert_same(&restore_point(&full).await, &expected);

    // As after a deletion that got no further. Its metadata object is there, and newer bytes are.
    let at = format!("{base}@{}", full.snapshot);
    site.rbd(&["snap", "rm", "--no-progress", &at]);
    vault
        .write_metadata(POOL, full.backup, "{}")
        .await
        .expect("write");
    let missing = vault.find_restore_point(&record).await;
    assert!(missing.expect_err("nothing to restore").is_not_found());

    site.rbd(&["snap", "rm", "--no-progress", &by_hand]);
    source.delete(&vault, [&full]).await;
    source.image.close().await;
}
