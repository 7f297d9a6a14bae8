//! Images that change, step by step, and the images that follow them.

use cinderblock::rbd::{Features, ImageOptions};
use cinderblock::transfer::Stats;

use crate::ceph_lab::{MIB, Noise, volumes};
use crate::{Chain, write, zero};

#[tokio::test]
async fn a_full_copy_and_an_incremental_one_move_what_they_must() {
    let mut noise = Noise::new(1);
    let mut chain = Chain::usual(40 * MIB).await;
    write(&chain.source, 0, noise.bytes(6 * MIB)).await;
    write(&chain.source, 21 * MIB + 512, noise.bytes(5000)).await;
    let stats = chain.step().await;
    assert!(stats.bytes_read < 12 * MIB, "{stats:?}");
    assert_eq!(stats.bytes_discarded, 0);

    write(&chain.source, MIB, noise.bytes(4096)).await;
    zero(&chain.source, 4 * MIB, MIB).await;
    zero(&chain.source, 2 * MIB + 100, 5000).await;
    let stats = chain.step().await;
    assert!(stats.bytes_read < 2 * MIB, "{stats:?}");
    assert_eq!(stats.bytes_written, 4096, "{stats:?}");
    assert!(stats.bytes_discarded >= MIB, "{stats:?}");

    let stats = chain.step().await;
    assert_eq!(stats, Stats::default());
}

#[tokio::test]
async fn a_volume_that_grows_and_shrinks() {
    let mut noise = Noise::new(3);
    let mut chain = Chain::usual(13 * MIB + 512).await;
    write(&chain.source, 0, noise.bytes(13 * MIB + 512)).await;
    chain.step().await;
    chain.source.resize(22 * MIB + 1024).await.expect("grow");
    write(&chain.source, 20 * MIB, noise.bytes(MIB)).await;
    chain.step().await;
    chain.source.resize(9 * MIB + 512).await.expect("shrink");
    chain.step().await;
    // Both between two snapshots: what lies behind the smaller size is gone.
    write(&chain.source, 0, noise.bytes(9 * MIB)).await;
    chain.step().await;
    chain.source.resize(2 * MIB + 4608).await.expect("shrink");
    chain.source.resize(17 * MIB).await.expect("grow");
    write(&chain.source, 15 * MIB, noise.bytes(5000)).await;
    chain.step().await;
}

#[tokio::test]
async fn an_image_without_object_map() {
    let mut noise = Noise::new(4);
    let mut chain = Chain::new(&ImageOptions {
        size: 90 * MIB,
        features: Some(Features::LAYERING),
        ..ImageOptions::default()
    })
    .await;
    assert!(!chain.source.has_valid_fast_diff());
    for _ in 0..3 {
        for _ in 0..8 {
            let place = noise.below(89 * MIB);
            write(&chain.source, place, noise.bytes(3000)).await;
            zero(&chain.source, noise.below(80 * MIB), 5 * MIB).await;
        }
        chain.step().await;
    }
}

#[tokio::test]
async fn an_object_map_that_became_invalid() {
    let mut noise = Noise::new(5);
    let volumes = volumes().await;
    let mut chain = Chain::usual(40 * MIB).await;
    let spec = chain._names.0.spec.clone();
    write(&chain.source, 0, noise.bytes(5 * MIB)).await;
    chain.step().await;
    write(&chain.source, 9 * MIB, noise.bytes(MIB)).await;
    chain
        .source
        .create_snapshot("between")
        .await
        .expect("snapshot");

    // Maps that are made anew are invalid until somebody rebuilds them: first all of them.
    volumes.rbd(&["feature", "disable", &spec, "object-map"]);
    volumes.rbd(&["feature", "enable", &spec, "object-map", "fast-diff"]);
    write(&chain.source, 17 * MIB, noise.bytes(MIB)).await;
    let head = chain.source.open_at("between").await.expect("open");
    assert!(!head.has_valid_fast_diff());
    head.close().await;
    chain.step().await;

    // Then only the one of a snapshot in the middle.
    let from = chain.last.clone().expect("a step was made");
    write(&chain.source, 25 * MIB, noise.bytes(MIB)).await;
    chain
        .source
        .create_snapshot("middle")
        .await
        .expect("snapshot");
    volumes.rbd(&["feature", "disable", &spec, "object-map"]);
    volumes.rbd(&["feature", "enable", &spec, "object-map", "fast-diff"]);
    volumes.rbd(&["object-map", "rebuild", "--no-progress", &spec]);
    let at = format!("{spec}@{from}");
    volumes.rbd(&["object-map", "rebuild", "--no-progress", &at]);
    zero(&chain.source, 9 * MIB, MIB).await;
    chain.step().await;
}

#[tokio::test]
async fn a_long_chain_of_random_changes_while_the_volume_is_written() {
    let mut noise = Noise::new(11);
    let mut chain = Chain::usual(48 * MIB).await;
    for round in 0..12 {
        let size = chain.source.size().await.expect("size");
        for _ in 0..noise.below(24) {
            let place = noise.below(size - 1);
            let length = 1 + noise.below((size - place).min(400_000));
            match noise.below(2) {
                0 => zero(&chain.source, place, length).await,
                _ => write(&chain.source, place, noise.bytes(length)).await,
            }
        }
        if round % 4 == 3 {
            let size = (10 + noise.below(50)) * MIB + noise.below(2) * 512;
            chain.source.resize(size).await.expect("resize");
        }
        // A guest goes on writing while the snapshot is taken and moved.
        let guest = chain.source.clone();
        let mut guest_noise = Noise::new(100 + round);
        let writer = tokio::spawn(async move {
            for _ in 0..40 {
                let place = guest_noise.below(9 * MIB);
                write(&guest, place, guest_noise.bytes(5000)).await;
            }
        });
        chain.step().await;
        writer.await.expect("guest");
    }
}

#[tokio::test]
async fn a_volume_that_is_rolled_back_to_an_older_snapshot() {
    let mut noise = Noise::new(13);
    let mut chain = Chain::usual(24 * MIB).await;
    write(&chain.source, 0, noise.bytes(5 * MIB)).await;
    write(&chain.source, 9 * MIB, noise.bytes(MIB)).await;
    chain.step().await;
    // Of a user's own: what it holds is older than what the next step moves.
    chain.source.create_snapshot("own").await.expect("snapshot");
    write(&chain.source, 0, noise.bytes(MIB)).await;
    write(&chain.source, 17 * MIB, noise.bytes(MIB)).await;
    zero(&chain.source, 8 * MIB, 4 * MIB).await;
    chain.step().await;
    chain.roll_back("own").await;
    let stats = chain.step().await;
    assert!(stats.bytes_read >= 2 * MIB, "{stats:?}");
    chain.roll_back("step 1").await;
    write(&chain.source, 4 * MIB, noise.bytes(512)).await;
    chain.step().await;
}
