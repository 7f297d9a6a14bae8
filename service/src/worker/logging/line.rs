//! Events as lines.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::time::Instant;

use api_compat::log_json::Details;
use api_compat::log_line::{self, LogContext, LogLine};
use api_compat::messaging::RequestContext;
use chrono::Local;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{Sink, levels, lock};

/// A span that puts the ids of a request into the lines within it.
pub fn request_span(context: &RequestContext) -> Span {
    let span = tracing::error_span!("request");
    // Fields are texts and numbers only, and the ids are wanted in two forms.
    span.with_subscriber(|(id, subscriber)| {
        let registry = subscriber.downcast_ref::<Registry>();
        if let Some(span) = registry.and_then(|registry| registry.span(id)) {
            span.extensions_mut().insert(LogContext::from(context));
        }
    });
    span
}

/// Writes each event as a line.
pub struct LineLayer {
    /// Where lines go.
    pub sink: Sink,
    /// Whether a line is a JSON object.
    pub json: bool,
    /// How the time is written (`log_date_format`).
    pub date_format: String,
    /// Name of this machine.
    pub hostname: String,
    /// When the process started.
    pub started: Instant,
}

impl<S> Layer<S> for LineLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let ids = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| span.extensions().get::<LogContext>().cloned())
        });
        let metadata = event.metadata();
        let line = LogLine {
            time: Local::now().fixed_offset(),
            date_format: &self.date_format,
            pid: std::process::id(),
            level: level(*metadata.level()),
            logger: &levels::logger(metadata.target()),
            context: ids.as_ref(),
            message: &format!("{}{}", message.text, message.suffix),
        };
        let text = match self.json {
            true => line.to_json(&Details {
                template: &message.text,
                fields: &message.fields,
                hostname: &self.hostname,
                file: metadata.file(),
                line: metadata.line(),
                uptime: self.started.elapsed().as_secs_f64() * 1e3,
            }),
            false => line.to_string(),
        };
        let mut sink = lock(&self.sink);
        // There is nowhere left to tell that the log itself cannot be written.
        let _ = writeln!(sink, "{text}").and_then(|()| sink.flush());
    }
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

/// An event's message and its other fields, these also as a suffix of ` name=value` each.
#[derive(Default)]
struct Message {
    text: String,
    suffix: String,
    fields: Map<String, Value>,
}

impl Message {
    fn put(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Message {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record_debug(field, &value);
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record_debug(field, &value);
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record_debug(field, &value);
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.text = value;
        } else {
            // Writing to a String cannot fail.
            let _ = write!(self.suffix, " {}={value}", field.name());
            self.put(field, value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of a warning within a request.
    fn written(json: bool) -> String {
        let written = Written::default();
        let layer = LineLayer {
            sink: Arc::new(Mutex::new(Box::new(written.clone()))),
            json,
            date_format: "%Y".to_owned(),
            hostname: "node1".to_owned(),
            started: Instant::now(),
        };
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let context = RequestContext::admin("req-1\nforged", chrono::Utc::now());
            let _inside = request_span(&context).entered();
            tracing::info_span!("inner").in_scope(|| {
                tracing::warn!(pool = "a\nb", tries = 3, "Cannot work");
            });
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_the_ids_of_its_request_and_its_fields() {
        let line = written(false);
        let behind = "[None req-1\\nforged - - - - - -] Cannot work pool=a\\nb tries=3\n";
        assert!(line.ends_with(behind), "{line}");
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains(" WARNING cinder.backup.worker.logging.line"));
    }

    #[test]
    fn the_same_in_json() {
        let line: Value = serde_json::from_str(&written(true)).unwrap();
        assert_eq!(line["message"], "Cannot work pool=a\nb tries=3");
        assert_eq!(line["msg"], "Cannot work");
        assert_eq!(line["context"]["request_id"], "req-1\nforged");
        assert_eq!(
            line["extra"],
            serde_json::json!({"pool": "a\nb", "tries": 3})
        );
        assert_eq!(line["hostname"], "node1");
    }
}
