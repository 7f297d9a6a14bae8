//! `LogLevel` and its list: what operators ask for with `service-set-log` and `service-get-log`.

use serde::{Deserialize, Serialize};

use super::envelope::{self, WireObject};
use super::version::Version;

/// A logger and its level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// In a request: the beginning of loggers' names. In an answer: one logger's name.
    #[serde(default)]
    pub prefix: Option<String>,
    /// `DEBUG`, `INFO`, `WARNING` or `ERROR`, in any case.
    #[serde(default)]
    pub level: Option<String>,
}

impl WireObject for LogLevel {
    const NAME: &'static str = "LogLevel";
    const VERSION: Version = Version::new(1, 0);
}

/// The answer to `get_log_levels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelList {
    /// The levels.
    #[serde(with = "envelope::list")]
    pub objects: Vec<LogLevel>,
}

impl WireObject for LogLevelList {
    const NAME: &'static str = "LogLevelList";
    const VERSION: Version = Version::new(1, 0);
}
