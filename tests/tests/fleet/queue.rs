//! One host, both workers on its queue: each message goes to either.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use cinderblock_tests::{Content, Reconfigured, Resource};
use futures_util::future::try_join_all;
use tokio::time::{Duration, sleep};

use crate::{Fleet, OURS, PYTHONS, TRIES, verify};

impl Fleet {
    /// Which of the two has taken a message about a backup, as its log tells.
    fn taker(&self, backup: &str, message: &str) -> Result<&'static str> {
        for part in [OURS, PYTHONS] {
            let lines = self.lab.logged_by(part, backup)?;
            if lines.iter().any(|line| line.contains(message)) {
                return Ok(part);
            }
        }
        anyhow::bail!("nobody says of {backup}: {message}")
    }

    /// Makes a chain in which either has begun what the other made; asks for an answer in between.
    async fn chain_of_both(&self, volume: &str) -> Result<Vec<(String, Content)>> {
        let mut made = Vec::new();
        let mut seen = BTreeSet::new();
        for turn in 1..=TRIES {
            let (backup, content) = self.back_up(volume, turn).await?;
            let begun = self.taker(&backup, "Create backup started")?;
            let made_by = self.taker(&backup, "Create backup finished")?;
            seen.insert((begun, made_by));
            // A message more, so that the next goes to the other.
            self.cloud.export_record(&backup).await?;
            made.push((backup, content));
            if seen.contains(&(OURS, PYTHONS)) && seen.contains(&(PYTHONS, OURS)) {
                return Ok(made);
            }
        }
        anyhow::bail!("who began and who made: {seen:?}")
    }

    /// Goes on with a chain until Python's worker has hung for longer than ours waits for the answer of
    /// cinder-volume that Python's has got.
    async fn made_late(&self, volume: &str, first: u8) -> Result<Vec<(String, Content)>> {
        let mut made = Vec::new();
        for turn in first..=first + TRIES {
            let content = self.change(volume, turn).await?;
            let hanging = async {
                let backup = self.cloud.begin_backup(volume, true).await?;
                let told = self.waits_for_pythons(&backup).await?;
                Ok((backup, told))
            };
            let (backup, told) = self.lab.while_stopped(PYTHONS, hanging).await?;
            self.cloud
                .wait(Resource::Backup, &backup, "available")
                .await?;
            made.push((backup.clone(), content));
            if told {
                return Ok(made);
            }
            // A message more, so that the next goes to the other.
            self.cloud.export_record(&backup).await?;
        }
        anyhow::bail!("ours has begun nothing that Python's had to go on with")
    }

    /// Whether ours has begun a backup and says that it waits for Python's.
    async fn waits_for_pythons(&self, backup: &str) -> Result<bool> {
        for second in 0..30 {
            sleep(Duration::from_secs(1)).await;
            let lines = self.lab.logged(backup)?;
            let says = |text: &str| lines.iter().any(|line| line.contains(text));
            if says("A worker of Python's may have taken the request") {
                return Ok(true);
            }
            let begun = says("Create backup started");
            if says("Create backup finished") || (second > 5 && !begun) {
                break;
            }
        }
        Ok(false)
    }

    /// A volume with two backups, which are restored, exported and deleted.
    async fn lifetime(&self) -> Result<Vec<String>> {
        let volume = self.cloud.create_volume(1).await?;
        let mut made = Vec::new();
        for turn in 1..=2 {
            made.push(self.back_up(&volume, turn).await?);
        }
        verify(&self.cloud, &made).await?;
        self.end(&volume, made).await
    }

    /// Exports and deletes the backups of a volume, and the volume. The ids of the backups.
    async fn end(&self, volume: &str, made: Vec<(String, Content)>) -> Result<Vec<String>> {
        let ids: Vec<String> = made.into_iter().map(|(backup, _)| backup).collect();
        for backup in ids.iter().rev() {
            let record = self.cloud.export_record(backup).await?;
            let service = record["backup_service"].as_str().unwrap_or_default();
            ensure!(service.contains("ceph"), "{record}");
            self.cloud.delete(Resource::Backup, backup).await?;
        }
        self.cloud.delete(Resource::Volume, volume).await?;
        self.nothing_left(volume, &ids).await?;
        Ok(ids)
    }
}

#[tokio::test]
async fn both_take_from_one_queue() -> Result<()> {
    let fleet = Fleet::of(&[OURS]).await?;
    let wait = "[cinderblock]\ncontinue_timeout = 5\n";
    let impatient = Reconfigured::worker(&fleet.lab, wait).await?;
    fleet.only(&[OURS, PYTHONS]).await?;
    let usage = fleet.cloud.backup_usage().await?;

    let volume = fleet.cloud.create_volume(1).await?;
    let mut made = fleet.chain_of_both(&volume).await?;
    let next = u8::try_from(made.len())? + 1;
    made.extend(fleet.made_late(&volume, next).await?);
    for (backup, _) in &made {
        let sql = format!("SELECT container FROM backups WHERE id = '{backup}'");
        let rows = fleet.database.rows(&sql).await?;
        ensure!(rows[0]["container"] == "backups", "{rows:?}");
    }
    let others = try_join_all((0..3).map(|_| fleet.lifetime()));
    let ((), others) = tokio::try_join!(verify(&fleet.cloud, &made), others)?;
    let mut all = others.concat();
    all.extend(fleet.end(&volume, made).await?);

    ensure!(fleet.cloud.backup_usage().await? == usage, "{usage:?}");
    for backup in &all {
        let messages = fleet.cloud.messages(backup).await?;
        ensure!(messages.is_empty(), "{backup}: {messages:?}");
        for worker in [OURS, PYTHONS] {
            let mut lines = fleet.lab.logged_by(worker, backup)?;
            lines.retain(|line| line.contains(" ERROR "));
            ensure!(lines.is_empty(), "{worker}: {lines:?}");
        }
    }
    fleet.only(&[OURS]).await?;
    impatient.restore().await
}
