//! Running a transaction again that the server gave up.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use sea_orm::DatabaseTransaction;
use tracing::{debug, info, warn};

use super::{Error, ErrorKind, Result};
use crate::outage::Outage;

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
    /// What was told of why tries fail, by all that wait.
    pub told: Told,
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

/// The reasons that are in the log already, so that those who wait do not all tell the same at each try.
/// They count until the first of them needs not wait any more.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<Outage>>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, Outage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits; also one who gives up or is told to stop.
struct Waiting<'a>(&'a Told);

impl Waiting<'_> {
    fn failed(&self, error: &Error, wait: Duration) {
        if self.0.lock().failed(&error.to_string()) {
            warn!(%error, "The database did not do what it was asked; trying again");
        }
        debug!(%error, "Trying again in {} ms", wait.as_millis());
    }

    fn succeeded(&self) {
        if let Some(away) = self.0.lock().ended() {
            info!(
                seconds = away.as_secs(),
                "The database does what it is asked again"
            );
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().ended();
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
        let mut waiting = None;
        loop {
            let error = match self.once(transaction()).await {
                Err(error) if self.again(error.kind()) => error,
                outcome => {
                    if let (Some(waiting), Ok(_)) = (&waiting, &outcome) {
                        Waiting::succeeded(waiting);
                    }
                    return outcome;
                }
            };
            let Some(wait) = waits.next() else {
                return Err(error);
            };
            if error.kind() == ErrorKind::WrongServer {
                self.retired.all_that_are_open();
            }
            let waiting = waiting.get_or_insert_with(|| Waiting(&self.told));
            waiting.failed(&error, wait);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sea_orm::DbErr;
    use sea_orm::error::ConnAcquireErr;
    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use tokio::time::Instant;

    use super::*;

    /// Counts the lines that are shown without `debug`.
    #[derive(Clone, Default)]
    struct Shown(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Shown {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            if *event.metadata().level() <= Level::INFO {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn patience(tries: usize) -> Patience {
        Patience {
            tries,
            through_lockouts: true,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            limit: Duration::from_secs(120),
            retired: Retired::default(),
            told: Told::default(),
        }
    }

    fn away() -> Error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout).into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_once_however_many_wait_and_so_is_its_end() {
        let shown = Shown::default();
        let subscriber = tracing_subscriber::registry().with(shown.clone());
        let _recording = tracing::subscriber::set_default(subscriber);
        let patience = patience(usize::MAX);
        for outage in 1..3 {
            let back = Instant::now() + Duration::from_secs(3600);
            let ask = || async move {
                match Instant::now() < back {
                    true => Err(away()),
                    false => Ok(()),
                }
            };
            let (one, two) = tokio::join!(patience.run(ask), patience.run(ask));
            assert!(one.is_ok() && two.is_ok());
            assert_eq!(shown.0.load(Ordering::SeqCst), 2 * outage);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_next_outage_to_be_told() {
        let shown = Shown::default();
        let subscriber = tracing_subscriber::registry().with(shown.clone());
        let _recording = tracing::subscriber::set_default(subscriber);
        let patience = patience(3);
        for outage in 1..3 {
            let error = patience.run(async || Err::<(), _>(away())).await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Unreachable);
            assert_eq!(shown.0.load(Ordering::SeqCst), outage);
        }
    }
}
