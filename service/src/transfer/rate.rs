//! A ceiling on bytes a second.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::turns::{Group, Places, Turns};

/// How much may pass at once after a pause: what would have passed in this time.
const BURST: Duration = Duration::from_millis(200);

/// Lets bytes pass at a rate that may change at any time.
pub(super) struct Rate {
    pace: Mutex<Pace>,
    changed: Notify,
    /// One place: groups pass in turn.
    queue: Turns,
}

#[derive(Debug, Default)]
struct Pace {
    /// Bytes a second; none if nothing limits them.
    ceiling: Option<u64>,
    /// When all that has passed is paid for.
    paid: Option<Instant>,
}

impl Rate {
    /// Without a ceiling.
    pub fn new() -> Self {
        Self {
            pace: Mutex::default(),
            changed: Notify::new(),
            queue: Turns::new(Places {
                all: 1,
                of_a_group: 1,
            }),
        }
    }

    /// So many bytes a second from now on; none for as many as there are.
    pub fn set(&self, ceiling: Option<u64>) {
        let mut pace = self.lock();
        if pace.ceiling != ceiling {
            *pace = Pace {
                ceiling,
                paid: None,
            };
            drop(pace);
            self.changed.notify_waiters();
        }
    }

    /// Returns when so many bytes may pass. Whoever stops waiting has used nothing.
    pub async fn pass(&self, group: &Group, bytes: u64) {
        if bytes == 0 || self.lock().ceiling.is_none() {
            return;
        }
        let _turn = self.queue.take(group).await;
        loop {
            let changed = self.changed.notified();
            let Some(wait) = self.lock().pass(bytes, Instant::now()) else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// Lets bytes pass, or tells after which time to ask again.
    fn pass(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        let ceiling = self.ceiling?;
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let paid = self.paid.unwrap_or(now).max(earliest);
        if paid > now {
            return Some(paid - now);
        }
        let cost = Duration::from_secs_f64(bytes as f64 / ceiling.max(1) as f64);
        self.paid = Some(paid + cost);
        None
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// How long it takes until so many operations of a MiB have passed.
    async fn pass(rate: &Rate, operations: u32) -> Duration {
        let begun = Instant::now();
        for _ in 0..operations {
            rate.pass(&"one".into(), MIB).await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_passes_than_may() {
        let rate = Rate::new();
        assert_eq!(pass(&rate, 1000).await, Duration::ZERO);
        rate.set(Some(4 * MIB));
        let taken = pass(&rate, 81).await.as_millis();
        assert!((20_000..20_100).contains(&taken), "{taken}");
        // A pause earns no more than a moment's worth.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let taken = pass(&rate, 41).await.as_millis();
        assert!((9_700..10_100).contains(&taken), "{taken}");
        // What is larger than a second's worth passes, too, and is paid for.
        rate.pass(&"one".into(), 40 * MIB).await;
        let taken = pass(&rate, 1).await.as_millis();
        assert!(taken >= 10_000, "{taken}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_holds_for_what_waits_already() {
        let rate = Rate::new();
        rate.set(Some(1));
        let one = Group::from("one");
        rate.pass(&one, MIB).await;
        let mut waiting = std::pin::pin!(rate.pass(&one, MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        rate.set(None);
        assert!(waiting.now_or_never().is_some());
        assert_eq!(pass(&rate, 1000).await, Duration::ZERO);
    }
}
