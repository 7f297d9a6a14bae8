//! Connecting to the database.

use std::time::Duration;

use api_compat::config::database_url::{Backend, DatabaseUrl};
use api_compat::config::tls::{Tls, TlsMode};
use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sea_orm::sqlx::{self, ConnectOptions, Connection, MySqlConnection, MySqlPool};
use sea_orm::{DbErr, RuntimeErr, SqlxError, SqlxMySqlConnector};
use secrecy::ExposeSecret;
use tracing::warn;

use super::retry::{Patience, Retired};
use super::{Database, Error, ErrorKind, Result};

/// How long a server may take to say what its trouble is.
const TROUBLE_PATIENCE: Duration = Duration::from_secs(5);

/// How to reach the database; section `[database]` of the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it is.
    pub url: DatabaseUrl,
    /// Most connections at a time (`max_pool_size` and `max_overflow`).
    pub connections: u32,
    /// After how long a connection is replaced (`connection_recycle_time`).
    pub recycle: Duration,
    /// How long to wait for a free connection (`pool_timeout`).
    pub acquire: Duration,
    /// SQL mode of the sessions (`mysql_sql_mode`); none leaves the server's.
    pub sql_mode: Option<String>,
    /// What reads wait for on Galera (`mysql_wsrep_sync_wait`); none leaves the server's.
    pub wsrep_sync_wait: Option<u32>,
    /// Tries to connect at start after the first; none tries for ever (`max_retries`).
    pub start_tries: Option<u32>,
    /// Wait between them (`retry_interval`).
    pub start_interval: Duration,
    /// How often a transaction is tried again, and after how long at first and at most.
    pub transaction_tries: usize,
    /// Wait before a transaction is tried again the first time.
    pub transaction_wait: Duration,
    /// The longest wait before a transaction is tried again.
    pub transaction_longest_wait: Duration,
}

impl Database {
    /// Connects, trying again as the options say while the server does not answer.
    ///
    /// # Errors
    /// `Configuration` for a URL that cannot be used, `Unreachable` when the tries are used up.
    pub async fn connect(options: &Options) -> Result<Self> {
        let mut left = options.start_tries;
        let retired = Retired::default();
        loop {
            let error = match open(options, &retired).await {
                Ok(pool) => {
                    return Ok(Self {
                        pool: SqlxMySqlConnector::from_sqlx_mysql_pool(pool),
                        patience: Patience {
                            tries: options.transaction_tries,
                            first: options.transaction_wait,
                            longest: options.transaction_longest_wait,
                            retired,
                        },
                    });
                }
                Err(error) if error.kind() == ErrorKind::Unreachable => error,
                Err(error) => return Err(error),
            };
            if let Some(left) = &mut left {
                if *left == 0 {
                    return Err(error);
                }
                *left -= 1;
            }
            let seconds = options.start_interval.as_secs();
            let host = options.url.host.as_deref().unwrap_or("localhost");
            let port = options.url.port;
            warn!(
                host,
                port, %error, "Cannot connect to the database, trying again in {seconds} s"
            );
            tokio::time::sleep(options.start_interval).await;
        }
    }
}

impl Database {
    /// Why the server takes no connections; none when it takes them. Found out with a connection of
    /// its own: a pool that waits in vain says no more than that.
    pub async fn trouble(&self) -> Option<String> {
        let options = self.pool.get_mysql_connection_pool().connect_options();
        let connected = async { options.connect().await?.ping().await };
        match tokio::time::timeout(TROUBLE_PATIENCE, connected).await {
            Ok(outcome) => outcome.err().map(|error| error.to_string()),
            Err(_) => Some("the server does not answer".to_owned()),
        }
    }
}

async fn open(options: &Options, retired: &Retired) -> Result<MySqlPool> {
    let session = session(&options.url)?;
    // By itself, the pool would wait in silence for a server that refuses.
    let first = async {
        let mut connection = session.connect().await?;
        prepare(&mut connection, options).await
    };
    tokio::time::timeout(options.acquire, first)
        .await
        .unwrap_or(Err(SqlxError::PoolTimedOut))
        .map_err(refused)?;
    let prepared = options.clone();
    let retired = retired.clone();
    let pool = MySqlPoolOptions::new()
        .max_connections(options.connections)
        .max_lifetime(options.recycle)
        .acquire_timeout(options.acquire)
        // The driver would warn of each wait without a word of what is waited for.
        .acquire_slow_threshold(options.acquire)
        .before_acquire(move |_, connection| {
            let useful = !retired.includes(connection.age);
            Box::pin(async move { Ok(useful) })
        })
        .after_connect(move |connection, _| {
            let options = prepared.clone();
            Box::pin(async move { prepare(connection, &options).await })
        })
        .connect_with(session)
        .await;
    pool.map_err(refused)
}

/// Sets the variables of a session.
async fn prepare(session: &mut MySqlConnection, options: &Options) -> sqlx::Result<()> {
    if let Some(mode) = &options.sql_mode {
        let statement = sqlx::query("SET SESSION sql_mode = ?").bind(mode);
        statement.execute(&mut *session).await?;
    }
    if let Some(what) = options.wsrep_sync_wait {
        let statement = sqlx::query("SET SESSION wsrep_sync_wait = ?").bind(what);
        statement.execute(session).await?;
    }
    Ok(())
}

fn refused(error: SqlxError) -> Error {
    Error::Database(DbErr::Conn(RuntimeErr::SqlxError(error.into())))
}

/// The driver's own options. The URL is never handed on as text: the driver drops the names in
/// its query that it does not know, `ssl_ca` among them, and would connect in clear text.
fn session(url: &DatabaseUrl) -> Result<MySqlConnectOptions> {
    if url.backend != Backend::MySql {
        let text = "connection: only MySQL and MariaDB are supported";
        return Err(Error::Configuration(text.to_owned()));
    }
    let mut session = MySqlConnectOptions::new();
    if let Some(user) = &url.user {
        session = session.username(user);
    }
    if let Some(password) = &url.password {
        session = session.password(password.expose_secret());
    }
    if let Some(host) = &url.host {
        session = session.host(host);
    }
    if let Some(port) = url.port {
        session = session.port(port);
    }
    if let Some(socket) = &url.unix_socket {
        session = session.socket(socket);
    }
    if let Some(database) = &url.database {
        session = session.database(database);
    }
    if let Some(charset) = &url.charset {
        session = session.charset(charset);
    }
    Ok(tls(session, &url.tls))
}

fn tls(mut session: MySqlConnectOptions, tls: &Tls) -> MySqlConnectOptions {
    session = session.ssl_mode(match tls.mode {
        TlsMode::Disabled => MySqlSslMode::Disabled,
        TlsMode::Preferred => MySqlSslMode::Preferred,
        TlsMode::Required => MySqlSslMode::Required,
        TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
        TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
    });
    if let Some(ca) = &tls.ca {
        session = session.ssl_ca(ca);
    }
    if let Some(certificate) = &tls.certificate {
        session = session.ssl_client_cert(certificate);
    }
    if let Some(key) = &tls.key {
        session = session.ssl_client_key(key);
    }
    session
}
