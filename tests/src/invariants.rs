//! What must hold whenever nothing is under way, whatever went wrong before: asked of the database and of
//! both clusters, and of no worker.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::patience::eventually;
use crate::{Cluster, Database, Lab};

/// The pools in which backups and volumes lie.
const BACKUPS: &str = "backups";
const VOLUMES: &str = "volumes";

/// The lab's database and clusters, seen from outside.
pub struct Invariants {
    database: Database,
    backups: Cluster,
    volumes: Cluster,
    /// What was wrong already.
    before: BTreeSet<String>,
}

impl Invariants {
    /// Looks what is wrong already: others use the lab, too.
    pub async fn new(lab: &Lab) -> Result<Self> {
        let mut this = Self {
            database: Database::new(lab)?,
            backups: Cluster::backups(lab)?,
            volumes: Cluster::volumes(lab)?,
            before: BTreeSet::new(),
        };
        this.before = this.violations().await?;
        Ok(this)
    }

    /// Waits until nothing is wrong that was not before.
    pub async fn hold(&self) -> Result<()> {
        let look = async || {
            let found = self.violations().await?;
            Ok(found.difference(&self.before).cloned().collect::<Vec<_>>())
        };
        eventually("all invariants hold", look, Vec::is_empty).await?;
        Ok(())
    }

    async fn violations(&self) -> Result<BTreeSet<String>> {
        let rows = self.database.rows(
            "SELECT id, status, project_id, size, parent_id, num_dependent_backups, temp_volume_id \
             FROM backups WHERE NOT deleted",
        );
        let rows = rows.await?;
        let live: BTreeSet<&str> = rows.iter().map(|row| text(row, "id")).collect();
        let mut found = BTreeSet::new();
        found.extend(unfinished(&rows));
        found.extend(dependents(&rows));
        found.extend(self.usage(&rows).await?);
        found.extend(self.volumes(&rows, &live).await?);
        found.extend(self.base_images(&live).await?);
        found.extend(self.objects(&live).await?);
        Ok(found)
    }

    /// Quota counts what there is.
    async fn usage(&self, rows: &[Value]) -> Result<Vec<String>> {
        let mut counted: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for row in rows {
            let project = text(row, "project_id");
            *counted.entry((project, "backups")).or_default() += 1;
            *counted.entry((project, "backup_gigabytes")).or_default() += number(row, "size")?;
        }
        let usages = self.database.rows(
            "SELECT project_id, resource, in_use, reserved FROM quota_usages \
             WHERE NOT deleted AND resource IN ('backups', 'backup_gigabytes')",
        );
        let mut wrong = Vec::new();
        for row in usages.await? {
            let (project, resource) = (text(&row, "project_id"), text(&row, "resource"));
            let expected = counted.get(&(project, resource)).copied();
            let (used, reserved) = (number(&row, "in_use")?, number(&row, "reserved")?);
            let surplus = used - expected.unwrap_or_default();
            if surplus != 0 || reserved != 0 {
                wrong.push(format!(
                    "{resource} of project {project}: {surplus} too many in use, {reserved} reserved"
                ));
            }
        }
        Ok(wrong)
    }

    /// No volume waits for a backup, nor is one or a snapshot left that was made for a backup only.
    async fn volumes(&self, rows: &[Value], live: &BTreeSet<&str>) -> Result<Vec<String>> {
        let volumes = self
            .database
            .rows("SELECT id, status, display_name FROM volumes WHERE NOT deleted");
        let volumes = volumes.await?;
        let temporary: BTreeSet<&str> =
            rows.iter().map(|row| text(row, "temp_volume_id")).collect();
        let mut wrong = Vec::new();
        for row in &volumes {
            let (id, status) = (text(row, "id"), text(row, "status"));
            if ["backing-up", "restoring-backup"].contains(&status) {
                wrong.push(format!("volume {id} is {status}"));
            }
            if text(row, "display_name").starts_with("backup-vol-") && !temporary.contains(id) {
                wrong.push(format!("temporary volume {id} is nobody's"));
            }
        }
        let attached = self.database.rows(
            "SELECT a.id, a.volume_id FROM volume_attachment a JOIN volumes v ON v.id = a.volume_id \
             WHERE NOT a.deleted AND v.status = 'available'",
        );
        for row in attached.await? {
            let (id, volume) = (text(&row, "id"), text(&row, "volume_id"));
            wrong.push(format!("attachment {id} of volume {volume} is nobody's"));
        }
        let known: BTreeSet<&str> = volumes.iter().map(|row| text(row, "id")).collect();
        for image in self.volumes.images(VOLUMES).await? {
            let Some(id) = image.strip_prefix("volume-") else {
                continue;
            };
            if !known.contains(id) {
                // cinder-volume is about to remove what it calls deleted, or has renamed it.
                continue;
            }
            for snapshot in snapshots(&self.volumes, &format!("{VOLUMES}/{image}")).await? {
                if backup_of(&snapshot).is_some_and(|backup| !live.contains(backup)) {
                    wrong.push(format!("snapshot {snapshot} of {image} is nobody's"));
                }
            }
        }
        Ok(wrong)
    }

    /// Every base image has a backup, and each of its snapshots; none is half removed.
    async fn base_images(&self, live: &BTreeSet<&str>) -> Result<Vec<String>> {
        let trash = self
            .backups
            .rbd(&["trash", "ls", "--pool", BACKUPS])
            .await?;
        let trashed = trash
            .lines()
            .map(|image| format!("{image} is in the trash"));
        let mut wrong: Vec<String> = trashed.collect();
        for image in self.backups.images(BACKUPS).await? {
            let snapshots = snapshots(&self.backups, &format!("{BACKUPS}/{image}")).await?;
            if snapshots.is_empty() {
                wrong.push(format!("image {image} holds no backup"));
            }
            for snapshot in snapshots {
                if backup_of(&snapshot).is_none_or(|backup| !live.contains(backup)) {
                    wrong.push(format!("snapshot {snapshot} of {image} is nobody's"));
                }
            }
        }
        Ok(wrong)
    }

    /// No object is left of a backup that is gone, nor of whoever was at work on one.
    async fn objects(&self, live: &BTreeSet<&str>) -> Result<Vec<String>> {
        let listed = self.backups.rados(&["-p", BACKUPS, "ls"]).await?;
        let wrong = listed.lines().filter(|name| {
            let mut parts = name.split('.');
            match (parts.next(), parts.next(), parts.next()) {
                (Some("backup"), Some(_), Some("owner")) => true,
                (Some("backup"), Some(id), Some(_)) => !live.contains(id),
                (Some("cinderblock"), Some("turn"), _) => true,
                _ => false,
            }
        });
        Ok(wrong
            .map(|name| format!("object {name} is nobody's"))
            .collect())
    }
}

/// Nothing is under way for ever.
fn unfinished(rows: &[Value]) -> Vec<String> {
    let under_way =
        |row: &&Value| ["creating", "restoring", "deleting"].contains(&text(row, "status"));
    let told = |row: &Value| format!("backup {} is {}", text(row, "id"), text(row, "status"));
    rows.iter().filter(under_way).map(told).collect()
}

/// Parents count their children.
fn dependents(rows: &[Value]) -> Vec<String> {
    let mut children: BTreeMap<&str, i64> = BTreeMap::new();
    for row in rows {
        *children.entry(text(row, "parent_id")).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for row in rows {
        let id = text(row, "id");
        let counted = number(row, "num_dependent_backups").unwrap_or_default();
        let children = children.get(id).copied().unwrap_or_default();
        if counted != children {
            wrong.push(format!(
                "backup {id} counts {counted} that depend on it, not {children}"
            ));
        }
    }
    wrong
}

/// The backup that a snapshot is of, if it is one of a backup's.
fn backup_of(snapshot: &str) -> Option<&str> {
    let (backup, _) = snapshot.strip_prefix("backup.")?.split_once(".snap.")?;
    Some(backup)
}

/// The snapshots of an image that may be gone.
async fn snapshots(cluster: &Cluster, image: &str) -> Result<Vec<String>> {
    match cluster.snapshots(image).await {
        Err(error) if error.to_string().contains("No such file or directory") => Ok(Vec::new()),
        snapshots => snapshots,
    }
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}

fn number(row: &Value, column: &str) -> Result<i64> {
    let digits = text(row, column);
    ensure!(!digits.is_empty(), "{column} is NULL in {row}");
    Ok(digits.parse()?)
}
