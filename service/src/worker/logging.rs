//! The log: oslo.log's line format, to a file or to standard error.
//!
//! A line carries the ids of the request that it belongs to. They come from the span that the
//! worker opens for each request, so that no function has to pass them on.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;
use api_compat::log_line::{self, LogContext, LogLine};
use api_compat::messaging::RequestContext;
use chrono::Local;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// What the configuration says about the log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Level DEBUG instead of INFO (`debug`).
    pub debug: bool,
    /// The file; standard error without one (`log_file` in `log_dir`).
    pub file: Option<PathBuf>,
}

/// Starts logging. To be called once.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(options: LogOptions) -> anyhow::Result<()> {
    let sink: Box<dyn Write + Send> = match &options.file {
        Some(path) => Box::new(open(path)?),
        None => Box::new(io::stderr()),
    };
    let level = if options.debug { Level::DEBUG } else { Level::INFO };
    // Libraries are quieter than the service itself, as with oslo.log's default_log_levels.
    let filter = Targets::new()
        .with_default(Level::WARN)
        .with_target("cinderblock", level);
    let layer = LineLayer {
        sink: Mutex::new(sink),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("logging was started already")
}

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open the log file {}", path.display()))
}

/// A span that puts the ids of a request into the lines within it.
pub fn request_span(context: &RequestContext) -> Span {
    tracing::info_span!("request", ids = %LogContext::from(context))
}

struct LineLayer {
    sink: Mutex<Box<dyn Write + Send>>,
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
        let ids = context
            .event_scope(event)
            .and_then(|mut scope| scope.find_map(|span| span.extensions().get::<LogContext>().cloned()));
        let metadata = event.metadata();
        let line = LogLine {
            time: Local::now().naive_local(),
            pid: std::process::id(),
            level: level(*metadata.level()),
            logger: &metadata.target().replace("::", "."),
            context: ids.as_ref(),
            message: &message.finish(),
        };
        let mut sink = self
            .sink
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // There is nowhere left to tell that the log itself cannot be written.
        let _ = writeln!(sink, "{line}").and_then(|()| sink.flush());
    }
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
            self.0 = Some(LogContext::from_text(format!("{value:?}")));
        }
    }
}

/// An event's message, followed by its other fields as `name=value`.
#[derive(Default)]
struct Message {
    message: String,
    fields: String,
}

impl Message {
    fn finish(self) -> String {
        self.message + &self.fields
    }
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
}
