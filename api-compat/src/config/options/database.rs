//! The connection to Cinder's database.

use secrecy::SecretString;

use crate::config::registry::{default, options, unset};

options! {
    /// Connection, pool and retries (oslo.db's `options.py`).
    pub struct Database in "database" {
        /// SQLAlchemy URL of the database, as
        /// mysql+pymysql://user:password@host:3306/cinder?charset=utf8. Special characters in
        /// user and password are percent-encoded, and $ is written $$. With ssl_ca in the query,
        /// the server's certificate and name are verified; ssl_check_hostname=false leaves out
        /// the name. PostgreSQL: postgresql+psycopg2://user:password@host/cinder, with sslmode and
        /// sslrootcert as libpq has them. SQLite: sqlite:////var/lib/cinder/cinder.sqlite, a file
        /// with Cinder's schema.
        connection: SecretString = default("sqlite:///$state_path/cinder.sqlite").formerly(&[
            ("DEFAULT", "sql_connection"),
            ("database", "sql_connection"),
            ("sql", "connection"),
        ]),
        /// Parameters that are added to the connection's query: name=value&name=value.
        connection_parameters: String = default(""),
        /// SQL mode of the sessions. An empty value leaves the server's mode.
        mysql_sql_mode: Option<String> = default("TRADITIONAL"),
        /// Value of wsrep_sync_wait of the sessions. Unset leaves the server's. Galera only.
        mysql_wsrep_sync_wait: Option<u32> = unset(),
        /// Seconds after which a connection is replaced; -1 keeps it.
        connection_recycle_time: i64 = default("3600").min(-1.0),
        /// Number of connections, to which max_overflow is added; 0 allows a thousand. Those that
        /// nobody needs for ten minutes are closed.
        max_pool_size: u32 = default("5"),
        /// Number of connections that may be opened above max_pool_size; -1 allows a thousand.
        max_overflow: Option<i64> = default("50").min(-1.0).formerly(&[
            ("DEFAULT", "sql_max_overflow"),
            ("database", "sqlalchemy_max_overflow"),
        ]),
        /// Seconds to wait for a free connection. Unset waits 30 seconds.
        pool_timeout: Option<u64> =
            unset().formerly(&[("database", "sqlalchemy_pool_timeout")]),
        /// Number of attempts to reach the database at start, one at least; -1 goes on for ever.
        max_retries: i64 = default("10").min(-1.0).formerly(&[
            ("DEFAULT", "sql_max_retries"),
            ("database", "sql_max_retries"),
        ]),
        /// Seconds between attempts to reach the database at start.
        retry_interval: u64 = default("10").formerly(&[
            ("DEFAULT", "sql_retry_interval"),
            ("database", "reconnect_interval"),
        ]),
        /// Seconds before a failed transaction is tried again; with 0 it is a tenth of one.
        db_retry_interval: u64 = default("1"),
        /// Whether that time grows with each attempt.
        db_inc_retry_interval: bool = default("true"),
        /// Seconds up to which it grows.
        db_max_retry_interval: u64 = default("10"),
        /// Number of attempts of a transaction; -1 goes on for ever.
        db_max_retries: i64 = default("20").min(-1.0),
    }
}
