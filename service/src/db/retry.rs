//! Running a transaction again that the server gave up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use sea_orm::DatabaseTransaction;
use tracing::{debug, warn};

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
    /// Runs `transaction`, a statement or a whole transaction, until it succeeds, fails for good, or
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
            warn!(%error, "Trying again in {} ms", wait.as_millis());
            tokio::time::sleep(wait).await;
        }
    }
}

/// Ends a transaction as its outcome says. One that is merely dropped keeps its locks until its
/// connection is looked at again.
pub async fn end<T>(transaction: DatabaseTransaction, outcome: Result<T>) -> Result<T> {
    match outcome {
        Ok(value) => {
            transaction.commit().await?;
            Ok(value)
        }
        Err(outcome) => {
            if let Err(error) = transaction.rollback().await {
                debug!(%error, "Cannot roll a transaction back");
            }
            Err(outcome)
        }
    }
}

fn again(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Transient | ErrorKind::Unreachable)
}
