//! One chain, made in turns by Python's cinder-backup and by ours; either restores what the other
//! wrote.
//!
//! One of the two runs at a time, as when an operator swaps the service and puts it back.

use anyhow::{Result, ensure};
use cinderblock_tests::{Barbican, Cloud, Database, Lab, Resource, image};
use serde_json::Value;
use tokio::sync::Mutex;

/// Each of these tests stops and starts the workers.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1 << 20;

/// The two workers, of which one runs at a time.
struct Workers {
    lab: Lab,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Worker {
    Ours,
    Python,
}

impl Worker {
    fn part(self) -> &'static str {
        match self {
            Self::Ours => "worker",
            Self::Python => "cinder-backup",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Ours => Self::Python,
            Self::Python => Self::Ours,
        }
    }
}

impl Workers {
    /// Lets this worker run and stops the other.
    async fn only(&self, worker: Worker) -> Result<()> {
        self.lab.command(&["stop", worker.other().part()]).await?;
        self.lab
            .command(&["start", worker.part(), "--wait"])
            .await?;
        Ok(())
    }

    /// Restores a backup with the worker that runs, to a new volume; the volume's id.
    ///
    /// Python's of releases 22 to 28 shifts the data behind the first zeros when cinder-api has made the
    /// volume for the restore; there the volume is made before.
    async fn restore(&self, cloud: &Cloud, worker: Worker, backup: &str) -> Result<String> {
        let shifts = (22..=28).contains(&self.lab.cinder_release()?);
        let target = match worker {
            Worker::Python if shifts => Some(cloud.create_volume(1).await?),
            _ => None,
        };
        cloud.restore(backup, target.as_deref()).await
    }
}

/// What the operator's tool finds of a backup.
async fn assert_verified(lab: &Lab, backup: &str, flags: &[&str], result: &str) -> Result<()> {
    let arguments = [&["verify", "--output=json", backup], flags].concat();
    let output = lab.tool(&arguments).await?;
    let reports: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(reports[0]["result"] == result, "{reports}");
    Ok(())
}

#[tokio::test]
async fn one_chain_in_turns() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let workers = Workers { lab: lab.clone() };
    let cloud = Cloud::login(&lab, "demo").await?;
    let volumes = cloud.volumes()?;
    let volume = cloud.create_volume(1).await?;
    let mut made = Vec::new();

    let turns = [
        (Worker::Python, false),
        (Worker::Ours, true),
        (Worker::Python, true),
        (Worker::Ours, true),
        (Worker::Ours, false),
        (Worker::Python, true),
    ];
    for (turn, (worker, incremental)) in turns.into_iter().enumerate() {
        workers.only(worker).await?;
        let turn = u8::try_from(turn)? + 1;
        let offset = u64::from(turn) * 3 * MIB;
        volumes
            .write(&image(&volume), offset, &vec![turn; 2 << 20])
            .await?;
        volumes.write(&image(&volume), 0, &[turn; 777]).await?;
        let content = volumes.content(&image(&volume)).await?;
        let backup = cloud.back_up(&volume, incremental).await?;
        if turn == 1 {
            // Python keeps no manifest; what ours builds on it is known as a whole all the same.
            assert_verified(&lab, &backup, &[], "no_manifest").await?;
            assert_verified(&lab, &backup, &["--record"], "recorded").await?;
        }
        if turn <= 2 {
            assert_verified(&lab, &backup, &[], "verified").await?;
        }
        made.push((backup, content));
    }
    for worker in [Worker::Python, Worker::Ours] {
        workers.only(worker).await?;
        for (backup, content) in &made {
            let restored = workers.restore(&cloud, worker, backup).await?;
            ensure!(
                &volumes.content(&image(&restored)).await? == content,
                "{worker:?} restores {backup} as something else"
            );
            cloud.delete(Resource::Volume, &restored).await?;
        }
    }
    // Each deletes what the other made, newest first, down to nothing.
    for (backup, _) in made.split_off(4).iter().rev() {
        cloud.delete(Resource::Backup, backup).await?;
    }
    workers.only(Worker::Python).await?;
    for (backup, _) in made.iter().rev() {
        cloud.delete(Resource::Backup, backup).await?;
    }
    workers.only(Worker::Ours).await?;
    let left = cloud.backups()?.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    Ok(())
}

#[tokio::test]
async fn what_one_exports_the_other_imports() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let workers = Workers { lab: lab.clone() };
    let cloud = Cloud::login(&lab, "admin").await?;
    let (database, volumes) = (Database::new(&lab)?, cloud.volumes()?);
    let volume = cloud.create_volume(1).await?;
    volumes.write(&image(&volume), 0, &[0x77; 5000]).await?;
    let content = volumes.content(&image(&volume)).await?;
    for maker in [Worker::Python, Worker::Ours] {
        workers.only(maker).await?;
        let backup = cloud.back_up(&volume, false).await?;
        let record = cloud.export_record(&backup).await?;
        database.lose_backup(&backup).await?;
        let importer = maker.other();
        workers.only(importer).await?;
        cloud.begin_import(&record).await?;
        cloud.wait(Resource::Backup, &backup, "available").await?;
        let restored = workers.restore(&cloud, importer, &backup).await?;
        ensure!(
            volumes.content(&image(&restored)).await? == content,
            "{maker:?}'s backup is restored as something else"
        );
        cloud.delete(Resource::Backup, &backup).await?;
        cloud.delete(Resource::Volume, &restored).await?;
    }
    workers.only(Worker::Ours).await?;
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn the_keys_of_one_serve_the_other() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let workers = Workers { lab: lab.clone() };
    let cloud = Cloud::login(&lab, "demo").await?;
    let (barbican, volumes) = (Barbican::new(&lab, &cloud)?, cloud.volumes()?);
    let volume = cloud.create_encrypted_volume(None).await?;
    volumes
        .write(&image(&volume), 99 * MIB, &[0x55; 7000])
        .await?;
    let content = volumes.content(&image(&volume)).await?;
    for maker in [Worker::Python, Worker::Ours] {
        workers.only(maker).await?;
        let backup = cloud.back_up(&volume, false).await?;
        let key = cloud.key(Resource::Backup, &backup).await?;
        workers.only(maker.other()).await?;
        let target = cloud.create_encrypted_volume(None).await?;
        cloud.restore(&backup, Some(&target)).await?;
        ensure!(volumes.content(&image(&target)).await? == content);
        let restored = cloud.key(Resource::Volume, &target).await?;
        ensure!(restored != key);
        let payload = barbican.payload(&restored).await?;
        ensure!(volumes.opens_with(&image(&target), &payload).await?);
        cloud.delete(Resource::Backup, &backup).await?;
        ensure!(barbican.describe(&key).await?.is_none(), "{maker:?}'s key");
        cloud.delete(Resource::Volume, &target).await?;
    }
    workers.only(Worker::Ours).await?;
    cloud.delete(Resource::Volume, &volume).await
}
