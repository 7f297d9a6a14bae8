//! Opening a database of SQLite, which is a file.

use std::fs::OpenOptions;
use std::time::Duration;

use sea_orm::sqlx::ConnectOptions;
use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use sea_orm::{DatabaseConnection, SqlxSqliteConnector};

use super::{Error, Options, Result, Retired, first, pool, refused};

/// How long to wait for a lock on the file, as Python's driver does.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn open(options: &Options, retired: &Retired) -> Result<DatabaseConnection> {
    let session = session(options)?;
    let session = first(options, [session], async |session| session.connect().await).await?;
    let pool = pool(options, retired)
        .connect_with(session)
        .await
        .map_err(refused)?;
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(pool))
}

/// # Errors
/// `Configuration` where there is no file that can be written. None is created: an empty database is
/// of no use, and would hide that the configuration names the wrong one.
fn session(options: &Options) -> Result<SqliteConnectOptions> {
    let url = &options.url;
    let unusable = |error: &dyn std::fmt::Display| {
        let file = url.location();
        Error::Configuration(format!("connection: the SQLite database {file}: {error}"))
    };
    let Some(file) = &url.database else {
        return Err(unusable(&"the URL names none"));
    };
    let opened = OpenOptions::new().read(true).write(true).open(file);
    opened.map_err(|error| unusable(&error))?;
    Ok(SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .busy_timeout(url.lock_timeout.unwrap_or(LOCK_TIMEOUT))
        // The driver would turn them on; no other service of Cinder does.
        .foreign_keys(false))
}
