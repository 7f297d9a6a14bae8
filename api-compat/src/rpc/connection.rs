//! The answer to `initialize_connection`: how a host reaches a volume.
//!
//! cinder-volume is trusted, but what it answers is put together from what backends and
//! operators configured, and becomes pool, image, monitor and file names here. Whatever could
//! mean something else than a plain name is refused.

use std::net::IpAddr;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::hidden::Hidden;

/// How a volume is reached, for any protocol. The data may hold credentials.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ConnectionInfo {
    /// The protocol: `rbd`, `iscsi`, `nfs`, …
    pub driver_volume_type: String,
    /// What the protocol's connector needs.
    pub data: Hidden<Map<String, Value>>,
}

/// Why the answer is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// It is not of the shape that every driver's answer has.
    #[error("the answer to initialize_connection is malformed: {0}")]
    Malformed(String),
    /// The volume is not reached through RBD.
    #[error("the volume is reached through {0:?}, not through rbd")]
    NotRbd(String),
    /// A value cannot be what it should.
    #[error("connection data: {what} {value:?} is not usable")]
    Value {
        /// Which value.
        what: &'static str,
        /// The value. None of those that are checked is secret.
        value: String,
    },
}

/// How an RBD image is reached.
#[derive(Clone, Debug)]
pub struct RbdConnection {
    /// The pool.
    pub pool: String,
    /// The image in it.
    pub image: String,
    /// `host:port` of each monitor, IPv6 addresses in brackets.
    pub monitors: Vec<String>,
    /// The cluster's name, from which the name of the keyring's file is made.
    pub cluster_name: String,
    /// The Ceph user, without `client.`; none if the cluster asks for no authentication.
    pub auth_username: Option<String>,
    /// The user's keyring, if it came along.
    pub keyring: Option<SecretString>,
}

#[derive(Deserialize)]
struct RbdData {
    name: String,
    hosts: Vec<String>,
    ports: Vec<Port>,
    #[serde(default)]
    cluster_name: Option<String>,
    #[serde(default)]
    auth_username: Option<String>,
    #[serde(default)]
    keyring: Option<String>,
}

/// The RBD driver sends texts; a number means the same.
#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u16),
    Text(String),
}

impl ConnectionInfo {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`ConnectionError::Malformed`].
    pub fn parse(answer: Value) -> Result<Self, ConnectionError> {
        serde_json::from_value(answer).map_err(malformed)
    }

    /// The connection to an RBD image.
    ///
    /// # Errors
    /// [`ConnectionError`] if it is of another protocol, or a value is not usable.
    pub fn rbd(&self) -> Result<RbdConnection, ConnectionError> {
        if self.driver_volume_type != "rbd" {
            return Err(ConnectionError::NotRbd(shortened(&self.driver_volume_type)));
        }
        let data = Value::Object(self.data.expose().clone());
        let data: RbdData = serde_json::from_value(data).map_err(malformed)?;
        let (pool, image) = split_name(&data.name)?;
        let cluster_name = data.cluster_name.unwrap_or_else(|| "ceph".to_owned());
        check("cluster_name", &cluster_name, is_plain)?;
        if let Some(user) = &data.auth_username {
            check("auth_username", user, is_plain)?;
        }
        Ok(RbdConnection {
            pool,
            image,
            monitors: monitors(&data.hosts, &data.ports)?,
            cluster_name,
            auth_username: data.auth_username,
            keyring: data.keyring.map(SecretString::from),
        })
    }
}

/// `pool/image`. A second `/` would name a namespace, an `@` a snapshot.
fn split_name(name: &str) -> Result<(String, String), ConnectionError> {
    let part = |text: &str| {
        !text.is_empty()
            && !text.contains(['/', '@'])
            && !text.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    match name.split_once('/') {
        Some((pool, image)) if part(pool) && part(image) => Ok((pool.into(), image.into())),
        _ => Err(unusable("name", name)),
    }
}

fn monitors(hosts: &[String], ports: &[Port]) -> Result<Vec<String>, ConnectionError> {
    if hosts.is_empty() || hosts.len() != ports.len() {
        let counts = format!("{} hosts, {} ports", hosts.len(), ports.len());
        return Err(unusable("hosts", &counts));
    }
    let each = hosts.iter().zip(ports).map(|(host, port)| {
        let port = match port {
            Port::Number(number) => *number,
            Port::Text(text) => text.parse().map_err(|_| unusable("port", text))?,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(IpAddr::V6(address)) => Ok(format!("[{address}]:{port}")),
            Ok(IpAddr::V4(address)) => Ok(format!("{address}:{port}")),
            Err(_) => {
                check("host", host, is_plain)?;
                Ok(format!("{host}:{port}"))
            }
        }
    });
    each.collect()
}

/// Letters, digits and what names are usually joined with; so no path, no option, no list.
fn is_plain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with(['-', '.'])
}

fn check(what: &'static str, value: &str, usable: fn(&str) -> bool) -> Result<(), ConnectionError> {
    match usable(value) {
        true => Ok(()),
        false => Err(unusable(what, value)),
    }
}

fn unusable(what: &'static str, value: &str) -> ConnectionError {
    ConnectionError::Value {
        what,
        value: shortened(value),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn malformed(error: serde_json::Error) -> ConnectionError {
    // The text names types and fields; a wrongly typed value may be quoted, so only its place
    // and kind are kept.
    ConnectionError::Malformed(match error.classify() {
        serde_json::error::Category::Data => "a value is missing or of the wrong type".to_owned(),
        _ => "not an object".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn answer() -> Value {
        json!({"driver_volume_type": "rbd", "data": {
            "name": "volumes/volume-aeb49b46-c1f4-48a6-bced-1c091869e7bf",
            "hosts": ["127.0.0.1", "fd00::2", "mon.example.org"], "ports": ["6789", "6790", 3300],
            "cluster_name": "ceph", "auth_enabled": true, "auth_username": "cinder",
            "secret_type": "ceph", "secret_uuid": null, "discard": true, "access_mode": "rw",
            "keyring": "[client.cinder]\nkey = AQ==\n", "encrypted": false,
        }})
    }

    fn with(name: &str, value: Value) -> Result<RbdConnection, ConnectionError> {
        let mut answer = answer();
        answer["data"][name] = value;
        ConnectionInfo::parse(answer)?.rbd()
    }

    #[test]
    fn an_answer_is_understood() {
        let rbd = ConnectionInfo::parse(answer()).unwrap().rbd().unwrap();
        assert_eq!(rbd.pool, "volumes");
        assert_eq!(rbd.image, "volume-aeb49b46-c1f4-48a6-bced-1c091869e7bf");
        assert_eq!(
            rbd.monitors,
            ["127.0.0.1:6789", "[fd00::2]:6790", "mon.example.org:3300"]
        );
        assert_eq!(rbd.auth_username.as_deref(), Some("cinder"));
        assert!(rbd.keyring.unwrap().expose_secret().contains("AQ=="));
    }

    #[test]
    fn debug_hides_data_and_keyring() {
        let info = ConnectionInfo::parse(answer()).unwrap();
        let shown = format!("{info:?} {:?}", info.rbd().unwrap());
        assert!(!shown.contains("AQ=="), "{shown}");
    }

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        for name in [
            "",
            "image",
            "/image",
            "pool/",
            "pool/ns/image",
            "pool/image@snap",
            "p@q/image",
            "pool/im age",
            "pool/image\n",
        ] {
            assert!(with("name", json!(name)).is_err(), "{name:?} was accepted");
        }
        for (field, value) in [
            ("cluster_name", json!("../../etc/ceph")),
            ("auth_username", json!("a/b")),
            ("auth_username", json!("")),
            ("auth_username", json!("--conf=/tmp/x")),
            ("hosts", json!(["a,b", "c", "d"])),
            ("hosts", json!(["a\nkeyring=/x", "c", "d"])),
            ("hosts", json!(["127.0.0.1"])),
            ("hosts", json!([])),
            ("ports", json!(["1", "2", "x"])),
            ("ports", json!([1, 2, 70_000])),
            ("name", json!(7)),
        ] {
            assert!(
                with(field, value.clone()).is_err(),
                "{field} {value} was accepted"
            );
        }
    }

    #[test]
    fn other_protocols_are_named() {
        let answer = json!({"driver_volume_type": "iscsi", "data": {"auth_password": "x"}});
        let error = ConnectionInfo::parse(answer).unwrap().rbd().unwrap_err();
        assert_eq!(error, ConnectionError::NotRbd("iscsi".into()));
        for malformed in [json!(null), json!({}), json!({"driver_volume_type": "rbd"})] {
            assert!(ConnectionInfo::parse(malformed).is_err());
        }
    }

    #[test]
    fn errors_do_not_quote_the_data() {
        let error = with("auth_username", json!(["hunter2"])).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_pool(name: String) {
            if let Ok(rbd) = with("name", json!(name)) {
                prop_assert_eq!(format!("{}/{}", rbd.pool, rbd.image), name.clone());
                prop_assert!(!rbd.image.contains('/') && !name.contains('@'));
            }
        }
    }
}
