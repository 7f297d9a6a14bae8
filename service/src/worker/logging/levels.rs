//! How much is logged, which an operator may change while the worker runs.
//!
//! Loggers are named like those of Python's worker, below `cinder.backup`, so that
//! `openstack block storage log level set --log-prefix cinder.backup` finds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_compat::config::Logging;
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
/// and goes on. The last is that of the driver `log` of notifications.
const LIBRARIES: [(&str, LevelFilter); 3] = [
    ("lapin", LevelFilter::OFF),
    ("sqlx", LevelFilter::WARN),
    ("oslo.messaging.notification", LevelFilter::INFO),
];

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
    configured: ByTarget,
    levels: ByTarget,
}

impl Levels {
    /// The levels of a start, and the filter that they change.
    pub fn new(options: &Logging) -> (Self, Layer<Targets, Registry>) {
        let levels = configured(options);
        let (layer, filter) = Layer::new(targets(&levels));
        let current = Arc::new(Mutex::new(Current {
            configured: levels.clone(),
            levels,
        }));
        (Self { current, filter }, layer)
    }

    /// Takes up what the configuration says now. Levels that were set since stay, unless it says
    /// something else than before.
    pub fn configure(&self, options: &Logging) {
        let wanted = configured(options);
        let mut current = self.lock();
        if current.configured != wanted {
            current.levels = wanted.clone();
            current.configured = wanted;
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

fn configured(options: &Logging) -> ByTarget {
    let own = match options.debug {
        true => LevelFilter::DEBUG,
        false => LevelFilter::INFO,
    };
    let rooms = ROOMS.map(|room| (format!("cinderblock::{room}"), own));
    let libraries = LIBRARIES.map(|(name, level)| (name.to_owned(), level));
    let levels = rooms.into_iter().chain(libraries);
    let chosen = levels.map(|(target, level)| {
        let level = of_logger(&logger(&target), options).unwrap_or(level);
        (target, level)
    });
    chosen.collect()
}

/// The level that `default_log_levels` gives to a logger, or else to the nearest one above it.
fn of_logger(logger: &str, options: &Logging) -> Option<LevelFilter> {
    let is_above = |name: &str| {
        let below = logger.strip_prefix(name);
        below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
    };
    let entries = options.default_log_levels.0.iter();
    let (_, level) = entries
        .filter(|(name, _)| is_above(name))
        .max_by_key(|(name, _)| name.len())?;
    Some(level.map_or(LevelFilter::OFF, filter))
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
    use api_compat::config::LogLevels;

    use super::*;

    fn options(debug: bool, levels: &[(&str, Option<log_line::Level>)]) -> Logging {
        let levels = levels
            .iter()
            .map(|(name, level)| ((*name).to_owned(), *level));
        Logging {
            debug,
            default_log_levels: LogLevels(levels.collect()),
            ..super::super::tests::sample()
        }
    }

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
            // The other program.
            .filter(|room| *room != "cli")
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
        let (levels, _layer) = Levels::new(&options(false, &[]));
        assert_eq!(levels.get("").len(), ROOMS.len() + LIBRARIES.len());
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=INFO"]);
        assert_eq!(levels.set("cinder.backup.d", log_line::Level::Debug), 1);
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=DEBUG"]);
        assert_eq!(of(&levels, "cinder.backup.rbd"), ["cinder.backup.rbd=INFO"]);
        assert_eq!(of(&levels, "lapin"), ["lapin=CRITICAL"]);
        assert_eq!(levels.set("", log_line::Level::Warning), 13);
        assert_eq!(of(&levels, "lapin"), ["lapin=WARNING"]);
        assert_eq!(levels.set("nova", log_line::Level::Debug), 0);
    }

    #[test]
    fn levels_that_were_set_stay_until_the_configuration_changes() {
        let (levels, _layer) = Levels::new(&options(false, &[]));
        levels.set("cinder.backup.db", log_line::Level::Error);
        levels.configure(&options(false, &[]));
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=ERROR"]);
        levels.configure(&options(true, &[]));
        assert_eq!(of(&levels, "cinder.backup.db"), ["cinder.backup.db=DEBUG"]);
    }

    #[test]
    fn loggers_have_the_levels_that_the_configuration_gives_them() {
        use log_line::Level::{Debug, Error, Warning};
        let wanted = [
            ("cinder", Some(Warning)),
            ("cinder.backup.rbd", Some(Debug)),
            ("cinder.backup.v", Some(Error)),
            ("cinder.backup.amqp", None),
            ("lapin", Some(Error)),
            ("sqlalchemy", Some(Warning)),
        ];
        let (levels, _layer) = Levels::new(&options(true, &wanted));
        assert_eq!(
            of(&levels, "cinder.backup.rbd"),
            ["cinder.backup.rbd=DEBUG"]
        );
        assert_eq!(
            of(&levels, "cinder.backup.v"),
            ["cinder.backup.vault=WARNING"]
        );
        let amqp = of(&levels, "cinder.backup.amqp");
        assert_eq!(amqp, ["cinder.backup.amqp=CRITICAL"]);
        assert_eq!(of(&levels, "lapin"), ["lapin=ERROR"]);
        assert_eq!(of(&levels, "sqlx"), ["sqlx=WARNING"]);
        levels.configure(&options(true, &wanted[..1]));
        assert_eq!(
            of(&levels, "cinder.backup.rbd"),
            ["cinder.backup.rbd=WARNING"]
        );
    }
}
