//! Connecting to the database.

mod mysql;
mod postgres;
mod sqlite;
mod tls;

use std::time::Duration;

use api_compat::config::database_url::{Backend, DatabaseUrl};
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::{self, ConnectOptions, Connection, Pool};
use sea_orm::{DatabaseConnection, DbBackend, DbErr, RuntimeErr, SqlxError};
use tracing::warn;

use super::retry::{Patience, Retired, Told};
use super::{Database, Error, ErrorKind, Result};

/// How long a server may take to say what its trouble is.
const TROUBLE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may take to show that it is of use; then another is made.
const TEST_PATIENCE: Duration = Duration::from_secs(5);

/// How to reach the database; section `[database]` of the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it is.
    pub url: DatabaseUrl,
    /// Most connections at a time (`max_pool_size` and `max_overflow`).
    pub connections: u32,
    /// After how long a connection is replaced (`connection_recycle_time`); `None` for never.
    pub recycle: Option<Duration>,
    /// How long to wait for a free connection (`pool_timeout`).
    pub acquire: Duration,
    /// SQL mode of MySQL's sessions (`mysql_sql_mode`); none leaves the server's.
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
    /// How long one try may take, from waiting for a connection to the last answer. It must leave a server
    /// the time to say itself that a lock was not to be had (`innodb_lock_wait_timeout`).
    pub transaction_limit: Duration,
}

impl Database {
    /// Connects, trying again as the options say while the server does not answer.
    ///
    /// # Errors
    /// `Configuration` for a URL that cannot be used, `LockedOut` for a login that cannot, `Unreachable`
    /// when the tries are used up.
    pub async fn connect(options: &Options) -> Result<Self> {
        let mut left = options.start_tries;
        let retired = Retired::default();
        loop {
            let error = match open(options, &retired).await {
                Ok(pool) => {
                    return Ok(Self {
                        pool,
                        patience: Patience {
                            tries: options.transaction_tries,
                            through_lockouts: false,
                            first: options.transaction_wait,
                            longest: options.transaction_longest_wait,
                            limit: options.transaction_limit,
                            retired,
                            told: Told::default(),
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
            let database = options.url.location();
            warn!(database, %error, "Cannot connect to the database, trying again in {seconds} s");
            tokio::time::sleep(options.start_interval).await;
        }
    }

    /// Why the server takes no connections; none when it takes them. Found out with a connection of
    /// its own: a pool that waits in vain says no more than that.
    pub async fn trouble(&self) -> Option<String> {
        let connected = async {
            match self.pool.get_database_backend() {
                DbBackend::Postgres => reach(self.pool.get_postgres_connection_pool()).await,
                DbBackend::Sqlite => reach(self.pool.get_sqlite_connection_pool()).await,
                _ => reach(self.pool.get_mysql_connection_pool()).await,
            }
        };
        match tokio::time::timeout(TROUBLE_PATIENCE, connected).await {
            Ok(outcome) => outcome.err().map(|error| error.to_string()),
            Err(_) => Some("the server does not answer".to_owned()),
        }
    }
}

async fn reach<DB: sqlx::Database>(pool: &Pool<DB>) -> sqlx::Result<()> {
    pool.connect_options().connect().await?.ping().await
}

async fn open(options: &Options, retired: &Retired) -> Result<DatabaseConnection> {
    match options.url.backend {
        Backend::MySql => mysql::open(options, retired).await,
        Backend::Postgres => postgres::open(options, retired).await,
        Backend::Sqlite => sqlite::open(options, retired).await,
    }
}

/// Makes the first connection in the first of several ways in which the server is trusted; which it is.
/// By itself, the pool would wait in silence for a server that refuses.
async fn first<S, T>(
    options: &Options,
    ways: impl IntoIterator<Item = S>,
    connect: impl AsyncFn(&S) -> sqlx::Result<T>,
) -> Result<S> {
    let asked = options.url.connect_timeout;
    let limit = asked.map_or(options.acquire, |asked| asked.min(options.acquire));
    let mut distrusted = None;
    for way in ways {
        let connected = tokio::time::timeout(limit, connect(&way)).await;
        match connected.unwrap_or_else(|_| Err(SqlxError::Io(std::io::ErrorKind::TimedOut.into())))
        {
            Ok(_) => return Ok(way),
            Err(error @ SqlxError::Tls(_)) => distrusted = Some(error),
            Err(error) => return Err(refused(error)),
        }
    }
    Err(refused(distrusted.unwrap_or(SqlxError::PoolTimedOut)))
}

fn pool<DB: sqlx::Database>(options: &Options, retired: &Retired) -> PoolOptions<DB> {
    let (before, after) = (retired.clone(), retired.clone());
    let patience = TEST_PATIENCE.min(options.acquire / 2);
    PoolOptions::new()
        .max_connections(options.connections)
        .max_lifetime(options.recycle)
        .acquire_timeout(options.acquire)
        // The driver would warn of each wait without a word of what is waited for.
        .acquire_slow_threshold(options.acquire)
        // It would wait for an answer that never comes for as long as for a free connection.
        .test_before_acquire(false)
        .before_acquire(move |connection: &mut DB::Connection, idle| {
            let retired = before.includes(idle.age);
            Box::pin(async move { Ok(!retired && answers(connection, patience).await) })
        })
        // And here for ever, which would leave no room for another connection.
        .after_release(move |connection: &mut DB::Connection, released| {
            let retired = after.includes(released.age);
            Box::pin(async move { Ok(!retired && answers(connection, patience).await) })
        })
}

/// Whether the server at the other end is there.
async fn answers(connection: &mut impl Connection, patience: Duration) -> bool {
    let answered = tokio::time::timeout(patience, connection.ping()).await;
    matches!(answered, Ok(Ok(())))
}

fn refused(error: SqlxError) -> Error {
    Error::Database(DbErr::Conn(RuntimeErr::SqlxError(error.into())))
}
