//! How many operations run at once (`backup_max_operations`).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Admits operations. One that waits is a parked task: it holds no slot that another request,
/// such as a quick call, would need.
pub struct Capacity(Option<Arc<Semaphore>>);

impl Capacity {
    /// Room for `most` operations; 0 does not limit.
    pub fn new(most: usize) -> Self {
        Self((most > 0).then(|| Arc::new(Semaphore::new(most))))
    }

    /// Whether an operation would have to wait.
    pub fn is_full(&self) -> bool {
        let free = self.0.as_ref().map(|room| room.available_permits());
        free == Some(0)
    }

    /// Waits for room, which is given back when the returned value is dropped.
    pub async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        match &self.0 {
            // The semaphore is never closed, so waiting cannot fail.
            Some(semaphore) => semaphore.clone().acquire_owned().await.ok(),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn admits_as_many_as_configured() {
        let capacity = Capacity::new(2);
        let first = capacity.admit().await;
        let _second = capacity.admit().await;
        assert!(capacity.is_full());
        assert!(futures_util::FutureExt::now_or_never(capacity.admit()).is_none());
        drop(first);
        assert!(!capacity.is_full());
        assert!(capacity.admit().await.is_some());
    }

    #[tokio::test]
    async fn zero_does_not_limit() {
        let capacity = Capacity::new(0);
        for _ in 0..100 {
            assert!(!capacity.is_full());
            assert!(capacity.admit().await.is_none());
        }
    }
}
