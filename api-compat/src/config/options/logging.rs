//! Where log lines go.

use std::path::PathBuf;

use crate::config::error::Reason;
use crate::config::registry::{default, options, unset};
use crate::config::value::{Limits, OptionType};
use crate::log_line::Level;

/// Loggers and the lowest level of theirs that is written; none stands for nothing at all. A logger that
/// is told to do as the one above it (`NOTSET`) is not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels(pub Vec<(String, Option<Level>)>);

impl OptionType for LogLevels {
    const TYPE_NAME: &'static str = "list value";

    fn parse(texts: &[String], limits: Limits) -> Result<Self, Reason> {
        let entries: Vec<String> = Vec::parse(texts, limits)?;
        let mut levels: Vec<(String, Option<Level>)> = Vec::new();
        for entry in entries {
            let (logger, level) = entry.split_once('=').unwrap_or((&entry, ""));
            let number = number(level).ok_or_else(|| {
                Reason::Unusable(format!("{entry:?} is not a logger with a level, as a=INFO"))
            })?;
            levels.retain(|(earlier, _)| earlier != logger);
            if number != NOTSET {
                levels.push((logger.to_owned(), lowest(number)));
            }
        }
        Ok(Self(levels))
    }

    fn text(&self) -> Option<String> {
        None
    }
}

const NOTSET: i64 = 0;

/// A level as Python's `logging` counts it, by its name or by the number itself. `TRACE` is oslo.log's.
fn number(level: &str) -> Option<i64> {
    Some(match level.to_uppercase().as_str() {
        "CRITICAL" | "FATAL" => 50,
        "ERROR" => 40,
        "WARNING" | "WARN" => 30,
        "INFO" => 20,
        "DEBUG" => 10,
        "TRACE" => 5,
        "NOTSET" => NOTSET,
        number => number.parse().ok()?,
    })
}

/// The lowest of our levels that is not below such a number.
fn lowest(number: i64) -> Option<Level> {
    match number {
        ..=10 => Some(Level::Debug),
        11..=20 => Some(Level::Info),
        21..=30 => Some(Level::Warning),
        31..=40 => Some(Level::Error),
        41.. => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str) -> Result<Vec<(String, Option<Level>)>, Reason> {
        LogLevels::parse(&[text.to_owned()], Limits::default()).map(|levels| levels.0)
    }

    #[test]
    fn whatever_python_takes_for_a_level_is_one() {
        for (text, level) in [
            ("CRITICAL", None),
            ("50", None),
            ("ERROR", Some(Level::Error)),
            ("35", Some(Level::Error)),
            ("WARN", Some(Level::Warning)),
            ("30", Some(Level::Warning)),
            ("info", Some(Level::Info)),
            ("11", Some(Level::Info)),
            ("DEBUG", Some(Level::Debug)),
            ("TRACE", Some(Level::Debug)),
            ("1", Some(Level::Debug)),
            ("-1", Some(Level::Debug)),
        ] {
            let parsed = levels(&format!("a={text}"));
            assert_eq!(parsed, Ok(vec![("a".to_owned(), level)]), "{text}");
        }
        assert_eq!(levels("a=INFO,a=NOTSET,b=0"), Ok(vec![]));
        let last = levels("a=INFO,b=DEBUG,a=ERROR").unwrap();
        assert_eq!(last.last(), Some(&("a".to_owned(), Some(Level::Error))));
        assert_eq!(last.len(), 2);
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["a", "a=", "a=LOUD", "a=1.5"] {
            assert!(levels(text).is_err(), "{text}");
        }
    }
}
