//! Whole images, once.

use std::time::Duration;

use bytes::Bytes;
use cinderblock::rbd::{ErrorKind, Features, ImageOptions};
use cinderblock::transfer::{Destination, Job, Stats, TransferError, copy_diff, take_back};

use crate::ceph_lab::{MIB, Noise, assert_same, backups, content, usual_features, volumes};
use crate::{Chain, copy, options, try_copy, write, zero};

#[tokio::test]
async fn a_huge_thin_image_costs_what_is_in_it() {
    let (volumes, backups) = (volumes().await, backups().await);
    let size = 2 << 40;
    let (_source_name, source) = volumes.usual_image(size).await;
    let (_target_name, target) = backups.usual_image(size).await;
    let mut noise = Noise::new(2);
    let places: Vec<u64> = (0..20).map(|_| noise.below(size / MIB - 1) * MIB).collect();
    for place in &places {
        write(&source, *place, noise.bytes(10_000)).await;
    }
    let stats = copy(&source, None, &target, Destination::Fresh).await;
    assert!(stats.bytes_written <= 20 * 16_384, "{stats:?}");
    assert!(stats.operations <= 40, "{stats:?}");
    for place in places {
        let [left, right] = [&source, &target].map(|image| image.read(place, vec![0; 10_000]));
        assert_same(&left.await.expect("read"), &right.await.expect("read"));
    }
    source.close().await;
    target.close().await;
}

#[tokio::test]
async fn images_that_are_laid_out_differently() {
    let mut noise = Noise::new(6);
    let (volumes, backups) = (volumes().await, backups().await);
    let layout = [
        "--object-size",
        "1M",
        "--stripe-unit",
        "16K",
        "--stripe-count",
        "5",
    ];
    let (name, source) = volumes.image_laid_out(30 * MIB + 12_288, &layout).await;
    let mut chain = Chain::of(name, source, &backups).await;
    assert_eq!(chain.source.stripe_period(), 5 * MIB);
    for _ in 0..4 {
        for _ in 0..6 {
            let place = noise.below(29 * MIB);
            write(&chain.source, place, noise.bytes(100_000)).await;
            zero(&chain.source, noise.below(28 * MIB), MIB).await;
        }
        chain.step().await;
    }
    // And the way back, into a striped image that holds something else.
    let layout = [
        "--object-size",
        "8M",
        "--stripe-unit",
        "64K",
        "--stripe-count",
        "2",
    ];
    let (_name, other) = backups.image_laid_out(31 * MIB, &layout).await;
    write(&other, 0, noise.bytes(31 * MIB)).await;
    copy(&chain.target, None, &other, Destination::MayHoldData).await;
    let expected = content(&chain.source).await;
    let restored = content(&other).await;
    let (restored, tail) = restored.split_at(expected.len());
    assert_same(restored, &expected);
    assert!(tail.iter().all(|byte| *byte == 0));
    other.close().await;
}

#[tokio::test]
async fn a_restore_over_old_data_leaves_none_of_it() {
    let mut noise = Noise::new(10);
    let (volumes, backups) = (volumes().await, backups().await);
    let (_source_name, source) = backups.usual_image(20 * MIB + 512).await;
    write(&source, 3 * MIB, noise.bytes(100)).await;
    write(&source, 9 * MIB + 5, noise.bytes(2 * MIB)).await;
    write(&source, 20 * MIB, noise.bytes(512)).await;
    let (_target_name, target) = volumes
        .image(&ImageOptions {
            size: 33 * MIB,
            features: Some(Features::LAYERING),
            ..ImageOptions::default()
        })
        .await;
    write(&target, 0, noise.bytes(33 * MIB)).await;
    let stats = copy(&source, None, &target, Destination::MayHoldData).await;
    let mut expected = content(&source).await;
    expected.resize((33 * MIB) as usize, 0);
    assert_same(&content(&target).await, &expected);
    assert!(stats.bytes_read < 7 * MIB, "{stats:?}");
    source.close().await;
    target.close().await;
}

#[tokio::test]
async fn errors_name_the_side_and_what_they_mean() {
    let (volumes, backups) = (volumes().await, backups().await);
    let (source_name, source) = volumes.usual_image(8 * MIB).await;
    let (target_name, target) = backups.usual_image(8 * MIB).await;
    write(&source, 5 * MIB, Bytes::from_static(b"x")).await;

    let error = try_copy(&source, Some("no"), &target, Destination::MayHoldData)
        .await
        .expect_err("no such snapshot");
    assert_eq!(error.kind(), Some(ErrorKind::NotFound));
    assert!(matches!(error, TransferError::Plan(_)), "{error}");
    assert!(error.to_string().contains(&source_name.name), "{error}");

    let reader = backups
        .pool
        .open(&target_name.name, None)
        .await
        .expect("open");
    let error = try_copy(&source, None, &reader, Destination::Fresh)
        .await
        .expect_err("read-only");
    assert_eq!(error.kind(), Some(ErrorKind::ReadOnly));
    assert!(matches!(error, TransferError::Write { .. }), "{error}");
    reader.close().await;

    target.resize(4 * MIB).await.expect("shrink");
    let error = try_copy(&source, None, &target, Destination::Fresh)
        .await
        .expect_err("too small");
    assert_eq!(error.kind(), Some(ErrorKind::InvalidArgument));
    assert!(matches!(error, TransferError::Write { .. }), "{error}");
    source.close().await;
    target.close().await;
}

#[tokio::test]
async fn a_transfer_that_was_cut_off_can_be_repeated() {
    let mut noise = Noise::new(12);
    let (volumes, backups) = (volumes().await, backups().await);
    let (_source_name, source) = volumes.usual_image(96 * MIB).await;
    let (target_name, target) = backups.usual_image(96 * MIB).await;
    write(&source, 0, noise.bytes(64 * MIB)).await;
    let mut options = options(Destination::Fresh);
    options.depth = 4;
    let job = Job::default();

    // Cancelled, with others watching how far it is.
    let watcher = async {
        while job.progress.done() < 16 * MIB {
            tokio::task::yield_now().await;
        }
        job.cancel.cancel();
    };
    let transfer = copy_diff(&source, None, &target, &options, &job);
    let (outcome, ()) = tokio::join!(transfer, watcher);
    assert!(matches!(outcome, Err(TransferError::Cancelled)));
    assert!(job.progress.done() < 64 * MIB);
    assert_eq!(options.budget.allocated(), 0);

    // Its future dropped.
    let job = Job::default();
    tokio::select! {
        _ = copy_diff(&source, None, &target, &options, &job) => {
            panic!("it was to be dropped");
        }
        () = async {
            while job.progress.done() < 16 * MIB {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    target.close().await;
    // What was being read is given back when the cluster has answered.
    for _ in 0..600 {
        if options.budget.allocated() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(options.budget.allocated(), 0);

    let target = backups.pool.open_rw(&target_name.name).await.expect("open");
    copy(&source, None, &target, Destination::Fresh).await;
    assert_same(&content(&source).await, &content(&target).await);
    source.close().await;
    target.close().await;
}

#[tokio::test]
async fn an_image_is_taken_back_to_its_snapshot() {
    let mut noise = Noise::new(14);
    let backups = backups().await;
    for features in [usual_features(), Features::LAYERING] {
        let (_name, image) = backups
            .image(&ImageOptions {
                size: 24 * MIB,
                features: Some(features),
                ..ImageOptions::default()
            })
            .await;
        write(&image, 0, noise.bytes(9 * MIB)).await;
        image.create_snapshot("then").await.expect("snapshot");
        let then = content(&image).await;
        let options = options(Destination::MayHoldData);
        let job = Job::default();
        let stats = take_back(&image, "then", &options, &job).await;
        assert_eq!(stats.expect("nothing to do"), Stats::default());

        write(&image, 5 * MIB, noise.bytes(100)).await;
        zero(&image, 0, 4 * MIB).await;
        write(&image, 13 * MIB, noise.bytes(MIB)).await;
        image.resize(31 * MIB).await.expect("grow");
        write(&image, 30 * MIB, noise.bytes(MIB)).await;
        // A snapshot in between takes the marks of what changed with it when it goes.
        image.create_snapshot("newer").await.expect("snapshot");
        image.remove_snapshot("newer").await.expect("remove");
        let cancelled = Job::default();
        cancelled.cancel.cancel();
        let broken_off = take_back(&image, "then", &options, &cancelled).await;
        assert!(matches!(broken_off, Err(TransferError::Cancelled)));
        let stats = take_back(&image, "then", &options, &job).await;
        let stats = stats.expect("taken back");
        assert_same(&content(&image).await, &then);
        assert!(stats.bytes_written <= 8 * MIB, "{stats:?}");
        let stats = take_back(&image, "then", &options, &job).await;
        // Without an object map what was written since is all that is known.
        if features == usual_features() {
            assert!(stats.expect("again").bytes_written <= 8 * MIB);
        }
        image.close().await;
    }
}
