//! librbd and RADOS on a real cluster.

mod ceph_lab;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ceph_lab::{MIB, Noise, Site, assert_same, content, tool, unique, volumes};
use cinderblock::rbd::{
    Change, Cluster, ClusterOptions, DiffQuery, ErrorKind, Features, Image, ImageOptions, Result,
};
use futures_util::FutureExt;

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.expect_err("this must fail").kind()
}

/// A cephx user that goes when this does.
struct User {
    site: Site,
    entity: String,
}

impl Drop for User {
    fn drop(&mut self) {
        tool("ceph", &self.site.conf, &["auth", "rm", &self.entity]);
    }
}

/// Connects by address and key alone, as a user that may do what `capabilities` say.
async fn user(capabilities: &[&str]) -> (User, Cluster) {
    let site = volumes().await;
    let name = unique("user");
    let entity = format!("client.{name}");
    let mut arguments = vec!["auth", "get-or-create", &entity];
    arguments.extend(capabilities);
    tool("ceph", &site.conf, &arguments);
    let key = tool("ceph", &site.conf, &["auth", "print-key", &entity]);
    let options = ClusterOptions::new(name)
        .setting("mon_host", mon_host(&site))
        .setting("key", key.trim());
    assert!(!format!("{options:?}").contains(key.trim()));
    let user = User { site, entity };
    let cluster = Cluster::connect(options).await.expect("the key is right");
    (user, cluster)
}

fn mon_host(site: &Site) -> String {
    let conf = site.conf.to_str().expect("path is text").to_owned();
    let output = std::process::Command::new("ceph-conf")
        .args(["--conf", &conf, "--lookup", "mon_host"])
        .output()
        .expect("ceph-conf runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn the_cluster_tells_its_id() {
    let site = volumes().await;
    let fsid = site.cluster.fsid().await.expect("fsid");
    assert_eq!(fsid, tool("ceph", &site.conf, &["fsid"]).trim());
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let site = volumes().await;
    assert_eq!(
        kind(site.cluster.pool("no-such-pool").await),
        ErrorKind::NotFound
    );
    let missing = site.pool.open("no-such-image", None).await;
    let error = missing.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.object(), "volumes/no-such-image");
    assert_eq!(
        kind(site.pool.remove_image("no-such-image").await),
        ErrorKind::NotFound
    );
    let (name, image) = site.usual_image(MIB).await;
    assert_eq!(
        kind(site.pool.open(&name.name, Some("no")).await),
        ErrorKind::NotFound
    );
    assert_eq!(kind(image.remove_snapshot("no").await), ErrorKind::NotFound);
    let no_file = ClusterOptions::new("admin").conf_file("/does/not/exist");
    assert_eq!(kind(Cluster::connect(no_file).await), ErrorKind::NotFound);
    image.close().await;
}

#[tokio::test]
async fn names_that_c_cannot_carry_are_refused() {
    let site = volumes().await;
    let refused = ErrorKind::InvalidArgument;
    for name in ["", "a\0b"] {
        assert_eq!(kind(site.cluster.pool(name).await), refused);
        assert_eq!(kind(site.pool.open(name, None).await), refused);
        assert_eq!(kind(site.pool.open("x", Some(name)).await), refused);
        assert_eq!(kind(site.pool.remove_image(name).await), refused);
        assert_eq!(kind(site.pool.write_object(name, b"x").await), refused);
        let options = ImageOptions::default();
        assert_eq!(kind(site.pool.create_image(name, &options).await), refused);
    }
}

#[tokio::test]
async fn options_are_checked_and_never_shown() {
    let site = volumes().await;
    let options = ClusterOptions::new("admin")
        .conf_file(&site.conf)
        .setting("no_such_option", "hunter2");
    let error = Cluster::connect(options).await.expect_err("unknown option");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("no_such_option"));
    assert!(!error.to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_key_is_a_matter_of_permission() {
    let site = volumes().await;
    let options = ClusterOptions::new("admin")
        .setting("mon_host", mon_host(&site))
        .setting("key", "AQBmcGVlawAAABAAdGhpcyBpcyBub3QgYSBrZXk=");
    let error = Cluster::connect(options).await.expect_err("wrong key");
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert!(!error.to_string().contains("AQBm"));
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_unreachable() {
    let options = ClusterOptions::new("admin")
        .setting("mon_host", "v2:127.0.0.1:9")
        .setting("key", "AQBmcGVlawAAABAAdGhpcyBpcyBub3QgYSBrZXk=")
        .connect_timeout(Duration::from_secs(1));
    let error = Cluster::connect(options).await.expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_user_without_capabilities_is_refused() {
    let site = volumes().await;
    let (name, image) = site.usual_image(MIB).await;
    let (_user, cluster) = user(&["mon", "allow r"]).await;
    let pool = cluster.pool("volumes").await.expect("pools have no caps");
    let denied = ErrorKind::Permission;
    assert_eq!(kind(pool.open(&name.name, None).await), denied);
    assert_eq!(kind(pool.read_object("x", 10).await), denied);
    assert_eq!(kind(pool.write_object("x", b"x").await), denied);
    image.close().await;
}

#[tokio::test]
async fn reading_needs_no_more_than_read_capabilities() {
    let site = volumes().await;
    let (name, image) = site.usual_image(MIB).await;
    let data = Noise::new(3).bytes(5000);
    image.write(100, data.clone()).await.expect("write");
    let capabilities = ["mon", "profile rbd", "osd", "profile rbd-read-only"];
    let (_user, cluster) = user(&capabilities).await;
    let pool = cluster.pool("volumes").await.expect("pool");
    let reader = pool.open(&name.name, None).await.expect("open");
    let read = reader.read(100, vec![0; 5000]).await.expect("read");
    assert_same(&read, &data);
    let writing = reader.write(0, Bytes::from_static(b"x")).await;
    assert_eq!(kind(writing), ErrorKind::ReadOnly);
    assert_eq!(kind(reader.create_snapshot("x").await), ErrorKind::ReadOnly);
    reader.close().await;
    image.close().await;
}

#[tokio::test]
async fn objects_are_read_and_written_whole() {
    let site = volumes().await;
    let name = unique("object");
    let pool = &site.pool;
    assert_eq!(pool.read_object(&name, 10).await.expect("read"), None);
    assert_eq!(pool.object_size(&name).await.expect("stat"), None);
    assert!(!pool.remove_object(&name).await.expect("remove"));

    let long = Noise::new(4).bytes(2 * MIB + 5);
    pool.write_object(&name, &long).await.expect("write");
    let read = pool.read_object(&name, long.len()).await.expect("read");
    assert_same(&read.expect("it exists"), &long);
    assert_eq!(
        kind(pool.read_object(&name, long.len() - 1).await),
        ErrorKind::TooLarge
    );

    pool.write_object(&name, b"short").await.expect("write");
    let read = pool.read_object(&name, 5).await.expect("read");
    assert_eq!(read.as_deref(), Some(b"short".as_slice()));
    assert_eq!(pool.object_size(&name).await.expect("stat"), Some(5));

    assert_eq!(
        kind(pool.create_object(&name, b"other").await),
        ErrorKind::AlreadyExists
    );
    let read = pool.read_object(&name, 5).await.expect("read");
    assert_eq!(read.as_deref(), Some(b"short".as_slice()));
    assert!(pool.remove_object(&name).await.expect("remove"));

    pool.create_object(&name, b"").await.expect("create");
    let read = pool.read_object(&name, 0).await.expect("read");
    assert_eq!(read.as_deref(), Some(b"".as_slice()));
    assert!(pool.remove_object(&name).await.expect("remove"));
}

#[tokio::test]
async fn an_image_from_creation_to_removal() {
    let site = volumes().await;
    let (name, image) = site.usual_image(10 * MIB).await;
    assert_eq!(image.size().await.expect("size"), 10 * MIB);
    assert_eq!(image.object_size(), 4 * MIB);
    assert_eq!(image.features(), ceph_lab::usual_features());
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
        features: Some(ceph_lab::usual_features() | Features::STRIPING),
        order: Some(20),
        stripe_unit: 65536,
        stripe_count: 3,
    };
    let (_name, image) = site.image(&options).await;
    assert_eq!(image.object_size(), MIB);
    assert_eq!(image.striping(), (65536, 3));
    assert_eq!(image.stripe_period(), 3 * MIB);
    assert!(image.features().contains(Features::STRIPING));
    image.close().await;

    options.stripe_unit = 65537;
    let refused = site.pool.create_image(&unique("bad"), &options).await;
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);

    let plain = ImageOptions {
        size: MIB,
        features: Some(ceph_lab::usual_features() | Features::STRIPING),
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
    assert_eq!(kind(image.discard(0, MIB + 1).await), refused);
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

#[tokio::test]
async fn rolling_back_brings_content_and_size_back() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(5 * MIB).await;
    image
        .write(0, Noise::new(7).bytes(5 * MIB))
        .await
        .expect("write");
    let before = content(&image).await;
    image.create_snapshot("good").await.expect("snapshot");
    image.write_zeroes(MIB, MIB).await.expect("zero");
    image.resize(9 * MIB).await.expect("grow");
    image.roll_back("good").await.expect("roll back");
    assert_eq!(image.known_size(), 5 * MIB);
    assert_same(&content(&image).await, &before);
    image.close().await;
}

/// A buffer that counts how many of its kind are alive.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl Counted {
    fn new(length: usize, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(vec![7; length], Arc::clone(alive))
    }
}

impl AsMut<[u8]> for Counted {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn dropped_futures_leave_nothing_behind() {
    let site = volumes().await;
    let (name, image) = site.usual_image(64 * MIB).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let length = (2 * MIB) as usize;
    let mut under_way = 0;
    for step in 0..32 {
        let offset = step * 2 * MIB;
        let data = Bytes::from_owner(Counted::new(length, &alive));
        // Polled once: submitted, and then forgotten.
        under_way += usize::from(image.write(offset, data).now_or_never().is_none());
        let buffer = Counted::new(length, &alive);
        under_way += usize::from(image.read(offset, buffer).now_or_never().is_none());
        under_way += usize::from(image.flush().now_or_never().is_none());
    }
    assert!(under_way > 0, "nothing was cut off");
    image.close().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let reader = site.pool.open(&name.name, None).await.expect("open");
    assert!(content(&reader).await.iter().all(|byte| *byte == 7));
    reader.close().await;
}

#[tokio::test]
async fn handles_may_be_dropped_in_any_order_with_operations_under_way() {
    let site = volumes().await;
    let (name, image) = site.usual_image(16 * MIB).await;
    let write = image.write(0, Noise::new(8).bytes(8 * MIB));
    let _ = write.now_or_never();
    drop(image);
    let (cluster, conf) = (site.cluster, site.conf);
    drop(site.pool);
    drop(cluster);
    let other = Cluster::connect(ClusterOptions::new("admin").conf_file(&conf))
        .await
        .expect("connect");
    let pool = other.pool("volumes").await.expect("pool");
    let image = pool.open(&name.name, None).await.expect("open");
    assert_eq!(content(&image).await.len() as u64, 16 * MIB);
}

async fn changes(image: &Image, from: Option<&str>, whole_objects: bool) -> Vec<Change> {
    let query = DiffQuery {
        from: from.map(str::to_owned),
        range: 0..image.known_size(),
        include_parent: true,
        whole_objects,
    };
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    image
        .diff(query, move |change| {
            let _ = sender.send(change);
            ControlFlow::Continue(())
        })
        .await
        .expect("diff");
    let mut changes = Vec::new();
    while let Some(change) = receiver.recv().await {
        changes.push(change);
    }
    changes.sort_by_key(|change| change.offset);
    changes
}

#[tokio::test]
async fn a_diff_names_bytes_or_objects() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(40 * MIB).await;
    image
        .write(8 * MIB, Noise::new(9).bytes(4 * MIB))
        .await
        .expect("write");
    image.create_snapshot("one").await.expect("snapshot");
    image
        .write(8 * MIB + 4096, Bytes::from(vec![1; 8192]))
        .await
        .expect("write");
    image.create_snapshot("two").await.expect("snapshot");
    image.write_zeroes(8 * MIB, 4 * MIB).await.expect("zero");
    image.create_snapshot("three").await.expect("snapshot");

    let change = |offset, length, exists| Change {
        offset,
        length,
        exists,
    };
    let two = image.open_at("two").await.expect("open");
    assert_eq!(
        changes(&two, Some("one"), false).await,
        [change(8 * MIB + 4096, 8192, true)]
    );
    assert_eq!(
        changes(&two, Some("one"), true).await,
        [change(8 * MIB, 4 * MIB, true)]
    );
    let three = image.open_at("three").await.expect("open");
    assert_eq!(
        changes(&three, Some("two"), false).await,
        [change(8 * MIB, 4 * MIB, false)]
    );
    assert_eq!(changes(&three, None, false).await, []);

    let query = |from: &str| DiffQuery {
        from: Some(from.to_owned()),
        range: 0..40 * MIB,
        include_parent: false,
        whole_objects: false,
    };
    let go_on = |_| ControlFlow::Continue(());
    assert_eq!(
        kind(two.diff(query("no"), go_on).await),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(two.diff(query("three"), go_on).await),
        ErrorKind::InvalidArgument
    );
    for image in [two, three, image] {
        image.close().await;
    }
}

#[tokio::test]
async fn a_diff_can_be_stopped_and_a_panic_comes_through() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(64 * MIB).await;
    for object in 0..16 {
        image
            .write(object * 4 * MIB, Bytes::from_static(b"x"))
            .await
            .expect("write");
    }
    let query = DiffQuery {
        from: None,
        range: 0..64 * MIB,
        include_parent: true,
        whole_objects: false,
    };
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    image
        .diff(query.clone(), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            ControlFlow::Break(())
        })
        .await
        .expect("stopping is no error");
    assert_eq!(seen.load(Ordering::SeqCst), 1);

    let walk = image.diff(query, |_| panic!("on purpose"));
    let outcome = std::panic::AssertUnwindSafe(walk).catch_unwind().await;
    assert!(outcome.is_err());
    image.close().await;
}

/// Puts the client that has an image open for writing on the cluster's blocklist while it lives.
struct Blocklisted {
    conf: std::path::PathBuf,
    address: String,
}

impl Blocklisted {
    fn watcher_of(site: &Site, image: &str) -> Self {
        let status = site.rbd(&["status", image]);
        let address = status
            .split("watcher=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .expect("an image that is open has a watcher")
            .to_owned();
        let conf = site.conf.clone();
        tool("ceph", &conf, &["osd", "blocklist", "add", &address]);
        Self { conf, address }
    }
}

impl Drop for Blocklisted {
    fn drop(&mut self) {
        tool(
            "ceph",
            &self.conf,
            &["osd", "blocklist", "rm", &self.address],
        );
    }
}

#[tokio::test]
async fn a_client_that_was_fenced_off_says_so_and_does_not_hang() {
    let site = volumes().await;
    let (name, image) = site.usual_image(16 * MIB).await;
    let data = Noise::new(10).bytes(MIB);
    image.write(0, data.clone()).await.expect("write");
    let blocklisted = Blocklisted::watcher_of(&site, &name.spec);
    let outcome = image.write(0, data.clone()).await;
    assert_eq!(kind(outcome), ErrorKind::Shutdown);
    assert_eq!(kind(image.write(MIB, data).await), ErrorKind::Shutdown);
    assert_eq!(kind(image.create_snapshot("x").await), ErrorKind::Shutdown);
    assert_eq!(kind(image.flush().await), ErrorKind::Shutdown);
    let missing = site.pool.object_size("x").await;
    assert_eq!(kind(missing), ErrorKind::Shutdown);
    image.close().await;
    // A connection made afterwards is another client.
    drop(blocklisted);
    let again = volumes().await;
    let image = again.pool.open_rw(&name.name).await.expect("open");
    image
        .write(0, Bytes::from_static(b"x"))
        .await
        .expect("write");
    image.close().await;
}

/// A pool that goes when this does.
struct OwnPool {
    conf: std::path::PathBuf,
    name: String,
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        let name = self.name.as_str();
        let sure = "--yes-i-really-really-mean-it";
        let arguments = ["osd", "pool", "rm", name, name, sure];
        tool("ceph", &self.conf, &arguments);
    }
}

#[tokio::test]
async fn a_pool_that_is_full_fails_writes_instead_of_holding_them() {
    let site = volumes().await;
    let own = OwnPool {
        conf: site.conf.clone(),
        name: unique("pool"),
    };
    let ceph = |arguments: &[&str]| tool("ceph", &site.conf, arguments);
    ceph(&["osd", "pool", "create", &own.name, "1"]);
    site.rbd(&["pool", "init", &own.name]);
    let pool = site.cluster.pool(&own.name).await.expect("pool");
    let options = ImageOptions {
        size: 4096 * MIB,
        features: Some(ceph_lab::usual_features()),
        ..ImageOptions::default()
    };
    pool.create_image("image", &options).await.expect("create");
    let image = pool.open_rw("image").await.expect("open");
    ceph(&[
        "osd",
        "pool",
        "set-quota",
        &own.name,
        "max_bytes",
        "1000000",
    ]);
    let data = Noise::new(20).bytes(64 << 10);
    // The cluster notices with a delay.
    let mut outcome = Ok(());
    for step in 0..600 {
        outcome = image.write(step * 4 * MIB, data.clone()).await;
        if outcome.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(kind(outcome), ErrorKind::NoSpace);
    let object = pool.write_object("object", &data).await;
    assert_eq!(kind(object), ErrorKind::NoSpace);
    // librbd would claim that there is no such image.
    let removed = pool.remove_image("image").await;
    assert_eq!(kind(removed), ErrorKind::Busy);
    image.close().await;
    let removed = pool.remove_image("image").await;
    assert_eq!(kind(removed), ErrorKind::NoSpace);
    // Making room works all the same.
    let image = pool.open_rw("image").await.expect("open");
    image.write_zeroes(0, 4 * MIB).await.expect("zero");
    image.resize(0).await.expect("shrink");
    image.close().await;
}
