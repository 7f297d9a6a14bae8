//! A worker that is silent for too long, in the middle of something: one of another host carries that on, and
//! whoever was only stopped changes nothing any more. Those that are killed are in `steps` and `soak`.

use std::env;

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Content, Invariants, Lab, Reconfigured, Resource, Setup, image};
use serde_json::json;
use tokio::sync::Mutex;

/// Each of these tests stops the worker that the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1 << 20;

/// The other worker, which is its host, too.
const OTHER: &str = "other-worker";

/// So slowly that it is met in the middle. The broker sees soon that a worker is silent.
const SLOWLY: &str = "
[oslo_messaging_rabbit]
heartbeat_timeout_threshold = 10
[cinderblock]
takeover_after = 20
backup_bandwidth = 4194304
restore_bandwidth = 4194304
checkpoint_interval = 1
";

/// What becomes of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is stopped until another one has taken over, and goes on beside it.
    StoppedUntilTakenOver,
    /// It is stopped until another one has ended what it began.
    StoppedUntilEnded,
}

impl Fate {
    /// The one that sees the least of what became of its work; with `TAKEOVER=all` both.
    fn tried() -> Vec<Self> {
        match env::var_os("TAKEOVER").is_some_and(|which| which == "all") {
            true => vec![Self::StoppedUntilTakenOver, Self::StoppedUntilEnded],
            false => vec![Self::StoppedUntilEnded],
        }
    }
}

struct Pair {
    setup: Setup,
    invariants: Invariants,
    worker: Reconfigured,
    host: String,
}

impl Pair {
    async fn new() -> Result<Self> {
        let setup = Setup::new().await?;
        let invariants = Invariants::new(&setup.lab).await?;
        let worker = Reconfigured::worker(&setup.lab, SLOWLY).await?;
        let host = setup.lab.variable("LAB_WORKER_HOST")?;
        let this = Self {
            setup,
            invariants,
            worker,
            host,
        };
        this.route(false).await?;
        Ok(this)
    }

    /// Has cinder-api send requests to either of the two, or to the worker only: it takes one that has ended
    /// for alive for a minute.
    async fn route(&self, to_either: bool) -> Result<()> {
        let hosts = [self.host.as_str(), OTHER];
        let hosts = &hosts[..1 + usize::from(to_either)];
        self.setup.database.route_to(hosts).await
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

    /// Has the worker fall silent in the middle of what it does with some backups; returns once another one
    /// has ended that.
    async fn take_over(
        &self,
        fate: Fate,
        backups: &[&str],
        ended: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let lab = self.lab();
        lab.signal("worker", "STOP").await?;
        self.start_other().await?;
        for backup in backups {
            let told = "Took the backup over";
            lab.wait_logged_by(OTHER, backup, told).await?;
        }
        if fate == Fate::StoppedUntilTakenOver {
            lab.signal("worker", "CONT").await?;
        }
        ended.await?;
        if fate == Fate::StoppedUntilEnded {
            lab.signal("worker", "CONT").await?;
        }
        Ok(())
    }

    async fn start_other(&self) -> Result<()> {
        self.lab().command(&["start", OTHER, "--wait"]).await?;
        self.route(true).await
    }

    async fn ensure_is_of(&self, backup: &str, host: &str) -> Result<()> {
        let sql = format!("SELECT host FROM backups WHERE id = '{backup}'");
        let rows = self.setup.database.rows(&sql).await?;
        ensure!(rows[0]["host"] == host, "{rows:?}");
        Ok(())
    }

    /// Lets workers work as fast as they can.
    async fn hurry(&self, workers: &[&str]) -> Result<()> {
        self.worker.rewrite("")?;
        for worker in workers {
            self.lab().signal(worker, "HUP").await?;
        }
        Ok(())
    }

    async fn slow_down(&self) -> Result<()> {
        self.worker.rewrite(SLOWLY)?;
        self.lab().signal("worker", "HUP").await
    }

    /// Leaves the worker alone again.
    async fn part(&self) -> Result<()> {
        self.lab().command(&["stop", OTHER]).await?;
        self.route(false).await?;
        self.slow_down().await
    }

    async fn end(self) -> Result<()> {
        self.lab().command(&["stop", OTHER]).await?;
        self.route(true).await?;
        self.worker.restore().await
    }
}

#[tokio::test]
async fn what_a_silent_worker_began_is_carried_on_by_another_host_once() -> Result<()> {
    let _alone = ALONE.lock().await;
    let pair = Pair::new().await?;
    let (lab, cloud) = (pair.lab(), pair.cloud());
    for fate in Fate::tried() {
        println!("{fate:?}");
        let (volume, content) = pair.volume().await?;
        pair.hurry(&["worker"]).await?;
        let restored = cloud.back_up(&volume, false).await?;
        let target = cloud.create_volume(1).await?;
        pair.slow_down().await?;
        let backup = cloud.begin_backup(&volume, false).await?;
        let known = lab.connections()?;
        cloud.begin_restore(&restored, Some(&target)).await?;
        lab.wait_connections(known + 1).await?;
        cloud.wait_noted(&backup).await?;
        let ended = async {
            for backup in [&backup, &restored] {
                cloud.wait(Resource::Backup, backup, "available").await?;
            }
            for volume in [&volume, &target] {
                cloud.wait(Resource::Volume, volume, "available").await?;
            }
            Ok(())
        };
        pair.take_over(fate, &[&backup, &restored], ended).await?;
        lab.wait_logged(&backup, "Another worker makes the backup")
            .await?;
        // It finds that out when it looks at the row, or when it cannot write the volume.
        lab.wait_logged(&restored, " error=").await?;
        pair.invariants.hold().await?;
        for backup in [&backup, &restored] {
            pair.ensure_is_of(backup, OTHER).await?;
            ensure!(cloud.status(Resource::Backup, backup).await? == "available");
        }
        for volume in [&volume, &target] {
            ensure!(cloud.status(Resource::Volume, volume).await? == "available");
            ensure!(pair.content(volume).await? == content, "{fate:?}");
        }
        let verified = lab.tool(&["verify", &backup]).await?;
        ensure!(verified.status.success(), "{verified:?}");

        pair.hurry(&["worker", OTHER]).await?;
        let next = cloud.back_up(&volume, true).await?;
        for backup in [&backup, &next] {
            cloud.restore(backup, Some(&target)).await?;
            ensure!(pair.content(&target).await? == content, "{fate:?}");
        }
        for backup in [&next, &backup, &restored] {
            cloud.delete(Resource::Backup, backup).await?;
        }
        for volume in [&volume, &target] {
            cloud.delete(Resource::Volume, volume).await?;
        }
        pair.invariants.hold().await?;
        pair.part().await?;
    }
    pair.end().await
}

#[tokio::test]
async fn requests_that_nobody_takes_are_carried_out_by_another_host_once() -> Result<()> {
    let _alone = ALONE.lock().await;
    let pair = Pair::new().await?;
    let (lab, cloud) = (pair.lab(), pair.cloud());
    pair.hurry(&["worker"]).await?;
    let (volume, content) = pair.volume().await?;
    let [deleted, restored] = [
        cloud.back_up(&volume, false).await?,
        cloud.back_up(&volume, false).await?,
    ];
    let (fresh, target) = (cloud.create_volume(1).await?, cloud.create_volume(1).await?);
    let snapshot = cloud.create_snapshot(&volume).await?;

    lab.signal("worker", "STOP").await?;
    let created = cloud.begin_backup(&fresh, false).await?;
    let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
    let of_snapshot = cloud.begin_create(Resource::Backup, body).await?;
    cloud.begin_restore(&restored, Some(&target)).await?;
    cloud.begin_delete(Resource::Backup, &deleted).await?;
    pair.start_other().await?;
    for backup in [&created, &of_snapshot, &restored] {
        cloud.wait(Resource::Backup, backup, "available").await?;
        pair.ensure_is_of(backup, OTHER).await?;
    }
    cloud.wait_gone(Resource::Backup, &deleted).await?;
    cloud.wait(Resource::Volume, &target, "available").await?;
    ensure!(pair.content(&target).await? == content);

    // It takes the same requests now, and leaves them alone.
    lab.signal("worker", "CONT").await?;
    for backup in [&created, &of_snapshot] {
        lab.wait_logged(backup, "belongs to host").await?;
    }
    lab.wait_logged(&restored, "Restore backup failed").await?;
    lab.wait_logged(&deleted, "Delete backup").await?;
    pair.invariants.hold().await?;
    for volume in [&volume, &fresh, &target] {
        cloud.wait(Resource::Volume, volume, "available").await?;
    }
    let again = cloud.restore(&of_snapshot, None).await?;
    ensure!(pair.content(&again).await? == content);
    for backup in [&created, &of_snapshot, &restored] {
        cloud.wait(Resource::Backup, backup, "available").await?;
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Snapshot, &snapshot).await?;
    for volume in [&volume, &fresh, &target, &again] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    pair.invariants.hold().await?;
    pair.end().await
}
