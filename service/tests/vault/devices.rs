//! Backups of block devices.

use chrono::Utc;
use cinderblock::transfer::{Access, Device, Job};
use cinderblock::vault::{
    BackupPlan, BackupRecord, BackupSpec, Error, Method, Parent, TargetSize, Vault,
};

use crate::ceph_lab::loop_device::LoopDevice;
use crate::ceph_lab::{MIB, Noise, assert_same, conf, tool};
use crate::{POOL, new_id, restore_point, vault};

const SIZE: u64 = 32 * MIB;

fn spec(parent: Option<&BackupSpec>) -> BackupSpec {
    BackupSpec {
        again: false,
        backup: new_id().parse().expect("an id"),
        volume: new_id().parse().expect("an id"),
        pool: POOL.to_owned(),
        parent: parent.map(|parent| Parent {
            backup: parent.backup,
            base: api_compat::names::BackupImage::own(parent.volume, parent.backup),
        }),
    }
}

fn record(spec: &BackupSpec, plan: &BackupPlan) -> BackupRecord {
    BackupRecord {
        backup: spec.backup,
        volume: spec.volume,
        pool: None,
        base: Some(plan.base),
        of_snapshot: false,
        sole: true,
    }
}

async fn store(vault: &Vault, plan: &BackupPlan, device: &LoopDevice) -> Result<u64, Error> {
    let job = Job::default();
    let source = Device::open(device.path(), Access::Read).await;
    let source = source.expect("it opens");
    let stored = vault.store_device(plan, &source, &job).await;
    source.close().await;
    stored.map(|stats| stats.bytes_read)
}

async fn restore(
    vault: &Vault,
    record: &BackupRecord,
    device: &LoopDevice,
    size: u64,
) -> Result<(), Error> {
    let job = Job::default();
    let point = vault.find_restore_point(record).await?;
    let target = Device::open(device.path(), Access::Write).await;
    let target = target.expect("it opens");
    let size = TargetSize::Exactly(size);
    let restoring = vault.restore_device(&point, &target, size, false, &job);
    let restored = restoring.await;
    target.close().await;
    restored.map(drop)
}

fn images() -> String {
    tool("rbd", &conf("LAB_BACKUPS_CEPH_CONF"), &["ls", POOL])
}

#[tokio::test]
async fn a_device_comes_back_over_other_data() {
    let (vault, mut noise) = (vault(), Noise::new(31));
    let mut held = vec![0; SIZE as usize];
    held[MIB as usize + 3..][..3 << 20].copy_from_slice(&noise.bytes(3 * MIB));
    let source = LoopDevice::new(&held);
    let first = spec(None);
    // What it was to build on does not exist.
    let spec = spec(Some(&first));
    let planning = vault.plan_copy(&spec, SIZE, Utc::now());
    let plan = planning.await.expect("a plan");
    assert_eq!(plan.method, Method::Full);
    assert_eq!(store(&vault, &plan, &source).await.expect("stored"), SIZE);

    // Once more, as after a message that came twice: it stands.
    let again = vault.plan_copy(&spec, SIZE, Utc::now()).await;
    let again = again.expect("a plan");
    assert_eq!(again.snapshot, plan.snapshot);
    assert_eq!(store(&vault, &again, &source).await.expect("stands"), 0);

    let record = record(&spec, &plan);
    let larger = LoopDevice::new(&noise.bytes(SIZE + 8 * MIB));
    let size = SIZE + 8 * MIB;
    let restored = restore(&vault, &record, &larger, size).await;
    restored.expect("restored");
    let mut expected = held.clone();
    expected.resize(size as usize, 0);
    assert_same(&larger.content(), &expected);

    // Nothing is written into what is too small.
    let old = noise.bytes(SIZE - MIB);
    let smaller = LoopDevice::new(&old);
    for size in [SIZE, SIZE - MIB] {
        let refused = restore(&vault, &record, &smaller, size).await;
        refused.expect_err("too small");
        assert_same(&smaller.content(), &old);
    }
    vault.delete(&record).await.expect("deleted");
    assert!(!images().contains(&spec.volume.to_string()));
}

#[tokio::test]
async fn a_backup_that_was_broken_off_is_made_anew_or_undone() {
    let (vault, mut noise) = (vault(), Noise::new(32));
    let source = LoopDevice::new(&noise.bytes(SIZE));
    let spec = spec(None);
    let plan = vault.plan_copy(&spec, SIZE, Utc::now()).await;
    let plan = plan.expect("a plan");
    let opened = Device::open(source.path(), Access::Read).await;
    let device = opened.expect("it opens");
    let job = Job::default();
    job.cancel.cancel();
    let storing = vault.store_device(&plan, &device, &job);
    storing.await.expect_err("cancelled");
    let record = record(&spec, &plan);
    let point = vault.find_restore_point(&record).await;
    point.expect_err("a half image is no restore point");

    assert_eq!(store(&vault, &plan, &source).await.expect("stored"), SIZE);
    vault.find_restore_point(&record).await.expect("it stands");
    vault.undo_copy(&plan).await;
    assert!(!images().contains(&spec.volume.to_string()));
}

/// As one that was detached and attached anew as another volume, or was not extended.
#[tokio::test]
async fn a_device_that_is_smaller_than_its_volume_is_refused() {
    let vault = vault();
    let device = LoopDevice::new(&Noise::new(33).bytes(SIZE - 512));
    let spec = spec(None);
    let plan = vault.plan_copy(&spec, SIZE, Utc::now()).await;
    let plan = plan.expect("a plan");
    let refused = store(&vault, &plan, &device).await.expect_err("too small");
    let refused = refused.to_string();
    let sizes = [SIZE - 512, SIZE].map(|size| size.to_string());
    assert!(sizes.iter().all(|size| refused.contains(size)), "{refused}");
    assert!(!images().contains(&spec.volume.to_string()));
}

/// The end of a raw file is left out where it was never written.
#[tokio::test]
async fn a_file_that_is_shorter_than_its_volume_ends_in_zeros() {
    let vault = vault();
    let mut held = Noise::new(34).bytes(MIB + 7).to_vec();
    let path = std::env::temp_dir().join(crate::ceph_lab::unique("file"));
    std::fs::write(&path, &held).expect("it is written");
    let source = Device::open(&path, Access::Read).await.expect("it opens");
    let spec = spec(None);
    let plan = vault.plan_copy(&spec, SIZE, Utc::now()).await;
    let plan = plan.expect("a plan");
    let job = Job::default();
    let stored = vault.store_device(&plan, &source, &job).await;
    stored.expect("stored");
    let _ = std::fs::remove_file(&path);
    held.resize(SIZE as usize, 0);
    assert_same(&restore_point(&plan).await, &held);
    vault.delete(&record(&spec, &plan)).await.expect("deleted");
}

#[tokio::test]
async fn a_volume_without_a_size_is_refused() {
    let refused = vault().plan_copy(&spec(None), 0, Utc::now()).await;
    let refused = refused.expect_err("no size").to_string();
    assert_eq!(refused, "Need non-zero volume size");
}
