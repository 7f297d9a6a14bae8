//! What only a file does: it is locked as a whole, may not be there, and may go away.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use api_compat::state::{BackupStatus, Event};
use cinderblock::db::entity::backups;
use cinderblock::db::{Database, Done, Error, ErrorKind, Options};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, EntityTrait, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use uuid::Uuid;

use crate::lab::{change, now, options, raw, subject};

/// A file with Cinder's schema, in a folder that goes with its test.
struct File {
    folder: PathBuf,
    url: String,
}

impl File {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("cinderblock-{}", Uuid::new_v4()));
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab/lab");
        let made = Command::new(lab)
            .arg("sqlite")
            .arg(folder.join("cinder.sqlite"))
            .output()
            .expect("the lab's program");
        assert!(made.status.success(), "{made:?}");
        let url = String::from_utf8(made.stdout).expect("a URL");
        let url = url.trim().to_owned();
        Self { folder, url }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("cinder.sqlite")
    }

    /// How the tests connect; a lock is waited for for an instant only.
    fn options(&self) -> Options {
        options(&format!("{}?timeout=0.01", self.url))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // What is left is temporary, and the test has said what it had to say.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn backup(raw: &DatabaseConnection) -> api_compat::ids::BackupId {
    let id = api_compat::ids::BackupId::from(Uuid::new_v4());
    let row = backups::ActiveModel {
        id: Set(id.to_string()),
        volume_id: Set(Uuid::new_v4().to_string()),
        status: Set(Some(BackupStatus::Deleting.to_string())),
        deleted: Set(Some(false)),
        ..Default::default()
    };
    let insert = backups::Entity::insert(row).exec_without_returning(raw);
    insert.await.expect("backup");
    id
}

/// Writes the end of a deletion that failed.
async fn write(db: &Database, id: api_compat::ids::BackupId) -> Result<(), Error> {
    let failed = change(BackupStatus::Deleting, &Event::DeleteFailed { reason: "x" });
    let subject = subject(id, BackupStatus::Deleting);
    db.change(subject, &failed, Done::Nothing, now()).await
}

async fn lock(raw: &DatabaseConnection) -> sea_orm::DatabaseTransaction {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Exclusive),
        ..Default::default()
    };
    raw.begin_with_options(options).await.expect("lock")
}

#[tokio::test]
async fn a_file_that_somebody_else_has_locked_is_waited_for() {
    let file = File::new();
    let raw = raw(&file.url).await;
    let id = backup(&raw).await;
    let impatient = Options {
        transaction_tries: 1,
        ..file.options()
    };
    let impatient = Database::connect(&impatient).await.expect("connect");
    let db = Database::connect(&file.options()).await.expect("connect");
    let db = db.enduring();
    let locked = lock(&raw).await;
    let error = write(&impatient, id).await.expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let unlock = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        locked.commit().await.expect("unlock");
    };
    let (written, ()) = tokio::join!(write(&db, id), unlock);
    written.expect("the lock is gone");
}

#[tokio::test]
async fn many_that_write_at_once_all_do() {
    let file = File::new();
    let raw = raw(&file.url).await;
    let db = Database::connect(&file.options()).await.expect("connect");
    let db = db.enduring();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (db, id) = (db.clone(), backup(&raw).await);
        tasks.spawn(async move { write(&db, id).await });
    }
    for outcome in tasks.join_all().await {
        outcome.expect("change");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_refused_and_not_made() {
    let file = File::new();
    for path in ["other.sqlite", "nowhere/cinder.sqlite"] {
        let path = file.folder.join(path);
        let options = Options {
            start_tries: None,
            ..options(&format!("sqlite:///{}", path.display()))
        };
        let error = Database::connect(&options).await.err().expect("refused");
        let text = format!(
            "[database] connection: the SQLite database {}: No such file or directory",
            path.display()
        );
        assert!(error.to_string().starts_with(&text), "{error}");
        assert!(!path.exists());
    }
    let error = Database::connect(&options("sqlite://")).await.err();
    let error = error.expect("refused").to_string();
    assert!(error.ends_with("the URL names none"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let file = File::new();
    std::fs::write(
        file.path(),
        "no database, but longer than a header has to be: ".repeat(9),
    )
    .expect("write");
    let db = Database::connect(&file.options()).await;
    let error = match db {
        Ok(db) => db.versions().await.expect_err("refused"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().contains("not a database"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_away_for_a_while_is_waited_for() {
    let file = File::new();
    let raw = raw(&file.url).await;
    let id = backup(&raw).await;
    raw.execute_unprepared("SELECT 1").await.expect("query");
    let options = Options {
        recycle: Some(Duration::ZERO),
        ..file.options()
    };
    let db = Database::connect(&options).await.expect("connect");
    let db = db.enduring();
    assert_eq!(db.trouble().await, None);
    let elsewhere = file.folder.join("elsewhere");
    std::fs::rename(file.path(), &elsewhere).expect("rename");
    let trouble = db.trouble().await.expect("there is none");
    assert!(
        trouble.contains("unable to open database file"),
        "{trouble}"
    );
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::rename(&elsewhere, file.path()).expect("rename");
    };
    let (written, ()) = tokio::join!(write(&db, id), back);
    written.expect("it is back");
    let row = backups::Entity::find_by_id(id.to_string()).one(&raw).await;
    let row = row.expect("query").expect("a backup");
    assert_eq!(row.status.as_deref(), Some("error"));
}
