//! Where a secret might show.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cluster, Database, Lab};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::forms::Secret;

/// How every token of Keystone's begins: the worker gets some by itself.
const TOKEN: &str = "gAAAAA";

/// What the worker writes on the host.
const LOGS: [&str; 2] = ["worker.log", "worker.out"];

/// What was found in each place.
#[derive(Default)]
pub struct Found(Vec<(String, String)>);

impl Found {
    pub fn add(&mut self, place: &str, text: String) {
        self.0.push((place.to_owned(), text));
    }

    /// What the worker has logged and printed, as of these lengths on.
    pub fn add_logs(&mut self, lab: &Lab, before: &[usize; 2]) -> Result<()> {
        for (name, before) in LOGS.iter().zip(before) {
            let log = fs::read(log(lab, name)?)?;
            let log = String::from_utf8_lossy(&log[*before..]).into_owned();
            self.add(name, format!("{name}:\n{log}"));
        }
        Ok(())
    }

    /// The rows that it has written lately.
    pub async fn add_rows(&mut self, database: &Database) -> Result<()> {
        for table in ["backups", "backup_metadata", "messages", "services"] {
            let select = format!(
                "SELECT * FROM {table} \
                 WHERE COALESCE(updated_at, created_at) > UTC_TIMESTAMP() - INTERVAL 10 MINUTE"
            );
            let rows = database.rows(&select).await?;
            self.add(table, format!("{rows:?}"));
        }
        Ok(())
    }

    /// What describes a backup in its pool: names, metadata, digests.
    pub async fn add_objects(&mut self, cluster: &Cluster, backup: &str) -> Result<()> {
        let objects = cluster.rados(&["-p", "backups", "ls"]).await?;
        let file = std::env::temp_dir().join(format!("cinderblock-{}", uuid::Uuid::new_v4()));
        let path = file.to_str().context("no text")?;
        let mut named = 0;
        for object in objects.lines().filter(|object| object.contains(backup)) {
            cluster
                .rados(&["-p", "backups", "get", object, path])
                .await?;
            let content = fs::read(&file)?;
            let content = String::from_utf8_lossy(&content).into_owned();
            self.add("the pool", format!("{object}: {content}"));
            named += 1;
        }
        ensure!(named > 1, "nothing describes {backup}");
        Ok(fs::remove_file(&file)?)
    }

    /// # Errors
    /// Each secret that is there, once for each place.
    pub fn holds_none(&self, secrets: &[Secret]) -> Result<()> {
        let mut leaks = BTreeSet::new();
        for (place, text) in &self.0 {
            ensure!(!text.is_empty(), "nothing was found in {place}");
            for secret in secrets {
                if let Some(line) = secret.find(text) {
                    leaks.insert(format!("{} is in {place}: {line}", secret.name));
                }
            }
            if let Some(at) = text.find(TOKEN) {
                let line: String = text[..at].chars().rev().take(200).collect();
                let line: String = line.chars().rev().collect();
                leaks.insert(format!("a token is in {place}, after {line}"));
            }
        }
        let leaks: Vec<String> = leaks.into_iter().collect();
        ensure!(leaks.is_empty(), "{}", leaks.join("\n"));
        Ok(())
    }
}

/// How long the worker's logs are.
pub fn lengths(lab: &Lab) -> Result<[usize; 2]> {
    let length = |name| Ok::<_, anyhow::Error>(fs::read(log(lab, name)?)?.len());
    Ok([length(LOGS[0])?, length(LOGS[1])?])
}

fn log(lab: &Lab, name: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(lab.variable("LAB_DIR")?)
        .join("log")
        .join(name))
}

/// What everybody on the host sees of the worker and its children, which come and go.
pub struct Processes {
    stop: CancellationToken,
    watching: JoinHandle<BTreeSet<String>>,
}

impl Processes {
    pub fn watch(lab: &Lab) -> Result<Self> {
        let (worker, folder) = (lab.variable("LAB_WORKER")?, lab.variable("LAB_DIR")?);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let watching = tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            while !stopped.is_cancelled() {
                look(&worker, &folder, &mut seen);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            seen
        });
        Ok(Self { stop, watching })
    }

    pub async fn stop(self) -> Result<Vec<String>> {
        self.stop.cancel();
        Ok(self.watching.await?.into_iter().collect())
    }
}

/// Adds command line and environment of the lab's worker and of what it has started.
fn look(worker: &str, folder: &str, seen: &mut BTreeSet<String>) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<(String, String, PathBuf)> = processes
        .filter_map(|entry| {
            let path = entry.path();
            let pid: u32 = path.file_name()?.to_str()?.parse().ok()?;
            // Those that have ended meanwhile have none.
            let parent = parent(&path)?;
            Some((pid.to_string(), parent, path))
        })
        .collect();
    let read = |path: &Path, name: &str| {
        let bytes = fs::read(path.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let is_worker = |(_, _, path): &&(String, String, PathBuf)| {
        let words = read(path, "cmdline");
        words.starts_with(worker) && words.contains(folder)
    };
    let mut family: Vec<&(String, String, PathBuf)> = all.iter().filter(is_worker).collect();
    let mut next = 0;
    while let Some((pid, _, path)) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, parent, _)| parent == pid));
        seen.insert(format!(
            "{}\n{}",
            read(path, "cmdline"),
            read(path, "environ")
        ));
        next += 1;
    }
}

fn parent(process: &Path) -> Option<String> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().nth(1)?.to_owned())
}
