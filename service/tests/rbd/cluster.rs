//! Connecting: users, what they may do, and clusters that do not answer.

use std::time::Duration;

use bytes::Bytes;
use cinderblock::rbd::{Cluster, ClusterOptions, ErrorKind, ImageOptions};

use crate::ceph_lab::{MIB, Noise, Site, assert_same, tool, unique, volumes};
use crate::kind;

/// A cephx user that goes when this does.
pub struct User {
    site: Site,
    entity: String,
}

impl Drop for User {
    fn drop(&mut self) {
        tool("ceph", &self.site.conf, &["auth", "rm", &self.entity]);
    }
}

/// Connects by address and key alone, as a user that may do what `capabilities` say.
pub async fn user(capabilities: &[&str]) -> (User, Cluster) {
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

pub fn mon_host(site: &Site) -> String {
    let conf = site.conf.to_str().expect("path is text").to_owned();
    let output = std::process::Command::new("ceph-conf")
        .args(["--conf", &conf, "--lookup", "mon_host"])
        .output()
        .expect("ceph-conf runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
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
    assert!(
        error.to_string().contains(" volumes/no-such-image:"),
        "{error}"
    );
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
    assert_eq!(
        kind(Cluster::connect(no_file).await),
        ErrorKind::Unconfigured
    );
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
    // There is no file to look at.
    assert_eq!(error.hint(), None);
}

#[tokio::test]
async fn the_files_that_were_looked_for_a_key_are_told_to_those_who_run_the_service() {
    let site = volumes().await;
    let folder = std::env::temp_dir().join(unique("keyrings"));
    std::fs::create_dir(&folder).expect("a folder");
    let conf = folder.join("other.conf");
    let place = folder.display();
    let text = format!(
        "[global]\nmon_host = {}\nauth_client_required = cephx\n\
         keyring = {place}/$cluster.$name.keyring,{place}/none\n",
        mon_host(&site)
    );
    std::fs::write(&conf, text).expect("a file");
    let options = || {
        let options = ClusterOptions::new("admin").cluster_name("other");
        options.conf_file(&conf)
    };
    let missing = Cluster::connect(options()).await.expect_err("no key");
    assert_eq!(missing.kind(), ErrorKind::Unconfigured);
    let looked = |first: &str| {
        let none = "No such file or directory (os error 2)";
        let file = format!("{place}/other.client.admin.keyring");
        format!("the key was looked for in {file} ({first}), {place}/none ({none})")
    };
    let none = "No such file or directory (os error 2)";
    assert_eq!(missing.hint(), Some(looked(none).as_str()));
    assert!(!missing.to_string().contains("keyring"), "{missing}");

    let wrong = "[client.admin]\nkey = AQBmcGVlawAAABAAdGhpcyBpcyBub3QgYSBrZXk=\n";
    std::fs::write(folder.join("other.client.admin.keyring"), wrong).expect("a file");
    let wrong = Cluster::connect(options()).await.expect_err("a wrong key");
    assert_eq!(wrong.kind(), ErrorKind::Permission);
    assert_eq!(wrong.hint(), Some(looked("readable").as_str()));
    std::fs::remove_dir_all(&folder).expect("it goes");
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
