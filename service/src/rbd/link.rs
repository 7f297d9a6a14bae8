//! One lasting connection to a cluster, made anew when it has ended.

use tokio::sync::Mutex;

use super::{Cluster, ClusterOptions, Result};

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
}
