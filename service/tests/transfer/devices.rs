//! Between images and block devices.

use cinderblock::rbd::ErrorKind;
use cinderblock::transfer::{
    Access, Destination, Device, Job, PumpOptions, TransferError, copy_diff, copy_whole,
};

use crate::ceph_lab::loop_device::LoopDevice;
use crate::ceph_lab::{MIB, Noise, assert_same, backups, content};
use crate::{options, write, zero};

async fn open(device: &LoopDevice, access: Access) -> Device {
    let opened = Device::open(device.path(), access).await;
    opened.expect("it opens")
}

#[tokio::test]
async fn a_device_goes_to_an_image_without_its_zeros() {
    let mut noise = Noise::new(21);
    let mut held = vec![0; 40 << 20];
    held[5 << 20..][..70_001].copy_from_slice(&noise.bytes(70_001));
    held[(40 << 20) - 512..].copy_from_slice(&noise.bytes(512));
    let device = LoopDevice::new(&held);
    let backups = backups().await;
    // As large as the volume is said to be: the device is smaller.
    let (_name, image) = backups.usual_image(64 * MIB).await;
    let source = open(&device, Access::Read).await;
    let job = Job::default();
    let options = options(Destination::Fresh);
    let stats = copy_whole(&source, &image, &options, &job).await;
    let stats = stats.expect("copied");
    assert!(stats.bytes_written < 128 << 10, "{stats:?}");
    assert_eq!(stats.bytes_read, 40 * MIB);
    assert_eq!(job.progress.done(), 64 * MIB);
    held.resize(64 << 20, 0);
    assert_same(&content(&image).await, &held);
    image.close().await;
}

#[tokio::test]
async fn an_image_goes_over_what_a_device_held() {
    let mut noise = Noise::new(22);
    let backups = backups().await;
    let (_name, image) = backups.usual_image(24 * MIB).await;
    write(&image, 3 * MIB + 7, noise.bytes(5 * MIB)).await;
    zero(&image, 5 * MIB, MIB + 513).await;
    write(&image, 23 * MIB, noise.bytes(MIB)).await;
    let mut expected = content(&image).await;
    let old = noise.bytes(40 * MIB);
    for zero_excess in [true, false] {
        let device = LoopDevice::new(&old);
        let target = open(&device, Access::Write).await;
        let options = PumpOptions {
            zero_excess,
            zero_grain: 64 << 10,
            ..options(Destination::MayHoldData)
        };
        let job = Job::default();
        let copying = copy_diff(&image, None, &target, &options, &job);
        copying.await.expect("copied");
        target.close().await;
        expected.truncate(24 << 20);
        match zero_excess {
            true => expected.resize(40 << 20, 0),
            false => expected.extend_from_slice(&old[24 << 20..]),
        }
        assert_same(&device.content(), &expected);
        if zero_excess {
            assert!(device.allocated() < 10 << 20, "{}", device.allocated());
        }
    }
    image.close().await;
}

#[tokio::test]
async fn a_copy_to_a_device_can_be_cancelled() {
    let mut noise = Noise::new(23);
    let backups = backups().await;
    let (_name, image) = backups.usual_image(64 * MIB).await;
    write(&image, 0, noise.bytes(64 * MIB)).await;
    let device = LoopDevice::new(&vec![0; 64 << 20]);
    let target = open(&device, Access::Write).await;
    let options = PumpOptions {
        depth: 2,
        ..options(Destination::MayHoldData)
    };
    let job = Job::default();
    let watcher = async {
        while job.progress.done() < 8 * MIB {
            tokio::task::yield_now().await;
        }
        job.cancel.cancel();
    };
    let copying = copy_whole(&image, &target, &options, &job);
    let (copied, ()) = tokio::join!(copying, watcher);
    assert!(matches!(copied, Err(TransferError::Cancelled)));
    assert!(job.progress.done() < 64 * MIB);
    assert_eq!(options.budget.allocated(), 0);
    target.close().await;
    image.close().await;
}

#[tokio::test]
async fn a_device_that_is_too_small_or_only_read_is_told() {
    let backups = backups().await;
    let (_name, image) = backups.usual_image(8 * MIB).await;
    write(&image, 0, Noise::new(24).bytes(MIB)).await;
    let device = LoopDevice::new(&vec![0; 4 << 20]);
    let target = open(&device, Access::Write).await;
    let error = target.sized(8 * MIB).await.expect_err("too small");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let reader = open(&device, Access::Read).await;
    let job = Job::default();
    let options = options(Destination::MayHoldData);
    let error = copy_whole(&image, &reader, &options, &job).await;
    let error = error.expect_err("opened for reading");
    assert!(matches!(error, TransferError::Write { .. }), "{error}");
    assert_ne!(error.kind(), Some(ErrorKind::NotFound));
    image.close().await;
}
