//! Connections to the clusters that hold volumes, shared by all operations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api_compat::rpc::RbdConnection;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::{Error, keyring};
use crate::rbd::{Cluster, ClusterOptions, ErrorKind, Pool};

/// How long a cluster may take to answer the first call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What makes two volumes share a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Address {
    cluster: String,
    user: String,
    monitors: Vec<String>,
}

/// A slot for each address: whoever comes while the connection is being made waits for it, and
/// others are not held up.
#[derive(Default)]
pub struct Links(Mutex<HashMap<Address, Arc<Mutex<Option<Link>>>>>);

struct Link {
    key: SecretString,
    cluster: Cluster,
}

impl Links {
    /// The pool that a connection names.
    pub async fn pool(&self, connection: RbdConnection) -> Result<Pool, Error> {
        let user = connection
            .auth_username
            .unwrap_or_else(|| "admin".to_owned());
        let key = match &connection.keyring {
            Some(text) => keyring::key(text.expose_secret(), &user).ok_or(Error::Keyring {
                path: keyring::path(&connection.cluster_name, &user),
                reason: format!("the connection's keyring holds no key for client.{user}"),
            })?,
            None => keyring::read(&connection.cluster_name, &user).await?,
        };
        let address = Address {
            cluster: connection.cluster_name,
            user,
            monitors: connection.monitors,
        };
        let slot = self
            .0
            .lock()
            .await
            .entry(address.clone())
            .or_default()
            .clone();
        let mut link = slot.lock().await;
        // A key that was replaced on disk is taken up with the next volume.
        let current = match &*link {
            Some(link) if link.key.expose_secret() == key.expose_secret() => Some(&link.cluster),
            _ => None,
        };
        if let Some(cluster) = current {
            match cluster.pool(&connection.pool).await {
                Err(error) if error.kind() == ErrorKind::Shutdown => {}
                pool => return Ok(pool?),
            }
        }
        let cluster = connect(&address, &key).await?;
        let pool = cluster.pool(&connection.pool).await?;
        *link = Some(Link { key, cluster });
        Ok(pool)
    }
}

async fn connect(address: &Address, key: &SecretString) -> Result<Cluster, Error> {
    let options = ClusterOptions::new(&address.user)
        .cluster_name(&address.cluster)
        .setting("mon_host", address.monitors.join(","))
        .setting("key", key.clone())
        .connect_timeout(CONNECT_TIMEOUT);
    Ok(Cluster::connect(options).await?)
}
