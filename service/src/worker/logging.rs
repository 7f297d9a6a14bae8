//! The log: oslo.log's line format, to a file or to standard error.
//!
//! A line carries the ids of the request that it belongs to. They come from the span that the
//! worker opens for each request, so that no function has to pass them on.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use api_compat::config::Logging;
use api_compat::log_line::{self, LogContext, LogLine};
use api_compat::messaging::RequestContext;
use chrono::Local;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The log that was started.
pub struct Log {
    path: Option<PathBuf>,
    sink: Sink,
}

type Sink = Arc<Mutex<Box<dyn Write + Send>>>;

/// Starts logging; to be called once. `program` names the file in a `log_dir`.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(options: &Logging, program: &str) -> anyhow::Result<Log> {
    let path = path(options, program);
    let sink: Sink = Arc::new(Mutex::new(open(path.as_deref())?));
    let level = if options.debug {
        Level::DEBUG
    } else {
        Level::INFO
    };
    // Libraries are quieter than the service itself, as with oslo.log's default_log_levels.
    let filter = Targets::new()
        .with_default(Level::WARN)
        // It calls every lost connection an error; our own line tells it once, and goes on.
        .with_target("lapin", LevelFilter::OFF)
        .with_target("cinderblock", level);
    let layer = LineLayer {
        sink: sink.clone(),
        json: options.use_json,
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .context("logging was started already")?;
    Ok(Log { path, sink })
}

impl Log {
    /// Whether it goes to a file.
    pub fn is_file(&self) -> bool {
        self.path.is_some()
    }

    /// Opens the file anew, after it was moved away.
    ///
    /// # Errors
    /// When it cannot be opened; the log goes on where it was.
    pub fn reopen(&self) -> anyhow::Result<()> {
        let fresh = open(self.path.as_deref())?;
        *lock(&self.sink) = fresh;
        Ok(())
    }
}

fn path(options: &Logging, program: &str) -> Option<PathBuf> {
    match (&options.log_file, &options.log_dir) {
        (Some(file), Some(dir)) => Some(dir.join(file)),
        (Some(file), None) => Some(file.clone()),
        (None, Some(dir)) => Some(dir.join(format!("{program}.log"))),
        (None, None) => None,
    }
}

fn open(path: Option<&Path>) -> anyhow::Result<Box<dyn Write + Send>> {
    let Some(path) = path else {
        return Ok(Box::new(io::stderr()));
    };
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open the log file {}", path.display()))?;
    Ok(Box::new(file))
}

fn lock(sink: &Sink) -> std::sync::MutexGuard<'_, Box<dyn Write + Send>> {
    // Whoever panicked while writing left at worst half a line.
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A span that puts the ids of a request into the lines within it.
pub fn request_span(context: &RequestContext) -> Span {
    tracing::error_span!("request", ids = %LogContext::from(context))
}

struct LineLayer {
    sink: Sink,
    json: bool,
}

impl<S> Layer<S> for LineLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut ids = Ids(None);
        attributes.record(&mut ids);
        if let (Some(ids), Some(span)) = (ids.0, context.span(id)) {
            span.extensions_mut().insert(ids);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let ids = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| span.extensions().get::<LogContext>().cloned())
        });
        let metadata = event.metadata();
        let line = LogLine {
            time: Local::now().naive_local(),
            pid: std::process::id(),
            level: level(*metadata.level()),
            logger: &metadata.target().replace("::", "."),
            context: ids.as_ref(),
            message: &message.finish(),
        };
        let text = match self.json {
            true => json(&line),
            false => line.to_string(),
        };
        let mut sink = lock(&self.sink);
        // There is nowhere left to tell that the log itself cannot be written.
        let _ = writeln!(sink, "{text}").and_then(|()| sink.flush());
    }
}

/// The line under the names that oslo.log's JSON formatter uses.
fn json(line: &LogLine<'_>) -> String {
    json!({
        "asctime": line.time.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        "process": line.pid,
        "levelname": line.level.as_str(),
        "name": line.logger,
        "context": line.context.map(ToString::to_string),
        "message": line.message,
    })
    .to_string()
}

fn level(level: Level) -> log_line::Level {
    match level {
        Level::ERROR => log_line::Level::Error,
        Level::WARN => log_line::Level::Warning,
        Level::INFO => log_line::Level::Info,
        Level::DEBUG | Level::TRACE => log_line::Level::Debug,
    }
}

/// The ids among a span's fields.
struct Ids(Option<LogContext>);

impl Visit for Ids {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "ids" {
            self.0 = Some(LogContext::from(format!("{value:?}")));
        }
    }
}

/// An event's message, followed by its other fields as `name=value`. Line ends within are escaped:
/// what a user or a peer sent must not look like a line of its own.
#[derive(Default)]
struct Message {
    message: String,
    fields: String,
}

impl Message {
    fn finish(self) -> String {
        (self.message + &self.fields)
            .replace('\n', "\\n")
            .replace('\r', "\\r")
    }
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_oslo_logs() {
        let mut options = Logging {
            log_file: None,
            log_dir: None,
            ..sample()
        };
        assert_eq!(path(&options, "cinder-backup"), None);
        options.log_dir = Some("/var/log/cinder".into());
        let expected = PathBuf::from("/var/log/cinder/cinder-backup.log");
        assert_eq!(path(&options, "cinder-backup"), Some(expected));
        options.log_file = Some("backup.log".into());
        let expected = PathBuf::from("/var/log/cinder/backup.log");
        assert_eq!(path(&options, "cinder-backup"), Some(expected));
        options.log_file = Some("/elsewhere/b.log".into());
        let expected = PathBuf::from("/elsewhere/b.log");
        assert_eq!(path(&options, "cinder-backup"), Some(expected));
    }

    fn sample() -> Logging {
        Logging {
            debug: false,
            log_file: None,
            log_dir: None,
            log_date_format: String::new(),
            use_stderr: false,
            use_json: false,
            use_journal: false,
            use_syslog: false,
            syslog_log_facility: String::new(),
        }
    }
}
