//! What other services answer.

use api_compat::config::Interface;
use api_compat::rpc::ConnectionInfo;
use api_compat::secret::{self, Description};
use api_compat::service_catalog;
use cinderblock_fuzz::{assert_short, run};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::Value;

/// The answer to `initialize_connection`: what comes of it are names of files and images.
#[test]
fn connections() {
    const SECRET: &str = "cinderblock-planted-secret";
    run("connections", |input| {
        let Ok(mut answer) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        if let Some(data) = answer.get_mut("data").and_then(Value::as_object_mut) {
            data.insert("auth_password".to_owned(), SECRET.into());
            if data.get("keyring").is_some_and(Value::is_string) {
                data.insert("keyring".to_owned(), SECRET.into());
            }
        }
        let info = match ConnectionInfo::parse(answer) {
            Ok(info) => info,
            Err(error) => return assert_short(&error),
        };
        assert!(!format!("{info:?}").contains(SECRET));
        let connection = match info.rbd() {
            Ok(connection) => connection,
            Err(error) => return assert_short(&error),
        };
        assert!(!format!("{connection:?}").contains(SECRET));
        let user = connection.auth_username.as_deref().unwrap_or("a");
        for name in [
            &connection.pool,
            &connection.image,
            &connection.cluster_name,
            user,
        ] {
            assert!(
                !name.is_empty() && !name.contains(['/', '@', '\0', '\n', ' ']),
                "{name:?}"
            );
        }
        assert!(!connection.cluster_name.starts_with('.') && !user.starts_with('.'));
        for monitor in &connection.monitors {
            assert!(
                !monitor.contains([',', ' ', '/', '\0', '\n', '=']),
                "{monitor:?}"
            );
        }
    });
}

#[test]
fn secrets() {
    run("secrets", |input| {
        if let Ok(id) = secret::id(&String::from_utf8_lossy(input)) {
            assert_eq!(secret::id(&id.to_string()), Ok(id));
        }
        let digits = SecretString::from(String::from_utf8_lossy(input).into_owned());
        if let Ok(key) = secret::fixed_key(&digits) {
            let key = key.expose_secret();
            assert_eq!(key.len(), input.len() / 2);
            let again: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(again, digits.expose_secret().to_ascii_lowercase());
        }
        let Ok(answer) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        if let Ok(description) = Description::from_answer(&answer) {
            let payload: SecretSlice<u8> = input.to_vec().into();
            if let Ok(body) = description.copy(&payload) {
                let body: Value = serde_json::from_str(body.expose_secret()).expect("ours is JSON");
                assert!(body["payload"].is_string() && body["secret_type"].is_string());
            }
        }
    });
}

#[test]
fn catalogs() {
    run("catalogs", |input| {
        let Ok(Value::Array(entries)) = serde_json::from_slice(input) else {
            return;
        };
        for interface in [Interface::Public, Interface::Internal, Interface::Admin] {
            for region in [None, Some("RegionOne")] {
                let found = service_catalog::endpoint(&entries, "key-manager", interface, region);
                assert!(found.is_none_or(|url| !url.is_empty()));
            }
        }
    });
}
