//! Options of the operator's: what the images look like, and how many operations run.

use anyhow::{Result, ensure};
use cinderblock_tests::{Chain, Lab, Reconfigured, Resource};
use serde_json::Value;
use tokio::sync::Mutex;

/// Each of these tests restarts the worker.
static ALONE: Mutex<()> = Mutex::const_new(());

const UNUSUAL: &str = "[DEFAULT]
backup_ceph_stripe_unit = 65536
backup_ceph_stripe_count = 4
backup_ceph_image_journals = true
backup_ceph_max_snapshots = 2
backup_metadata_version = 1
";

#[tokio::test]
async fn images_and_snapshots_are_as_configured() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let mut chain = Chain::begin(1).await?;
    let other = Reconfigured::worker(&lab, UNUSUAL).await?;

    for turn in 1..=4 {
        chain
            .write(u64::from(turn) * 100_000, turn, 3_000_000)
            .await?;
        chain.back_up(turn > 1).await?;
        let kept = chain.volumes.snapshots(&chain.image()).await?;
        ensure!(kept.len() == usize::from(turn).min(2), "{kept:?}");
    }
    let base = chain.base_image().await?.unwrap_or_default();
    let path = format!("backups/{base}");
    let info = chain
        .backups
        .rbd(&["info", &path, "--format", "json"])
        .await?;
    let info: Value = serde_json::from_str(&info)?;
    ensure!(
        info["stripe_unit"] == 65536 && info["stripe_count"] == 4,
        "{info}"
    );
    let features = info["features"].to_string();
    ensure!(features.contains("journaling"), "{features}");
    let object = format!("backup.{}.meta", chain.made[0].0);
    let object = chain
        .backups
        .rados(&["-p", "backups", "get", &object, "-"])
        .await?;
    let object: Value = serde_json::from_str(&object)?;
    ensure!(object["version"] == 2, "{object}");
    let warned = "backup_metadata_version";
    ensure!(
        lab.logged(warned)?
            .iter()
            .any(|line| line.contains(" WARNING "))
    );

    chain.verify().await?;
    for (backup, _) in chain.made.clone().iter().rev() {
        chain.delete(backup).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    chain.cloud.delete(Resource::Volume, &chain.volume).await?;
    other.restore().await
}

#[tokio::test]
async fn no_more_operations_run_at_once_than_configured() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let chain = Chain::begin(1).await?;
    let cloud = &chain.cloud;
    let standing = cloud.back_up(&chain.volume, false).await?;
    let another = cloud.create_volume(1).await?;
    let target = cloud.create_volume(1).await?;
    let limited = Reconfigured::worker(&lab, "[DEFAULT]\nbackup_max_operations = 1\n").await?;

    let waiting = "Waiting until another operation has ended";
    let begun = async {
        let known = lab.connections()?;
        cloud.begin_restore(&standing, Some(&target)).await?;
        // By then it has taken the room.
        lab.wait_connections(known + 1).await?;
        let backup = cloud.begin_backup(&another, false).await?;
        lab.wait_logged(&backup, waiting).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("ceph-osd-volumes", begun).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    cloud.wait(Resource::Volume, &target, "available").await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    let restored = lab.logged(&standing)?;
    ensure!(restored.iter().all(|line| !line.contains(waiting)));

    for backup in [&standing, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in [&target, &another, &chain.volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    limited.restore().await
}
