//! Cinder's REST API, as a project user or the administrator.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::ceph::{Cluster, image};
use crate::lab::Lab;
use crate::patience::{PATIENCE, PAUSE, eventually};

/// A session with the cloud.
#[derive(Clone)]
pub struct Cloud {
    lab: Lab,
    client: Client,
    token: String,
    project_url: String,
    project: String,
}

/// What a test waits for.
#[derive(Debug, Clone, Copy)]
pub enum Resource {
    /// A volume.
    Volume,
    /// A backup.
    Backup,
    /// A snapshot.
    Snapshot,
}

impl Resource {
    fn key(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Backup => "backup",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Cloud {
    /// Logs in as a user of the lab (`demo` or `admin`), whose project has the same name.
    pub async fn login(lab: &Lab, user: &str) -> Result<Self> {
        Self::login_at(lab, user, "LAB_CINDER_URL").await
    }

    /// The same in the lab's second cloud, which has the same users.
    pub async fn login_to_second(lab: &Lab, user: &str) -> Result<Self> {
        Self::login_at(lab, user, "LAB_SECOND_CINDER_URL").await
    }

    async fn login_at(lab: &Lab, user: &str, cinder: &str) -> Result<Self> {
        let client = Client::builder().timeout(Duration::from_secs(60)).build()?;
        let domain = json!({"id": "default"});
        let request = json!({"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": user, "password": user, "domain": domain}}},
            "scope": {"project": {"name": user, "domain": domain}},
        }});
        let url = format!("{}/auth/tokens", lab.variable("LAB_KEYSTONE_URL")?);
        let answer = client.post(&url).json(&request).send().await?;
        ensure!(answer.status().is_success(), "{url}: {}", answer.status());
        let token = answer
            .headers()
            .get("X-Subject-Token")
            .context("Keystone sent no token")?
            .to_str()?
            .to_owned();
        let body: Value = answer.json().await?;
        let project = body["token"]["project"]["id"]
            .as_str()
            .context("the token has no project")?
            .to_owned();
        Ok(Self {
            project_url: format!("{}/{project}", lab.variable(cinder)?),
            lab: lab.clone(),
            client,
            token,
            project,
        })
    }

    /// The token of this session.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The id of this session's project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The lab's cluster of volumes.
    pub fn volumes(&self) -> Result<Cluster> {
        Cluster::volumes(&self.lab)
    }

    /// The lab's cluster of backups.
    pub fn backups(&self) -> Result<Cluster> {
        Cluster::backups(&self.lab)
    }

    /// Sends a request; the status and the answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.project_url))
            .header("X-Auth-Token", &self.token)
            .header("OpenStack-API-Version", "volume 3.64");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    async fn expect(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, answer) = self.request(method, path, body).await?;
        ensure!(status.is_success(), "{path}: {status}: {answer}");
        Ok(answer)
    }

    /// A resource as the API shows it; `None` when there is none.
    pub async fn show(&self, what: Resource, id: &str) -> Result<Option<Value>> {
        let key = what.key();
        let (status, mut answer) = self
            .request(Method::GET, &format!("/{key}s/{id}"), None)
            .await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(answer[key].take())),
            status => bail!("{key} {id}: {status}: {answer}"),
        }
    }

    async fn existing(&self, what: Resource, id: &str) -> Result<Value> {
        let shown = self.show(what, id).await?;
        shown.with_context(|| format!("{what:?} {id} is gone"))
    }

    /// The status of a resource.
    pub async fn status(&self, what: Resource, id: &str) -> Result<String> {
        let shown = self.existing(what, id).await?;
        Ok(shown["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a resource has a status, whatever others come before it; what is shown then.
    pub async fn becomes(&self, what: Resource, id: &str, wanted: &str) -> Result<Value> {
        let text = format!("{what:?} {id} becomes {wanted}");
        let shown = async || self.existing(what, id).await;
        eventually(&text, shown, |shown| shown["status"] == wanted).await
    }

    /// Waits until a resource has a status; any status that begins with `error` ends the wait
    /// with the reason.
    pub async fn wait(&self, what: Resource, id: &str, wanted: &str) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let shown = self.existing(what, id).await?;
            let status = shown["status"].as_str().unwrap_or_default();
            if status == wanted {
                return Ok(shown);
            }
            ensure!(
                !status.starts_with("error"),
                "{what:?} {id} is {status}: {}",
                shown["fail_reason"]
            );
            ensure!(
                begun.elapsed() < PATIENCE,
                "{what:?} {id} is still {status}, not {wanted}"
            );
            sleep(PAUSE).await;
        }
    }

    /// Waits until nothing is under way with a resource; its status, if it is not gone.
    pub async fn settled(&self, what: Resource, id: &str) -> Result<Option<String>> {
        let look = async || {
            let shown = self.show(what, id).await?;
            Ok(shown.map(|shown| shown["status"].as_str().unwrap_or_default().to_owned()))
        };
        let ended = |status: &Option<String>| {
            let ended = |status: &String| status == "available" || status.starts_with("error");
            status.as_ref().is_none_or(ended)
        };
        eventually(&format!("{what:?} {id} is settled"), look, ended).await
    }

    /// Waits until it is noted beside a backup that a part of it is safe.
    pub async fn wait_noted(&self, backup: &str) -> Result<()> {
        let (backups, object) = (self.backups()?, format!("backup.{backup}.manifest"));
        let noted = async || {
            let header = backups.json("backups", &object).await.unwrap_or_default();
            Ok(header["checkpoint"]["chunks"].clone())
        };
        let is_noted = |chunks: &Value| chunks.as_array().is_some_and(|chunks| !chunks.is_empty());
        eventually("a part is noted to be safe", noted, is_noted).await?;
        Ok(())
    }

    /// Waits until a backup has failed; its reason.
    pub async fn wait_failed(&self, backup: &str) -> Result<String> {
        let shown = self.wait(Resource::Backup, backup, "error").await?;
        Ok(shown["fail_reason"].as_str().unwrap_or_default().to_owned())
    }

    /// What the user is told of something, as `openstack volume message list` shows it.
    pub async fn messages(&self, about: &str) -> Result<Vec<String>> {
        let path = format!("/messages?resource_uuid={about}");
        let answer = self.expect(Method::GET, &path, None).await?;
        let messages = answer["messages"].as_array().context("no list")?;
        let texts = messages.iter().map(|message| &message["user_message"]);
        Ok(texts.map(|text| text.to_string()).collect())
    }

    /// Waits until a resource is gone.
    pub async fn wait_gone(&self, what: Resource, id: &str) -> Result<()> {
        let begun = Instant::now();
        while let Some(shown) = self.show(what, id).await? {
            let status = shown["status"].as_str().unwrap_or_default();
            ensure!(
                !status.starts_with("error"),
                "{what:?} {id} is {status}: {}",
                shown["fail_reason"]
            );
            ensure!(
                begun.elapsed() < PATIENCE,
                "{what:?} {id} is still {status}"
            );
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Creates a volume of `size` GiB and waits for it; its id.
    pub async fn create_volume(&self, size: u64) -> Result<String> {
        let body = json!({"volume": {"size": size}});
        self.create(Resource::Volume, body).await
    }

    /// Creates a volume of 1 GiB in Ceph with `mib` MiB of data; its id.
    pub async fn volume_with_data(&self, mib: usize) -> Result<String> {
        let volume = self.create_volume(1).await?;
        let data = vec![0x5A; mib << 20];
        self.volumes()?.write(&image(&volume), 0, &data).await?;
        Ok(volume)
    }

    /// Makes a snapshot of a volume and waits for it; its id.
    pub async fn create_snapshot(&self, volume: &str) -> Result<String> {
        let body = json!({"snapshot": {"volume_id": volume}});
        self.create(Resource::Snapshot, body).await
    }

    /// Creates a volume whose data is encrypted, with or without a backup's data; its id.
    pub async fn create_encrypted_volume(&self, backup: Option<&str>) -> Result<String> {
        let mut volume = json!({"size": 1, "volume_type": "rbd-luks"});
        if let Some(backup) = backup {
            volume["backup_id"] = json!(backup);
        }
        self.create(Resource::Volume, json!({"volume": volume}))
            .await
    }

    /// The id of the key of a volume or a backup.
    pub async fn key(&self, what: Resource, id: &str) -> Result<String> {
        let key = self.find_key(what, id).await?;
        key.with_context(|| format!("{what:?} {id} has no key"))
    }

    /// The same; `None` when it has none.
    pub async fn find_key(&self, what: Resource, id: &str) -> Result<Option<String>> {
        let shown = self.existing(what, id).await?;
        Ok(shown["encryption_key_id"].as_str().map(str::to_owned))
    }

    /// Creates a resource and waits until it is available; its id.
    pub async fn create(&self, what: Resource, body: Value) -> Result<String> {
        let id = self.begin_create(what, body).await?;
        self.wait(what, &id, "available").await?;
        Ok(id)
    }

    /// Asks for a resource without waiting for it; its id.
    pub async fn begin_create(&self, what: Resource, body: Value) -> Result<String> {
        let key = what.key();
        let answer = self
            .expect(Method::POST, &format!("/{key}s"), Some(body))
            .await?;
        Ok(answer[key]["id"].as_str().context("no id")?.to_owned())
    }

    /// Backs a volume up and waits for it; the backup's id.
    pub async fn back_up(&self, volume: &str, incremental: bool) -> Result<String> {
        let backup = self.begin_backup(volume, incremental).await?;
        self.wait(Resource::Backup, &backup, "available").await?;
        Ok(backup)
    }

    /// Asks for a backup without waiting for it; its id.
    pub async fn begin_backup(&self, volume: &str, incremental: bool) -> Result<String> {
        let body = json!({"backup": {
            "volume_id": volume, "incremental": incremental, "force": true,
        }});
        self.begin_create(Resource::Backup, body).await
    }

    /// Restores a backup to a new volume, or to an existing one, and waits; the volume's id.
    pub async fn restore(&self, backup: &str, volume: Option<&str>) -> Result<String> {
        let target = self.begin_restore(backup, volume).await?;
        self.wait(Resource::Volume, &target, "available").await?;
        self.wait(Resource::Backup, backup, "available").await?;
        Ok(target)
    }

    /// Asks for a restore without waiting for it; the volume's id.
    pub async fn begin_restore(&self, backup: &str, volume: Option<&str>) -> Result<String> {
        let body = json!({"restore": {"volume_id": volume}});
        let answer = self
            .expect(
                Method::POST,
                &format!("/backups/{backup}/restore"),
                Some(body),
            )
            .await?;
        Ok(answer["restore"]["volume_id"]
            .as_str()
            .context("no volume id")?
            .to_owned())
    }

    /// Asks for a resource's deletion and waits until it is gone.
    pub async fn delete(&self, what: Resource, id: &str) -> Result<()> {
        self.begin_delete(what, id).await?;
        self.wait_gone(what, id).await
    }

    /// Asks for a resource's deletion.
    pub async fn begin_delete(&self, what: Resource, id: &str) -> Result<()> {
        let path = format!("/{}s/{id}", what.key());
        self.expect(Method::DELETE, &path, None).await?;
        Ok(())
    }

    /// An action on a resource, such as `os-reset_status`.
    pub async fn action(&self, what: Resource, id: &str, action: Value) -> Result<()> {
        let path = format!("/{}s/{id}/action", what.key());
        self.expect(Method::POST, &path, Some(action)).await?;
        Ok(())
    }

    /// Sets the status of a resource by hand, and waits until it has it. For an administrator.
    pub async fn reset(&self, what: Resource, id: &str, status: &str) -> Result<()> {
        let reset = json!({"os-reset_status": {"status": status}});
        self.action(what, id, reset).await?;
        self.becomes(what, id, status).await?;
        Ok(())
    }

    /// A backup's record: the driver, and the text. For an administrator.
    pub async fn export_record(&self, backup: &str) -> Result<Value> {
        let path = format!("/backups/{backup}/export_record");
        let mut answer = self.expect(Method::GET, &path, None).await?;
        Ok(answer["backup-record"].take())
    }

    /// Asks for the import of a record without waiting for it. For an administrator.
    pub async fn begin_import(&self, record: &Value) -> Result<()> {
        let body = json!({"backup-record": record});
        self.expect(Method::POST, "/backups/import_record", Some(body))
            .await?;
        Ok(())
    }

    /// How many backups the project's quota counts, and how many GiB.
    pub async fn backup_usage(&self) -> Result<(i64, i64)> {
        let path = format!("/os-quota-sets/{}?usage=true", self.project);
        let answer = self.expect(Method::GET, &path, None).await?;
        let usage = |key: &str| answer["quota_set"][key]["in_use"].as_i64();
        usage("backups")
            .zip(usage("backup_gigabytes"))
            .context("no usage in the quota set")
    }
}
