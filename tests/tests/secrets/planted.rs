//! Logins of the worker's own, with passwords that nothing else in the lab has.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cloud, Cluster, Lab, run};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use crate::forms::Secret;

/// The user of Cinder's database that must use TLS; no service of the lab's is that.
const DATABASE_USER: &str = "secure";

/// A password of a form that changes in a URL, in JSON and in base64.
pub fn password(label: &str) -> String {
    format!("Pl4nted/{label}\"+{}=", Uuid::new_v4().simple())
}

/// As a URL has it.
pub fn in_url(password: &str) -> String {
    [("/", "%2F"), ("\"", "%22"), ("+", "%2B"), ("=", "%3D")]
        .iter()
        .fold(password.to_owned(), |text, (from, to)| {
            text.replace(from, to)
        })
}

/// The secrets of a worker, and the options with which it has them.
pub struct Planted {
    pub secrets: Vec<Secret>,
    pub options: String,
    lab: Lab,
    client: Client,
    broker_user: String,
    database_password: String,
    identity: Identity,
}

impl Planted {
    /// Makes the users.
    pub async fn new(lab: &Lab, admin: &Cloud) -> Result<Self> {
        let [broker, database, service, token] =
            ["broker", "database", "service", "token"].map(password);
        let fixed_key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let broker_user = format!("planted-{}", Uuid::new_v4().simple());
        let client = Client::new();
        make_broker_user(lab, &client, &broker_user, &broker).await?;
        set_database_password(lab, DATABASE_USER, &database).await?;
        let mut identity = Identity::new(lab, &client, admin)?;
        let service_user = identity.make_user(&service).await?;
        let token_user = identity.make_user(&token).await?;

        let options = format!(
            "
[DEFAULT]
debug = true
default_log_levels = lapin=DEBUG,sqlx=DEBUG,cinder=DEBUG
transport_url = rabbit://{broker_user}:{}@127.0.0.1:{}//
[database]
connection = mysql+pymysql://{DATABASE_USER}:{}@localhost:{}/cinder?ssl_ca={}/ca.pem
[keystone_authtoken]
username = {service_user}
password = {service}
[service_user]
username = {token_user}
password = {token}
[key_manager]
fixed_key = {fixed_key}
",
            in_url(&broker),
            port(lab, "LAB_AMQP_URL")?,
            in_url(&database),
            port(lab, "LAB_DATABASE_URL")?,
            lab.variable("LAB_DATABASE_TLS")?,
        );
        let secrets = vec![
            Secret::new("the broker's password", &broker),
            Secret::new("the database's password", &database),
            Secret::new("the service's password", &service),
            Secret::new("the service user's password", &token),
            Secret::new("fixed_key", &fixed_key),
            // Whoever's: those that the worker gets by itself are not known here.
            Secret::new("the user's token", admin.token()),
            key(&Cluster::volumes(lab)?, "client.cinder").await?,
            key(&Cluster::backups(lab)?, "client.cinder-backup").await?,
        ];
        Ok(Self {
            secrets,
            options,
            lab: lab.clone(),
            client,
            broker_user,
            database_password: database,
            identity,
        })
    }

    /// Removes the users.
    pub async fn remove(&self) -> Result<()> {
        let url = format!(
            "{}/api/users/{}",
            self.lab.variable("LAB_RABBIT_MGMT_URL")?,
            self.broker_user
        );
        expect(self.client.delete(url)).await?;
        let login = &self.database_password;
        set_database_password(&self.lab, login, DATABASE_USER).await?;
        self.identity.remove().await
    }
}

/// The key of a Ceph user.
async fn key(cluster: &Cluster, user: &str) -> Result<Secret> {
    let key = cluster.ceph(&["auth", "get-key", user]).await?;
    Ok(Secret::new(&format!("the key of {user}"), key.trim()))
}

/// The port in one of the lab's URLs.
pub fn port(lab: &Lab, name: &str) -> Result<String> {
    let url = lab.variable(name)?;
    let behind = url.rsplit(':').next().unwrap_or_default();
    let port = behind.split('/').next().context("no port")?;
    Ok(port.to_owned())
}

async fn make_broker_user(lab: &Lab, client: &Client, user: &str, password: &str) -> Result<()> {
    let api = format!("{}/api", lab.variable("LAB_RABBIT_MGMT_URL")?);
    let account = json!({"password": password, "tags": ""});
    expect(client.put(format!("{api}/users/{user}")).json(&account)).await?;
    let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
    let permissions = format!("{api}/permissions/%2f/{user}");
    expect(client.put(permissions).json(&all)).await?;
    Ok(())
}

/// A user may set a password of its own.
async fn set_database_password(lab: &Lab, from: &str, to: &str) -> Result<()> {
    let change = format!("SET PASSWORD = PASSWORD('{to}')");
    let mut client = Command::new("mariadb");
    client.args(["--protocol", "tcp", "--ssl", "--user", DATABASE_USER]);
    client.args([
        "--host",
        "127.0.0.1",
        "--port",
        &port(lab, "LAB_DATABASE_URL")?,
    ]);
    run(client.args(["--execute", &change]).env("MYSQL_PWD", from)).await?;
    Ok(())
}

async fn expect(request: reqwest::RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let (status, url) = (answer.status(), answer.url().path().to_owned());
    let text = answer.text().await?;
    ensure!(status.is_success(), "{url}: {status}: {text}");
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// Keystone, as its administrator.
struct Identity {
    client: Client,
    url: String,
    token: String,
    made: Vec<String>,
}

impl Identity {
    fn new(lab: &Lab, client: &Client, admin: &Cloud) -> Result<Self> {
        Ok(Self {
            client: client.clone(),
            url: lab.variable("LAB_KEYSTONE_URL")?,
            token: admin.token().to_owned(),
            made: Vec::new(),
        })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let mut request = request.header("X-Auth-Token", &self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        expect(request).await
    }

    async fn id(&self, kind: &str, name: &str) -> Result<String> {
        let listed = self
            .ask(Method::GET, &format!("/{kind}?name={name}"), None)
            .await?;
        let id = listed[kind][0]["id"].as_str();
        Ok(id.with_context(|| format!("no {name}"))?.to_owned())
    }

    /// A user with the rights of Cinder's; its name.
    async fn make_user(&mut self, password: &str) -> Result<String> {
        let name = format!("planted-{}", Uuid::new_v4().simple());
        let user = json!({"user": {"name": name, "password": password, "domain_id": "default"}});
        let made = self.ask(Method::POST, "/users", Some(user)).await?;
        let id = made["user"]["id"].as_str().context("no id")?.to_owned();
        let project = self.id("projects", "service").await?;
        for role in ["admin", "service"] {
            let role = self.id("roles", role).await?;
            let path = format!("/projects/{project}/users/{id}/roles/{role}");
            self.ask(Method::PUT, &path, None).await?;
        }
        self.made.push(id);
        Ok(name)
    }

    async fn remove(&self) -> Result<()> {
        for id in &self.made {
            self.ask(Method::DELETE, &format!("/users/{id}"), None)
                .await?;
        }
        Ok(())
    }
}
