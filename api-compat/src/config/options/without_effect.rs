//! Options of Python's worker that are accepted and have no effect here. There are no fields for
//! them; the sample file marks them, and a start warns of each that is set to something else than
//! its default. Their help tells what counts instead.

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

/// Those of `[DEFAULT]`.
pub const DEFAULT: &[OptionSpec] = &[
    default("60").ignored::<u64>(
        "DEFAULT",
        "periodic_interval",
        &["backup_driver_stats_polling_interval tells how often the scheduler hears of this worker."],
    ),
    default("true").ignored::<bool>(
        "DEFAULT",
        "backup_service_inithost_offload",
        &["Deletions that a restart interrupted always go on while new work is accepted."],
    ),
    default("2").ignored::<u32>(
        "DEFAULT",
        "backup_metadata_version",
        &["The metadata of a volume is always stored in version 2."],
    ),
    unset()
        .formerly(&[("DEFAULT", "log-config"), ("DEFAULT", "log_config")])
        .ignored::<Option<String>>(
            "DEFAULT",
            "log_config_append",
            &["The log is configured by the other options only."],
        ),
    default("false").ignored::<bool>(
        "DEFAULT",
        "use_journal",
        &["The log goes to a file or to standard error, which systemd takes into its journal."],
    ),
    default("false").ignored::<bool>(
        "DEFAULT",
        "use_syslog",
        &["The log goes to a file or to standard error."],
    ),
    default("LOG_USER").ignored::<String>(
        "DEFAULT",
        "syslog_log_facility",
        &["The log goes to a file or to standard error."],
    ),
    default("none").ignored::<Rotation>(
        "DEFAULT",
        "log_rotation_type",
        &["The log file is opened anew at SIGHUP, so that logrotate can move it away."],
    ),
];

/// Those of `[oslo_messaging_notifications]`.
pub const NOTIFICATIONS: &[OptionSpec] = &[default("-1").min(-1.0).ignored::<i64>(
    "oslo_messaging_notifications",
    "retry",
    &["A notification is tried again for as long as rpc_response_timeout says."],
)];

/// Those of `[oslo_messaging_rabbit]`.
pub const RABBIT: &[OptionSpec] = &[
    default("").ignored::<String>(
        "oslo_messaging_rabbit",
        "ssl_version",
        &["The versions of TLS are those that OpenSSL's configuration allows."],
    ),
    default("false").ignored::<bool>(
        "oslo_messaging_rabbit",
        "ssl_enforce_fips_mode",
        &["FIPS mode is a matter of OpenSSL's configuration."],
    ),
    default("1.0")
        .min(0.0)
        .max(4.5)
        .formerly(&[("DEFAULT", "kombu_reconnect_delay")])
        .ignored::<f64>(
            "oslo_messaging_rabbit",
            "kombu_reconnect_delay",
            &["rabbit_retry_interval and rabbit_retry_backoff tell when to connect again."],
        ),
    default("0.0").min(0.0).ignored::<f64>(
        "oslo_messaging_rabbit",
        "kombu_reconnect_splay",
        &["Up to half a second is always added at random before connecting again."],
    ),
    default("round-robin").ignored::<FailoverStrategy>(
        "oslo_messaging_rabbit",
        "kombu_failover_strategy",
        &["The brokers of transport_url are tried in turn."],
    ),
];
