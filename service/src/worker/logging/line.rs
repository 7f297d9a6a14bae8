//! Events as lines.

use std::fmt::{self, Write as _};
use std::io::Write;

use api_compat::log_line::{self, LogContext, LogLine};
use api_compat::messaging::RequestContext;
use chrono::Local;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{Sink, levels, lock};

/// A span that puts the ids of a request into the lines within it.
pub fn request_span(context: &RequestContext) -> Span {
    tracing::error_span!("request", ids = %LogContext::from(context))
}

/// Writes each event as a line.
pub struct LineLayer {
    /// Where lines go.
    pub sink: Sink,
    /// Whether a line is a JSON object.
    pub json: bool,
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
            logger: &levels::logger(metadata.target()),
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

/// The level's Python counterpart.
pub fn level(level: Level) -> log_line::Level {
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
