//! Transfers between two real clusters, compared byte by byte.

mod ceph_lab;

use std::sync::Arc;

use bytes::Bytes;
use ceph_lab::{MIB, Noise, Scratch, Site, assert_same, backups, content, usual_features, volumes};
use cinderblock::rbd::{ErrorKind, Features, Image, ImageOptions};
use cinderblock::transfer::{
    Budget, Destination, Progress, PumpOptions, Side, Stats, TransferError, copy_diff, erase,
};
use tokio_util::sync::CancellationToken;

fn options(destination: Destination) -> PumpOptions {
    PumpOptions::new(Budget::new(64 << 20), destination)
}

async fn try_copy(
    source: &Image,
    since: Option<&str>,
    target: &Image,
    to: Destination,
) -> Result<Stats, TransferError> {
    let progress = Arc::new(Progress::default());
    let cancel = CancellationToken::new();
    let options = options(to);
    let stats = copy_diff(source, since, target, &options, &progress, &cancel).await?;
    assert!(progress.is_exact());
    assert_eq!(progress.done(), progress.planned());
    assert!(options.budget.peak() <= options.budget.capacity());
    assert_eq!(options.budget.allocated(), 0);
    Ok(stats)
}

async fn copy(source: &Image, since: Option<&str>, target: &Image, to: Destination) -> Stats {
    try_copy(source, since, target, to).await.expect("transfer")
}

async fn write(image: &Image, offset: u64, data: Bytes) {
    image.write(offset, data).await.expect("write");
}

async fn zero(image: &Image, offset: u64, length: u64) {
    image.write_zeroes(offset, length).await.expect("zero");
}

/// A source on one cluster, and on the other the image that follows it.
struct Chain {
    source: Image,
    target: Image,
    last: Option<String>,
    steps: usize,
    _names: (Scratch, Scratch),
}

impl Chain {
    async fn new(options: &ImageOptions) -> Self {
        let (volumes, backups) = (volumes().await, backups().await);
        let (source_name, source) = volumes.image(options).await;
        Self::of(source_name, source, &backups).await
    }

    async fn usual(size: u64) -> Self {
        Self::new(&ImageOptions {
            size,
            features: Some(usual_features()),
            ..ImageOptions::default()
        })
        .await
    }

    async fn of(source_name: Scratch, source: Image, backups: &Site) -> Self {
        let (target_name, target) = backups.usual_image(0).await;
        Self {
            source,
            target,
            last: None,
            steps: 0,
            _names: (source_name, target_name),
        }
    }

    /// Takes a snapshot, moves what changed since the last, and compares everything.
    async fn step(&mut self) -> Stats {
        let snapshot = format!("step {}", self.steps);
        self.steps += 1;
        self.source
            .create_snapshot(&snapshot)
            .await
            .expect("snapshot");
        let now = self.source.open_at(&snapshot).await.expect("open");
        self.target.resize(now.known_size()).await.expect("resize");
        let to = match self.last {
            None => Destination::Fresh,
            Some(_) => Destination::MayHoldData,
        };
        let stats = copy(&now, self.last.as_deref(), &self.target, to).await;
        assert_same(&content(&now).await, &content(&self.target).await);
        now.close().await;
        self.last = Some(snapshot);
        stats
    }
}

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
async fn images_that_are_laid_out_differently() {
    let mut noise = Noise::new(6);
    let mut chain = Chain::new(&ImageOptions {
        size: 30 * MIB + 12_288,
        features: Some(usual_features() | Features::STRIPING),
        order: Some(20),
        stripe_unit: 16_384,
        stripe_count: 5,
    })
    .await;
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
    let backups = backups().await;
    let (_name, other) = backups
        .image(&ImageOptions {
            size: 31 * MIB,
            features: Some(usual_features()),
            order: Some(23),
            stripe_unit: 65_536,
            stripe_count: 2,
        })
        .await;
    write(&other, 0, noise.bytes(31 * MIB)).await;
    copy(&chain.target, None, &other, Destination::MayHoldData).await;
    let expected = content(&chain.source).await;
    let restored = content(&other).await;
    let (restored, tail) = restored.split_at(expected.len());
    assert_same(restored, &expected);
    assert!(tail.iter().all(|byte| *byte == 0));
    other.close().await;
}

/// A clone of an image that holds data in some of its objects.
async fn clone_of_something(noise: &mut Noise) -> (Scratch, Scratch, Image) {
    let volumes = volumes().await;
    let (parent_name, parent) = volumes.usual_image(32 * MIB).await;
    write(&parent, 0, noise.bytes(6 * MIB)).await;
    write(&parent, 17 * MIB, noise.bytes(2 * MIB)).await;
    write(&parent, 29 * MIB, noise.bytes(3 * MIB)).await;
    parent.create_snapshot("golden").await.expect("snapshot");
    parent.close().await;
    let child = volumes.scratch("clone");
    volumes.rbd(&[
        "clone",
        "--rbd-default-clone-format",
        "2",
        "--image-feature",
        "layering,exclusive-lock,object-map,fast-diff",
        &format!("{}@golden", parent_name.spec),
        &child.spec,
    ]);
    let image = volumes.pool.open_rw(&child.name).await.expect("open");
    (parent_name, child, image)
}

#[tokio::test]
async fn a_clone_is_copied_with_what_it_shows_of_its_parent() {
    let mut noise = Noise::new(7);
    let (_parent, name, clone) = clone_of_something(&mut noise).await;
    let mut chain = Chain::of(name, clone, &backups().await).await;
    write(&chain.source, 5 * MIB, noise.bytes(3000)).await;
    let stats = chain.step().await;
    assert!(stats.bytes_read <= 13 * MIB, "{stats:?}");

    // Objects that come to be over the parent's, by writing and by hiding them.
    write(&chain.source, 17 * MIB + 5000, noise.bytes(100)).await;
    zero(&chain.source, 4 * MIB, 4 * MIB).await;
    zero(&chain.source, 30 * MIB, 5000).await;
    chain.step().await;
    write(&chain.source, 4 * MIB, noise.bytes(100)).await;
    zero(&chain.source, 0, 4096).await;
    chain.step().await;
}

#[tokio::test]
async fn a_clone_that_shows_less_of_its_parent_than_before() {
    let mut noise = Noise::new(8);
    let (_parent, name, clone) = clone_of_something(&mut noise).await;
    let mut chain = Chain::of(name, clone, &backups().await).await;
    chain.step().await;
    // The clone had no objects of its own there, and has none now.
    chain.source.resize(18 * MIB).await.expect("shrink");
    chain.source.resize(40 * MIB).await.expect("grow");
    let stats = chain.step().await;
    assert!(stats.bytes_discarded >= 4 * MIB, "{stats:?}");
}

#[tokio::test]
async fn a_clone_that_is_flattened() {
    let mut noise = Noise::new(9);
    let (_parent, name, clone) = clone_of_something(&mut noise).await;
    let volumes = volumes().await;
    let mut chain = Chain::of(name, clone, &backups().await).await;
    write(&chain.source, 9 * MIB, noise.bytes(3000)).await;
    chain.step().await;
    volumes.rbd(&["flatten", "--no-progress", &chain._names.0.spec]);
    write(&chain.source, 17 * MIB, noise.bytes(3000)).await;
    chain.step().await;
    zero(&chain.source, 17 * MIB, MIB).await;
    chain.step().await;
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

    let progress = Arc::new(Progress::default());
    let cancel = CancellationToken::new();
    let options = options(Destination::MayHoldData);
    erase(&target, &options, &progress, &cancel)
        .await
        .expect("erase");
    assert!(content(&target).await.iter().all(|byte| *byte == 0));
    source.close().await;
    target.close().await;
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
            match noise.below(4) {
                0 => zero(&chain.source, place, length).await,
                1 => chain.source.discard(place, length).await.expect("discard"),
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
async fn errors_name_the_side_and_what_they_mean() {
    let (volumes, backups) = (volumes().await, backups().await);
    let (source_name, source) = volumes.usual_image(8 * MIB).await;
    let (target_name, target) = backups.usual_image(8 * MIB).await;
    write(&source, 5 * MIB, Bytes::from_static(b"x")).await;

    let error = try_copy(&source, Some("no"), &target, Destination::MayHoldData)
        .await
        .expect_err("no such snapshot");
    assert_eq!(error.kind(), Some(ErrorKind::NotFound));
    assert_eq!(error.side(), Some(Side::Source));
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
    assert_eq!(error.side(), Some(Side::Sink));
    reader.close().await;

    target.resize(4 * MIB).await.expect("shrink");
    let error = try_copy(&source, None, &target, Destination::Fresh)
        .await
        .expect_err("too small");
    assert_eq!(error.kind(), Some(ErrorKind::InvalidArgument));
    assert_eq!(error.side(), Some(Side::Sink));
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
    let progress = Arc::new(Progress::default());

    // Cancelled, with others watching how far it is.
    let cancel = CancellationToken::new();
    let watcher = async {
        while progress.done() < 16 * MIB {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let transfer = copy_diff(&source, None, &target, &options, &progress, &cancel);
    let (outcome, ()) = tokio::join!(transfer, watcher);
    assert!(outcome.expect_err("cancelled").is_cancelled());
    assert!(progress.done() < 64 * MIB);
    assert_eq!(options.budget.allocated(), 0);

    // Its future dropped.
    let progress = Arc::new(Progress::default());
    let cancel = CancellationToken::new();
    tokio::select! {
        _ = copy_diff(&source, None, &target, &options, &progress, &cancel) => {
            panic!("it was to be dropped");
        }
        () = async {
            while progress.done() < 16 * MIB {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    target.close().await;
    assert_eq!(options.budget.allocated(), 0);

    let target = backups.pool.open_rw(&target_name.name).await.expect("open");
    copy(&source, None, &target, Destination::Fresh).await;
    assert_same(&content(&source).await, &content(&target).await);
    source.close().await;
    target.close().await;
}
