//! Cinder's database: the few reads and changes that a backup service needs.
//!
//! A change of a status is a conditional update on the status that was read ([`Error::Conflict`]
//! when somebody else was faster); what belongs together is one transaction; a transaction that the
//! server gave up (deadlock, lost connection) is run again as a whole.

mod backups;
mod change;
mod connect;
mod convert;
pub mod entity;
mod error;
mod import;
mod messages;
mod metadata;
mod quota;
mod retry;
mod services;
mod volumes;

pub use backups::Begin;
pub use change::{Done, Subject};
pub use connect::Options;
pub use error::{Error, ErrorKind};
pub use import::Importer;
pub use quota::QuotaRules;
pub use services::{Registration, Versions};

use sea_orm::DatabaseConnection;

use retry::Patience;

/// The result of everything in this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Cinder's database. Clones share the pool of connections.
#[derive(Clone)]
pub struct Database {
    pool: DatabaseConnection,
    patience: Patience,
}
