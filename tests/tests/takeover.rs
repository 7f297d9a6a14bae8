//! A worker that is silent for too long, in the middle of something: one of another host carries that on, and
//! whoever was only stopped changes nothing any more.

use anyhow::{Result, ensure};
use cinderblock_tests::{
    Cloud, Content, Invariants, Lab, Reconfigured, Resource, Setup, eventually, image,
};
use serde_json::Value;
use tokio::sync::Mutex;

/// Each of these tests stops the worker that the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1 << 20;

/// The other worker, which is its host, too.
const OTHER: &str = "other-worker";

/// So slowly that it is met in the middle.
const SLOWLY: &str = "
[cinderblock]
takeover_after = 20
backup_bandwidth = 4194304
restore_bandwidth = 4194304
checkpoint_interval = 1
";

/// What becomes of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is killed, and started again after all has ended.
    Killed,
    /// It is stopped until another one has taken over, and goes on beside it.
    StoppedUntilTakenOver,
    /// It is stopped until another one has ended what it began.
    StoppedUntilEnded,
}

impl Fate {
    const ALL: [Self; 3] = [
        Self::Killed,
        Self::StoppedUntilTakenOver,
        Self::StoppedUntilEnded,
    ];
}

struct Pair {
    setup: Setup,
    invariants: Invariants,
    worker: Reconfigured,
}

impl Pair {
    async fn new() -> Result<Self> {
        let setup = Setup::new().await?;
        let invariants = Invariants::new(&setup.lab).await?;
        let worker = Reconfigured::worker(&setup.lab, SLOWLY).await?;
        Ok(Self {
            setup,
            invariants,
            worker,
        })
    }

    fn lab(&self) -> &Lab {
        &self.setup.lab
    }

    fn cloud(&self) -> &Cloud {
        &self.setup.cloud
    }

    /// A volume of which no two blocks are the same, and what it holds.
    async fn volume(&self) -> Result<(String, Content)> {
        let volume = self.cloud().create_volume(1).await?;
        let numbers = (0..(64 * MIB / 8)).flat_map(|number: u64| number.to_be_bytes());
        let data: Vec<u8> = numbers.collect();
        let volumes = self.cloud().volumes()?;
        volumes.write(&image(&volume), 0, &data).await?;
        let content = self.content(&volume).await?;
        Ok((volume, content))
    }

    async fn content(&self, volume: &str) -> Result<Content> {
        self.cloud().volumes()?.content(&image(volume)).await
    }

    /// Has the worker fall silent in the middle of what it does with a backup; returns once another one has
    /// ended that.
    async fn take_over(
        &self,
        fate: Fate,
        backup: &str,
        ended: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let lab = self.lab();
        match fate {
            Fate::Killed => {
                let kill = ["stop", "--signal", "KILL", "worker"];
                lab.command(&kill).await?;
            }
            _ => lab.signal("worker", "STOP").await?,
        }
        lab.command(&["start", OTHER, "--wait"]).await?;
        let told = "Took the backup over";
        lab.wait_logged_by(OTHER, backup, told).await?;
        if fate == Fate::StoppedUntilTakenOver {
            lab.signal("worker", "CONT").await?;
        }
        ended.await?;
        match fate {
            Fate::Killed => lab.command(&["start", "worker", "--wait"]).await.map(drop)?,
            Fate::StoppedUntilEnded => lab.signal("worker", "CONT").await?,
            Fate::StoppedUntilTakenOver => {}
        }
        Ok(())
    }

    /// Waits until the worker that was stopped has seen what became of it.
    async fn wait_resigned(&self, backup: &str, words: &[&str]) -> Result<()> {
        let lines = async || self.lab().logged(backup);
        let said = |lines: &Vec<String>| {
            let says = |line: &String| words.iter().any(|word| line.contains(word));
            lines.iter().any(says)
        };
        eventually("the worker leaves it to the other", lines, said).await?;
        Ok(())
    }

    async fn ensure_is_of(&self, backup: &str, host: &str) -> Result<()> {
        let sql = format!("SELECT host FROM backups WHERE id = '{backup}'");
        let rows = self.setup.database.rows(&sql).await?;
        ensure!(rows[0]["host"] == host, "{rows:?}");
        Ok(())
    }

    /// Lets both work as fast as they can.
    async fn hurry(&self) -> Result<()> {
        self.worker.rewrite("")?;
        for worker in ["worker", OTHER] {
            self.lab().signal(worker, "HUP").await?;
        }
        Ok(())
    }

    /// Leaves the worker alone again, and slow.
    async fn part(&self) -> Result<()> {
        self.lab().command(&["stop", OTHER]).await?;
        self.worker.rewrite(SLOWLY)?;
        self.lab().signal("worker", "HUP").await
    }

    async fn end(self) -> Result<()> {
        self.lab().command(&["stop", OTHER]).await?;
        self.worker.restore().await
    }
}

#[tokio::test]
async fn a_backup_is_made_by_another_host_once_and_stays_whole() -> Result<()> {
    let _alone = ALONE.lock().await;
    let pair = Pair::new().await?;
    let cloud = pair.cloud();
    for fate in Fate::ALL {
        println!("{fate:?}");
        let (volume, content) = pair.volume().await?;
        let backup = cloud.begin_backup(&volume, false).await?;
        let (backups, object) = (cloud.backups()?, format!("backup.{backup}.manifest"));
        let noted = async || {
            let header = backups.json("backups", &object).await.unwrap_or_default();
            Ok(header["checkpoint"]["chunks"].clone())
        };
        let is_noted = |chunks: &Value| chunks.as_array().is_some_and(|chunks| !chunks.is_empty());
        eventually("a part is noted to be safe", noted, is_noted).await?;
        let ended = async {
            cloud.wait(Resource::Backup, &backup, "available").await?;
            cloud.wait(Resource::Volume, &volume, "available").await?;
            Ok(())
        };
        pair.take_over(fate, &backup, ended).await?;
        if fate != Fate::Killed {
            let words = ["Another worker makes the backup", "is left to another"];
            pair.wait_resigned(&backup, &words).await?;
        }
        pair.invariants.hold().await?;
        pair.ensure_is_of(&backup, OTHER).await?;
        let verified = pair.lab().tool(&["verify", &backup]).await?;
        ensure!(verified.status.success(), "{verified:?}");
        let found = cloud.show(Resource::Backup, &backup).await?;
        ensure!(found.unwrap_or_default()["status"] == "available");

        pair.hurry().await?;
        let next = cloud.back_up(&volume, true).await?;
        for backup in [&backup, &next] {
            let restored = cloud.restore(backup, None).await?;
            ensure!(pair.content(&restored).await? == content, "{fate:?}");
            cloud.delete(Resource::Volume, &restored).await?;
        }
        for backup in [&next, &backup] {
            cloud.delete(Resource::Backup, backup).await?;
        }
        cloud.delete(Resource::Volume, &volume).await?;
        pair.invariants.hold().await?;
        pair.part().await?;
    }
    pair.end().await
}
