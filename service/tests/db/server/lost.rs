//! Servers that cannot do what they are asked, and answers that are lost.

use std::sync::atomic::{AtomicUsize, Ordering};

use api_compat::state::{BackupStatus, Event, Source};
use cinderblock::db::{Database, Done, ErrorKind, Options};

use super::meddler::{Command, Fate, Meddler, Refusal};
use crate::lab::{DELETED, Lab, change, now, options, rules, subject};

const READ_ONLY: Fate = Fate::Refuse(Refusal {
    mysql: (
        1290,
        "The MariaDB server is running with the --read-only option so it cannot execute this statement",
    ),
    postgres: ("25006", "cannot execute UPDATE in a read-only transaction"),
});

/// As ProxySQL and PgBouncer say it.
const NOBODY: Fate = Fate::Refuse(Refusal {
    mysql: (
        9001,
        "Max connect timeout reached while reaching hostgroup 10 after 10000ms",
    ),
    postgres: ("08P01", "query_wait_timeout"),
});

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

const ACCESS_DENIED: Fate = Fate::Refuse(Refusal {
    mysql: (1045, "Access denied for user 'cinder'@'10.0.0.1'"),
    postgres: (
        "28P01",
        "password authentication failed for user \"cinder\"",
    ),
});

#[tokio::test]
async fn who_waits_for_the_database_waits_while_the_password_is_changed() {
    // What was open before leads to a server that was demoted.
    let meddler = Meddler::new(|connection, command| match (connection, command) {
        (2..6, Command::Begin) => ACCESS_DENIED,
        (0..2, Command::Update) => READ_ONLY,
        _ => Fate::Pass,
    });
    let meddler = meddler.await;
    let lab = Lab::through(&meddler.url).await;
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    let failed = change(BackupStatus::Deleting, &Event::DeleteFailed { reason: "x" });
    let subject = subject(backup, BackupStatus::Deleting);
    let refused = lab.db.change(subject, &failed, Done::Nothing, now()).await;
    assert_eq!(refused.expect_err("one try").kind(), ErrorKind::LockedOut);
    write(&lab, &lab.db.clone().enduring()).await;
    assert!(meddler.connections() > 6);
}

/// Loses the answer to the first commit.
async fn forgetful() -> Meddler {
    let lost = AtomicUsize::new(0);
    let meddler = Meddler::new(move |_, command| match command {
        Command::Commit if lost.fetch_add(1, Ordering::SeqCst) == 0 => Fate::LoseAnswer,
        _ => Fate::Pass,
    });
    meddler.await
}

/// A time of which the columns hold only the seconds.
fn precisely_now() -> chrono::NaiveDateTime {
    now() + std::time::Duration::from_micros(987_654)
}

#[tokio::test]
async fn an_end_that_was_written_is_not_written_twice_when_its_answer_is_lost() {
    // Both are `available` in the end, and an operator has called one so before.
    for before in [BackupStatus::Creating, BackupStatus::Available] {
        let meddler = forgetful().await;
        let lab = Lab::through(&meddler.url).await;
        let parent = lab.backup(BackupStatus::Available, |_| ()).await;
        let backup = lab.backup(before, |_| ()).await;
        let source = Source::Gone;
        let made = change(before, &Event::CreateSucceeded { source });
        let done = Done::Created {
            size: Some(1),
            parent: Some(parent),
        };
        lab.db
            .change(subject(backup, before), &made, done, precisely_now())
            .await
            .expect("change");
        let row = lab.backup_row(backup).await;
        assert_eq!(row.status.as_deref(), Some("available"));
        let row = lab.backup_row(parent).await;
        assert_eq!(row.num_dependent_backups, Some(1), "{before}");
    }
}

#[tokio::test]
async fn a_deletion_that_was_written_is_not_written_twice_when_its_answer_is_lost() {
    let meddler = forgetful().await;
    let lab = Lab::through(&meddler.url).await;
    lab.usage("backups", 3, None).await;
    lab.usage("backup_gigabytes", 30, None).await;
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    let deleted = change(BackupStatus::Deleting, &DELETED);
    let done = Done::Deleted {
        parent: None,
        project: Some(&lab.project),
        size: 10,
        rules: &rules(),
    };
    let subject = subject(backup, BackupStatus::Deleting);
    lab.db
        .change(subject, &deleted, done, precisely_now())
        .await
        .expect("change");
    assert_eq!(lab.backup_row(backup).await.deleted, Some(true));
    assert_eq!(lab.in_use().await, (2, 20));
}
