//! Running a transaction again that the server gave up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tracing::warn;

use super::{ErrorKind, Result};

/// How often and how long a transaction is tried again (`db_max_retries` and its companions).
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tries after the first.
    pub tries: usize,
    /// Wait before the second try.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Patience {
    /// Runs `transaction`, which must be whole in itself, until it succeeds, fails for good, or
    /// patience is at its end.
    pub async fn run<T, F>(&self, mut transaction: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_max_times(self.tries)
            .with_jitter();
        let mut waits = backoff.build();
        loop {
            let error = match transaction().await {
                Err(error) if again(error.kind()) => error,
                outcome => return outcome,
            };
            let Some(wait) = waits.next() else {
                return Err(error);
            };
            warn!(%error, "Trying the transaction again in {} ms", wait.as_millis());
            tokio::time::sleep(wait).await;
        }
    }
}

fn again(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Transient | ErrorKind::Unreachable)
}
