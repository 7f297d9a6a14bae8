//! Where blocking calls run.

use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use super::{Error, ErrorKind, Result};

/// Runs a blocking call on tokio's blocking threads.
///
/// If the future is dropped the call still runs to its end there.
pub(super) async fn blocking<T, F>(operation: &'static str, object: &str, call: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::new(
                ErrorKind::Shutdown,
                operation,
                object,
                "the runtime is shutting down",
            )),
        },
    }
}

/// Releases a handle on a thread of its own.
///
/// Closing an image or a cluster waits for callbacks that librbd runs on its own threads, and the
/// last owner of a handle may well be such a callback: closing right there would deadlock.
pub(super) fn release(what: &'static str, close: impl FnOnce() + Send + 'static) {
    let under_way = UnderWay::begin();
    let spawned = std::thread::Builder::new()
        .name("rbd-release".to_owned())
        .spawn(move || {
            close();
            drop(under_way);
        });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread to release {what}; it stays open until the process ends");
    }
}

/// How long the end of the process waits for handles that are being released.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);

/// How many handles are being released.
static RELEASES: Mutex<usize> = Mutex::new(0);
static RELEASED: Condvar = Condvar::new();

/// Counts a release while it is under way.
struct UnderWay;

impl UnderWay {
    fn begin() -> Self {
        static AT_EXIT: Once = Once::new();
        AT_EXIT.call_once(|| {
            // SAFETY: `finish_releases` is a plain function that lives as long as the process.
            if unsafe { libc::atexit(finish_releases) } != 0 {
                tracing::debug!("handles released last may be cut off by the end of the process");
            }
        });
        *releases() += 1;
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *releases() -= 1;
        RELEASED.notify_all();
    }
}

fn releases() -> MutexGuard<'static, usize> {
    RELEASES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs when the process ends, before the destructors of librados' global objects: a release that is
/// still under way would use them afterwards and abort.
extern "C" fn finish_releases() {
    let _ = RELEASED.wait_timeout_while(releases(), EXIT_PATIENCE, |count| *count > 0);
}
