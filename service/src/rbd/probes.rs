//! One probe of a pool for all who want to know: where the cluster does not answer, each takes a thread
//! until it does.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Result;

type Outcome = Option<Result<()>>;

/// The probes that are under way, by their pools' names.
#[derive(Clone, Default)]
pub(super) struct Probes(Arc<Mutex<HashMap<String, watch::Receiver<Outcome>>>>);

impl Probes {
    /// What the probe finds that is under way; `probe` is only begun if none is. It goes on to its end
    /// when nobody waits for it any more.
    pub(super) async fn join<F>(&self, pool: &str, probe: F) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut under_way = self
            .lock()
            .entry(pool.to_owned())
            .or_insert_with(|| self.begin(pool.to_owned(), probe))
            .clone();
        let ended = under_way.wait_for(Option::is_some).await;
        ended.map_or(Ok(()), |found| found.clone().unwrap_or(Ok(())))
    }

    fn begin<F>(&self, pool: String, probe: F) -> watch::Receiver<Outcome>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (ended, under_way) = watch::channel(None);
        let probes = self.clone();
        tokio::spawn(async move {
            // In a task of its own: one that panics has found nothing.
            let found = tokio::spawn(probe).await.unwrap_or(Ok(()));
            probes.lock().remove(&pool);
            ended.send_replace(Some(found));
        });
        under_way
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Outcome>>> {
        // A map stays whole when its holder panics: each change is a single step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;
    use crate::rbd::{Error, ErrorKind};

    #[tokio::test]
    async fn many_callers_share_a_probe_that_hangs() {
        let probes = Probes::default();
        let (begun, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let join = || {
            let (begun, answers) = (Arc::clone(&begun), Arc::clone(&answers));
            probes.join("pool", async move {
                begun.fetch_add(1, Ordering::Relaxed);
                let _answer = answers.acquire().await;
                Err(Error::from_code(
                    "stat object",
                    "pool/x",
                    -libc::ESHUTDOWN as i64,
                ))
            })
        };
        // Those who lose patience do not begin another one.
        for _ in 0..3 {
            let all = join_all((0..20).map(|_| join()));
            assert!(timeout(Duration::from_millis(10), all).await.is_err());
        }
        let other = probes.join("other", async { Ok(()) }).await;
        other.expect("another pool is another probe");
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        let (found, ()) = tokio::join!(join(), async { answers.add_permits(9) });
        assert_eq!(found.expect_err("told").kind(), ErrorKind::Shutdown);
        // What it found is nobody's any more.
        join().await.expect_err("told");
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
