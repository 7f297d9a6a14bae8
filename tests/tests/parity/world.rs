//! What an operation leaves behind, told without ids and times.

use anyhow::Result;
use cinderblock_tests::{Broker, Cloud, Cluster, Database, Lab};
use serde_json::{Map, Value, json};

const TIMES: [&str; 9] = [
    "created_at",
    "updated_at",
    "deleted_at",
    "data_timestamp",
    "scheduled_at",
    "launched_at",
    "terminated_at",
    "expires_at",
    "timestamp",
];

/// The queues of the notification topics.
const NOTIFICATIONS: [&str; 2] = ["notifications.info", "notifications.error"];

/// One user's part of the cloud.
pub struct World {
    pub cloud: Cloud,
    pub volumes: Cluster,
    pub backups: Cluster,
    broker: Broker,
    pub database: Database,
    /// Ids, and what they are called in what is observed.
    names: Vec<(String, String)>,
    quota: (i64, i64),
    told: usize,
    /// What was observed, each with the step after which.
    pub seen: Vec<(String, Value)>,
}

impl World {
    pub async fn new(lab: &Lab, user: &str) -> Result<Self> {
        let cloud = Cloud::login(lab, user).await?;
        let broker = Broker::connect(lab).await?;
        for queue in NOTIFICATIONS {
            broker.take(queue).await?;
        }
        Ok(Self {
            quota: cloud.backup_usage().await?,
            volumes: cloud.volumes()?,
            backups: cloud.backups()?,
            cloud,
            broker,
            database: Database::new(lab)?,
            names: Vec::new(),
            told: 0,
            seen: Vec::new(),
        })
    }

    /// Gives an id a name; the same id.
    pub fn name(&mut self, id: String, name: &str) -> String {
        self.names.push((id.clone(), format!("<{name}>")));
        id
    }

    /// Notes what stands after a step.
    pub async fn observe(&mut self, step: &str) -> Result<()> {
        // What is told comes a moment after the status.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let (count, size) = self.cloud.backup_usage().await?;
        let mut rows = Map::new();
        for table in ["volumes", "backups", "snapshots"] {
            rows.insert(table.to_owned(), self.rows(table, "id").await?);
        }
        for (table, key) in [
            ("volume_metadata", "volume_id"),
            ("volume_glance_metadata", "volume_id"),
            ("backup_metadata", "backup_id"),
        ] {
            rows.insert(table.to_owned(), self.rows(table, key).await?);
        }
        let observed = json!({
            "rows": rows,
            "messages": self.messages().await?,
            "notifications": self.notifications().await?,
            "images": self.images().await?,
            "metadata objects": self.objects().await?,
            "quota": [count - self.quota.0, size - self.quota.1],
        });
        let observed = self.anonymous(observed);
        self.seen.push((step.to_owned(), observed));
        Ok(())
    }

    /// Notes something else than what stands.
    pub fn note(&mut self, step: &str, said: Value) {
        self.seen.push((step.to_owned(), self.anonymous(said)));
    }

    async fn rows(&self, table: &str, key: &str) -> Result<Value> {
        let ids: Vec<String> = self.names.iter().map(|(id, _)| format!("'{id}'")).collect();
        let ids = ids.join(",");
        let sql = format!("SELECT * FROM {table} WHERE {key} IN ({ids}) ORDER BY {key}");
        let mut found = Map::new();
        for mut row in self.database.rows(&sql).await? {
            let name = row[key].as_str().unwrap_or_default().to_owned();
            let Some(columns) = row.as_object_mut() else {
                continue;
            };
            if key == "id" {
                found.insert(name, row);
                continue;
            }
            columns.remove("id");
            let name = format!("{name} {}", row["key"].as_str().unwrap_or_default());
            found.insert(name, row);
        }
        Ok(Value::Object(found))
    }

    /// The messages for the user since the last time.
    async fn messages(&mut self) -> Result<Value> {
        let ids: Vec<String> = self.names.iter().map(|(id, _)| format!("'{id}'")).collect();
        let ids = ids.join(",");
        let sql = format!(
            "SELECT event_id, action_id, detail_id, message_level, resource_type, resource_uuid \
             FROM messages WHERE resource_uuid IN ({ids}) ORDER BY created_at"
        );
        let found = self.database.rows(&sql).await?;
        let new = found.get(self.told..).unwrap_or_default().to_vec();
        self.told = found.len();
        Ok(Value::Array(new))
    }

    /// The notifications about backups since the last time.
    async fn notifications(&self) -> Result<Value> {
        let mut found = Map::new();
        for queue in NOTIFICATIONS {
            let taken = self.broker.take(queue).await?;
            let about_backups = taken.into_iter().filter(|taken| {
                let event = taken["event_type"].as_str().unwrap_or_default();
                event.starts_with("backup.")
            });
            let kept = about_backups.map(|taken| {
                json!({"event": taken["event_type"], "priority": taken["priority"],
                       "publisher": taken["publisher_id"], "payload": taken["payload"]})
            });
            found.insert(queue.to_owned(), kept.collect());
        }
        Ok(Value::Object(found))
    }

    /// The images of these backups, and the snapshots on the volumes.
    async fn images(&self) -> Result<Value> {
        let mut found = Map::new();
        for (cluster, pool) in [(&self.volumes, "volumes"), (&self.backups, "backups")] {
            for image in cluster.images(pool).await? {
                if !self.names.iter().any(|(id, _)| image.contains(id)) {
                    continue;
                }
                let path = format!("{pool}/{image}");
                let info = cluster.rbd(&["info", &path, "--format", "json"]).await?;
                let info: Value = serde_json::from_str(&info)?;
                let snapshots = cluster.snapshots(&path).await?;
                let snapshots = snapshots
                    .iter()
                    .map(|name| match name.split_once(".snap.") {
                        Some((backup, _)) => (format!("{backup}.snap.<time>"), true.into()),
                        None => (name.clone(), true.into()),
                    });
                let features = info["features"].to_string();
                let kept = json!({"size": info["size"], "features": features,
                                  "object_size": info["object_size"],
                                  "snapshots": Value::Object(snapshots.collect())});
                found.insert(path, kept);
            }
        }
        Ok(Value::Object(found))
    }

    async fn objects(&self) -> Result<Value> {
        let listed = self.backups.rados(&["-p", "backups", "ls"]).await?;
        let mut found = Map::new();
        for object in listed.lines().filter(|name| name.starts_with("backup.")) {
            if !self.names.iter().any(|(id, _)| object.contains(id)) {
                continue;
            }
            let text = self
                .backups
                .rados(&["-p", "backups", "get", object, "-"])
                .await?;
            found.insert(object.to_owned(), serde_json::from_str(&text)?);
        }
        Ok(Value::Object(found))
    }

    /// The same without ids and times.
    fn anonymous(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.rename(&text).into(),
            Value::Array(items) => items.into_iter().map(|item| self.anonymous(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, value)| {
                    let time = TIMES.contains(&key.as_str()) && !value.is_null();
                    let value = match time {
                        true => Value::from("<time>"),
                        false => self.anonymous(value),
                    };
                    (self.rename(&key), value)
                })
                .collect(),
            other => other,
        }
    }

    fn rename(&self, text: &str) -> String {
        self.names
            .iter()
            .fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
    }
}
