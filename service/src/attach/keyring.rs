//! The key of the volumes' cephx user, from the keyring that is on every host with that user.

use std::path::PathBuf;

use secrecy::SecretString;

use super::Error;

/// Where os-brick looks for the keyring of a cluster's user.
pub fn path(cluster: &str, user: &str) -> PathBuf {
    PathBuf::from(format!("/etc/ceph/{cluster}.client.{user}.keyring"))
}

/// Reads the key of `client.<user>`.
pub async fn read(cluster: &str, user: &str) -> Result<SecretString, Error> {
    let path = path(cluster, user);
    let unreadable = |reason: String| Error::Keyring {
        path: path.clone(),
        reason,
    };
    let text = tokio::fs::read_to_string(&path)
        .await
        .map_err(|error| unreadable(error.to_string()))?;
    key(&text, user).ok_or_else(|| unreadable(format!("it holds no key for client.{user}")))
}

/// The key of `client.<user>` in the text of a keyring.
pub fn key(keyring: &str, user: &str) -> Option<SecretString> {
    let wanted = format!("[client.{user}]");
    let mut within = false;
    for line in keyring.lines().map(str::trim) {
        if line.starts_with('[') {
            within = line == wanted;
        } else if within
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == "key"
        {
            let value = value.trim().trim_matches('"');
            return (!value.is_empty()).then(|| value.to_owned().into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    const KEYRING: &str = "[client.other]\n\tkey = AAA==\n\n[client.cinder]\n\tkey = BBB==\n\
                           \tcaps mon = \"profile rbd\"\n";

    #[test]
    fn finds_the_users_own_key() {
        assert_eq!(key(KEYRING, "cinder").unwrap().expose_secret(), "BBB==");
        assert_eq!(key(KEYRING, "other").unwrap().expose_secret(), "AAA==");
        assert!(key(KEYRING, "cind").is_none());
        assert!(key("[client.cinder]\nkey =\n", "cinder").is_none());
        assert!(key("key = CCC==\n", "cinder").is_none());
    }

    #[test]
    fn the_path_is_os_bricks() {
        let path = path("ceph", "cinder");
        assert_eq!(path.to_str(), Some("/etc/ceph/ceph.client.cinder.keyring"));
    }
}

#[cfg(test)]
mod fuzz {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn keyrings() {
        cinderblock_fuzz::run("keyrings", |input| {
            let text = String::from_utf8_lossy(input);
            // The user's own section, and no other's.
            let own = text.contains("[client.cinder]");
            if let Some(found) = key(&text, "cinder") {
                let found = found.expose_secret();
                assert!(own && !found.is_empty() && !found.contains('\n'));
                assert!(text.contains(found));
            }
            let other = text.replace("[client.cinder]", "[client.cinders]");
            assert!(key(&other, "cinder").is_none());
        });
    }
}
