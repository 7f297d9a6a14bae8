//! A worker that is killed in the middle, and whose backups are deleted before it is there again:
//! what waits for them is let go.

use std::time::Duration;

use anyhow::{Result, bail};
use cinderblock_tests::{Cloud, Database, Lab, Resource};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests kills what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// An operation under way.
struct Begun {
    backup: String,
    target: String,
}

struct Setup {
    lab: Lab,
    cloud: Cloud,
}

impl Setup {
    async fn new() -> Result<Self> {
        let lab = Lab::from_env()?;
        let cloud = Cloud::login(&lab, "demo").await?;
        Ok(Self { lab, cloud })
    }

    /// Begins an operation on a backup, kills the worker in the middle of it, has the backup
    /// deleted as cinder-api does with the help of another worker, and starts the worker again.
    async fn kill_and_delete(
        &self,
        beginning: impl Future<Output = Result<Begun>>,
    ) -> Result<Begun> {
        let killing = async {
            let begun = beginning.await?;
            sleep(Duration::from_secs(3)).await;
            let kill = ["stop", "--signal", "KILL", "worker"];
            self.lab.command(&kill).await?;
            Ok(begun)
        };
        let begun = self.lab.while_stopped("ceph-osd-backups", killing).await?;
        let backup = &begun.backup;
        let database = Database::new(&self.lab)?;
        database
            .change("backups", backup, "status = 'deleting'")
            .await?;
        self.lab.command(&["start", "worker", "--wait"]).await?;
        self.cloud.wait_gone(Resource::Backup, backup).await?;
        Ok(begun)
    }
}

#[tokio::test]
async fn the_volume_of_a_restore_is_given_up() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.create_volume(1).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let restoring = async {
        let target = cloud.begin_restore(&backup, None).await?;
        cloud
            .wait(Resource::Volume, &target, "restoring-backup")
            .await?;
        Ok(Begun { backup, target })
    };
    let begun = setup.kill_and_delete(restoring).await?;
    cloud
        .wait(Resource::Volume, &begun.target, "error_restoring")
        .await?;
    for volume in [&begun.target, &volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_temporary_volume_of_a_snapshot_is_given_back() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.create_volume(1).await?;
    let body = json!({"snapshot": {"volume_id": volume}});
    let snapshot = cloud.create(Resource::Snapshot, body).await?;
    let volumes = cloud.volumes()?;
    let before = volumes.images("volumes").await?;
    let making = async {
        let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
        let backup = cloud.begin_create(Resource::Backup, body).await?;
        for _ in 0..300 {
            if volumes.images("volumes").await? != before {
                let target = volume.clone();
                return Ok(Begun { backup, target });
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("no temporary volume is made for {backup}")
    };
    setup.kill_and_delete(making).await?;
    // The temporary volume is a clone, for which the snapshot would have to stay.
    for _ in 0..300 {
        if volumes.images("volumes").await? == before {
            cloud.delete(Resource::Snapshot, &snapshot).await?;
            return cloud.delete(Resource::Volume, &volume).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    bail!("the temporary volume is still there")
}
