//! A line of the log as oslo.log's `JSONFormatter` writes it (oslo_log/formatters.py), for log
//! shippers that pick it apart by its keys.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::log_line::{Level, LogLine, date};

/// What only the JSON form of a line tells.
#[derive(Clone, Debug)]
pub struct Details<'a> {
    /// The message without its fields.
    pub template: &'a str,
    /// The message's fields by name.
    pub fields: &'a Map<String, Value>,
    /// Name of this machine.
    pub hostname: &'a str,
    /// The source file that logged it.
    pub file: Option<&'a str>,
    /// The line there.
    pub line: Option<u32>,
    /// Milliseconds since the process started.
    pub uptime: f64,
}

impl LogLine<'_> {
    /// The line as one JSON object, without the line feed. What only Python has (threads' numbers,
    /// functions' names, tracebacks) is null.
    #[must_use]
    pub fn to_json(&self, details: &Details<'_>) -> String {
        let file = details.file.map(Path::new);
        let thread = std::thread::current();
        // Python tells the exception behind a warning or an error.
        let error = match self.level {
            Level::Error | Level::Warning => details.fields.get("error"),
            Level::Info | Level::Debug => None,
        };
        json!({
            "message": self.message,
            "asctime": date(self.time, self.date_format).to_string(),
            "name": self.logger,
            "msg": details.template,
            "args": [],
            "levelname": self.level.as_str(),
            "levelno": number(self.level),
            "pathname": details.file,
            "filename": file.and_then(Path::file_name).map(OsStr::to_string_lossy),
            "module": file.and_then(Path::file_stem).map(OsStr::to_string_lossy),
            "lineno": details.line,
            "funcname": null,
            "created": self.time.timestamp_micros() as f64 / 1e6,
            "msecs": f64::from(self.time.timestamp_subsec_millis()),
            "relative_created": details.uptime,
            "thread": null,
            "thread_name": thread.name(),
            "process_name": null,
            "process": self.pid,
            "traceback": null,
            "hostname": details.hostname,
            "error_summary": error.and_then(Value::as_str).unwrap_or_default(),
            "context": self.context.map_or_else(Map::new, |context| context.values().clone()),
            "extra": details.fields,
        })
        .to_string()
    }
}

/// The level's number in Python's `logging`.
fn number(level: Level) -> u32 {
    match level {
        Level::Error => 40,
        Level::Warning => 30,
        Level::Info => 20,
        Level::Debug => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_line::LogContext;
    use crate::messaging::RequestContext;
    use chrono::DateTime;

    /// What there is of a value: its type, or that it is none.
    fn kind(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }

    #[test]
    fn keys_and_types_are_those_of_a_recorded_line() {
        let recorded = include_str!("../tests/fixtures/oslo_log/line.json");
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        let mut payload: Map<String, Value> = recorded["context"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (format!("_context_{name}"), value.clone()))
            .collect();
        let context = LogContext::from(&RequestContext::take_from(&mut payload));
        let fields = json!({"backup": "b", "error": "it burns"});
        let line = LogLine {
            time: DateTime::parse_from_rfc3339("2026-11-20T21:02:44.007+01:00").unwrap(),
            date_format: "%Y-%m-%d %H:%M:%S",
            pid: 1,
            level: Level::Warning,
            logger: "cinder.backup.manager",
            context: Some(&context),
            message: "Backup failed backup=b\nerror=it burns",
        };
        let text = line.to_json(&Details {
            template: "Backup failed",
            fields: fields.as_object().unwrap(),
            hostname: "node1",
            file: Some("src/manager.rs"),
            line: Some(7),
            uptime: 12.5,
        });
        assert!(!text.contains('\n') && !text.contains("gAAAA"), "{text}");
        let ours: Value = serde_json::from_str(&text).unwrap();
        let keys =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys(&ours), keys(&recorded));
        for (name, value) in ours.as_object().unwrap() {
            let possible = [kind(&recorded[name]), "null"];
            assert!(possible.contains(&kind(value)), "{name}: {value}");
        }
        assert_eq!(ours["message"], "Backup failed backup=b\nerror=it burns");
        assert_eq!(ours["asctime"], "2026-11-20 21:02:44");
        assert_eq!(ours["error_summary"], "it burns");
        assert_eq!(ours["module"], "manager");
        assert_eq!(ours["msecs"], json!(7.0));
        assert_eq!(ours["extra"], fields);
        for (name, value) in ours["context"].as_object().unwrap() {
            assert_eq!(value, &recorded["context"][name], "{name}");
        }
        assert_eq!(ours["context"]["project_name"], "demo");
        assert_eq!(ours["context"]["auth_token"], "***");
    }
}
