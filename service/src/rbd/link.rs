//! One lasting connection to a cluster, made anew when it has ended.

use std::time::Duration;

use tokio::sync::Mutex;

use super::{Cluster, ClusterOptions, ErrorKind, Pool, Result};

/// How long a probe is waited for: a cluster that is merely slow is no reason for another connection.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// A connection that operations share. Opening one costs several round trips and a dozen threads,
/// so there is one for a cluster and a user, whatever the number of operations.
pub struct Link {
    options: ClusterOptions,
    current: Mutex<Option<Cluster>>,
}

impl Link {
    /// A link that connects at its first use.
    pub fn new(options: ClusterOptions) -> Self {
        Self {
            options,
            current: Mutex::new(None),
        }
    }

    /// The connection; made now if there is none, or if the cluster has fenced the last one off.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn cluster(&self) -> Result<Cluster> {
        let mut current = self.current.lock().await;
        if let Some(cluster) = &*current
            && !cluster.is_fenced()
        {
            return Ok(cluster.clone());
        }
        let cluster = Cluster::connect(self.options.clone()).await?;
        *current = Some(cluster.clone());
        Ok(cluster)
    }

    /// A pool of the cluster. That a client was fenced off shows in what it does, not in opening a
    /// pool, so that is tried first.
    ///
    /// # Errors
    /// As [`Cluster::connect`] and [`Cluster::pool`].
    pub async fn pool(&self, name: &str) -> Result<Pool> {
        let pool = self.cluster().await?.pool(name).await?;
        match tokio::time::timeout(PROBE_PATIENCE, pool.probe()).await {
            Ok(Err(error)) if error.kind() == ErrorKind::Shutdown => {
                self.cluster().await?.pool(name).await
            }
            // Whatever else is wrong with it shows when it is used.
            _ => Ok(pool),
        }
    }
}
