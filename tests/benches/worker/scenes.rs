//! What an operator's night consists of.

use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Content, Database, Lab, Resource, image};

use crate::Settings;
use crate::cost::measure;
use crate::report::Played;

const MIB: usize = 1 << 20;

/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_millis(50);

/// Whose worker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Python,
    Ours,
}

impl Contender {
    fn part(self) -> &'static str {
        match self {
            Self::Python => "cinder-backup",
            Self::Ours => "worker",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Python => Self::Ours,
            Self::Ours => Self::Python,
        }
    }
}

/// One contender's volumes.
pub struct Stage {
    lab: Lab,
    cloud: Cloud,
    database: Database,
    contender: Contender,
    noise: Noise,
    data: usize,
    large: String,
    small: Vec<String>,
}

/// What nobody can compress, the same for whoever begins with the same number.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend(self.0.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

impl Stage {
    /// Makes the volumes.
    pub async fn set_up(lab: &Lab, contender: Contender, settings: &Settings) -> Result<Self> {
        let cloud = Cloud::login(lab, "demo").await?;
        let gib = (settings.data.div_ceil(1024) * 4) as u64;
        let mut stage = Self {
            lab: lab.clone(),
            database: Database::new(lab)?,
            contender,
            noise: Noise(0x9e37_79b9_7f4a_7c15),
            data: settings.data,
            large: cloud.create_volume(gib).await?,
            small: Vec::new(),
            cloud,
        };
        let large = stage.large.clone();
        stage.scatter(&large, settings.data, 1, 0).await?;
        for _ in 0..settings.many {
            let volume = stage.cloud.create_volume(1).await?;
            stage.scatter(&volume, 16, 1, 0).await?;
            stage.small.push(volume);
        }
        Ok(stage)
    }

    /// Every scene once, while nobody else backs up.
    pub async fn play(&mut self) -> Result<Played> {
        let stop = ["stop", self.contender.other().part()];
        self.lab.command(&stop).await?;
        let start = ["start", self.contender.part(), "--wait"];
        self.lab.command(&start).await?;
        let mut played = self.alone().await?;
        played.extend(self.many().await?);
        Ok(played)
    }

    /// One operation after another, on a large volume.
    async fn alone(&mut self) -> Result<Played> {
        let (volume, pid) = (self.large.clone(), self.pid().await?);
        let mut played = Vec::new();
        let (full, cost) = measure(pid, self.back_up(from_ref(&volume), false)).await?;
        played.push(("full backup", cost));
        self.scatter(&volume, self.data / 4, 64, 1).await?;
        let (changed, cost) = measure(pid, self.back_up(from_ref(&volume), true)).await?;
        played.push(("incremental, a quarter changed", cost));
        let content = self.content(&volume).await?;
        let (same, cost) = measure(pid, self.back_up(from_ref(&volume), true)).await?;
        played.push(("incremental, nothing changed", cost));
        let (targets, cost) = measure(pid, self.restore(&same, None)).await?;
        played.push(("restore to a new volume", cost));
        ensure!(self.content(&targets[0]).await? == content);
        self.scatter(&targets[0], self.data / 20, 13, 2).await?;
        let existing = Some(targets.as_slice());
        let (_, cost) = measure(pid, self.restore(&same, existing)).await?;
        played.push(("restore, a twentieth differs", cost));
        ensure!(self.content(&targets[0]).await? == content);
        let chain = [same, changed, full].concat();
        let deletes = async {
            for backup in &chain {
                self.delete(from_ref(backup)).await?;
            }
            Ok(())
        };
        let ((), cost) = measure(pid, deletes).await?;
        played.push(("delete of all three", cost));
        self.remove_volumes(&targets).await?;
        Ok(played)
    }

    /// Many at once, on small volumes.
    async fn many(&mut self) -> Result<Played> {
        let (volumes, pid) = (self.small.clone(), self.pid().await?);
        let mut played = Vec::new();
        let (full, cost) = measure(pid, self.back_up(&volumes, false)).await?;
        played.push(("many full backups", cost));
        for volume in &volumes {
            self.scatter(volume, 4, 4, 1).await?;
        }
        let (next, cost) = measure(pid, self.back_up(&volumes, true)).await?;
        played.push(("many incrementals", cost));
        let (targets, cost) = measure(pid, self.restore(&next, None)).await?;
        played.push(("many restores to new volumes", cost));
        let deletes = async {
            self.delete(&next).await?;
            self.delete(&full).await
        };
        let ((), cost) = measure(pid, deletes).await?;
        played.push(("delete of all of them", cost));
        self.remove_volumes(&targets).await?;
        Ok(played)
    }

    async fn pid(&self) -> Result<u32> {
        self.lab.pid(self.contender.part()).await
    }

    /// Writes so many MiB, in pieces that lie apart.
    async fn scatter(&mut self, volume: &str, mib: usize, pieces: usize, at: usize) -> Result<()> {
        let volumes = self.cloud.volumes()?;
        let (length, apart) = (mib * MIB / pieces, self.data * MIB / pieces / MIB * MIB);
        for piece in 0..pieces {
            let data = self.noise.bytes(length);
            let offset = (piece * apart + at * 4096) as u64;
            volumes.write(&image(volume), offset, &data).await?;
        }
        Ok(())
    }

    async fn content(&self, volume: &str) -> Result<Content> {
        self.cloud.volumes()?.content(&image(volume)).await
    }

    async fn back_up(&self, volumes: &[String], incremental: bool) -> Result<Vec<String>> {
        let mut backups = Vec::new();
        for volume in volumes {
            backups.push(self.cloud.begin_backup(volume, incremental).await?);
        }
        self.wait("available", "backups", &backups).await?;
        Ok(backups)
    }

    async fn restore(&self, backups: &[String], to: Option<&[String]>) -> Result<Vec<String>> {
        let mut targets = Vec::new();
        for (at, backup) in backups.iter().enumerate() {
            let target = to.map(|targets| targets[at].as_str());
            targets.push(self.cloud.begin_restore(backup, target).await?);
        }
        self.wait("available", "volumes", &targets).await?;
        self.wait("available", "backups", backups).await?;
        Ok(targets)
    }

    async fn delete(&self, backups: &[String]) -> Result<()> {
        for backup in backups {
            self.cloud.begin_delete(Resource::Backup, backup).await?;
        }
        self.wait("deleted", "backups", backups).await
    }

    async fn remove_volumes(&self, volumes: &[String]) -> Result<()> {
        for volume in volumes {
            self.cloud.delete(Resource::Volume, volume).await?;
        }
        Ok(())
    }

    async fn wait(&self, status: &str, table: &str, ids: &[String]) -> Result<()> {
        loop {
            let found = self.database.statuses(table, ids).await?;
            if found.iter().all(|found| found == status) {
                return Ok(());
            }
            let failed = found.iter().any(|found| found.starts_with("error"));
            ensure!(!failed, "{table}: {found:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
