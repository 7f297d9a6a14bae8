//! Operations that are called off through Cinder's API: nothing is left of them.
//!
//! Where an operation has to be caught in its middle, the cluster of the backups is stopped.

use std::time::Duration;

use anyhow::{Result, ensure};
use cinderblock_tests::{Broker, Cloud, Resource, Setup, eventually, image};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests stops what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Asks for a backup, and returns when the worker has taken it on.
async fn begin(cloud: &Cloud, volume: &str) -> Result<String> {
    let backup = cloud.begin_backup(volume, false).await?;
    let shown = async || cloud.show(Resource::Backup, &backup).await;
    eventually("the backup is taken on", shown, |shown| {
        shown
            .as_ref()
            .is_some_and(|shown| shown["container"].is_string())
    })
    .await?;
    Ok(backup)
}

/// The same, when it is about to move data.
async fn begin_to_move(setup: &Setup, volume: &str) -> Result<String> {
    let known = setup.lab.connections()?;
    let backup = setup.cloud.begin_backup(volume, false).await?;
    setup.lab.wait_connections(known + 1).await?;
    Ok(backup)
}

/// Does something while the backups' cluster does not answer.
async fn while_stopped<T>(setup: &Setup, doing: impl Future<Output = Result<T>>) -> Result<T> {
    setup.lab.while_stopped("ceph-osd-backups", doing).await
}

async fn force_delete(admin: &Cloud, backup: &str) -> Result<()> {
    let forced = json!({"os-force_delete": {}});
    admin.action(Resource::Backup, backup, forced).await
}

/// What somebody asked for is no failure.
async fn nobody_is_told(setup: &Setup, backup: &str) -> Result<()> {
    // It would come a moment after the status.
    sleep(Duration::from_secs(1)).await;
    let told = setup.cloud.messages(backup).await?;
    ensure!(told.is_empty(), "{told:?}");
    let lines = setup.lab.logged(backup)?;
    ensure!(
        !lines.iter().any(|line| line.contains(" ERROR ")),
        "{lines:?}"
    );
    Ok(())
}

/// The volume can be used again, and neither pool holds anything of its backups.
async fn nothing_is_left(cloud: &Cloud, volume: &str) -> Result<()> {
    let (volumes, backups) = (cloud.volumes()?, cloud.backups()?);
    cloud.wait(Resource::Volume, volume, "available").await?;
    let snapshots = volumes.snapshots(&image(volume)).await?;
    ensure!(snapshots.is_empty(), "{snapshots:?}");
    let left = backups.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(volume)), "{left:?}");
    cloud.delete(Resource::Volume, volume).await
}

#[tokio::test]
async fn a_backup_is_deleted_by_force_while_it_is_made() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(1).await?;
    let deleting = async {
        let backup = begin_to_move(&setup, &volume).await?;
        force_delete(&setup.admin, &backup).await?;
        Ok(backup)
    };
    let backup = while_stopped(&setup, deleting).await?;
    cloud.wait_gone(Resource::Backup, &backup).await?;
    nothing_is_left(cloud, &volume).await
}

#[tokio::test]
async fn a_backup_is_deleted_by_force_before_cinder_volume_has_answered() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(1).await?;
    setup.lab.command(&["stop", "cinder-volume"]).await?;
    let backup = begin(cloud, &volume).await?;
    force_delete(&setup.admin, &backup).await?;
    cloud.wait_gone(Resource::Backup, &backup).await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    let start = ["start", "cinder-volume", "--wait"];
    setup.lab.command(&start).await?;
    let broker = Broker::connect(&setup.lab).await?;
    broker.wait_consumed("cinder-volume").await?;
    nothing_is_left(cloud, &volume).await
}

#[tokio::test]
async fn a_backup_that_is_reset_while_it_is_made_ends_there() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(1).await?;
    let resetting = async {
        let backup = begin_to_move(&setup, &volume).await?;
        setup
            .admin
            .reset(Resource::Backup, &backup, "error")
            .await?;
        Ok(backup)
    };
    let backup = while_stopped(&setup, resetting).await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    cloud.wait_failed(&backup).await?;
    nobody_is_told(&setup, &backup).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    nothing_is_left(cloud, &volume).await
}

#[tokio::test]
async fn a_delete_waits_for_the_end_of_the_transfer() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(128).await?;
    let volumes = cloud.volumes()?;
    volumes.slow_down(&image(&volume), 6 << 20).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    let snapshots = async || volumes.snapshots(&image(&volume)).await;
    eventually("a snapshot", snapshots, |snapshots| !snapshots.is_empty()).await?;
    let deleting = async {
        force_delete(&setup.admin, &backup).await?;
        // Longer than it would take if it did not wait.
        sleep(Duration::from_secs(3)).await;
        ensure!(cloud.status(Resource::Backup, &backup).await? == "deleting");
        Ok(())
    };
    while_stopped(&setup, deleting).await?;
    cloud.wait_gone(Resource::Backup, &backup).await?;
    nothing_is_left(cloud, &volume).await
}

#[tokio::test]
async fn a_status_that_another_worker_changes_ends_the_transfer() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(1).await?;
    let changing = async {
        let backup = begin_to_move(&setup, &volume).await?;
        // As cinder-api does before it sends the deletion to whichever worker is up.
        let deleting = "status = 'deleting'";
        setup.database.change("backups", &backup, deleting).await?;
        Ok(backup)
    };
    let backup = while_stopped(&setup, changing).await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    ensure!(cloud.status(Resource::Backup, &backup).await? == "deleting");
    setup
        .admin
        .reset(Resource::Backup, &backup, "error")
        .await?;
    cloud.delete(Resource::Backup, &backup).await?;
    nothing_is_left(cloud, &volume).await
}

#[tokio::test]
async fn a_restore_ends_when_its_backup_is_reset() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(1).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let resetting = async {
        let target = cloud.begin_restore(&backup, None).await?;
        let begun = "Restore backup started";
        setup.lab.wait_logged(&backup, begun).await?;
        setup
            .admin
            .reset(Resource::Backup, &backup, "available")
            .await?;
        Ok(target)
    };
    let target = while_stopped(&setup, resetting).await?;
    cloud
        .wait(Resource::Volume, &target, "error_restoring")
        .await?;
    nobody_is_told(&setup, &backup).await?;
    let restored = cloud.restore(&backup, None).await?;
    for volume in [&target, &restored] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    cloud.delete(Resource::Backup, &backup).await?;
    nothing_is_left(cloud, &volume).await
}

#[tokio::test]
async fn a_volume_stays_held_when_an_older_backup_of_a_lost_snapshot_goes() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(1).await?;
    let snapshot = cloud.create_snapshot(&volume).await?;
    let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
    let older = cloud.create(Resource::Backup, body).await?;
    cloud.delete(Resource::Snapshot, &snapshot).await?;

    let deleting = async {
        let backup = begin(cloud, &volume).await?;
        cloud.delete(Resource::Backup, &older).await?;
        ensure!(cloud.status(Resource::Volume, &volume).await? == "backing-up");
        Ok(backup)
    };
    let hanging = "ceph-osd-volumes";
    let backup = setup.lab.while_stopped(hanging, deleting).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    cloud.delete(Resource::Backup, &backup).await?;
    nothing_is_left(cloud, &volume).await
}
