//! Where log lines go.

use std::path::PathBuf;

use crate::config::error::Reason;
use crate::config::registry::{default, options, unset};
use crate::config::value::{Limits, OptionType};
use crate::log_line::Level;

/// Loggers and the lowest level of theirs that is written; none stands for nothing at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels(pub Vec<(String, Option<Level>)>);

impl OptionType for LogLevels {
    const TYPE_NAME: &'static str = "list value";

    fn parse(texts: &[String], limits: Limits) -> Result<Self, Reason> {
        let entries = Vec::parse(texts, limits)?;
        let entries = entries.into_iter().map(|entry: String| {
            let (logger, level) = entry.split_once('=').unwrap_or((&entry, ""));
            let level = match level.to_uppercase().as_str() {
                "CRITICAL" | "FATAL" => None,
                "WARN" => Some(Level::Warning),
                level => Some(level.parse().map_err(|_| {
                    Reason::Unusable(format!("{entry:?} is not a logger with a level, as a=INFO"))
                })?),
            };
            Ok((logger.to_owned(), level))
        });
        entries.collect::<Result<_, Reason>>().map(Self)
    }

    fn text(&self) -> Option<String> {
        None
    }
}

options! {
    /// Logging (oslo.log's `_options.py`).
    pub struct Logging in "DEFAULT" {
        /// Whether lines of level DEBUG are written.
        debug: bool = default("false"),
        /// File for the log, relative to log_dir.
        log_file: Option<PathBuf> = unset().formerly(&[("DEFAULT", "logfile")]),
        /// Directory for the log. Without log_file, the file is named after the program.
        log_dir: Option<PathBuf> = unset().formerly(&[("DEFAULT", "logdir")]),
        /// Format of the time in front of each line, without its milliseconds.
        log_date_format: String = default("%Y-%m-%d %H:%M:%S"),
        /// Whether lines go to standard error, too, when a log file is set.
        use_stderr: bool = default("false"),
        /// Whether lines are JSON objects.
        use_json: bool = default("false"),
        /// Loggers with levels of their own, each logger=LEVEL. Those of this worker are named
        /// like Python's, below cinder.backup; what is set for cinder holds for them, too.
        default_log_levels: LogLevels = default(
            "amqp=WARN,boto=WARN,sqlalchemy=WARN,suds=INFO,oslo.messaging=INFO,\
             oslo_messaging=INFO,iso8601=WARN,requests.packages.urllib3.connectionpool=WARN,\
             urllib3.connectionpool=WARN,websocket=WARN,\
             requests.packages.urllib3.util.retry=WARN,urllib3.util.retry=WARN,\
             keystonemiddleware=WARN,routes.middleware=WARN,stevedore=WARN,taskflow=WARN,\
             keystoneauth=WARN,oslo.cache=INFO,oslo_policy=INFO,dogpile.core.dogpile=INFO",
        ),
    }
}
