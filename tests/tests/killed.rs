//! A worker that is killed in the middle, and whose backups are perhaps deleted before it is there
//! again: what waits for them is let go.

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Cluster, Lab, Resource, Setup, eventually};
use serde_json::json;
use tokio::sync::Mutex;

/// Each of these tests kills what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// An operation under way.
struct Begun {
    backup: String,
    target: String,
}

/// Begins an operation on a backup and kills the worker in the middle of it.
async fn kill(lab: &Lab, beginning: impl Future<Output = Result<Begun>>) -> Result<Begun> {
    let killing = async {
        let begun = beginning.await?;
        let kill = ["stop", "--signal", "KILL", "worker"];
        lab.command(&kill).await?;
        Ok(begun)
    };
    lab.while_stopped("ceph-osd-backups", killing).await
}

/// Has the backup deleted as cinder-api does with the help of another worker, and starts the worker
/// again.
async fn delete_and_start(setup: &Setup, begun: &Begun) -> Result<()> {
    let (backup, deleting) = (&begun.backup, "status = 'deleting'");
    setup.database.change("backups", backup, deleting).await?;
    setup.lab.command(&["start", "worker", "--wait"]).await?;
    setup.cloud.wait_gone(Resource::Backup, backup).await
}

/// A snapshot, of which backups are made with a temporary volume.
struct Snapshot {
    volume: String,
    id: String,
    volumes: Cluster,
    before: Vec<String>,
}

impl Snapshot {
    async fn new(cloud: &Cloud) -> Result<Self> {
        let volume = cloud.create_volume(1).await?;
        let id = cloud.create_snapshot(&volume).await?;
        let volumes = cloud.volumes()?;
        let before = volumes.images("volumes").await?;
        Ok(Self {
            volume,
            id,
            volumes,
            before,
        })
    }

    /// Begins a backup; the temporary volume is there by then, and is attached.
    async fn back_up(&self, lab: &Lab, cloud: &Cloud) -> Result<Begun> {
        let known = lab.connections()?;
        let body = json!({"backup": {"volume_id": self.volume, "snapshot_id": self.id}});
        let backup = cloud.begin_create(Resource::Backup, body).await?;
        self.wait_temporary(true).await?;
        lab.wait_connections(known + 1).await?;
        let target = self.volume.clone();
        Ok(Begun { backup, target })
    }

    /// Waits until the temporary volume is there, or gone.
    async fn wait_temporary(&self, there: bool) -> Result<()> {
        let what = format!("the temporary volume is there: {there}");
        let images = async || self.volumes.images("volumes").await;
        eventually(&what, images, |images| (*images != self.before) == there).await?;
        Ok(())
    }

    /// Deletes it, once the temporary volume is gone: that is a clone, for which it would have to stay.
    async fn delete(self, cloud: &Cloud) -> Result<()> {
        self.wait_temporary(false).await?;
        cloud.delete(Resource::Snapshot, &self.id).await?;
        cloud.delete(Resource::Volume, &self.volume).await
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
        let begun = "Restore backup started";
        setup.lab.wait_logged(&backup, begun).await?;
        Ok(Begun { backup, target })
    };
    let begun = kill(&setup.lab, restoring).await?;
    delete_and_start(&setup, &begun).await?;
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
    let snapshot = Snapshot::new(cloud).await?;
    let begun = kill(&setup.lab, snapshot.back_up(&setup.lab, cloud)).await?;
    delete_and_start(&setup, &begun).await?;
    snapshot.delete(cloud).await
}

#[tokio::test]
async fn a_snapshots_backup_without_data_fails_and_gives_all_back() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let snapshot = Snapshot::new(cloud).await?;
    // It could not note either that cinder-volume had answered.
    let begun = kill(&setup.lab, snapshot.back_up(&setup.lab, cloud)).await?;
    let start = ["start", "worker", "--wait"];
    setup.lab.command(&start).await?;
    let reason = cloud.wait_failed(&begun.backup).await?;
    ensure!(
        reason == "incomplete backup reset on manager restart",
        "{reason}"
    );
    cloud
        .wait(Resource::Snapshot, &snapshot.id, "available")
        .await?;
    cloud.delete(Resource::Backup, &begun.backup).await?;
    snapshot.delete(cloud).await
}
