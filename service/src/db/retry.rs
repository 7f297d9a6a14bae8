//! Running a transaction again that the server gave up.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use sea_orm::DatabaseTransaction;
use tracing::{debug, warn};

use super::{Error, ErrorKind, Result};

/// How often and how long a transaction is tried again (`db_max_retries` and its companions).
#[derive(Debug, Clone)]
pub struct Patience {
    /// Tries after the first.
    pub tries: usize,
    /// Whether to wait also where logging in is refused, as it is while passwords are changed.
    pub through_lockouts: bool,
    /// Wait before the second try.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// How long one try may take.
    pub limit: Duration,
    /// Which connections are of no use any more.
    pub retired: Retired,
}

/// The connections that lead to a server which can no longer do the work: all that were open when it
/// said so. The server keeps them open, so that only this tells the pool to make new ones.
#[derive(Debug, Clone, Default)]
pub struct Retired(Arc<Mutex<Option<Instant>>>);

impl Retired {
    /// Whether a connection that was opened so long ago is one of them.
    pub fn includes(&self, age: Duration) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() <= age)
    }

    fn all_that_are_open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
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
            let error = match self.once(transaction()).await {
                Err(error) if self.again(error.kind()) => error,
                outcome => return outcome,
            };
            let Some(wait) = waits.next() else {
                return Err(error);
            };
            if error.kind() == ErrorKind::WrongServer {
                self.retired.all_that_are_open();
            }
            warn!(%error, "Trying again in {} ms", wait.as_millis());
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for a single try no longer than one may take: a server whose host died after it had taken a
    /// statement never answers, and nobody else would say so.
    ///
    /// # Errors
    /// `NoAnswer` when it takes longer.
    pub async fn once<T>(&self, tried: impl Future<Output = Result<T>>) -> Result<T> {
        let mut tried = pin!(tried);
        match tokio::time::timeout(self.limit, &mut tried).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // While the try still has its connection, which goes back to the pool when it ends.
                self.retired.all_that_are_open();
                Err(Error::NoAnswer(self.limit))
            }
        }
    }

    fn again(&self, kind: ErrorKind) -> bool {
        match kind {
            ErrorKind::Transient | ErrorKind::Unreachable | ErrorKind::WrongServer => true,
            ErrorKind::LockedOut => self.through_lockouts,
            ErrorKind::Conflict | ErrorKind::Other => false,
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
