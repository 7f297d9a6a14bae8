//! Images: their life, sizes, layouts and content.

use bytes::Bytes;
use cinderblock::rbd::{ErrorKind, Features, ImageOptions};

use crate::ceph_lab::{MIB, Noise, assert_same, content, unique, usual_features, volumes};
use crate::kind;

#[tokio::test]
async fn an_image_from_creation_to_removal() {
    let site = volumes().await;
    let (name, image) = site.usual_image(10 * MIB).await;
    assert_eq!(image.size().await.expect("size"), 10 * MIB);
    assert_eq!(image.stripe_period(), 4 * MIB);
    assert_eq!(image.features(), usual_features());
    assert!(image.has_valid_fast_diff());
    let again = ImageOptions {
        size: MIB,
        ..ImageOptions::default()
    };
    assert_eq!(
        kind(site.pool.create_image(&name.name, &again).await),
        ErrorKind::AlreadyExists
    );

    let names: Vec<String> = (0..9).map(|number| format!("snap {number}")).collect();
    for snapshot in &names {
        image.create_snapshot(snapshot).await.expect("snapshot");
    }
    assert_eq!(
        kind(image.create_snapshot(&names[0]).await),
        ErrorKind::AlreadyExists
    );
    let listed = image.snapshots().await.expect("list");
    let listed_names: Vec<&str> = listed.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(listed_names, names);
    assert!(listed.iter().all(|found| found.size == 10 * MIB));
    assert!(listed.windows(2).all(|pair| pair[0].id < pair[1].id));

    site.rbd(&["snap", "protect", &format!("{}@snap 3", name.spec)]);
    assert_eq!(kind(image.remove_snapshot("snap 3").await), ErrorKind::Busy);
    site.rbd(&["snap", "unprotect", &format!("{}@snap 3", name.spec)]);
    image.close().await;

    assert_eq!(
        kind(site.pool.remove_image(&name.name).await),
        ErrorKind::HasSnapshots
    );
    let image = site.pool.open_rw(&name.name).await.expect("open");
    for snapshot in &names {
        image.remove_snapshot(snapshot).await.expect("remove");
    }
    assert_eq!(image.snapshots().await.expect("list"), []);
    assert_eq!(
        kind(site.pool.remove_image(&name.name).await),
        ErrorKind::Busy
    );
    let reader = site.pool.open(&name.name, None).await.expect("open");
    image.close().await;
    // A reader keeps nobody from removing it.
    site.pool.remove_image(&name.name).await.expect("remove");
    reader.close().await;
    assert_eq!(
        kind(site.pool.open(&name.name, None).await),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn layouts_are_as_asked_for() {
    let site = volumes().await;
    let mut options = ImageOptions {
        size: 10 * MIB,
        features: Some(usual_features() | Features::STRIPING),
        stripe_unit: 65536,
        stripe_count: 3,
    };
    let (name, image) = site.image(&options).await;
    let info = site.rbd(&["info", &name.spec]);
    assert!(info.contains("stripe unit: 64 KiB"), "{info}");
    assert_eq!(image.stripe_period(), 12 * MIB);
    assert!(image.features().contains(Features::STRIPING));
    image.close().await;

    options.stripe_unit = 65537;
    let refused = site.pool.create_image(&unique("bad"), &options).await;
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);

    let plain = ImageOptions {
        size: MIB,
        features: Some(usual_features() | Features::STRIPING),
        ..ImageOptions::default()
    };
    let (_name, image) = site.image(&plain).await;
    assert!(!image.features().contains(Features::STRIPING));
    assert_eq!(image.stripe_period(), 4 * MIB);
    image.close().await;
}

#[tokio::test]
async fn resizing_goes_both_ways() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(6 * MIB).await;
    image
        .write(5 * MIB, Noise::new(5).bytes(MIB))
        .await
        .expect("write");
    image.resize(5 * MIB + 512).await.expect("shrink");
    assert_eq!(image.known_size(), 5 * MIB + 512);
    image.resize(9 * MIB).await.expect("grow");
    let tail = image
        .read(5 * MIB + 512, vec![1; (MIB - 512) as usize])
        .await
        .expect("read");
    assert!(tail.iter().all(|byte| *byte == 0));
    image.close().await;
}

#[tokio::test]
async fn ranges_outside_the_image_are_refused_on_both_sides() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(MIB).await;
    let refused = ErrorKind::InvalidArgument;
    assert_eq!(kind(image.read(MIB - 1, vec![0; 2]).await), refused);
    assert_eq!(kind(image.read(u64::MAX, vec![0; 2]).await), refused);
    let data = Bytes::from_static(b"xy");
    assert_eq!(kind(image.write(MIB - 1, data).await), refused);
    assert_eq!(kind(image.write_zeroes(MIB, 1).await), refused);
    image.close().await;
}

#[tokio::test]
async fn written_zeroes_read_as_zeros_whatever_their_alignment() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(12 * MIB).await;
    let mut expected = Noise::new(6).bytes(12 * MIB).to_vec();
    image
        .write(0, expected.clone().into())
        .await
        .expect("write");
    for (offset, length) in [
        (1, 1),
        (5000, 300),
        (MIB - 7, 70_000),
        (3 * MIB + 9, 6 * MIB),
    ] {
        image.write_zeroes(offset, length).await.expect("zero");
        expected[offset as usize..(offset + length) as usize].fill(0);
    }
    assert_same(&content(&image).await, &expected);
    image.flush().await.expect("flush");
    image.close().await;
}
