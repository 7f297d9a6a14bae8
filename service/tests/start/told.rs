//! What the log of a worker tells an operator: what it is, what it has lost, and that it is back.

use crate::worker::Worker;

#[test]
fn a_start_tells_what_this_worker_is() {
    let worker = Worker::start("");
    let start = worker.wait_for(&["INFO", "Starting cinder-backup"]);
    let conf = worker.folder().0.join("cinder.conf");
    let conf = format!(" configuration={}", conf.display());
    assert!(start.ends_with(&conf), "{start}");
    let database = worker.wait_for(&["INFO", "Reached the database"]);
    let place = format!(" database=cinder on {}", worker.database.address());
    assert!(database.ends_with(&place), "{database}");
    let pool = worker.wait_for(&["INFO", "The backup pool can be worked with"]);
    let ceph = crate::worker::variable("LAB_BACKUPS_CEPH_CONF");
    let expected =
        format!(" backup_ceph_conf={ceph} backup_ceph_user=admin backup_ceph_pool=backups");
    assert!(pool.ends_with(&expected), "{pool}");
    let requests = worker.wait_for(&["INFO", "Taking requests from the message broker"]);
    let host = worker
        .folder()
        .0
        .file_name()
        .expect("a name")
        .display()
        .to_string();
    let expected = format!(
        " brokers={} queues=cinder-backup,cinder-backup.{host}",
        worker.broker.address()
    );
    assert!(requests.ends_with(&expected), "{requests}");
}

#[test]
fn a_broker_that_is_away_is_told_once_and_so_is_its_return() {
    let worker = Worker::start("");
    worker.wait_for(&["Taking requests"]);
    worker.broker.close();
    worker.wait_for(&["WARNING", "Cannot tell the scheduler"]);
    worker.wait_for(&["WARNING", "purpose=listen"]);
    // Another report, which waits for half a minute.
    std::thread::sleep(std::time::Duration::from_secs(45));
    assert_eq!(worker.lines(&["Cannot tell the scheduler"]).len(), 1);
    for purpose in ["purpose=listen", "purpose=send"] {
        let warnings = worker.lines(&["WARNING", purpose]);
        assert!(warnings.len() <= 1, "{warnings:?}");
    }
    worker.broker.open();
    worker.wait_for(&["INFO", "Told the scheduler again"]);
    worker.wait_for(&["INFO", "Reached the message broker again"]);
}

#[test]
fn a_database_that_is_away_is_told_once_and_so_is_its_return() {
    let worker = Worker::start("");
    worker.wait_for(&["The backup pool can be worked with"]);
    worker.database.close();
    let lost = worker.wait_for(&["WARNING", "Cannot report to the database"]);
    let place = format!(" database=cinder on {} error=", worker.database.address());
    assert!(lost.contains(&place), "{lost}");
    assert!(lost.contains("Connection refused"), "{lost}");
    // Several reports, and long enough for the driver to find a connection slow.
    std::thread::sleep(std::time::Duration::from_secs(8));
    worker.database.open();
    worker.wait_for(&[
        "INFO",
        "Reached the database again",
        &worker.database.address(),
    ]);
    assert_eq!(worker.lines(&["WARNING", "database"]), [lost]);
    // A statement that is slow is the machine's affair.
    assert_eq!(worker.lines(&["time to acquire exceeded"]), [""; 0]);
}

/// The OSD of the backups, which hangs until this goes.
struct Hanging;

impl Hanging {
    fn begin() -> Self {
        signal_osd("STOP");
        Self
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        signal_osd("CONT");
    }
}

fn signal_osd(signal: &str) {
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/lab/lab");
    let name = crate::worker::variable("LAB_NAME");
    let sent = std::process::Command::new(lab)
        .args(["send", signal, "ceph-osd-backups", "--name", &name])
        .status();
    assert!(sent.expect("the lab's program runs").success());
}

#[test]
fn osds_that_do_not_answer_are_told_although_the_monitors_do() {
    let worker = Worker::start_alone();
    worker.wait_for(&["The backup pool can be worked with"]);
    let hanging = Hanging::begin();
    let slow = worker.wait_for(&["WARNING", "The backup cluster does not answer"]);
    assert!(
        slow.contains(" error=no answer from cluster ceph for 10 s "),
        "{slow}"
    );
    assert!(slow.contains("the OSDs of pool backups"), "{slow}");
    let given_up = worker.wait_for(&["ERROR", "The backup pool cannot be worked with"]);
    assert!(
        given_up.contains("no answer from cluster ceph for 35 s"),
        "{given_up}"
    );
    drop(hanging);
    worker.wait_for(&[
        "INFO",
        "The backup pool can be worked with",
        "away_seconds=",
    ]);
    assert_eq!(worker.lines(&["no answer from cluster"]), [slow, given_up]);
}
