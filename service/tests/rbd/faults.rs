//! Clients that are fenced off, pools that are full.

use std::time::Duration;

use bytes::Bytes;
use cinderblock::rbd::{ErrorKind, ImageOptions};

use crate::ceph_lab::{MIB, Noise, Site, tool, unique, usual_features, volumes};
use crate::kind;

/// Puts the client that has an image open for writing on the cluster's blocklist while it lives.
pub struct Blocklisted {
    conf: std::path::PathBuf,
    address: String,
}

impl Blocklisted {
    pub fn watcher_of(site: &Site, image: &str) -> Self {
        let status = site.rbd(&["status", image]);
        let address = status
            .split("watcher=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .expect("an image that is open has a watcher")
            .to_owned();
        let conf = site.conf.clone();
        tool("ceph", &conf, &["osd", "blocklist", "add", &address]);
        // The monitor answers before the OSD has heard of it.
        let number = |command: &[&str], field: &str| {
            let answer = tool("ceph", &conf, &[command, &["--format", "json"]].concat());
            let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
            answer[field].as_u64().expect("a number")
        };
        let epoch = number(&["osd", "dump"], "epoch");
        while number(&["tell", "osd.0", "status"], "newest_map") < epoch {}
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
        features: Some(usual_features()),
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
    // Making room works all the same.
    let image = pool.open_rw("image").await.expect("open");
    image.write_zeroes(0, 4 * MIB).await.expect("zero");
    image.close().await;
    pool.remove_image("image").await.expect("removed");
}
