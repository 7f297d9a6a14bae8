//! How far a backup is, as Cinder's API, the log and notifications tell.

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Lab, Reconfigured, Resource, eventually, image};

const OBJECTS: usize = 40;

const OPTIONS: &str = "
[DEFAULT]
backup_timer_interval = 1
[oslo_messaging_notifications]
driver = log
";

async fn object_count(cloud: &Cloud, backup: &str) -> Result<u64> {
    let shown = cloud.show(Resource::Backup, backup).await?;
    let count = shown.and_then(|backup| backup["object_count"].as_u64());
    Ok(count.unwrap_or_default())
}

#[tokio::test]
async fn it_is_told_while_objects_are_copied() -> Result<()> {
    let lab = Lab::from_env()?;
    let worker = Reconfigured::worker(&lab, OPTIONS).await?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.volume_with_data(OBJECTS * 4).await?;
    let (volumes, image) = (cloud.volumes()?, image(&volume));

    volumes.slow_down(&image, 6 << 20).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    let base = format!("backups/volume-{volume}.backup.{backup}");
    let backups = cloud.backups()?;
    backups.wait_used(&base, 4 << 20).await?;
    // In the middle of it.
    let looking = async {
        let counted = async || object_count(&cloud, &backup).await;
        eventually("objects are counted", counted, |count| *count > 0).await
    };
    let halfway = lab.while_stopped("ceph-osd-backups", looking).await?;
    let shown = cloud.wait(Resource::Backup, &backup, "available").await?;
    ensure!(shown["object_count"] == OBJECTS, "{shown}");
    ensure!(0 < halfway && halfway < OBJECTS as u64, "{halfway}");

    let logged = lab.logged(&backup)?;
    let progress = |line: &&String| line.contains("backup.createprogress");
    let told: Vec<&String> = logged.iter().filter(progress).collect();
    ensure!(!told.is_empty(), "{logged:?}");
    ensure!(
        told.iter().all(|line| line.contains("\"backup_percent\"")),
        "{told:?}"
    );
    let rate = |line: &String| line.contains("of the data is dealt with, at");
    ensure!(logged.iter().any(rate), "{logged:?}");

    // An incremental counts what it has copied itself.
    volumes.write(&image, 0, &vec![0x78; 2 << 20]).await?;
    let incremental = cloud.back_up(&volume, true).await?;
    ensure!(object_count(&cloud, &incremental).await? == 1);
    for backup in [&incremental, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Volume, &volume).await?;
    worker.restore().await
}
