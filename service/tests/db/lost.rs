//! Servers that cannot do what they are asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use api_compat::state::{BackupStatus, Event};
use cinderblock::db::{Database, Done, ErrorKind, Options};

use crate::lab::{Lab, change, now, options, subject};
use crate::meddler::{Command, Fate, Meddler};

const READ_ONLY: Fate = Fate::Refuse(
    1290,
    "The MariaDB server is running with the --read-only option so it cannot execute this statement",
);

/// As ProxySQL says it.
const NOBODY: Fate = Fate::Refuse(
    9001,
    "Max connect timeout reached while reaching hostgroup 10 after 10000ms",
);

/// Writes the end of a deletion that failed.
async fn write(lab: &Lab, db: &Database) {
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    // Leaves a connection in the pool.
    db.backup(backup).await.expect("query");
    let failed = change(BackupStatus::Deleting, &Event::DeleteFailed { reason: "x" });
    let subject = subject(backup, BackupStatus::Deleting);
    db.change(subject, &failed, Done::Nothing, now())
        .await
        .expect("change");
    let row = lab.backup_row(backup).await;
    assert_eq!(row.status.as_deref(), Some("error"));
}

#[tokio::test]
async fn a_primary_that_was_demoted_is_left_for_the_new_one() {
    // The old one keeps the connections that it has; new ones reach the one that was promoted.
    let meddler = Meddler::new(|connection, command| match (connection, command) {
        (0..3, Command::Update) => READ_ONLY,
        _ => Fate::Pass,
    });
    let meddler = meddler.await;
    let lab = Lab::through(&meddler.url).await;
    write(&lab, &lab.db).await;
    assert!(meddler.connections() > 3);
}

#[tokio::test]
async fn who_waits_for_the_database_waits_for_one_behind_a_proxy_too() {
    let refused = AtomicUsize::new(0);
    let meddler = Meddler::new(move |_, command| match command {
        Command::Update if refused.fetch_add(1, Ordering::SeqCst) < 4 => NOBODY,
        _ => Fate::Pass,
    });
    let meddler = meddler.await;
    let lab = Lab::through(&meddler.url).await;
    let options = Options {
        transaction_tries: 1,
        ..options(&meddler.url)
    };
    let db = Database::connect(&options).await.expect("connect");
    let failed = change(BackupStatus::Deleting, &Event::DeleteFailed { reason: "x" });
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    let subject = subject(backup, BackupStatus::Deleting);
    let error = db.change(subject, &failed, Done::Nothing, now()).await;
    assert_eq!(error.expect_err("two tries").kind(), ErrorKind::Unreachable);
    write(&lab, &db.enduring()).await;
}
