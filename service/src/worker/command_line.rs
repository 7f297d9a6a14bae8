//! The command line, as Python's cinder-backup takes it.

use std::ffi::OsString;
use std::path::PathBuf;

use api_compat::config::ConfigPath;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use crate::settings::ConfigFiles;

/// OpenStack block storage backup service for Ceph RBD.
///
/// Reads the same cinder.conf as Python's cinder-backup and takes its place: it serves
/// `openstack volume backup create`, `restore` and `delete` for volumes kept in Ceph, and may run
/// beside Python workers.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "cinder-backup",
    version,
    args_override_self = true,
    after_help = "Without --config-file, cinder.conf and cinder-backup.conf are searched in \
~/.cinder, ~, /etc/cinder and /etc. Options can also be given as environment variables: \
OS_<GROUP>__<OPTION>, such as OS_DEFAULT__BACKUP_CEPH_POOL.

Signals:
  TERM, INT  Take no new requests, let running operations end, and stop; a second one stops at once
  HUP        Open the log file anew; read the log level, the limits of what runs at once and the other
             services' versions again
  TSTP       Let backups and restores rest: they begin to read and write nothing more until CONT
  CONT       Let them go on
  USR2       Log what the worker does at the moment

Exit status: 0 when it was told to stop, 1 when it could not start or go on, 2 when the command \
line cannot be understood."
)]
pub struct CommandLine {
    /// Which configuration files are read.
    #[command(flatten)]
    pub files: ConfigFiles,

    /// Log at level DEBUG instead of INFO.
    #[arg(long, short, action = ArgAction::SetTrue, overrides_with = "nodebug")]
    pub debug: bool,

    /// The inverse of --debug.
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "debug")]
    pub nodebug: bool,

    /// File to write the log to, instead of standard error.
    #[arg(long, visible_alias = "logfile", value_name = "PATH")]
    pub log_file: Option<PathBuf>,

    /// Directory for the log file.
    #[arg(long, visible_alias = "logdir", value_name = "DIR")]
    pub log_dir: Option<PathBuf>,

    /// Format of the time in log lines (strftime).
    #[arg(long, value_name = "FORMAT")]
    pub log_date_format: Option<String>,

    /// Top-level directory for the state of Cinder.
    #[arg(long = "state_path", value_name = "PATH")]
    pub state_path: Option<String>,

    /// Accepted, without effect: logging is configured by the other options.
    #[arg(
        long = "log-config-append",
        visible_aliases = ["log-config", "log_config"],
        value_name = "PATH"
    )]
    pub log_config_append: Option<PathBuf>,

    /// Accepted, without effect: the log goes to a file or to standard error.
    #[arg(long, action = ArgAction::SetTrue)]
    pub use_syslog: bool,

    /// The inverse of --use-syslog.
    #[arg(long = "nouse-syslog", action = ArgAction::SetTrue)]
    pub nouse_syslog: bool,

    /// Accepted, without effect: the log goes to a file or to standard error.
    #[arg(long, action = ArgAction::SetTrue)]
    pub use_journal: bool,

    /// The inverse of --use-journal.
    #[arg(long = "nouse-journal", action = ArgAction::SetTrue)]
    pub nouse_journal: bool,

    /// Accepted, without effect: SIGHUP has the log file opened anew.
    #[arg(long, action = ArgAction::SetTrue)]
    pub watch_log_file: bool,

    /// The inverse of --watch-log-file.
    #[arg(long = "nowatch-log-file", action = ArgAction::SetTrue)]
    pub nowatch_log_file: bool,

    /// Write each log line as one JSON object.
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "nouse_json")]
    pub use_json: bool,

    /// The inverse of --use-json.
    #[arg(long = "nouse-json", action = ArgAction::SetTrue, overrides_with = "use_json")]
    pub nouse_json: bool,

    /// Accepted, without effect: nothing goes to syslog.
    #[arg(long, value_name = "FACILITY")]
    pub syslog_log_facility: Option<String>,

    /// The files and directories above, in the order in which they were given.
    #[arg(skip)]
    pub paths: Vec<ConfigPath>,
}

impl CommandLine {
    /// Reads the process's arguments; prints help, the version or an error, and ends the process,
    /// where they ask for it.
    pub fn from_args() -> Self {
        Self::try_from_words(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn try_from_words<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut parsed = Self::from_arg_matches(&matches)?;
        parsed.paths = parsed.files.in_order(&matches);
        Ok(parsed)
    }

    /// The options of `[DEFAULT]` that were given, as name and value.
    pub fn overrides(&self) -> Vec<(String, String)> {
        let flag = |yes: bool, no: bool| (yes != no).then(|| yes.to_string());
        let path = |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string());
        [
            ("debug", flag(self.debug, self.nodebug)),
            ("log_file", path(&self.log_file)),
            ("log_dir", path(&self.log_dir)),
            ("log_date_format", self.log_date_format.clone()),
            ("state_path", self.state_path.clone()),
            ("use_json", flag(self.use_json, self.nouse_json)),
            ("log_config_append", path(&self.log_config_append)),
            ("use_syslog", flag(self.use_syslog, self.nouse_syslog)),
            ("use_journal", flag(self.use_journal, self.nouse_journal)),
            (
                "watch_log_file",
                flag(self.watch_log_file, self.nowatch_log_file),
            ),
            ("syslog_log_facility", self.syslog_log_facility.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> CommandLine {
        CommandLine::try_from_words(std::iter::once(&"cinder-backup").chain(args)).unwrap()
    }

    #[test]
    fn files_and_directories_keep_their_order() {
        let parsed = parse(&["--config-dir", "a.d", "--config-file=b", "--config-dir=c.d"]);
        let expected = [
            ConfigPath::Directory("a.d".into()),
            ConfigPath::File("b".into()),
            ConfigPath::Directory("c.d".into()),
        ];
        assert_eq!(parsed.paths, expected);
    }

    #[test]
    fn takes_what_distributions_pass() {
        let debian = parse(&[
            "--config-file=/etc/cinder/cinder.conf",
            "--log-file=/var/log/cinder/cinder-backup.log",
            "--use-syslog",
        ]);
        assert_eq!(
            debian.files.config_file,
            [PathBuf::from("/etc/cinder/cinder.conf")]
        );
        let rdo = parse(&[
            "--config-file",
            "/usr/share/cinder/cinder-dist.conf",
            "--config-file",
            "/etc/cinder/cinder.conf",
            "--logfile",
            "/var/log/cinder/backup.log",
        ]);
        assert_eq!(rdo.files.config_file.len(), 2);
        assert_eq!(
            rdo.overrides(),
            [(
                "log_file".to_owned(),
                "/var/log/cinder/backup.log".to_owned()
            )]
        );
        assert!(parse(&[]).overrides().is_empty());
    }

    #[test]
    fn what_has_no_effect_is_handed_on_so_that_it_is_told() {
        let parsed = parse(&[
            "--log-config=/x",
            "--use-syslog",
            "--nouse-journal",
            "--watch-log-file",
            "--syslog-log-facility=LOG_LOCAL0",
        ]);
        let expected = [
            ("log_config_append", "/x"),
            ("use_syslog", "true"),
            ("use_journal", "false"),
            ("watch_log_file", "true"),
            ("syslog_log_facility", "LOG_LOCAL0"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parsed.overrides(), expected);
    }

    #[test]
    fn the_last_counts_of_what_is_given_twice() {
        let twice = parse(&["--log-file=a", "--debug", "--log-file=b", "--debug"]);
        assert_eq!(twice.log_file, Some("b".into()));
        let files = parse(&["--config-file=a", "--config-file=b"]).paths;
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn the_last_of_two_opposite_flags_wins() {
        assert_eq!(
            parse(&["--debug", "--nodebug"]).overrides(),
            [("debug".to_owned(), "false".to_owned())]
        );
        assert_eq!(
            parse(&["--nodebug", "-d"]).overrides(),
            [("debug".to_owned(), "true".to_owned())]
        );
    }
}
