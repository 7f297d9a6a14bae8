//! Operations that are called off through Cinder's API: nothing is left of them.
//!
//! Where an operation has to be caught in its middle, the cluster of the backups is stopped.

use std::time::Duration;

use anyhow::{Result, ensure};
use cinderblock_tests::{Broker, Cloud, Database, Lab, Resource};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests stops what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// By then cinder-volume has answered, and the worker waits for the cluster.
const UNDER_WAY: Duration = Duration::from_secs(3);

struct Setup {
    lab: Lab,
    cloud: Cloud,
    admin: Cloud,
    volume: String,
}

impl Setup {
    /// A volume with `mib` MiB of data.
    async fn new(mib: usize) -> Result<Self> {
        let lab = Lab::from_env()?;
        let cloud = Cloud::login(&lab, "demo").await?;
        let volume = cloud.create_volume(1).await?;
        let setup = Self {
            admin: Cloud::login(&lab, "admin").await?,
            lab,
            cloud,
            volume,
        };
        let (volumes, image) = (setup.cloud.volumes()?, setup.image());
        volumes.write(&image, 0, &vec![0x5A; mib << 20]).await?;
        Ok(setup)
    }

    fn image(&self) -> String {
        format!("volumes/volume-{}", self.volume)
    }

    /// Asks for a backup, and returns when the worker has taken it on.
    async fn begin(&self) -> Result<String> {
        let body = json!({"backup": {"volume_id": self.volume}});
        let backup = self.cloud.begin_create(Resource::Backup, body).await?;
        for _ in 0..300 {
            let shown = self.cloud.show(Resource::Backup, &backup).await?;
            if shown.is_some_and(|shown| shown["container"].is_string()) {
                return Ok(backup);
            }
            sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("nobody takes {backup} on")
    }

    /// Does something while the backups' cluster does not answer.
    async fn while_stopped<T>(&self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        self.lab.while_stopped("ceph-osd-backups", doing).await
    }

    async fn reset(&self, backup: &str, status: &str) -> Result<()> {
        let reset = json!({"os-reset_status": {"status": status}});
        self.admin.action(Resource::Backup, backup, reset).await?;
        self.cloud.wait(Resource::Backup, backup, status).await?;
        Ok(())
    }

    async fn force_delete(&self, backup: &str) -> Result<()> {
        let forced = json!({"os-force_delete": {}});
        self.admin.action(Resource::Backup, backup, forced).await
    }

    /// What somebody asked for is no failure.
    async fn nobody_is_told(&self, backup: &str) -> Result<()> {
        // It would come a moment after the status.
        sleep(Duration::from_secs(1)).await;
        let told = self.cloud.messages(backup).await?;
        ensure!(told.is_empty(), "{told:?}");
        let lines = self.lab.logged(backup)?;
        ensure!(
            !lines.iter().any(|line| line.contains(" ERROR ")),
            "{lines:?}"
        );
        Ok(())
    }

    /// The volume can be used again, and neither pool holds anything of its backups.
    async fn nothing_is_left(&self) -> Result<()> {
        let volume = &self.volume;
        let (volumes, backups) = (self.cloud.volumes()?, self.cloud.backups()?);
        self.cloud
            .wait(Resource::Volume, volume, "available")
            .await?;
        let snapshots = volumes.snapshots(&self.image()).await?;
        ensure!(snapshots.is_empty(), "{snapshots:?}");
        let left = backups.images("backups").await?;
        ensure!(!left.iter().any(|name| name.contains(volume)), "{left:?}");
        self.cloud.delete(Resource::Volume, volume).await
    }
}

#[tokio::test]
async fn a_backup_is_deleted_by_force_while_it_is_made() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new(1).await?;
    let deleting = async {
        let backup = setup.begin().await?;
        sleep(UNDER_WAY).await;
        setup.force_delete(&backup).await?;
        Ok(backup)
    };
    let backup = setup.while_stopped(deleting).await?;
    setup.cloud.wait_gone(Resource::Backup, &backup).await?;
    setup.nothing_is_left().await
}

#[tokio::test]
async fn a_backup_is_deleted_by_force_before_cinder_volume_has_answered() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new(1).await?;
    setup.lab.command(&["stop", "cinder-volume"]).await?;
    let backup = setup.begin().await?;
    setup.force_delete(&backup).await?;
    setup.cloud.wait_gone(Resource::Backup, &backup).await?;
    setup
        .cloud
        .wait(Resource::Volume, &setup.volume, "available")
        .await?;
    setup
        .lab
        .command(&["start", "cinder-volume", "--wait"])
        .await?;
    let broker = Broker::connect(&setup.lab).await?;
    broker.wait_consumed("cinder-volume").await?;
    setup.nothing_is_left().await
}

#[tokio::test]
async fn a_backup_that_is_reset_while_it_is_made_ends_there() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new(1).await?;
    let resetting = async {
        let backup = setup.begin().await?;
        sleep(UNDER_WAY).await;
        setup.reset(&backup, "error").await?;
        Ok(backup)
    };
    let backup = setup.while_stopped(resetting).await?;
    let cloud = &setup.cloud;
    cloud
        .wait(Resource::Volume, &setup.volume, "available")
        .await?;
    cloud.wait_failed(&backup).await?;
    setup.nobody_is_told(&backup).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    setup.nothing_is_left().await
}

#[tokio::test]
async fn a_delete_waits_for_the_end_of_the_transfer() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new(64).await?;
    let cloud = &setup.cloud;
    let volumes = cloud.volumes()?;
    volumes.slow_down(&setup.image(), 16 << 20).await?;
    let backup = setup.begin().await?;
    while volumes.snapshots(&setup.image()).await?.is_empty() {
        sleep(Duration::from_millis(50)).await;
    }
    let deleting = async {
        setup.force_delete(&backup).await?;
        // Longer than it would take if it did not wait.
        sleep(UNDER_WAY).await;
        let shown = cloud.show(Resource::Backup, &backup).await?;
        ensure!(shown.is_some_and(|shown| shown["status"] == "deleting"));
        Ok(())
    };
    setup.while_stopped(deleting).await?;
    cloud.wait_gone(Resource::Backup, &backup).await?;
    setup.nothing_is_left().await
}

#[tokio::test]
async fn a_status_that_another_worker_changes_ends_the_transfer() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new(1).await?;
    let database = Database::new(&setup.lab)?;
    let changing = async {
        let backup = setup.begin().await?;
        sleep(UNDER_WAY).await;
        // As cinder-api does before it sends the deletion to whichever worker is up.
        database
            .change("backups", &backup, "status = 'deleting'")
            .await?;
        Ok(backup)
    };
    let backup = setup.while_stopped(changing).await?;
    let cloud = &setup.cloud;
    cloud
        .wait(Resource::Volume, &setup.volume, "available")
        .await?;
    let shown = cloud.show(Resource::Backup, &backup).await?;
    ensure!(shown.is_some_and(|shown| shown["status"] == "deleting"));
    setup.reset(&backup, "error").await?;
    cloud.delete(Resource::Backup, &backup).await?;
    setup.nothing_is_left().await
}

#[tokio::test]
async fn a_restore_ends_when_its_backup_is_reset() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new(1).await?;
    let cloud = &setup.cloud;
    let backup = cloud.back_up(&setup.volume, false).await?;
    let resetting = async {
        let target = cloud.begin_restore(&backup, None).await?;
        cloud.wait(Resource::Backup, &backup, "restoring").await?;
        sleep(UNDER_WAY).await;
        setup.reset(&backup, "available").await?;
        Ok(target)
    };
    let target = setup.while_stopped(resetting).await?;
    cloud
        .wait(Resource::Volume, &target, "error_restoring")
        .await?;
    setup.nobody_is_told(&backup).await?;
    let restored = cloud.restore(&backup, None).await?;
    for volume in [&target, &restored] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    cloud.delete(Resource::Backup, &backup).await?;
    setup.nothing_is_left().await
}

#[tokio::test]
async fn a_volume_stays_held_when_an_older_backup_of_a_lost_snapshot_goes() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new(1).await?;
    let (cloud, volume) = (&setup.cloud, &setup.volume);
    let body = json!({"snapshot": {"volume_id": volume}});
    let snapshot = cloud.create(Resource::Snapshot, body).await?;
    let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
    let older = cloud.create(Resource::Backup, body).await?;
    cloud.delete(Resource::Snapshot, &snapshot).await?;

    let deleting = async {
        let backup = setup.begin().await?;
        cloud.delete(Resource::Backup, &older).await?;
        let shown = cloud.show(Resource::Volume, volume).await?;
        ensure!(shown.is_some_and(|shown| shown["status"] == "backing-up"));
        Ok(backup)
    };
    let hanging = "ceph-osd-volumes";
    let backup = setup.lab.while_stopped(hanging, deleting).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    cloud.delete(Resource::Backup, &backup).await?;
    setup.nothing_is_left().await
}
