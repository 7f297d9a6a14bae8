//! What is told when the backup cluster does not let a worker in, for each thing that an operator may
//! have got wrong.

use crate::Folder;
use crate::ceph_lab::{conf, tool, unique};
use crate::worker::Worker;

/// The line that tells of it, which also names the options.
fn told(options: &str, pool: &str, user: &str) -> (Worker, String) {
    let worker = Worker::start(options);
    let line = worker.wait_for(&["ERROR", "The backup pool cannot be worked with"]);
    for part in [
        "trying again, at least every 5 s ".to_owned(),
        " backup_ceph_conf=/".to_owned(),
        format!(" backup_ceph_user={user} "),
        format!(" backup_ceph_pool={pool}"),
    ] {
        assert!(line.contains(&part), "{part}: {line}");
    }
    (worker, line)
}

#[test]
fn a_pool_or_a_file_that_is_not_there_is_told_with_its_option() {
    let (worker, line) = told("backup_ceph_pool = nosuch", "nosuch", "admin");
    drop(worker);
    assert!(line.contains("cannot open pool nosuch"), "{line}");
    assert!(line.contains("advice=see backup_ceph_pool"), "{line}");
    let (_worker, line) = told("backup_ceph_conf = /nonexistent/x.conf", "backups", "admin");
    assert!(line.contains("advice=see backup_ceph_conf"), "{line}");
}

/// A Ceph user that goes when this does, with a configuration file that leads to its key.
struct User {
    name: String,
    folder: Folder,
}

impl User {
    fn new() -> Self {
        let name = unique("start");
        let backups = conf("LAB_BACKUPS_CEPH_CONF");
        let entity = format!("client.{name}");
        let key = tool(
            "ceph",
            &backups,
            &["auth", "get-or-create", &entity, "mon", "profile rbd"],
        );
        let folder = Folder::new();
        let keyring = folder.file("keyring", &key);
        let text = std::fs::read_to_string(&backups).expect("a file");
        let mon_host = text.lines().find(|line| line.starts_with("mon_host"));
        let mon_host = mon_host.expect("it names the monitors");
        let text = format!("[global]\n{mon_host}\nkeyring = {}\n", keyring.display());
        folder.file("backups.conf", &text);
        Self { name, folder }
    }

    fn options(&self) -> String {
        let conf = self.folder.0.join("backups.conf");
        let conf = conf.display();
        format!(
            "backup_ceph_user = {}\nbackup_ceph_conf = {conf}",
            self.name
        )
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let entity = format!("client.{}", self.name);
        tool(
            "ceph",
            &conf("LAB_BACKUPS_CEPH_CONF"),
            &["auth", "rm", &entity],
        );
    }
}

#[test]
fn capabilities_that_are_missing_are_told_and_their_coming_too() {
    let user = User::new();
    let (worker, line) = told(&user.options(), "backups", &user.name);
    let osd = "profile rbd pool=backups";
    let needed = format!(
        "client.{} needs the capabilities mon 'profile rbd', osd '{osd}'",
        user.name
    );
    assert!(line.contains(&needed), "{line}");
    let entity = format!("client.{}", user.name);
    let caps = ["auth", "caps", &entity, "mon", "profile rbd", "osd", osd];
    tool("ceph", &conf("LAB_BACKUPS_CEPH_CONF"), &caps);
    let back = worker.wait_for(&[
        "INFO",
        "The backup pool can be worked with",
        "away_seconds=",
    ]);
    assert!(back.contains(&user.name), "{back}");
    assert_eq!(worker.lines(&["ERROR"]).len(), 1);
}

#[test]
fn the_files_that_were_looked_for_a_key_are_told() {
    let user = User::new();
    let keyring = user.folder.0.join("keyring");
    std::fs::remove_file(&keyring).expect("it goes");
    let (_worker, line) = told(&user.options(), "backups", &user.name);
    let looked = format!(
        "the key was looked for in {} (No such file or directory (os error 2)); \
         compare it with `ceph auth get client.{}`",
        keyring.display(),
        user.name
    );
    assert!(line.contains(&looked), "{line}");
}
