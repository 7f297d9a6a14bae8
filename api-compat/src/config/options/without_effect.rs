//! Options of Python's worker that are accepted and have no effect here. There are no fields for
//! them; the sample file marks them, and a start tells of each that is set to something else than
//! its default. Their help tells what counts instead.

use secrecy::SecretString;

use crate::config::registry::{OptionSpec, default, unset};
use crate::config::value::choices;

choices! {
    /// How Python's worker chooses the next of several brokers.
    pub enum FailoverStrategy {
        /// In the order of the list.
        RoundRobin = "round-robin",
        /// In random order.
        Shuffle = "shuffle",
    }
}

choices! {
    /// What makes Python's worker begin another log file.
    pub enum Rotation {
        /// Time.
        Interval = "interval",
        /// The file's size.
        Size = "size",
        /// Nothing.
        Never = "none",
    }
}

choices! {
    /// In what the time between two log files is counted.
    pub enum RotationUnit {
        /// Seconds.
        Seconds = "Seconds",
        /// Minutes.
        Minutes = "Minutes",
        /// Hours.
        Hours = "Hours",
        /// Days.
        Days = "Days",
        /// Until a day of the week.
        Weekday = "Weekday",
        /// Until midnight.
        Midnight = "Midnight",
    }
}

choices! {
    /// From which level on lines are written whatever their rate.
    pub enum RateLimitExcept {
        /// Critical errors.
        Critical = "CRITICAL",
        /// Errors.
        Error = "ERROR",
        /// Information.
        Info = "INFO",
        /// Warnings.
        Warning = "WARNING",
        /// Everything.
        Debug = "DEBUG",
        /// None.
        Nothing = "",
    }
}

choices! {
    /// The oldest version of TLS.
    pub enum TlsVersion {
        /// TLS 1.2.
        V1_2 = "1.2",
        /// TLS 1.3.
        V1_3 = "1.3",
    }
}

/// Declares tables of such options: `missing` where somebody may miss what an option does for
/// Python's worker, `needless` where not.
macro_rules! without_effect {
    (
        $(#[$doc:meta])*
        $table:ident in $group:literal {
            $($(#[doc = $help:literal])+ $kind:ident $name:ident: $type:ty = $declaration:expr,)+
        }
    ) => {
        $(#[$doc])*
        pub const $table: &[OptionSpec] = &[
            $($declaration.$kind::<$type>($group, stringify!($name), &[$($help),+]),)+
        ];
    };
}

without_effect! {
    /// Those of `[DEFAULT]`.
    DEFAULT in "DEFAULT" {
        /// One process uses all processors.
        needless backup_workers: u32 = default("1").min(1.0),
        /// Threads are made as they are needed.
        needless backup_native_threads_pool_size: u32 = default("60").min(20.0),
        /// Any number of requests is taken on; backup_max_operations tells how many run at once.
        needless executor_thread_pool_size: u32 = default("64")
            .formerly(&[("DEFAULT", "rpc_thread_pool_size")]),
        /// There is no other manager.
        missing backup_manager: String = default("cinder.backup.manager.BackupManager"),
        /// Nothing is named after it: Ceph's driver has names of its own.
        needless backup_name_template: String = default("backup-%s"),
        /// The connection that cinder-volume gives names the image or the device.
        needless volume_name_template: String = default("volume-%s"),
        /// The connection that cinder-volume gives names the snapshot.
        needless snapshot_name_template: String = default("snapshot-%s"),
        /// Deletions that a restart interrupted always go on while new work is accepted.
        missing backup_service_inithost_offload: bool = default("true"),
        /// The metadata of a volume is always stored in version 2.
        missing backup_metadata_version: u32 = default("2"),
        /// backup_driver_stats_polling_interval tells how often the scheduler hears of this worker.
        missing periodic_interval: u64 = default("60"),
        /// Periodic tasks begin at once.
        needless periodic_fuzzy_delay: u64 = default("60"),
        /// Quotas are those in Cinder's database.
        missing quota_driver: String = default("cinder.quota.DbQuotaDriver"),
        /// Options come from files, the environment and the command line.
        missing config_source: Vec<String> = default(""),
        /// There is no Python here that could be patched.
        missing monkey_patch: bool = default("false"),
        /// There is no Python here that could be patched.
        missing monkey_patch_modules: Vec<String> = default(""),
        /// A former name of an option is told and never ends the start.
        missing fatal_deprecations: bool = default("false"),
        /// The values of the options are not logged.
        needless log_options: bool = default("true"),
        /// The log is configured by the other options only.
        missing log_config_append: Option<String> = unset()
            .formerly(&[("DEFAULT", "log-config"), ("DEFAULT", "log_config")]),
        /// The log goes to a file or to standard error, which systemd takes into its journal.
        missing use_journal: bool = default("false"),
        /// The log goes to a file or to standard error.
        missing use_syslog: bool = default("false"),
        /// The log goes to a file or to standard error.
        missing syslog_log_facility: String = default("LOG_USER"),
        /// The log file is opened anew at SIGHUP, which logrotate has to send.
        missing watch_log_file: bool = default("false"),
        /// The log file is opened anew at SIGHUP, so that logrotate can move it away.
        missing log_rotation_type: Rotation = default("none"),
        /// The log file is opened anew at SIGHUP, so that logrotate can move it away.
        missing log_rotate_interval: i64 = default("1"),
        /// The log file is opened anew at SIGHUP, so that logrotate can move it away.
        missing log_rotate_interval_type: RotationUnit = default("days"),
        /// The log file is opened anew at SIGHUP, so that logrotate can move it away.
        missing max_logfile_count: i64 = default("30"),
        /// The log file is opened anew at SIGHUP, so that logrotate can move it away.
        missing max_logfile_size_mb: i64 = default("200"),
        /// Lines are never coloured.
        needless log_color: bool = default("false"),
        /// Lines have oslo.log's own format, or are JSON objects with use_json.
        missing logging_context_format_string: String = default(
            "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s \
             [%(global_request_id)s %(request_id)s %(user_identity)s] %(instance)s%(message)s",
        ),
        /// Lines have oslo.log's own format, or are JSON objects with use_json.
        missing logging_default_format_string: String = default(
            "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [-] %(instance)s%(message)s",
        ),
        /// Lines of level DEBUG end as others do.
        missing logging_debug_format_suffix: String =
            default("%(funcName)s %(pathname)s:%(lineno)d"),
        /// An error is one line.
        missing logging_exception_prefix: String =
            default("%(asctime)s.%(msecs)03d %(process)d ERROR %(name)s %(instance)s"),
        /// Users are written as oslo.log does by itself.
        missing logging_user_identity_format: String = default(
            "%(user)s %(project)s %(domain)s %(system_scope)s %(user_domain)s %(project_domain)s",
        ),
        /// No line tells of an instance.
        needless instance_format: String = default("[instance: %(uuid)s] "),
        /// No line tells of an instance.
        needless instance_uuid_format: String = default("[instance: %(uuid)s] "),
        /// Errors are logged and not published.
        missing publish_errors: bool = default("false"),
        /// Every line is written.
        missing rate_limit_interval: u64 = default("0"),
        /// Every line is written.
        missing rate_limit_burst: u64 = default("0"),
        /// Every line is written.
        missing rate_limit_except_level: RateLimitExcept = default("CRITICAL"),
    }
}

without_effect! {
    /// Those of `[database]`.
    DATABASE in "database" {
        /// SQLAlchemy is not used.
        missing backend: String = default("sqlalchemy"),
        /// Everything is read from connection.
        missing slave_connection: Option<SecretString> = unset(),
        /// Everything goes through connection.
        missing asyncio_connection: Option<SecretString> = unset(),
        /// Everything is read from connection.
        missing asyncio_slave_connection: Option<SecretString> = unset(),
        /// Everything is read from connection.
        needless synchronous_reader: bool = default("true"),
        /// The tables are taken as they are.
        missing mysql_enable_ndb: bool = default("false"),
        /// A connection that was lost is always made anew.
        needless use_db_reconnect: bool = default("false"),
        /// SQLite always writes to the disk before it answers.
        missing sqlite_synchronous: bool = default("true"),
        /// Statements are not logged.
        missing connection_debug: u32 = default("0").min(0.0).max(100.0),
        /// No comments are added to statements.
        missing connection_trace: bool = default("false"),
    }
}

without_effect! {
    /// Those of `[oslo_messaging_notifications]`.
    NOTIFICATIONS in "oslo_messaging_notifications" {
        /// A notification is tried again for as long as rpc_response_timeout says.
        missing retry: i64 = default("-1").min(-1.0),
    }
}

without_effect! {
    /// Those of `[oslo_messaging_rabbit]`.
    RABBIT in "oslo_messaging_rabbit" {
        /// The versions of TLS are those that OpenSSL's configuration allows.
        missing ssl_version: String = default(""),
        /// FIPS mode is a matter of OpenSSL's configuration.
        missing ssl_enforce_fips_mode: bool = default("false"),
        /// Messages are sent as they are. Those that others have compressed are read.
        missing kombu_compression: Option<String> = unset(),
        /// rabbit_retry_interval and rabbit_retry_backoff tell when to connect again.
        missing kombu_reconnect_delay: f64 = default("1.0")
            .min(0.0)
            .max(4.5)
            .formerly(&[("DEFAULT", "kombu_reconnect_delay")]),
        /// Up to half a second is always added at random before connecting again.
        missing kombu_reconnect_splay: f64 = default("0.0").min(0.0),
        /// The brokers of transport_url are tried in turn.
        missing kombu_failover_strategy: FailoverStrategy = default("round-robin"),
        /// Heartbeats have a task of their own, whatever else goes on.
        needless heartbeat_in_pthread: bool = default("false"),
        /// Heartbeats are sent twice within heartbeat_timeout_threshold.
        needless heartbeat_rate: u32 = default("3"),
        /// There are three connections, however much goes on.
        needless rpc_conn_pool_size: u32 = default("30").min(1.0),
        /// There are three connections, however much goes on.
        needless conn_pool_min_size: u32 = default("2"),
        /// There are three connections, however much goes on.
        needless conn_pool_ttl: u64 = default("1200"),
        /// An answer whose queue is gone is always noticed.
        needless direct_mandatory_flag: bool = default("true"),
    }
}

without_effect! {
    /// Those of `[barbican]`, which castellan declares and does not read either.
    BARBICAN in "barbican" {
        /// verify_ssl_path names the file.
        missing cafile: Option<String> = unset(),
        /// verify_ssl tells whether certificates are verified.
        missing insecure: bool = default("false"),
        /// Barbican is shown no certificate.
        missing certfile: Option<String> = unset(),
        /// Barbican is shown no certificate.
        missing keyfile: Option<String> = unset(),
        /// Barbican is given a minute to answer.
        missing timeout: Option<f64> = unset(),
        /// Times are not collected.
        needless collect_timing: bool = default("false"),
        /// The room that talks to Barbican has one logger.
        needless split_loggers: bool = default("false"),
        /// The ciphers are those that OpenSSL's configuration allows.
        missing tls_ciphers: Option<String> = unset(),
        /// The versions of TLS are those that OpenSSL's configuration allows.
        missing tls_min_version: Option<TlsVersion> = unset(),
    }
}

/// Those of a section with the options of keystoneauth.
macro_rules! of_login {
    ($table:ident in $group:literal) => {
        without_effect! {
            #[doc = concat!("Those of `[", $group, "]`.")]
            $table in $group {
                /// Times are not collected.
                needless collect_timing: bool = default("false"),
                /// The room that talks to Keystone has one logger.
                needless split_loggers: bool = default("false"),
                /// The ciphers are those that OpenSSL's configuration allows.
                missing tls_ciphers: Option<String> = unset(),
                /// The versions of TLS are those that OpenSSL's configuration allows.
                missing tls_min_version: Option<TlsVersion> = unset(),
            }
        }
    };
}

of_login!(BARBICAN_SERVICE_USER in "barbican_service_user");
of_login!(SERVICE_USER in "service_user");
of_login!(KEYSTONE_AUTHTOKEN in "keystone_authtoken");

without_effect! {
    /// Those of `[coordination]`.
    COORDINATION in "coordination" {
        /// This worker needs no locks but those of the database and of Ceph.
        needless backend_url: SecretString = default("file://$state_path"),
    }
}

without_effect! {
    /// Those of `[profiler]`.
    PROFILER in "profiler" {
        /// Nothing is traced.
        missing enabled: bool = default("false").formerly(&[("profiler", "profiler_enabled")]),
        /// Nothing is traced.
        needless trace_sqlalchemy: bool = default("false"),
        /// Nothing is traced.
        needless trace_requests: bool = default("false"),
        /// Nothing is traced.
        needless hmac_keys: SecretString = default("SECRET_KEY"),
        /// Nothing is traced.
        needless connection_string: SecretString = default("messaging://"),
        /// Nothing is traced.
        needless es_doc_type: String = default("notification"),
        /// Nothing is traced.
        needless es_scroll_time: String = default("2m"),
        /// Nothing is traced.
        needless es_scroll_size: u64 = default("10000"),
        /// Nothing is traced.
        needless socket_timeout: f64 = default("0.1"),
        /// Nothing is traced.
        needless sentinel_service_name: String = default("mymaster"),
        /// Nothing is traced.
        needless filter_error_trace: bool = default("false"),
    }
}

without_effect! {
    /// Those of `[oslo_reports]`.
    REPORTS in "oslo_reports" {
        /// The report goes to the log.
        missing log_dir: Option<String> = unset(),
        /// The report goes to the log.
        missing file_event_handler: Option<String> = unset(),
        /// SIGUSR2 asks for a report.
        needless file_event_handler_interval: u64 = default("1"),
    }
}
