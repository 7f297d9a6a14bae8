//! What an operator gets to read.

use std::fmt::{Debug, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// All lines of all tests; each test knows its own by a name in them.
static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

/// Starts to record.
pub fn record() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let subscriber = tracing_subscriber::registry().with(Recorder);
        tracing::subscriber::set_global_default(subscriber).expect("there is no other");
    });
}

/// The lines so far that contain `name`, of every level.
pub fn lines(name: &str) -> Vec<String> {
    select(name, Level::TRACE)
}

/// The lines so far that contain `name` and that are shown without `debug`.
pub fn shown(name: &str) -> Vec<String> {
    select(name, Level::INFO)
}

fn select(name: &str, most: Level) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = lines
        .iter()
        .filter(|(level, line)| *level <= most && line.contains(name));
    ours.map(|(_, line)| line.clone()).collect()
}

struct Recorder;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(format!("{} ", event.metadata().target()));
        event.record(&mut line);
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((*event.metadata().level(), line.0));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
