//! Transfers between two real clusters, compared byte by byte.

mod ceph_lab;

use std::sync::Arc;

use ceph_lab::{MIB, Noise, assert_same, backups, content, volumes};
use cinderblock::rbd::Image;
use cinderblock::transfer::{Budget, Destination, Progress, PumpOptions, Stats, copy_diff};
use tokio_util::sync::CancellationToken;

fn options(destination: Destination) -> PumpOptions {
    PumpOptions::new(Budget::new(64 << 20), destination)
}

async fn copy(source: &Image, since: Option<&str>, target: &Image, to: Destination) -> Stats {
    let progress = Arc::new(Progress::default());
    let stats = copy_diff(
        source,
        since,
        target,
        &options(to),
        &progress,
        &CancellationToken::new(),
    )
    .await
    .expect("transfer");
    assert!(progress.is_exact());
    assert_eq!(progress.done(), progress.planned());
    stats
}

#[tokio::test]
async fn a_full_copy_and_an_incremental_one() {
    let (volumes, backups) = (volumes().await, backups().await);
    let (_source_name, source) = volumes.usual_image(40 * MIB).await;
    let (_target_name, target) = backups.usual_image(40 * MIB).await;
    let mut noise = Noise::new(1);
    source.write(0, noise.bytes(6 * MIB)).await.expect("write");
    source
        .write(21 * MIB + 512, noise.bytes(5000))
        .await
        .expect("write");
    source.create_snapshot("one").await.expect("snapshot");
    let first = source.open_at("one").await.expect("open");
    let stats = copy(&first, None, &target, Destination::Fresh).await;
    assert_same(&content(&first).await, &content(&target).await);
    assert!(stats.bytes_read < 16 * MIB, "{stats:?}");

    source.write(MIB, noise.bytes(4096)).await.expect("write");
    source.write_zeroes(4 * MIB, MIB).await.expect("zero");
    source
        .write_zeroes(2 * MIB + 100, 5000)
        .await
        .expect("zero");
    source
        .write(35 * MIB, noise.bytes(70_000))
        .await
        .expect("write");
    source.create_snapshot("two").await.expect("snapshot");
    let second = source.open_at("two").await.expect("open");
    let stats = copy(&second, Some("one"), &target, Destination::MayHoldData).await;
    assert_same(&content(&second).await, &content(&target).await);
    // An object that did not exist before is named from its beginning.
    assert!(stats.bytes_read < 5 * MIB, "{stats:?}");
}
