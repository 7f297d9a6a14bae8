//! A line of the log as oslo.log writes it by default (oslo_log/_options.py,
//! `logging_context_format_string` and `logging_default_format_string`), so that what operators
//! grep for and what log shippers parse stays as it was.

use std::fmt;
use std::str::FromStr;

use chrono::format::StrftimeItems;
use chrono::{DateTime, FixedOffset};
use serde_json::{Map, Value};

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

/// The most characters that a part of the context may take up: whoever may send requests chooses
/// them, and they are in every line of the request.
const LONGEST_PART: usize = 128;

/// The part of a line that tells whose request it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogContext {
    text: String,
    values: Map<String, Value>,
}

impl LogContext {
    /// What oslo.log's JSON lines have as `context` (`RequestContext.get_logging_values`), without
    /// the service catalogue, which tells nothing about a request.
    pub(crate) fn values(&self) -> &Map<String, Value> {
        &self.values
    }
}

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
        const OTHERS: [&str; 14] = [
            "user_id",
            "user_name",
            "project_id",
            "project_name",
            "domain_id",
            "domain_name",
            "user_domain_name",
            "project_domain_name",
            "request_id",
            "global_request_id",
            "resource_uuid",
            "remote_address",
            "user_identity",
            "timestamp",
        ];
        let part = |name| context.text(name).map(shortened);
        // Python prints a missing global request id as `None`, everything else as a dash.
        let mut text = part("global_request_id").unwrap_or("None").to_owned();
        for name in std::iter::once("request_id").chain(IDENTITY) {
            text.push(' ');
            text.push_str(part(name).filter(|part| !part.is_empty()).unwrap_or("-"));
        }
        let values = IDENTITY.into_iter().chain(OTHERS);
        let mut values: Map<String, Value> = values
            .map(|name| (name.to_owned(), part(name).into()))
            .collect();
        let roles: Value = context.roles().take(32).map(shortened).collect();
        let token = context.auth_token().map(|_| "***");
        values.insert("roles".to_owned(), roles);
        values.insert("is_admin".to_owned(), context.is_admin().into());
        values.insert("auth_token".to_owned(), token.into());
        Self { text, values }
    }
}

fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(LONGEST_PART);
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// One line, without the line feed. Print it with `Display`.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// When, in local time.
    pub time: DateTime<FixedOffset>,
    /// How the time is written down to the second (`log_date_format`).
    pub date_format: &'a str,
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
        write!(
            f,
            "{}.{:03} {} {} {} [{}] {}",
            date(self.time, self.date_format),
            self.time.timestamp_subsec_millis(),
            self.pid,
            self.level.as_str(),
            self.logger,
            OneLine(self.context.map_or("-", |context| &context.text)),
            OneLine(self.message)
        )
    }
}

/// The time in a format of strftime. Python leaves what is none as it is.
pub(crate) fn date(time: DateTime<FixedOffset>, format: &str) -> impl fmt::Display {
    time.format_with_items(StrftimeItems::new_lenient(format))
}

/// A text without what would end the line or steer a terminal: what a user or a peer sent must not
/// look like a line of its own.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(breaks) {
            let mut whole = part.chars();
            match whole.next_back() {
                Some(last) if breaks(last) => {
                    write!(f, "{}{}", whole.as_str(), last.escape_default())?;
                }
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

fn breaks(character: char) -> bool {
    character != '\t' && character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{TimeZone, Utc};
    use serde_json::json;

    fn written(context: Option<&LogContext>, date_format: &str, message: &str) -> String {
        LogLine {
            time: DateTime::parse_from_rfc3339("2026-11-20T21:02:44.007+01:00").unwrap(),
            date_format,
            pid: 14808,
            level: Level::Warning,
            logger: "cinder.backup.manager",
            context,
            message,
        }
        .to_string()
    }

    fn line(context: Option<&LogContext>) -> String {
        written(context, "%Y-%m-%d %H:%M:%S", "Create backup started")
    }

    fn received(payload: Value) -> LogContext {
        let Value::Object(mut payload) = payload else {
            unreachable!()
        };
        LogContext::from(&RequestContext::take_from(&mut payload))
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
        let context = received(json!({
            "_context_request_id": "req-1", "_context_user": "u", "_context_project": "p",
            "_context_domain": null, "_context_user_domain": "default",
            "_context_project_domain": "default", "_context_auth_token": "secret",
        }));
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

    #[test]
    fn the_time_is_written_as_configured() {
        let time = |format| {
            let line = written(None, format, "x");
            line[..line.find(" 14808").unwrap()].to_owned()
        };
        assert_eq!(time("%d.%m.%Y %H:%M"), "20.11.2026 21:02.007");
        assert_eq!(time("%H:%M:%S %z"), "21:02:44 +0100.007");
        assert_eq!(time("%Q %"), "%Q %.007");
        assert_eq!(time(""), ".007");
    }

    #[test]
    fn nothing_makes_a_second_line_or_a_long_one() {
        let forged = "req-1\r\n2026-11-20 21:02:44.007 1 ERROR x [-] forged\u{2028}\u{1b}[2J\u{85}";
        let context = received(json!({
            "_context_request_id": forged, "_context_global_request_id": forged,
            "_context_user": "ü".repeat(1 << 20), "_context_project": "a\tb",
        }));
        let line = written(Some(&context), "%Y", &format!("failed: {forged}"));
        assert!(!line.chars().any(breaks), "{line}");
        assert!(line.contains("req-1\\r\\n2026"), "{line}");
        assert!(line.contains("a\tb"), "{line}");
        assert!(line.len() < 2000, "{}", line.len());
        let json = serde_json::to_string(context.values()).unwrap();
        assert!(json.len() < 2000, "{}", json.len());
    }
}
