//! What an operation leaves behind.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result};
use cinderblock_tests::{Broker, Cloud, Cluster, Database, Lab, image};
use futures_util::future::try_join_all;
use serde_json::{Map, Value, json};
use tokio::try_join;

use crate::names::Names;
use crate::requests::Requests;

/// The queues of the notification topics.
const NOTIFICATIONS: [&str; 2] = ["notifications.info", "notifications.error"];

/// The tables that are compared, each with the column that names a volume, a snapshot or a backup.
const TABLES: [(&str, &str); 8] = [
    ("volumes", "id"),
    ("backups", "id"),
    ("snapshots", "id"),
    ("volume_metadata", "volume_id"),
    ("volume_glance_metadata", "volume_id"),
    ("backup_metadata", "backup_id"),
    ("volume_attachment", "volume_id"),
    ("workers", "resource_id"),
];

/// One user's part of the cloud.
pub struct World {
    pub lab: Lab,
    /// What the worker is called that serves it.
    pub worker: &'static str,
    pub cloud: Cloud,
    pub volumes: Cluster,
    pub backups: Cluster,
    pub broker: Broker,
    pub database: Database,
    pub requests: Requests,
    names: Names,
    contents: Map<String, Value>,
    /// How much was used, reserved, told and logged before.
    usages: Vec<Value>,
    reserved: i64,
    told: HashSet<String>,
    gone: HashSet<String>,
    logged: usize,
    /// What was observed, each with the step after which.
    pub seen: Vec<(String, Value)>,
}

impl World {
    pub async fn new(lab: &Lab, user: &str, worker: &'static str) -> Result<Self> {
        let cloud = Cloud::login(lab, user).await?;
        let broker = Broker::connect(lab).await?;
        for queue in NOTIFICATIONS {
            broker.take(queue).await?;
        }
        let mut world = Self {
            lab: lab.clone(),
            worker,
            volumes: cloud.volumes()?,
            backups: cloud.backups()?,
            requests: Requests::listen(&broker).await?,
            cloud,
            broker,
            database: Database::new(lab)?,
            names: Names::default(),
            contents: Map::new(),
            usages: Vec::new(),
            reserved: 0,
            told: HashSet::new(),
            gone: HashSet::new(),
            logged: 0,
            seen: Vec::new(),
        };
        world.usages = world.usages().await?;
        world.reservations().await?;
        world.log()?;
        Ok(world)
    }

    /// Gives an id a name; the same id.
    pub fn name(&mut self, id: String, name: &str) -> String {
        self.names.add(&id, name);
        id
    }

    /// Notes what stands after a step, and what was said and done in it.
    pub async fn observe(&mut self, step: &str) -> Result<()> {
        // What is told comes a moment after the status.
        let moment = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        };
        let (images, objects, ()) = try_join!(self.images(), self.objects(), moment)?;
        let (rows, usages) = try_join!(self.rows(), self.usages())?;
        let (requests, order) = self.requests.since()?;
        let observed = json!({
            // First, since they number the requests to which all else belongs.
            "asked": requests,
            "order": order,
            "rows": self.without_gone(rows),
            "messages": self.messages().await?,
            "notifications": self.notifications().await?,
            "images": images,
            "contents": std::mem::take(&mut self.contents),
            "metadata objects": objects,
            "quota": self.used(&usages),
            "reservations": self.reservations().await?,
            "logged": self.log()?,
        });
        self.note(step, observed);
        Ok(())
    }

    /// Notes something else than what stands.
    pub fn note(&mut self, step: &str, said: Value) {
        self.seen
            .push((step.to_owned(), self.names.anonymous(said)));
    }

    /// Has the content of a volume compared in the next step.
    pub async fn volume_content(&mut self, volume: &str) -> Result<()> {
        let content = self.volumes.content(&image(volume)).await?;
        self.contents
            .insert(volume.to_owned(), content.to_string().into());
        Ok(())
    }

    /// The same for the restore point of a backup, and how its image was made.
    pub async fn backup_content(&mut self, volume: &str, backup: &str) -> Result<()> {
        let own = format!("backup.{backup}.snap.");
        let entries = listed(&self.backups, "backups").await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let point = |entry: &&Value| text(&entry["snapshot"]).starts_with(&own);
        // Python's backup of a snapshot is a copy without one.
        let shared =
            |entry: &&Value| text(&entry["image"]) == format!("volume-{volume}.backup.base");
        let mut found = entries.iter();
        let found = found.clone().find(point).or_else(|| found.find(shared));
        let found = found.context("there is no restore point")?;
        let image = format!("backups/{}", text(&found["image"]));
        let point = match found["snapshot"].as_str() {
            Some(point) => format!("{image}@{point}"),
            None => image.clone(),
        };
        let info = ["info", &image, "--format", "json"];
        let (info, content) = try_join!(self.backups.rbd(&info), self.backups.content(&point))?;
        let info: Value = serde_json::from_str(&info)?;
        let seen = json!({
            "content": content.to_string(), "features": info["features"].to_string(),
            "object size": info["object_size"], "format": info["format"],
        });
        self.contents.insert(backup.to_owned(), seen);
        Ok(())
    }

    /// Rows that were deleted before are not told again.
    fn without_gone(&mut self, mut rows: Value) -> Value {
        for (table, rows) in rows.as_object_mut().into_iter().flatten() {
            let Some(rows) = rows.as_object_mut() else {
                continue;
            };
            rows.retain(|name, row| {
                row["deleted"] == "0" || self.gone.insert(format!("{table} {name}"))
            });
        }
        rows
    }

    async fn rows(&self) -> Result<Value> {
        let tables = TABLES.map(|(table, key)| self.table(table, key));
        let rows = try_join_all(tables).await?;
        let names = TABLES.iter().map(|(table, _)| (*table).to_owned());
        Ok(Value::Object(names.zip(rows).collect()))
    }

    async fn table(&self, table: &str, key: &str) -> Result<Value> {
        let ids = self.names.in_sql();
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

    /// How much of its quota the project uses for backups.
    async fn usages(&self) -> Result<Vec<Value>> {
        let project = self.cloud.project();
        let sql = format!(
            "SELECT resource, in_use, reserved FROM quota_usages WHERE project_id = '{project}' \
             AND resource LIKE 'backup%' AND deleted = 0 ORDER BY resource"
        );
        self.database.rows(&sql).await
    }

    /// The same since the beginning.
    fn used(&self, usages: &[Value]) -> Value {
        let number = |value: &Value| value.as_str()?.parse::<i64>().ok();
        let before = |resource: &Value| {
            let known = self.usages.iter().find(|row| row["resource"] == *resource);
            known.and_then(|row| number(&row["in_use"])).unwrap_or(0)
        };
        let since = usages.iter().map(|row| {
            let in_use = number(&row["in_use"]).map(|used| used - before(&row["resource"]));
            json!([row["resource"], in_use, row["reserved"]])
        });
        since.collect()
    }

    /// What was reserved and given back since the last time.
    async fn reservations(&mut self) -> Result<Value> {
        let sql = format!(
            "SELECT id, resource, delta, deleted, project_id FROM reservations \
             WHERE id > {} AND resource LIKE 'backup%' ORDER BY id",
            self.reserved
        );
        let rows = self.database.rows(&sql).await?;
        if let Some(last) = rows.last().and_then(|row| row["id"].as_str()) {
            self.reserved = last.parse()?;
        }
        let fields = |row: &Value| {
            json!([
                row["resource"],
                row["delta"],
                row["deleted"],
                row["project_id"]
            ])
        };
        Ok(rows.iter().map(fields).collect())
    }

    /// The messages for the user since the last time, by what they are about.
    async fn messages(&mut self) -> Result<Value> {
        let sql = format!(
            "SELECT id, event_id, action_id, detail_id, message_level, resource_type, resource_uuid, \
             project_id, request_id, deleted, \
             ROUND(TIMESTAMPDIFF(SECOND, created_at, expires_at) / 60) AS minutes \
             FROM messages WHERE resource_uuid IN ({})",
            self.names.in_sql()
        );
        let mut new = Map::new();
        for mut row in self.database.rows(&sql).await? {
            let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let (id, about) = (text("id"), text("resource_uuid"));
            let name = format!("{about} {}", text("event_id"));
            if let Some(columns) = row.as_object_mut()
                && self.told.insert(id)
            {
                columns.remove("id");
                new.insert(name, row);
            }
        }
        Ok(Value::Object(new))
    }

    /// The notifications about backups since the last time: of each, one after the other.
    async fn notifications(&self) -> Result<Value> {
        let mut found = Map::new();
        for queue in NOTIFICATIONS {
            for mut taken in self.broker.take(queue).await? {
                let event = taken["event_type"].as_str().unwrap_or_default();
                let about = taken["payload"]["backup_id"].as_str().unwrap_or_default();
                if !event.starts_with("backup.") {
                    continue;
                }
                let about = format!("{queue} {about}");
                for field in ["message_id", "_unique_id"] {
                    taken.as_object_mut().map(|fields| fields.remove(field));
                }
                let all = found.entry(about).or_insert_with(|| json!([]));
                if let Some(all) = all.as_array_mut() {
                    all.push(taken);
                }
            }
        }
        Ok(Value::Object(found))
    }

    /// The levels from WARNING on at which the worker has logged since the last time. What libraries
    /// say of their own is not about backups, nor what the process says of itself.
    fn log(&mut self) -> Result<Value> {
        let mut levels = Map::new();
        let lines = self.lab.logged_by(self.worker, "").unwrap_or_default();
        for line in lines.get(self.logged..).unwrap_or_default() {
            // Date, time, process, level, logger.
            let mut words = line.split(' ').skip(3);
            let (level, logger) = (words.next(), words.next().unwrap_or_default());
            let own = logger.starts_with("cinder.backup.")
                && !logger.starts_with("cinder.backup.worker")
                || logger == "oslo_messaging.rpc.server";
            if let Some(level @ ("WARNING" | "ERROR" | "CRITICAL")) = level
                && own
            {
                levels.insert(level.to_owned(), true.into());
            }
        }
        self.logged = lines.len();
        Ok(Value::Object(levels))
    }

    /// The images of these backups, and the snapshots on the volumes.
    async fn images(&self) -> Result<Value> {
        let pools = [(&self.volumes, "volumes"), (&self.backups, "backups")];
        let pools = pools.map(|(cluster, pool)| self.images_of(cluster, pool));
        let found = try_join_all(pools).await?;
        Ok(Value::Object(found.into_iter().flatten().collect()))
    }

    async fn images_of(&self, cluster: &Cluster, pool: &str) -> Result<Map<String, Value>> {
        let mut found = Map::new();
        for entry in listed(cluster, pool).await? {
            let image = entry["image"].as_str().unwrap_or_default();
            if !self.names.are_in(image) {
                continue;
            }
            let path = format!("{pool}/{image}");
            let Some(snapshot) = entry["snapshot"].as_str() else {
                let size = &entry["size"];
                found.insert(path, json!({"size": size, "snapshots": {}}));
                continue;
            };
            let name = match snapshot.split_once(".snap.") {
                Some((backup, _)) => format!("{backup}.snap.<time>"),
                None => snapshot.to_owned(),
            };
            found[&path]["snapshots"][name] = true.into();
        }
        Ok(found)
    }

    async fn objects(&self) -> Result<Value> {
        let listed = self.backups.rados(&["-p", "backups", "ls"]).await?;
        let ours = listed
            .lines()
            .filter(|name| name.starts_with("backup.") && self.names.are_in(name));
        let found = try_join_all(ours.map(async |object| {
            let get = ["-p", "backups", "get", object, "-"];
            let text = self.backups.rados(&get).await?;
            anyhow::Ok((object.to_owned(), serde_json::from_str(&text)?))
        }));
        Ok(Value::Object(found.await?.into_iter().collect()))
    }
}

/// The images of a pool and, after each, its snapshots.
async fn listed(cluster: &Cluster, pool: &str) -> Result<Vec<Value>> {
    let arguments = ["ls", "--long", "--pool", pool, "--format", "json"];
    Ok(serde_json::from_str(&cluster.rbd(&arguments).await?)?)
}
