//! Workers of both kinds, all up at once: on one queue, on several hosts, in two clouds.

mod clouds;
mod hosts;
mod imports;
mod queue;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Broker, Cloud, Cluster, Content, Database, Lab, Resource, image};
use futures_util::future::try_join_all;
use tokio::sync::{Mutex, MutexGuard};

/// Each of these tests starts and stops workers.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The workers of the lab's first cloud, with their hosts. Cinder asks those whose rows are newer first.
const WORKERS: [(&str, &str); 4] = [
    (OURS, "lab-backup"),
    (PYTHONS, "lab-backup"),
    (OTHER_PYTHONS, "other-cinder-backup"),
    (OTHER_OURS, "other-worker"),
];
const OURS: &str = "worker";
const PYTHONS: &str = "cinder-backup";
const OTHER_PYTHONS: &str = "other-cinder-backup";
const OTHER_OURS: &str = "other-worker";

/// How often a backup is made until it was made by the right worker: each may get it.
const TRIES: u8 = 12;

fn host(worker: &str) -> &str {
    let found = WORKERS.iter().find(|(part, _)| *part == worker);
    found.map_or(worker, |(_, host)| *host)
}

/// The lab with the workers that a test wants.
struct Fleet {
    lab: Lab,
    cloud: Cloud,
    database: Database,
    volumes: Cluster,
    backups: Cluster,
    _alone: MutexGuard<'static, ()>,
}

impl Fleet {
    /// Lets these workers run, and no others.
    async fn of(workers: &[&str]) -> Result<Self> {
        let alone = ALONE.lock().await;
        let lab = Lab::from_env()?;
        let cloud = Cloud::login(&lab, "admin").await?;
        let fleet = Self {
            database: Database::new(&lab)?,
            volumes: cloud.volumes()?,
            backups: cloud.backups()?,
            lab,
            cloud,
            _alone: alone,
        };
        fleet.only(workers).await?;
        Ok(fleet)
    }

    /// The same again, in the middle of a test. They are started in this order.
    async fn only(&self, workers: &[&str]) -> Result<()> {
        let running = self.lab.running().await?;
        let others = WORKERS.iter().map(|(part, _)| *part);
        let others = others.filter(|part| !workers.contains(part));
        let others: Vec<&str> = others
            .filter(|part| running.iter().any(|name| name == part))
            .collect();
        let stops = others.iter().map(|part| ["stop", part]);
        let stops: Vec<[&str; 2]> = stops.collect();
        try_join_all(stops.iter().map(|stop| self.lab.command(stop))).await?;
        let hosts: Vec<&str> = workers.iter().map(|part| host(part)).collect();
        if others.iter().any(|part| !hosts.contains(&host(part))) {
            // It would go on to give work to the host that is gone.
            self.lab.command(&["stop", "cinder-scheduler"]).await?;
            let start = ["start", "cinder-scheduler", "--wait"];
            self.lab.command(&start).await?;
        }
        for part in workers {
            self.lab.command(&["start", part, "--wait"]).await?;
        }
        let broker = Broker::connect(&self.lab).await?;
        for host in &hosts {
            let workers = hosts.iter().filter(|other| *other == host).count();
            let queue = format!("cinder-backup.{host}");
            broker
                .wait_consumers(&queue, u32::try_from(workers)?)
                .await?;
        }
        self.database.route_to(&hosts).await
    }

    /// The host that a backup's row names: of the worker that made it, restored it or imported it last.
    async fn host_of(&self, backup: &str) -> Result<String> {
        let sql = format!("SELECT host FROM backups WHERE id = '{backup}'");
        let rows = self.database.rows(&sql).await?;
        let row = rows.first().context("there is no such backup")?;
        Ok(row["host"].as_str().unwrap_or_default().to_owned())
    }

    /// Writes something new into a volume; what that holds now.
    async fn change(&self, volume: &str, turn: u8) -> Result<Content> {
        let data = vec![turn; 3 << 20];
        let offset = u64::from(turn) * (5 << 20);
        self.volumes.write(&image(volume), offset, &data).await?;
        let head = [turn; 777];
        self.volumes.write(&image(volume), 0, &head).await?;
        self.volumes.content(&image(volume)).await
    }

    /// Changes a volume and backs it up, the first time as a whole.
    async fn back_up(&self, volume: &str, turn: u8) -> Result<(String, Content)> {
        let content = self.change(volume, turn).await?;
        let backup = self.cloud.back_up(volume, turn > 1).await?;
        Ok((backup, content))
    }

    /// Makes the backups of a chain from the given one on, until each of the hosts has made one.
    async fn back_up_on_all(
        &self,
        volume: &str,
        first: u8,
        hosts: &[&str],
    ) -> Result<Vec<(String, Content)>> {
        let mut missing = hosts.to_vec();
        let mut made = Vec::new();
        for turn in first..=first + TRIES {
            let (backup, content) = self.back_up(volume, turn).await?;
            let maker = self.host_of(&backup).await?;
            missing.retain(|host| *host != maker);
            made.push((backup, content));
            if missing.is_empty() {
                return Ok(made);
            }
        }
        anyhow::bail!("{missing:?} made no backup of {TRIES}")
    }

    /// Nothing of a volume's backups is left in their pool.
    async fn nothing_left(&self, volume: &str, backups: &[impl AsRef<str>]) -> Result<()> {
        let images = self.backups.images("backups").await?;
        ensure!(
            !images.iter().any(|name| name.contains(volume)),
            "{images:?}"
        );
        let objects = self.backups.rados(&["-p", "backups", "ls"]).await?;
        for backup in backups {
            let backup = backup.as_ref();
            ensure!(!objects.contains(backup), "{backup}: {objects}");
        }
        Ok(())
    }
}

/// Restores backups to new volumes, all at once, and compares.
async fn verify(cloud: &Cloud, backups: &[(String, Content)]) -> Result<()> {
    let volumes = cloud.volumes()?;
    let verify = async |(backup, content): &(String, Content)| {
        let restored = cloud.restore(backup, None).await?;
        let found = volumes.content(&image(&restored)).await?;
        ensure!(
            &found == content,
            "backup {backup} is restored as something else"
        );
        cloud.delete(Resource::Volume, &restored).await
    };
    try_join_all(backups.iter().map(verify)).await?;
    Ok(())
}
