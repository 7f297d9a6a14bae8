//! What somebody removes while it is read.

use std::future::Future;

use cinderblock::transfer::{Access, Device, Job};
use cinderblock::vault::{BackupPlan, Error, Method, TargetSize};

use crate::ceph_lab::loop_device::LoopDevice;
use crate::ceph_lab::{MIB, Noise, assert_same, conf, content, tool};
use crate::{POOL, Source, restore_point, vault};

const SIZE: u64 = 96 * MIB;

/// Removes a backup's snapshot in the middle of a transfer. Nothing of this thread goes on meanwhile,
/// and there is no connection to be made, during which the data would flow on.
async fn remove_once_it_runs(plan: &BackupPlan, job: &Job) {
    while job.progress.done() == 0 {
        tokio::task::yield_now().await;
    }
    let at = format!("{POOL}/{}@{}", plan.base, plan.snapshot);
    let conf = conf("LAB_BACKUPS_CEPH_CONF");
    tool("rbd", &conf, &["snap", "rm", "--no-progress", &at]);
    assert!(job.progress.done() < SIZE, "it was too fast");
}

async fn broken_off<T>(
    transfer: impl Future<Output = Result<T, Error>>,
    plan: &BackupPlan,
    job: &Job,
) -> Error {
    let (outcome, ()) = tokio::join!(transfer, remove_once_it_runs(plan, job));
    let error = outcome.err().expect("the restore point is gone");
    assert!(error.to_string().contains(&plan.snapshot), "{error}");
    error
}

#[tokio::test]
async fn a_restore_whose_restore_point_goes_fails() {
    let (vault, mut noise) = (vault(), Noise::new(41));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(SIZE)).await;
    for into_device in [false, true] {
        let plan = source.back_up(&vault, None).await;
        let record = source.record(&plan, true);
        let point = vault.find_restore_point(&record).await.expect("found");
        let job = Job::default();
        let size = TargetSize::Exactly(SIZE);
        if into_device {
            let device = LoopDevice::new(&vec![1; SIZE as usize]);
            let target = Device::open(device.path(), Access::Write).await;
            let target = target.expect("it opens");
            let restoring = vault.restore_device(&point, &target, size, true, &job);
            broken_off(restoring, &plan, &job).await;
            target.close().await;
        } else {
            let target = Source::new(SIZE).await;
            target.image.close().await;
            let volume = &target.volume;
            let restoring = vault.restore(&point, volume, size, true, &job);
            broken_off(restoring, &plan, &job).await;
        }
        vault.undo(&plan, &source.volume).await;
    }
    source.image.close().await;
}

#[tokio::test]
async fn an_incremental_whose_parent_goes_is_compared_with_the_image() {
    let (vault, mut noise) = (vault(), Noise::new(42));
    let source = Source::new(SIZE).await;
    source.write(0, noise.bytes(5 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    source.write(0, noise.bytes(SIZE)).await;
    let plan = source.plan(&vault, Some(&full)).await;
    assert!(matches!(plan.method, Method::Incremental { .. }));
    let job = Job::default();
    let storing = vault.store(&plan, &source.volume, &job);
    let error = broken_off(storing, &full, &job).await;
    vault.undo(&plan, &source.volume).await;

    let instead = plan.instead(&error).expect("another way");
    assert_eq!(instead.method, Method::Compared);
    source.store(&vault, &instead).await;
    let expected = content(&source.image).await;
    assert_same(&restore_point(&instead).await, &expected);
    source.delete(&vault, [&full, &instead]).await;
    source.image.close().await;
}
