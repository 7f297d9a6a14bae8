//! Other pools than the usual one: that of the volumes, and one that does not exist.

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Lab, Reconfigured, Resource};
use serde_json::json;
use tokio::sync::Mutex;

/// Each of these tests restarts the worker.
static ALONE: Mutex<()> = Mutex::const_new(());

const SHARED: &str = "[DEFAULT]
backup_ceph_conf = /etc/ceph/ceph.conf
backup_ceph_user = cinder
backup_ceph_pool = volumes
";

#[tokio::test]
async fn volumes_and_backups_share_a_pool() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let ceph = cloud.volumes()?;
    let other = Reconfigured::worker(&lab, SHARED).await?;

    let volume = cloud.create_volume(1).await?;
    let image = format!("volumes/volume-{volume}");
    let mut made = Vec::new();
    for turn in [1, 2] {
        ceph.write(&image, 0, &[turn; 5000]).await?;
        let content = ceph.content(&image).await?;
        made.push((cloud.back_up(&volume, turn > 1).await?, content));
    }
    let base = format!("volume-{volume}.backup.{}", made[0].0);
    ensure!(ceph.images("volumes").await?.contains(&base));
    for (backup, content) in &made {
        let restored = cloud.restore(backup, None).await?;
        let found = ceph.content(&format!("volumes/volume-{restored}")).await?;
        ensure!(&found == content, "{backup} is restored as something else");
    }
    for (backup, _) in made.iter().rev() {
        cloud.delete(Resource::Backup, backup).await?;
    }
    ensure!(!ceph.images("volumes").await?.contains(&base));
    ensure!(ceph.snapshots(&image).await?.is_empty());
    cloud.delete(Resource::Volume, &volume).await?;
    other.restore().await
}

#[tokio::test]
async fn a_pool_that_does_not_exist_is_named() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let allowing = "[cinderblock]\nallowed_containers = ghost\n";
    let other = Reconfigured::worker(&lab, allowing).await?;
    let body = json!({"backup": {"volume_id": volume, "container": "ghost"}});
    let backup = cloud.begin_create(Resource::Backup, body).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(reason.contains("cannot open pool ghost"), "{reason}");
    cloud.wait(Resource::Volume, &volume, "available").await?;
    let image = format!("volumes/volume-{volume}");
    ensure!(cloud.volumes()?.snapshots(&image).await?.is_empty());
    cloud.delete(Resource::Backup, &backup).await?;
    other.restore().await
}

#[tokio::test]
async fn nothing_is_scheduled_to_a_worker_without_its_pool() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let missing = "[DEFAULT]\nbackup_ceph_pool = ghost\n";
    let other = Reconfigured::broken_worker(&lab, missing).await?;
    let body = json!({"backup": {"volume_id": volume}});
    let backup = cloud.begin_create(Resource::Backup, body).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(reason.contains("Service not found"), "{reason}");
    cloud.wait(Resource::Volume, &volume, "available").await?;
    // With its pool it is given work again.
    other.restore().await?;
    let next = cloud.back_up(&volume, false).await?;
    for backup in [&next, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    Ok(())
}
