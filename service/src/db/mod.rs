//! Cinder's database: the few reads and changes that a backup service needs.
//!
//! A change of a status is a conditional update on the status that was read ([`Error::Conflict`]
//! when somebody else was faster); what belongs together is one transaction; a transaction that the
//! server gave up (deadlock, lost connection) is run again as a whole, and so are the reads on which
//! an operation depends. MySQL, MariaDB, PostgreSQL and SQLite are spoken to in sea-orm's words; what
//! they differ in lies in `connect` and `error`.

mod backups;
mod change;
mod connect;
mod convert;
pub mod entity;
mod error;
mod import;
mod independent;
mod keys;
mod messages;
mod metadata;
mod quota;
mod retry;
mod services;
mod volumes;

pub use backups::{Begin, Place};
pub use change::{Done, Subject};
pub use connect::Options;
pub use error::{Error, ErrorKind};
pub use import::Importer;
pub use keys::NewKey;
pub use quota::QuotaRules;
pub use services::{Registration, Sign, Versions};

use sea_orm::sea_query::Expr;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, EntityTrait, QuerySelect, QueryTrait,
    Select, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};

use retry::Patience;

/// The result of everything in this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Cinder's database. Clones share the pool of connections.
#[derive(Clone)]
pub struct Database {
    pool: DatabaseConnection,
    patience: Patience,
}

impl Database {
    /// The same database for whoever has to write what became of an operation: a server that is
    /// away, that takes no writes, or that does not let this service in any more, is waited for until
    /// there is one that does.
    pub fn enduring(mut self) -> Self {
        self.patience.tries = usize::MAX;
        self.patience.through_lockouts = true;
        self
    }

    /// Begins a transaction that writes.
    async fn begin(&self) -> Result<DatabaseTransaction> {
        let options = TransactionOptions {
            // SQLite has one lock: two that have read and want to write would wait for each other.
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        Ok(self.pool.begin_with_options(options).await?)
    }

    /// Reads one row; a server that is away is waited for as long as for a transaction.
    async fn find<E: EntityTrait>(&self, find: Select<E>) -> Result<Option<E::Model>> {
        self.patience
            .run(|| async { Ok(find.clone().one(&self.pool).await?) })
            .await
    }

    /// Reads all rows, with the same patience.
    async fn find_all<E: EntityTrait>(&self, find: Select<E>) -> Result<Vec<E::Model>> {
        self.patience
            .run(|| async { Ok(find.clone().all(&self.pool).await?) })
            .await
    }

    /// Whether there is a row, with the same patience.
    async fn exists<E: EntityTrait>(&self, find: Select<E>) -> Result<bool> {
        // The server stops at the first.
        let probe = find.select_only().expr(Expr::cust("1")).limit(1);
        let probe = probe.into_query();
        let found = self
            .patience
            .run(|| async { Ok(self.pool.query_one(&probe).await?) })
            .await?;
        Ok(found.is_some())
    }
}
