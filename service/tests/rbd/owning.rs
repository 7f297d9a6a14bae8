//! Images that only one may write, and connections that are made anew.

use std::process::Command;

use bytes::Bytes;
use cinderblock::rbd::{Cluster, ClusterOptions, ErrorKind, Features, ImageOptions, Link};

use crate::ceph_lab::{MIB, tool, unique, usual_features, volumes};
use crate::faults::Blocklisted;
use crate::kind;

#[tokio::test]
async fn an_image_that_is_owned_is_written_by_nobody_else() {
    let (site, other) = (volumes().await, volumes().await);
    let (name, image) = site.usual_image(8 * MIB).await;
    let byte = || Bytes::from_static(b"x");
    let rival = other.pool.open_rw(&name.name).await.expect("open");
    // The lock that comes with a write is handed on to the owner.
    rival.write(0, byte()).await.expect("write");
    image.own().await.expect("own");
    image.own().await.expect("own twice");
    assert_eq!(kind(rival.own().await), ErrorKind::Busy);
    let tool = Command::new("rbd")
        .arg("--conf")
        .arg(&site.conf)
        .args(["bench", "--io-type", "write", "--io-total", "4096"])
        .args(["--io-size", "4096", &name.spec])
        .output()
        .expect("rbd runs");
    let said = String::from_utf8_lossy(&tool.stderr);
    assert!(said.contains("Read-only file system"), "{said}");
    image.write(0, byte()).await.expect("write");

    // Snapshots of others are none of the owner's business.
    rival.create_snapshot("theirs").await.expect("snapshot");
    rival.remove_snapshot("theirs").await.expect("remove");
    image.close().await;
    rival.own().await.expect("own");
    rival.write(0, byte()).await.expect("write");
    rival.close().await;
}

#[tokio::test]
async fn an_image_without_the_feature_can_not_be_owned_and_is_as_it_was() {
    let site = volumes().await;
    let (name, image) = site
        .image(&ImageOptions {
            size: MIB,
            features: Some(Features::LAYERING),
            ..ImageOptions::default()
        })
        .await;
    image.own().await.expect("own");
    image
        .write(0, Bytes::from_static(b"x"))
        .await
        .expect("write");
    image.close().await;
    let reader = site.pool.open(&name.name, None).await.expect("open");
    assert_eq!(kind(reader.own().await), ErrorKind::ReadOnly);
    reader.close().await;
}

#[tokio::test]
async fn an_image_that_is_mirrored_from_elsewhere_is_read_only_and_not_busy() {
    let site = volumes().await;
    site.rbd(&["mirror", "pool", "enable", site.pool.name(), "image"]);
    for (mode, features) in [
        ("snapshot", usual_features()),
        ("journal", usual_features().union(Features::JOURNALING)),
    ] {
        let (name, image) = site
            .image(&ImageOptions {
                size: MIB,
                features: Some(features),
                ..ImageOptions::default()
            })
            .await;
        image.close().await;
        site.rbd(&["mirror", "image", "enable", &name.spec, mode]);
        let image = site.pool.open_rw(&name.name).await.expect("open");
        image.own().await.expect("own");
        image.close().await;
        site.rbd(&["mirror", "image", "demote", &name.spec]);
        let image = site.pool.open_rw(&name.name).await.expect("open");
        let refusal = image.own().await.expect_err("it is a copy");
        image.close().await;
        site.rbd(&["mirror", "image", "disable", "--force", &name.spec]);
        assert_eq!(refusal.kind(), ErrorKind::ReadOnly, "{refusal}");
        assert!(refusal.to_string().contains("mirror"), "{refusal}");
    }
    site.rbd(&["mirror", "pool", "disable", site.pool.name()]);
}

#[tokio::test]
async fn a_link_that_was_fenced_off_connects_again() {
    let site = volumes().await;
    let link = Link::new(ClusterOptions::new("admin").conf_file(&site.conf));
    let cluster = link.cluster().await.expect("connect");
    let pool = cluster.pool(site.pool.name()).await.expect("pool");
    let name = site.scratch("fenced");
    let options = ImageOptions {
        size: MIB,
        ..ImageOptions::default()
    };
    pool.create_image(&name.name, &options)
        .await
        .expect("create");
    let image = pool.open_rw(&name.name).await.expect("open");
    let blocklisted = Blocklisted::watcher_of(&site, &name.spec);
    // Opening a pool asks nobody: only what is done in it can tell.
    let pool = cluster.pool(site.pool.name()).await.expect("pool");
    assert!(!cluster.is_fenced());
    assert_eq!(kind(pool.read_object("x", 1).await), ErrorKind::Shutdown);
    assert!(cluster.is_fenced());
    image.close().await;

    let again = link.cluster().await.expect("connect again");
    assert!(!again.is_fenced());
    let pool = link.pool(site.pool.name()).await.expect("pool");
    assert_eq!(pool.read_object("x", 1).await.expect("read"), None);
    // And by what an image says.
    let image = pool.open_rw(&name.name).await.expect("open");
    drop(blocklisted);
    let blocklisted = Blocklisted::watcher_of(&site, &name.spec);
    let written = image.write(0, Bytes::from_static(b"x")).await;
    assert_eq!(kind(written), ErrorKind::Shutdown);
    assert!(again.is_fenced());
    image.close().await;
    drop(blocklisted);

    // A pool that a link gives works, though nobody has noticed yet.
    let pool = link.pool(site.pool.name()).await.expect("pool");
    let image = pool.open_rw(&name.name).await.expect("open");
    let blocklisted = Blocklisted::watcher_of(&site, &name.spec);
    let pool = link.pool(site.pool.name()).await.expect("pool");
    assert_eq!(pool.read_object("x", 1).await.expect("read"), None);
    image.close().await;
    drop(blocklisted);
}

/// `mon 'profile rbd'` allows more than to read: what a worker owned that was killed would stay locked.
#[tokio::test]
async fn an_image_of_a_dead_owner_takes_the_permission_to_fence_it_off() {
    let site = volumes().await;
    let (name, image) = site.usual_image(MIB).await;
    image.own().await.expect("own");
    // Its watch is gone, and its lock is not.
    let _dead = Blocklisted::watcher_of(&site, &name.spec);
    let user = unique("heir");
    let entity = format!("client.{user}");
    let ceph = |words: &[&str]| tool("ceph", &site.conf, words);
    let osd = format!("profile rbd pool={}", site.pool.name());
    let caps = ["mon", "allow r", "osd", &osd];
    ceph(&[&["auth", "get-or-create", &entity], &caps[..]].concat());
    let key = ceph(&["auth", "get-key", &entity]).trim().to_owned();
    let own = async || {
        let options = ClusterOptions::new(&user).conf_file(&site.conf);
        let cluster = Cluster::connect(options.setting("key", key.clone())).await?;
        let image = cluster.pool(site.pool.name()).await?;
        let image = image.open_rw(&name.name).await?;
        let owned = image.own().await;
        image.close().await;
        owned
    };
    let refused = own().await.expect_err("it may not");
    let caps = ["auth", "caps", &entity, "mon", "profile rbd", "osd", &osd];
    ceph(&caps);
    let owned = own().await;
    ceph(&["auth", "rm", &entity]);
    assert_eq!(refused.kind(), ErrorKind::Permission, "{refused}");
    assert!(refused.to_string().contains(&entity), "{refused}");
    owned.expect("it may");
}
