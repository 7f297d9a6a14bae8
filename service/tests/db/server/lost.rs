//! Servers that cannot do what they are asked, and answers that are lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::state::{BackupStatus, Event, Source};
use cinderblock::db::{Database, Done, ErrorKind, Options};

use super::meddler::{Command, Fate, Meddler, Refusal};
use crate::lab::{DELETED, Lab, change, now, options, rules, subject};
use crate::services::registration;

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

/// The options of one that gives a server up soon, and has a single connection at a time: one that is not
/// given up leaves no room for another. The pool itself would find it dead after five seconds, which must
/// be too late here.
fn impatient(url: &str) -> Options {
    Options {
        connections: 1,
        transaction_limit: Duration::from_secs(4),
        ..options(url)
    }
}

/// Its host dies once, when it gets a command of that kind.
async fn mortal(last: Command, fate: Fate) -> Meddler {
    let died = AtomicBool::new(false);
    let meddler = Meddler::new(move |_, command| {
        match command == last && !died.swap(true, Ordering::SeqCst) {
            true => fate,
            false => Fate::Pass,
        }
    });
    meddler.await
}

#[tokio::test]
async fn a_server_whose_host_dies_in_the_middle_of_a_statement_is_left_for_another() {
    let meddler = mortal(Command::Update, Fate::Die).await;
    let lab = Lab::new().await;
    let db = Database::connect(&impatient(&meddler.url)).await;
    write(&lab, &db.expect("connect")).await;
}

/// Reads a backup's row three times at once, which leaves as many connections in the pool.
async fn leave_three_connections(db: &Database, backup: BackupId) {
    let read = || db.backup(backup);
    let (one, two, three) = tokio::join!(read(), read(), read());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
}

#[tokio::test]
async fn what_waits_beside_a_statement_that_is_never_answered_goes_on_with_a_new_connection() {
    let meddler = mortal(Command::Update, Fate::Die).await;
    let lab = Lab::new().await;
    let options = Options {
        connections: 3,
        ..impatient(&meddler.url)
    };
    let db = Database::connect(&options).await.expect("connect");
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    // The first of them is asked for the update.
    leave_three_connections(&db, backup).await;
    tokio::join!(write(&lab, &db), write(&lab, &db), write(&lab, &db));
}

#[tokio::test]
async fn an_end_that_was_written_is_not_written_twice_when_the_host_dies_then() {
    let meddler = mortal(Command::Commit, Fate::DieAfter).await;
    let lab = Lab::new().await;
    let db = Database::connect(&impatient(&meddler.url)).await;
    let parent = lab.backup(BackupStatus::Available, |_| ()).await;
    // An operator has called it so before, so that the status does not tell that it was written.
    let before = BackupStatus::Available;
    let backup = lab.backup(before, |_| ()).await;
    let source = Source::Gone;
    let made = change(before, &Event::CreateSucceeded { source });
    let done = Done::Created {
        size: Some(1),
        parent: Some(parent),
    };
    db.expect("connect")
        .change(subject(backup, before), &made, done, precisely_now())
        .await
        .expect("change");
    let row = lab.backup_row(parent).await;
    assert_eq!(row.num_dependent_backups, Some(1));
}

#[tokio::test]
async fn a_report_that_is_never_answered_is_given_up_and_the_next_arrives() {
    let meddler = mortal(Command::Update, Fate::Die).await;
    let lab = Lab::new().await;
    let db = Database::connect(&impatient(&meddler.url)).await;
    let db = db.expect("connect");
    let service = registration(&lab, "one");
    let row = lab.db.register(&service, now()).await.expect("register");
    let lost = db.heartbeat(row, &service.zone, now()).await;
    let lost = lost.expect_err("no answer");
    assert_eq!(lost.kind(), ErrorKind::Unreachable);
    assert_eq!(lost.to_string(), "database: no answer for 4 s");
    let there = db.heartbeat(row, &service.zone, now()).await;
    assert!(there.expect("a new connection"));
}

#[tokio::test]
async fn a_connection_that_lay_idle_when_the_host_died_is_replaced() {
    let meddler = Meddler::new(|_, _| Fate::Pass);
    let meddler = meddler.await;
    let lab = Lab::new().await;
    let options = Options {
        // The test of the dead one, which may take five seconds, must leave time to make another.
        acquire: Duration::from_secs(5),
        transaction_tries: 0,
        ..options(&meddler.url)
    };
    let db = Database::connect(&options).await.expect("connect");
    let backup = lab.backup(BackupStatus::Available, |_| ()).await;
    let read = || db.backup(backup);
    leave_three_connections(&db, backup).await;
    // Has them come back to the pool.
    read().await.expect("query");
    meddler.die();
    read().await.expect("a new connection");
}
