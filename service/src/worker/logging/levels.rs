//! How much is logged, which an operator may change while the worker runs.
//!
//! Loggers are named like those of Python's worker, below `cinder.backup`, so that
//! `openstack block storage log level set --log-prefix cinder.backup` finds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_compat::log_line;
use api_compat::objects::LogLevel;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::reload::{Handle, Layer};

/// The rooms of this crate; each is a logger.
const ROOMS: [&str; 10] = [
    "amqp",
    "attach",
    "db",
    "keys",
    "manager",
    "openstack",
    "rbd",
    "transfer",
    "vault",
    "worker",
];

/// The libraries that log, quieter than the service itself, as with oslo.log's
/// `default_log_levels`. lapin calls every lost connection an error; our own line tells it once,
/// and goes on.
const LIBRARIES: [(&str, LevelFilter); 2] =
    [("lapin", LevelFilter::OFF), ("sqlx", LevelFilter::WARN)];

/// By the targets of events.
type ByTarget = BTreeMap<String, LevelFilter>;

/// The levels in force. Clones change the same.
#[derive(Clone)]
pub struct Levels {
    current: Arc<Mutex<Current>>,
    filter: Handle<Targets, Registry>,
}

struct Current {
    /// What the configuration said last.
    debug: bool,
    levels: ByTarget,
}

impl Levels {
    /// The levels of a start, and the filter that they change.
    pub fn new(debug: bool) -> (Self, Layer<Targets, Registry>) {
        let levels = configured(debug);
        let (layer, filter) = Layer::new(targets(&levels));
        let current = Arc::new(Mutex::new(Current { debug, levels }));
        (Self { current, filter }, layer)
    }

    /// Takes up what the configuration says now. Levels that were set since stay, unless it says
    /// something else than before.
    pub fn configure(&self, debug: bool) {
        let mut current = self.lock();
        if current.debug != debug {
            current.debug = debug;
            current.levels = configured(debug);
            self.apply(&current.levels);
        }
    }

    /// The loggers whose names begin with `prefix`, with their levels.
    pub fn get(&self, prefix: &str) -> Vec<LogLevel> {
        let current = self.lock();
        let named = current.levels.iter();
        named
            .map(|(target, level)| (logger(target), name(*level)))
            .filter(|(logger, _)| logger.starts_with(prefix))
            .map(|(logger, level)| LogLevel {
                prefix: Some(logger),
                level: Some(level.to_owned()),
            })
            .collect()
    }

    /// Sets the level of the loggers whose names begin with `prefix`; how many there are.
    pub fn set(&self, prefix: &str, level: log_line::Level) -> usize {
        let mut current = self.lock();
        let mut found = 0;
        for (target, own) in &mut current.levels {
            if logger(target).starts_with(prefix) {
                *own = filter(level);
                found += 1;
            }
        }
        self.apply(&current.levels);
        found
    }

    fn apply(&self, levels: &ByTarget) {
        // The only error is that the subscriber, which lives as long as the process, is gone.
        let _ = self.filter.reload(targets(levels));
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // A map of levels stays whole when its holder panics.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn configured(debug: bool) -> ByTarget {
    let own = match debug {
        true => LevelFilter::DEBUG,
        false => LevelFilter::INFO,
    };
    let rooms = ROOMS.map(|room| (format!("cinderblock::{room}"), own));
    let libraries = LIBRARIES.map(|(name, level)| (name.to_owned(), level));
    rooms.into_iter().chain(libraries).collect()
}

fn targets(levels: &ByTarget) -> Targets {
    let levels = levels
        .iter()
        .map(|(target, level)| (target.clone(), *level));
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(levels)
}

/// The name of an event's logger: its target, in the words of Python's worker.
pub fn logger(target: &str) -> String {
    let name = target.replace("::", ".");
    match name.strip_prefix("cinderblock") {
        Some(room) => format!("cinder.backup{room}"),
        None => name,
    }
}

fn name(level: LevelFilter) -> &'static str {
    match level.into_level() {
        Some(level) => super::line::level(level).as_str(),
        // Python's word for a logger of which nothing is seen.
        None => "CRITICAL",
    }
}

fn filter(level: log_line::Level) -> LevelFilter {
    match level {
        log_line::Level::Error => LevelFilter::ERROR,
        log_line::Level::Warning => LevelFilter::WARN,
        log_line::Level::Info => LevelFilter::INFO,
        log_line::Level::Debug => LevelFilter::DEBUG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(levels: &Levels, prefix: &str) -> Vec<String> {
        let found = levels.get(prefix).into_iter();
        found
            .map(|one| format!("{}={}", one.prefix.unwrap(), one.level.unwrap()))
            .collect()
    }

    #[test]
    fn every_room_is_a_logger() {
        let rooms: Vec<&str> = include_str!("../../lib.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
            .collect();
        assert_eq!(rooms, ROOMS);
    }

    #[test]
    fn loggers_are_named_like_pythons() {
        assert_eq!(logger("cinderblock::db"), "cinder.backup.db");
        assert_eq!(
            logger("cinderblock::manager::create"),
            "cinder.backup.manager.create"
        );
        assert_eq!(logger("lapin::channel"), "lapin.channel");
    }

    #[test]
    fn a_level_is_set_where_the_prefix_says() {
        let (levels, _layer) = Levels::new(false);
        assert_eq!(levels.get("").len(), ROOMS.len() + LIBRARIES.len());
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=INFO"]);
        assert_eq!(levels.set("cinder.backup.d", log_line::Level::Debug), 1);
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=DEBUG"]);
        assert_eq!(of(&levels, "cinder.backup.rbd"), ["cinder.backup.rbd=INFO"]);
        assert_eq!(of(&levels, "lapin"), ["lapin=CRITICAL"]);
        assert_eq!(levels.set("", log_line::Level::Warning), 12);
        assert_eq!(of(&levels, "lapin"), ["lapin=WARNING"]);
        assert_eq!(levels.set("nova", log_line::Level::Debug), 0);
    }

    #[test]
    fn levels_that_were_set_stay_until_the_configuration_changes() {
        let (levels, _layer) = Levels::new(false);
        levels.set("cinder.backup.db", log_line::Level::Error);
        levels.configure(false);
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=ERROR"]);
        levels.configure(true);
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=DEBUG"]);
    }
}
