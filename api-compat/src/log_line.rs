//! A line of the log as oslo.log writes it by default (oslo_log/_options.py,
//! `logging_context_format_string` and `logging_default_format_string`), so that what operators
//! grep for and what log shippers parse stays as it was.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDateTime;

use crate::messaging::RequestContext;

/// The levels of Python's `logging` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// An operation failed, or the service cannot do its work.
    Error,
    /// Something to look at.
    Warning,
    /// What happens.
    Info,
    /// How it happens.
    Debug,
}

impl Level {
    /// The name in the line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }
}

/// The text is not a level. The wording is Cinder's (`get_log_method` in cinder/utils.py), for an
/// `InvalidInput`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a valid log level.")]
pub struct NotALevel(String);

impl FromStr for Level {
    type Err = NotALevel;

    /// Reads a level as `set_log_levels` brings it, in any case.
    fn from_str(text: &str) -> Result<Self, NotALevel> {
        [Self::Error, Self::Warning, Self::Info, Self::Debug]
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| NotALevel(text.chars().take(64).collect()))
    }
}

/// The part of a line that tells whose request it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogContext(String);

impl From<&RequestContext> for LogContext {
    fn from(context: &RequestContext) -> Self {
        const IDENTITY: [&str; 6] = [
            "user",
            "project",
            "domain",
            "system_scope",
            "user_domain",
            "project_domain",
        ];
        // Python prints a missing global request id as `None`, everything else as a dash.
        let mut text = context.global_request_id().unwrap_or("None").to_owned();
        let ids = IDENTITY.iter().map(|name| context.text(name));
        for part in std::iter::once(context.request_id()).chain(ids) {
            text.push(' ');
            text.push_str(part.filter(|part| !part.is_empty()).unwrap_or("-"));
        }
        Self(text)
    }
}

/// A context that was printed, read back.
impl From<String> for LogContext {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for LogContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line, without the line feed. Print it with `Display`.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// When, in local time.
    pub time: NaiveDateTime,
    /// The process.
    pub pid: u32,
    /// How bad.
    pub level: Level,
    /// The logger's name.
    pub logger: &'a str,
    /// The request; none for what the service does of its own accord.
    pub context: Option<&'a LogContext>,
    /// What happened.
    pub message: &'a str,
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.format("%Y-%m-%d %H:%M:%S%.3f");
        let context = self.context.map_or("-", |context| &context.0);
        write!(
            f,
            "{time} {} {} {} [{context}] {}",
            self.pid,
            self.level.as_str(),
            self.logger,
            self.message
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{NaiveDate, TimeZone, Utc};
    use serde_json::{Value, json};

    fn line(context: Option<&LogContext>) -> String {
        let day = NaiveDate::from_ymd_opt(2026, 11, 20).unwrap();
        LogLine {
            time: day.and_hms_milli_opt(21, 2, 44, 7).unwrap(),
            pid: 14808,
            level: Level::Warning,
            logger: "cinder.backup.manager",
            context,
            message: "Create backup started",
        }
        .to_string()
    }

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!("warning".parse(), Ok(Level::Warning));
        assert_eq!("DEBUG".parse(), Ok(Level::Debug));
        for text in ["", "critical", "WARN", "info "] {
            let error = text.parse::<Level>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{text} is not a valid log level.")
            );
        }
    }

    #[test]
    fn without_a_request() {
        assert_eq!(
            line(None),
            "2026-11-20 21:02:44.007 14808 WARNING cinder.backup.manager [-] Create backup started"
        );
    }

    #[test]
    fn with_a_request() {
        let Value::Object(mut payload) = json!({
            "_context_request_id": "req-1", "_context_user": "u", "_context_project": "p",
            "_context_domain": null, "_context_user_domain": "default",
            "_context_project_domain": "default", "_context_auth_token": "secret",
        }) else {
            unreachable!()
        };
        let context = LogContext::from(&RequestContext::take_from(&mut payload));
        assert_eq!(
            line(Some(&context)),
            "2026-11-20 21:02:44.007 14808 WARNING cinder.backup.manager \
             [None req-1 u p - - default default] Create backup started"
        );
    }

    #[test]
    fn with_the_services_own_context() {
        let now = Utc.timestamp_opt(0, 0).unwrap();
        let context = LogContext::from(&RequestContext::admin("req-2", now));
        assert!(line(Some(&context)).contains("[None req-2 - - - - - -] "));
    }
}
