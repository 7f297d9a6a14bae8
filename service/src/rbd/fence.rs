//! Noticing that the cluster has fenced this client off.
//!
//! A client on the cluster's blocklist gets ESHUTDOWN for what it has under way. But librbd (16.2)
//! then takes up the exclusive lock again, for which it waits for a watch that it can never have:
//! later writes, snapshots and even closing never end. Reads are refused as they should be. So the
//! first ESHUTDOWN ends everything on that image, and what takes suspiciously long is followed up by
//! a read.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::image::Image;
use super::{Error, ErrorKind, Result};

/// How long an operation may take before a read finds out whether this client is still welcome.
const SUSPICIOUS: Duration = Duration::from_secs(15);

impl Image {
    /// Waits for an operation on this image, but not once it is known that it will never end.
    pub(super) async fn unless_fenced<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let fence = self.handle().fence();
        if fence.is_cancelled() {
            return Err(self.fenced(operation));
        }
        let mut work = pin!(work);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut work => break outcome,
                () = fence.cancelled() => break Err(self.fenced(operation)),
                () = sleep(SUSPICIOUS) => {}
            }
            tokio::select! {
                biased;
                outcome = &mut work => break outcome,
                () = fence.cancelled() => break Err(self.fenced(operation)),
                // Of a cluster that is merely away this does not return either.
                probed = self.read_unguarded(0, [0u8]) => if let Err(error) = probed {
                    self.note(error);
                },
            }
        };
        outcome.map_err(|error| self.note(error))
    }

    fn note(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Shutdown {
            self.handle().fence().cancel();
        }
        self.handle().cluster().note(error)
    }

    fn fenced(&self, operation: &'static str) -> Error {
        Error::from_code(operation, self.name(), -i64::from(libc::ESHUTDOWN))
    }
}
