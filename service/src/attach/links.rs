//! Connections to the clusters that hold volumes, shared by all operations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_compat::rpc::RbdConnection;
use secrecy::{ExposeSecret, SecretString};

use super::{Error, keyring};
use crate::rbd::{ClusterOptions, Link, Pool};

/// How long a cluster may take to answer the first call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What makes two volumes share a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Address {
    cluster: String,
    user: String,
    monitors: Vec<String>,
}

/// A link for each address, with the key that it was made with.
#[derive(Default)]
pub struct Links(Mutex<HashMap<Address, (SecretString, Arc<Link>)>>);

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
        Ok(self.link(address, key).pool(&connection.pool).await?)
    }

    /// The link to an address. A key that was replaced on disk is taken up with the next volume.
    fn link(&self, address: Address, key: SecretString) -> Arc<Link> {
        // A map stays whole when its holder panics: inserting is a single step.
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((used, link)) = links.get(&address)
            && used.expose_secret() == key.expose_secret()
        {
            return Arc::clone(link);
        }
        let options = ClusterOptions::new(&address.user)
            .cluster_name(&address.cluster)
            .setting("mon_host", address.monitors.join(","))
            .setting("key", key.clone())
            .connect_timeout(CONNECT_TIMEOUT);
        let link = Arc::new(Link::new(options));
        links.insert(address, (key, Arc::clone(&link)));
        link
    }
}
