//! Images that show what their parents hold.

use cinderblock::rbd::Image;

use crate::ceph_lab::{MIB, Noise, Scratch, backups, volumes};
use crate::{Chain, write, zero};

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
async fn a_clone_that_is_rolled_back_shows_its_parent_again() {
    let mut noise = Noise::new(10);
    let (_parent, name, clone) = clone_of_something(&mut noise).await;
    let mut chain = Chain::of(name, clone, &backups().await).await;
    chain.step().await;
    // Objects of its own, over the parent's and where that has none.
    write(&chain.source, MIB, noise.bytes(3000)).await;
    write(&chain.source, 17 * MIB, noise.bytes(4 * MIB)).await;
    write(&chain.source, 9 * MIB, noise.bytes(3000)).await;
    chain.step().await;
    chain.roll_back("step 0").await;
    chain.step().await;
    chain.roll_back("step 1").await;
    write(&chain.source, 30 * MIB, noise.bytes(3000)).await;
    chain.step().await;
}
