//! What went wrong with the database, and what that means for the caller.

use std::time::Duration;

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::mysql::MySqlDatabaseError;
use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::sqlx::sqlite::SqliteError;
use sea_orm::{DbErr, RuntimeErr, SqlErr, SqlxError};

/// A read or change that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The row is not (any more) in the status that the change was decided on.
    #[error("{what} {id} is no longer {expected}")]
    Conflict {
        /// The table's name in the singular.
        what: &'static str,
        /// The row's id.
        id: String,
        /// The status that it was in.
        expected: String,
    },
    /// A row holds what Cinder never writes.
    #[error("{table} row {id}: column {column} is not usable")]
    Row {
        /// The table.
        table: &'static str,
        /// The row's id.
        id: String,
        /// The column.
        column: &'static str,
    },
    /// The server refused or could not be reached.
    #[error("database: {0}")]
    Database(DbErr),
    /// The server took what it was asked and has not answered for so long.
    #[error("database: no answer for {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The configuration cannot be used.
    #[error("[database] {0}")]
    Configuration(String),
}

/// What an [`Error`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Somebody else changed the row first.
    Conflict,
    /// A transaction was given up by the server and may be run again: deadlock, lock wait,
    /// Galera certification, no space.
    Transient,
    /// The server is away, or the connection was lost.
    Unreachable,
    /// The server is there, and a new connection is let in by neither TLS nor login: a certificate has
    /// expired, a password is being changed.
    LockedOut,
    /// This server cannot do it, but the one can to which the next connection may lead: a primary
    /// that was demoted, a Galera node that is not ready.
    WrongServer,
    /// Anything else.
    Other,
}

impl Error {
    /// What it means.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::NoAnswer(_) => ErrorKind::Unreachable,
            Self::Configuration(_) | Self::Row { .. } => ErrorKind::Other,
            Self::Database(error) => kind(error),
        }
    }
}

// Not as a source: the texts of `DbErr` contain those of their own sources.
impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

fn kind(error: &DbErr) -> ErrorKind {
    if let Some(SqlErr::UniqueConstraintViolation(_)) = error.sql_err() {
        return ErrorKind::Other;
    }
    let runtime = match error {
        DbErr::ConnectionAcquire(_) => return ErrorKind::Unreachable,
        DbErr::Conn(error) | DbErr::Exec(error) | DbErr::Query(error) => error,
        _ => return ErrorKind::Other,
    };
    let RuntimeErr::SqlxError(error) = runtime else {
        return ErrorKind::Other;
    };
    match &**error {
        SqlxError::Io(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::Protocol(_)
        | SqlxError::WorkerCrashed => ErrorKind::Unreachable,
        SqlxError::Tls(_) => ErrorKind::LockedOut,
        SqlxError::Database(error) => of_system(&**error),
        _ => ErrorKind::Other,
    }
}

fn of_system(error: &dyn DatabaseError) -> ErrorKind {
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        return of_mysql(error.number());
    }
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return of_postgres(error.code());
    }
    if error.try_downcast_ref::<SqliteError>().is_some() {
        let code = error.code().and_then(|code| code.parse().ok());
        return code.map_or(ErrorKind::Other, of_sqlite);
    }
    ErrorKind::Other
}

/// MySQL's and MariaDB's error numbers.
fn of_mysql(number: u16) -> ErrorKind {
    match number {
        // Deadlock; lock wait timeout; the row has changed since the transaction's snapshot
        // (`innodb_snapshot_isolation`, MariaDB's default since 11.6).
        1213 | 1205 | 1020 => ErrorKind::Transient,
        // Interrupted by an operator; took too long (MariaDB, MySQL); the commit failed.
        1317 | 1969 | 3024 | 1180 => ErrorKind::Transient,
        // No disk, no memory: the server lives, and somebody is about to help it.
        1021 | 1114 | 1037 | 1041 => ErrorKind::Transient,
        // Too many connections, of all or of this user; the user's limit per hour is used up.
        1040 | 1203 | 1226 => ErrorKind::Unreachable,
        // This host is blocked after errors; no thread for it; the server is offline to users.
        1129 | 1135 | 3032 => ErrorKind::Unreachable,
        // Shutting down; killed; gone away; lost; idle for too long.
        1053 | 1927 | 2006 | 2013 | 4031 => ErrorKind::Unreachable,
        // The server could not read from or write to the connection.
        1158..=1161 => ErrorKind::Unreachable,
        // ProxySQL has no server behind it.
        9001 => ErrorKind::Unreachable,
        // The user, the host, or the database's name is refused, or the way to log in; the password has
        // expired; the account is locked (MySQL, MariaDB); TLS is wanted.
        1045 | 1698 | 1130 | 1044 | 1251 | 1862 | 3118 | 4151 | 3159 => ErrorKind::LockedOut,
        // --read-only, in its two wordings; Galera is not ready.
        1290 | 1836 | 1047 => ErrorKind::WrongServer,
        _ => ErrorKind::Other,
    }
}

/// PostgreSQL's codes, whose first two characters are the class.
fn of_postgres(code: &str) -> ErrorKind {
    match code {
        // Cannot be serialized with others; deadlock; a lock was not to be had in time.
        "40001" | "40P01" | "55P03" => ErrorKind::Transient,
        // Interrupted by an operator, or took too long.
        "57014" => ErrorKind::Transient,
        // Too many connections.
        "53300" => ErrorKind::Unreachable,
        // The login is refused.
        "28000" | "28P01" => ErrorKind::LockedOut,
        // The server is read-only, as a standby is.
        "25006" => ErrorKind::WrongServer,
        // Was idle within a transaction for too long.
        "25P03" => ErrorKind::Unreachable,
        // Shutting down, in three ways; idle for too long; not yet up. A database that is dropped
        // (57P04) is not among them.
        "57P01" | "57P02" | "57P03" | "57P05" => ErrorKind::Unreachable,
        // No disk, no memory: the server lives, and somebody is about to help it.
        _ if code.starts_with("53") => ErrorKind::Transient,
        // The connection was lost, or a proxy has no server behind it.
        _ if code.starts_with("08") => ErrorKind::Unreachable,
        // The server cannot read or write its files.
        "58030" => ErrorKind::Unreachable,
        _ => ErrorKind::Other,
    }
}

/// SQLite's result codes, of which the lowest byte tells the kind.
fn of_sqlite(code: i32) -> ErrorKind {
    match code & 0xff {
        // Another process, or another connection of this one, has the lock.
        5 | 6 => ErrorKind::Transient,
        // No memory; no disk.
        7 | 13 => ErrorKind::Transient,
        // The file cannot be read, written, or opened.
        10 | 14 => ErrorKind::Unreachable,
        // The file was opened read-only, or is no longer at its path.
        8 => ErrorKind::WrongServer,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadlock_may_be_run_again_and_a_duplicate_key_may_not() {
        assert_eq!(of_mysql(1213), ErrorKind::Transient);
        assert_eq!(of_mysql(1020), ErrorKind::Transient);
        assert_eq!(of_mysql(1021), ErrorKind::Transient);
        assert_eq!(of_mysql(2013), ErrorKind::Unreachable);
        assert_eq!(of_mysql(9001), ErrorKind::Unreachable);
        assert_eq!(of_mysql(1290), ErrorKind::WrongServer);
        assert_eq!(of_mysql(1045), ErrorKind::LockedOut);
        // What no wait mends: a text that does not fit, a column that is not there, a duplicate key.
        for number in [1406, 1054, 1062] {
            assert_eq!(of_mysql(number), ErrorKind::Other);
        }
    }

    #[test]
    fn so_it_is_with_postgresql() {
        for code in ["40001", "40P01", "55P03", "57014", "53100", "53200"] {
            assert_eq!(of_postgres(code), ErrorKind::Transient, "{code}");
        }
        for code in ["57P01", "57P03", "53300", "08006", "08P01", "25P03"] {
            assert_eq!(of_postgres(code), ErrorKind::Unreachable, "{code}");
        }
        assert_eq!(of_postgres("25006"), ErrorKind::WrongServer);
        for code in ["28P01", "28000"] {
            assert_eq!(of_postgres(code), ErrorKind::LockedOut, "{code}");
        }
        // A text that does not fit, a column that is not there, a duplicate key.
        for code in ["22001", "42703", "23505"] {
            assert_eq!(of_postgres(code), ErrorKind::Other, "{code}");
        }
    }

    #[test]
    fn a_handshake_that_fails_locks_out() {
        let error = SqlxError::Tls("certificate has expired".into());
        let error = DbErr::Conn(RuntimeErr::SqlxError(error.into()));
        assert_eq!(kind(&error), ErrorKind::LockedOut);
    }

    #[test]
    fn and_with_sqlite() {
        // Busy, with a snapshot that is too old; locked.
        for code in [5, 517, 6] {
            assert_eq!(of_sqlite(code), ErrorKind::Transient, "{code}");
        }
        assert_eq!(of_sqlite(14), ErrorKind::Unreachable);
        assert_eq!(of_sqlite(1032), ErrorKind::WrongServer);
        // An error in the statement, a duplicate key, no database.
        for code in [1, 2067, 26] {
            assert_eq!(of_sqlite(code), ErrorKind::Other, "{code}");
        }
    }
}
