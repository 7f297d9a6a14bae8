//! Connections to the clusters that hold volumes, shared by all operations.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_compat::rpc::RbdConnection;
use secrecy::{ExposeSecret, SecretString};

use super::{Error, keyring};
use crate::rbd::{ClusterOptions, Link, Pool};

/// How long a cluster may take to answer the first call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What makes two volumes share a connection.
#[derive(Clone, PartialEq, Eq)]
struct Address {
    cluster: String,
    user: String,
    monitors: BTreeSet<String>,
}

impl Address {
    /// Whether this is the same user of the same cluster, which may have gained and lost monitors.
    /// Names tell little: most clusters are called `ceph`.
    fn leads_to_where(&self, other: &Self) -> bool {
        let named = (&self.cluster, &self.user) == (&other.cluster, &other.user);
        named && !self.monitors.is_disjoint(&other.monitors)
    }
}

/// A link for each user of each cluster.
#[derive(Default)]
pub struct Links(Mutex<Vec<Known>>);

/// A link, and what it was made with.
struct Known {
    address: Address,
    key: SecretString,
    link: Arc<Link>,
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
            monitors: connection.monitors.into_iter().collect(),
        };
        Ok(self.link(address, key).pool(&connection.pool).await?)
    }

    /// The link to an address. Where the cluster has other monitors by now, or the key on disk is
    /// another one, there is a new link; what runs keeps the former one to its end.
    fn link(&self, address: Address, key: SecretString) -> Arc<Link> {
        // It stays whole when its holder panics: each change is a single step.
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = links.iter().find(|known| {
            known.address == address && known.key.expose_secret() == key.expose_secret()
        });
        if let Some(known) = known {
            return Arc::clone(&known.link);
        }
        let monitors: Vec<&str> = address.monitors.iter().map(String::as_str).collect();
        let options = ClusterOptions::new(&address.user)
            .cluster_name(&address.cluster)
            .setting("mon_host", monitors.join(","))
            .setting("key", key.clone())
            .connect_timeout(CONNECT_TIMEOUT);
        let link = Arc::new(Link::new(options));
        links.retain(|known| !known.address.leads_to_where(&address));
        links.push(Known {
            address,
            key,
            link: Arc::clone(&link),
        });
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(links: &Links, user: &str, monitors: &[&str], key: &str) -> Arc<Link> {
        let address = Address {
            cluster: "ceph".to_owned(),
            user: user.to_owned(),
            monitors: monitors.iter().map(|name| (*name).to_owned()).collect(),
        };
        links.link(address, key.into())
    }

    #[test]
    fn a_cluster_has_one_link_whatever_becomes_of_its_monitors() {
        let links = Links::default();
        let first = link(&links, "cinder", &["a", "b"], "key");
        let same = link(&links, "cinder", &["b", "a"], "key");
        assert!(Arc::ptr_eq(&first, &same));
        drop(same);
        let mut last = first;
        for (monitors, key) in [
            (["b", "c"], "key"),
            (["c", "d"], "key"),
            (["c", "d"], "new key"),
        ] {
            let next = link(&links, "cinder", &monitors, key);
            assert!(!Arc::ptr_eq(&last, &next));
            assert_eq!(Arc::strong_count(&last), 1, "it is kept");
            last = next;
        }
    }

    #[test]
    fn clusters_of_one_name_and_users_of_one_cluster_stand_side_by_side() {
        let links = Links::default();
        let addresses = [
            ("cinder", ["a", "b"]),
            ("cinder", ["x", "y"]),
            ("other", ["a", "b"]),
        ];
        let made = addresses.map(|(user, monitors)| link(&links, user, &monitors, "key"));
        let again = addresses.map(|(user, monitors)| link(&links, user, &monitors, "key"));
        for (made, again) in made.iter().zip(&again) {
            assert!(Arc::ptr_eq(made, again));
        }
        assert!(!Arc::ptr_eq(&made[0], &made[1]));
    }
}
