//! Connecting, and connections that break.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api_compat::config::database_url::Backend;
use api_compat::state::{BackupStatus, Event};
use cinderblock::db::entity::backups;
use cinderblock::db::{Database, Done, ErrorKind, Options, Place};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, EntityTrait, QuerySelect, Statement, TransactionTrait,
};
use tokio::net::{TcpListener, TcpStream};

use crate::lab::{DELETED, HOST, Lab, backend, change, now, options, subject, through, url};

/// Stands between us and the server, and so knows which of its connections are ours.
struct Proxy {
    /// The server's address as a URL, but through here.
    url: String,
    /// The local ports of the connections to the server.
    ports: Arc<Mutex<Vec<u16>>>,
}

impl Proxy {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (url, server) = through(listener.local_addr().expect("address"));
        let proxy = Self {
            url,
            ports: Arc::default(),
        };
        let ports = proxy.ports.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let connection = TcpStream::connect(server.clone()).await;
                let mut server = connection.expect("connect");
                let port = server.local_addr().expect("address").port();
                ports.lock().expect("lock").push(port);
                tokio::spawn(async move {
                    // However it ends, both sides see it.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        proxy
    }

    /// Has the server kill every connection that came through here; how many there were.
    async fn kill(&self, raw: &DatabaseConnection) -> usize {
        let ports = std::mem::take(&mut *self.ports.lock().expect("lock"));
        let find = match backend() {
            Backend::Postgres => "SELECT pid FROM pg_stat_activity WHERE client_port = $1",
            _ => {
                "SELECT CAST(id AS INT) FROM information_schema.processlist \
                 WHERE host LIKE CONCAT('%:', ?)"
            }
        };
        let mut killed = 0;
        for port in ports {
            let port = i32::from(port).into();
            let find = Statement::from_sql_and_values(raw.get_database_backend(), find, [port]);
            for row in raw.query_all_raw(find).await.expect("query") {
                let kill = match backend() {
                    Backend::Postgres => {
                        let id: i32 = row.try_get_by_index(0).expect("an id");
                        format!("SELECT pg_terminate_backend({id})")
                    }
                    _ => {
                        let id: i64 = row.try_get_by_index(0).expect("an id");
                        format!("KILL {id}")
                    }
                };
                raw.execute_unprepared(&kill).await.expect("kill");
                killed += 1;
            }
        }
        killed
    }
}

#[tokio::test]
async fn connections_that_are_killed_between_operations_are_replaced() {
    let proxy = Proxy::new().await;
    let lab = Lab::through(&proxy.url).await;
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    assert!(lab.db.backup(backup).await.expect("query").is_some());
    assert!(proxy.kill(&lab.raw).await > 0);
    assert!(lab.db.backup(backup).await.expect("query").is_some());
    assert!(proxy.kill(&lab.raw).await > 0);
    let failed = change(BackupStatus::Deleting, &Event::DeleteFailed { reason: "x" });
    lab.db
        .change(
            subject(backup, BackupStatus::Deleting),
            &failed,
            Done::Nothing,
            now(),
        )
        .await
        .expect("change");
    let row = lab.backup_row(backup).await;
    assert_eq!(row.status.as_deref(), Some("error"));
}

#[tokio::test]
async fn a_connection_that_is_killed_within_a_transaction_is_survived() {
    let proxy = Proxy::new().await;
    let lab = Lab::through(&proxy.url).await;
    let backup = lab.backup(BackupStatus::Deleting, |_| ()).await;
    // What has none to count down would not be waited for by PostgreSQL.
    let one = |row: &mut backups::ActiveModel| row.num_dependent_backups = Set(Some(1));
    let parent = lab.backup(BackupStatus::Available, one).await;
    let rows = backups::Entity::find_by_id(parent.to_string());
    let other = lab.raw.begin().await.expect("begin");
    rows.lock_exclusive().one(&other).await.expect("lock");

    let deleted = change(BackupStatus::Deleting, &DELETED);
    let done = Done::Deleted {
        parent: Some(parent),
        project: None,
        size: 1,
        rules: &crate::lab::rules(),
    };
    let subject = subject(backup, BackupStatus::Deleting);
    let ours = lab.db.change(subject, &deleted, done, now());
    let killer = async {
        // Ours has written the backup and waits for the parent.
        super::deadlock::waits(&lab, &backup.to_string(), &other).await;
        assert!(proxy.kill(&lab.raw).await > 0);
        other.commit().await.expect("commit");
    };
    let (ours, ()) = tokio::join!(ours, killer);
    ours.expect("the second try");
    assert_eq!(lab.backup_row(backup).await.deleted, Some(true));
    let row = lab.backup_row(parent).await;
    assert_eq!(row.num_dependent_backups, Some(0));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let nobody = listener.local_addr().expect("address");
    drop(listener);
    let options = Options {
        start_tries: Some(2),
        ..options(&through(nobody).0)
    };
    let error = Database::connect(&options).await.err().expect("nobody");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    // Told at once, not when the pool has waited long enough.
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_as_long_as_the_url_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let silent = listener.local_addr().expect("address");
    let mut options = options(&through(silent).0);
    options.url.connect_timeout = Some(Duration::from_millis(300));
    // Who waits for as long as the pool would has not looked at the URL.
    options.acquire = Duration::from_secs(3600);
    let connecting = Database::connect(&options);
    let connected = tokio::time::timeout(Duration::from_secs(60), connecting).await;
    let error = connected.expect("given up").err().expect("silence");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_again_and_not_shown() {
    let mut options = options(&url());
    options.url.password = Some("S3cret".into());
    options.start_tries = None;
    let error = Database::connect(&options).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::LockedOut);
    assert!(!format!("{error} {error:?}").contains("S3cret"));
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let lab = Lab::new().await;
    let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
    // MySQL's with the SQL mode that Cinder sets.
    let alien = match backend() {
        Backend::Postgres => "\0",
        _ => "💾",
    };
    for text in ["x".repeat(256), alien.to_owned()] {
        let place = Place {
            backup,
            host: HOST,
            service_metadata: &text,
            was: None,
            detach: false,
        };
        let placed = lab.db.place_backup(place, now()).await;
        assert_eq!(placed.expect_err("refused").kind(), ErrorKind::Other);
    }
    assert_eq!(lab.backup_row(backup).await.service_metadata, None);
}

mod mysql {
    use super::*;

    #[tokio::test]
    async fn sessions_wait_for_other_nodes_as_configured() {
        let mut options = options(&url());
        options.wsrep_sync_wait = Some(15);
        Database::connect(&options)
            .await
            .expect("all that it knows");
        // Whether a session has it is not to be seen from another: the server's refusal shows that it
        // is asked.
        options.wsrep_sync_wait = Some(16);
        let error = Database::connect(&options).await.err().expect("refused");
        assert!(error.to_string().contains("wsrep_sync_wait"), "{error}");
    }
}
