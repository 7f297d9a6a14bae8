//! The log: oslo.log's line format, to a file or to standard error.
//!
//! A line carries the ids of the request that it belongs to. They come from the span that the
//! worker opens for each request, so that no function has to pass them on.

mod levels;
mod line;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use api_compat::config::Logging;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use levels::Levels;
use line::LineLayer;
pub use line::request_span;

/// The log that was started.
pub struct Log {
    path: Option<PathBuf>,
    to_stderr: bool,
    sink: Sink,
    levels: Levels,
}

type Sink = Arc<Mutex<Box<dyn Write + Send>>>;

/// Starts logging; to be called once. `program` names the file in a `log_dir`.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(options: &Logging, program: &str) -> anyhow::Result<Log> {
    let path = path(options, program);
    let sink: Sink = Arc::new(Mutex::new(open(path.as_deref(), options.use_stderr)?));
    let (levels, filter) = Levels::new(options);
    let layer = LineLayer {
        sink: sink.clone(),
        json: options.use_json,
        date_format: options.log_date_format.clone(),
        hostname: gethostname::gethostname().to_string_lossy().into_owned(),
        started: Instant::now(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .context("logging was started already")?;
    Ok(Log {
        path,
        to_stderr: options.use_stderr,
        sink,
        levels,
    })
}

impl Log {
    /// Whether it goes to a file.
    pub fn is_file(&self) -> bool {
        self.path.is_some()
    }

    /// What is logged.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Opens the file anew, after it was moved away.
    ///
    /// # Errors
    /// When it cannot be opened; the log goes on where it was.
    pub fn reopen(&self) -> anyhow::Result<()> {
        let fresh = open(self.path.as_deref(), self.to_stderr)?;
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

/// Where lines go: to the file, and to standard error without one or if it is wanted, too.
fn open(path: Option<&Path>, to_stderr: bool) -> anyhow::Result<Box<dyn Write + Send>> {
    let Some(path) = path else {
        return Ok(Box::new(io::stderr()));
    };
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open the log file {}", path.display()))?;
    Ok(match to_stderr {
        true => Box::new(Both(file, io::stderr())),
        false => Box::new(file),
    })
}

/// Writes everything twice; what the first cannot take does not keep it from the second.
struct Both<A, B>(A, B);

impl<A: Write, B: Write> Write for Both<A, B> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let first = self.0.write_all(bytes);
        self.1.write_all(bytes).and(first).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let first = self.0.flush();
        self.1.flush().and(first)
    }
}

fn lock(sink: &Sink) -> std::sync::MutexGuard<'_, Box<dyn Write + Send>> {
    // Whoever panicked while writing left at worst half a line.
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use api_compat::config::LogLevels;

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

    #[test]
    fn a_file_and_standard_error_get_the_same_lines() {
        let (mut file, mut stderr) = (Vec::new(), Vec::new());
        write!(Both(&mut file, &mut stderr), "a line").unwrap();
        assert_eq!((file, stderr), (b"a line".to_vec(), b"a line".to_vec()));
        // A full disk.
        let (mut full, mut stderr) = ([0; 2], Vec::new());
        assert!(write!(Both(&mut full[..], &mut stderr), "a line").is_err());
        assert_eq!(stderr, b"a line");
    }

    pub fn sample() -> Logging {
        Logging {
            debug: false,
            log_file: None,
            log_dir: None,
            log_date_format: String::new(),
            use_stderr: false,
            use_json: false,
            default_log_levels: LogLevels(Vec::new()),
        }
    }
}
