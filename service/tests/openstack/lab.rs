//! The lab's Keystone and Barbican, as a user of the cloud sees them.

use std::path::PathBuf;
use std::time::Duration;

use api_compat::config::{Config, ConfigPath, Machine, Sources};
use chrono::{DateTime, Utc};
use cinderblock::openstack::{Error, Login, Retries, Session};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

/// Address of Keystone, with the version of its API.
pub fn keystone() -> String {
    variable("LAB_KEYSTONE_URL")
}

/// A configuration out of a file with this text.
pub fn config(text: &str) -> Config {
    let name = format!("cinderblock-openstack-{}.conf", Uuid::new_v4());
    let path: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("a file");
    let config = Config::load(&Sources {
        project: "cinder".to_owned(),
        paths: vec![ConfigPath::File(path.clone())],
        overrides: Vec::new(),
        environment: [].into(),
        machine: Machine {
            hostname: "node1".to_owned(),
            address: "127.0.0.1".to_owned(),
            program: "cinder-backup".to_owned(),
        },
    });
    std::fs::remove_file(&path).expect("removed");
    config.expect("it can be read")
}

/// Logs in with what `[keystone_authtoken]` says.
pub async fn log_in(text: &str) -> Result<Session, Error> {
    let credentials = config(text).keystone_authtoken.credentials();
    let once = Retries {
        times: 0,
        delay: Duration::ZERO,
    };
    let login = Login::new(credentials, once).expect("it says who logs in");
    login.check()?;
    let session = login.session().await?;
    drop(login);
    Ok(std::sync::Arc::into_inner(session).expect("nobody else has it"))
}

/// Somebody with a token.
pub struct User {
    client: Client,
    pub token: String,
    pub id: String,
    pub project: String,
}

impl User {
    /// The lab's user `demo`.
    pub async fn demo() -> Self {
        let domain = json!({"id": "default"});
        let user = json!({"name": "demo", "password": "demo", "domain": domain});
        Self::with(json!({
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "demo", "domain": domain}},
        }))
        .await
    }

    /// Whoever logs in so.
    pub async fn with(auth: Value) -> Self {
        Self::try_with(auth).await.expect("a token")
    }

    /// Whoever logs in so, or how Keystone refuses it.
    pub async fn try_with(auth: Value) -> Result<Self, StatusCode> {
        let client = Client::new();
        let url = format!("{}/auth/tokens", keystone());
        let request = client.post(&url).json(&json!({"auth": auth}));
        let answer = request.send().await.expect("an answer");
        if !answer.status().is_success() {
            return Err(answer.status());
        }
        let token = answer.headers()["X-Subject-Token"].to_str();
        let token = token.expect("a text").to_owned();
        let body: Value = answer.json().await.expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Ok(Self {
            client,
            token,
            id: text(&body["token"]["user"]["id"]),
            project: text(&body["token"]["project"]["id"]),
        })
    }

    async fn ask(&self, method: Method, url: &str, body: Option<Value>) -> Value {
        let request = self.client.request(method, url);
        let request = request.header("X-Auth-Token", &self.token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a text");
        assert!(status.is_success(), "{url}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// An application credential of this user's, with its secret.
    pub async fn application(&self, end: Option<DateTime<Utc>>) -> Application {
        let name = format!("test-{}", Uuid::new_v4());
        let mut credential = json!({"name": name, "secret": "S3cret"});
        if let Some(end) = end {
            credential["expires_at"] = json!(end.format("%Y-%m-%dT%H:%M:%S%.6f").to_string());
        }
        let url = format!("{}/users/{}/application_credentials", keystone(), self.id);
        let body = json!({"application_credential": credential});
        let answer = self.ask(Method::POST, &url, Some(body)).await;
        let id = answer["application_credential"]["id"].as_str();
        Application {
            id: id.expect("an id").to_owned(),
            name,
        }
    }

    pub async fn forget(&self, application: &Application) {
        let id = &application.id;
        let url = format!(
            "{}/users/{}/application_credentials/{id}",
            keystone(),
            self.id
        );
        self.ask(Method::DELETE, &url, None).await;
    }

    /// Stores a key, as castellan does.
    pub async fn store_key(&self) -> String {
        let url = format!("{}/v1/secrets", variable("LAB_BARBICAN_URL"));
        let body = json!({
            "algorithm": "AES", "bit_length": 128, "mode": "CBC", "secret_type": "symmetric",
            "payload": "AAECAwQFBgcICQoLDA0ODw==", "payload_content_encoding": "base64",
            "payload_content_type": "application/octet-stream",
        });
        let answer = self.ask(Method::POST, &url, Some(body)).await;
        let reference = answer["secret_ref"].as_str().expect("a reference");
        reference.rsplit('/').next().expect("an id").to_owned()
    }

    pub async fn delete_key(&self, id: &str) {
        let url = format!("{}/v1/secrets/{id}", variable("LAB_BARBICAN_URL"));
        self.ask(Method::DELETE, &url, None).await;
    }
}

/// An application credential.
pub struct Application {
    pub id: String,
    pub name: String,
}
