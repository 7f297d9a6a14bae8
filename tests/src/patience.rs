//! How long a test waits for what is to happen.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

/// How long an operation on a small volume may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// How often a test looks. Each look costs three of the cloud's services some work.
pub(crate) const PAUSE: Duration = Duration::from_millis(300);

/// Looks again and again until what is seen is as wanted, which it returns. The error of a test that
/// gives up says what was waited for, and what was seen last.
pub async fn eventually<T: Debug>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T>,
    wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let seen = look().await?;
        if wanted(&seen) {
            return Ok(seen);
        }
        ensure!(begun.elapsed() < PATIENCE, "{what}: not yet, {seen:?}");
        sleep(PAUSE).await;
    }
}
