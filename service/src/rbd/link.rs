//! One lasting connection to a cluster, made anew when it has ended.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::probes::Probes;
use super::{Cluster, ClusterOptions, Error, ErrorKind, Pool, Result};

/// How long a probe is waited for: a cluster that is merely slow is no reason for another connection.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection is kept that was denied something, for the sake of what it may do.
const DENIED: Duration = Duration::from_secs(2);

/// A connection that operations share. Opening one costs several round trips and a dozen threads,
/// so there is one for a cluster and a user, whatever the number of operations.
pub struct Link {
    options: ClusterOptions,
    current: Mutex<Current>,
    probes: Probes,
}

/// What came of the last try to connect.
enum Current {
    Untried,
    Connected { at: Instant, cluster: Cluster },
    Failed { at: Instant, error: Error },
}

impl Link {
    /// A link that connects at its first use.
    pub fn new(options: ClusterOptions) -> Self {
        Self {
            options,
            current: Mutex::new(Current::Untried),
            probes: Probes::default(),
        }
    }

    /// The connection; made now if there is none, or if the cluster has fenced the last one off or denied it
    /// something.
    ///
    /// # Errors
    /// As [`Cluster::connect`]. Whoever waited while another one tried in vain gets its error: with
    /// many in line each would add the time that a cluster has for its answer.
    pub async fn cluster(&self) -> Result<Cluster> {
        let asked = Instant::now();
        let mut current = self.current.lock().await;
        match &*current {
            Current::Connected { at, cluster } if !is_worn_out(cluster, at.elapsed()) => {
                return Ok(cluster.clone());
            }
            Current::Failed { at, error } if *at > asked => return Err(error.clone()),
            _ => {}
        }
        let connected = Cluster::connect(self.options.clone()).await;
        *current = match &connected {
            Ok(cluster) => Current::Connected {
                at: Instant::now(),
                cluster: cluster.clone(),
            },
            Err(error) => Current::Failed {
                at: Instant::now(),
                error: error.clone(),
            },
        };
        connected
    }

    /// A pool of the cluster. That a client was fenced off, or was granted more since it connected,
    /// shows in what it does, not in opening a pool, so that is tried first.
    ///
    /// # Errors
    /// As [`Cluster::connect`] and [`Cluster::pool`].
    pub async fn pool(&self, name: &str) -> Result<Pool> {
        let pool = self.cluster().await?.pool(name).await?;
        let probe = {
            let pool = pool.clone();
            async move { pool.probe().await }
        };
        match tokio::time::timeout(PROBE_PATIENCE, self.probes.join(name, probe)).await {
            Ok(Err(error)) if error.kind() == ErrorKind::Shutdown => {
                self.cluster().await?.pool(name).await
            }
            // A session keeps for an hour what its user was allowed when it began.
            Ok(Err(error)) if error.kind() == ErrorKind::Permission => {
                *self.current.lock().await = Current::Untried;
                self.cluster().await?.pool(name).await
            }
            // Whatever else is wrong with it shows when it is used.
            _ => Ok(pool),
        }
    }
}

/// Whether another connection may do what this one, of that age, may not.
fn is_worn_out(cluster: &Cluster, age: Duration) -> bool {
    cluster.is_fenced() || (cluster.was_denied() && age >= DENIED)
}
