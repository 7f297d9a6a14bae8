//! Where log lines go.

use std::path::PathBuf;

use crate::config::registry::{default, options, unset};

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
    }
}
