//! What an operator limits, changes while the worker runs, and pauses.

use std::time::Duration;

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Lab, Reconfigured, Resource, image};
use tokio::time::sleep;

const MIB: u64 = 1 << 20;

/// Two megabytes a second: a backup of [`DATA`] takes longer than a test waits.
const OPTIONS: &str = "
[DEFAULT]
backup_max_operations = 2
[cinderblock]
max_operations_per_project = 1
backup_bandwidth = 2097152
";

const FASTER: &str = "
[DEFAULT]
backup_max_operations = 2
[cinderblock]
max_operations_per_project = 2
";

/// Megabytes.
const DATA: usize = 700;

async fn status(cloud: &Cloud, backup: &str) -> Result<String> {
    let shown = cloud.show(Resource::Backup, backup).await?;
    let status = shown.and_then(|it| it["status"].as_str().map(str::to_owned));
    Ok(status.unwrap_or_default())
}

#[tokio::test]
async fn projects_share_transfers_rest_and_limits_change_while_they_run() -> Result<()> {
    let lab = Lab::from_env()?;
    let worker = Reconfigured::worker(&lab, OPTIONS).await?;
    let one = Cloud::login(&lab, "demo").await?;
    let other = Cloud::login(&lab, "admin").await?;
    let (volumes, backups) = (one.volumes()?, one.backups()?);
    let large = one.volume_with_data(DATA).await?;
    let next = one.create_volume(1).await?;
    let small = other.create_volume(1).await?;
    volumes.write(&image(&small), 0, b"little").await?;

    // A project's second backup waits, although there is room: that is for others.
    let first = one.begin_backup(&large, false).await?;
    let base = format!("backups/volume-{large}.backup.{first}");
    backups.wait_used(&base, 4 * MIB).await?;
    let second = one.begin_backup(&next, false).await?;
    lab.wait_logged(&second, "Waiting until another operation has ended")
        .await?;
    lab.wait_phase(&second, "waiting_for_room").await?;
    let others = other.back_up(&small, false).await?;
    ensure!(status(&one, &first).await? == "creating");
    ensure!(status(&one, &second).await? == "creating");

    lab.signal("worker", "TSTP").await?;
    lab.wait_logged("Transfers", "Transfers rest until the signal CONT arrives")
        .await?;
    // What was under way comes to its end.
    lab.wait_phase(&first, "paused").await?;
    sleep(Duration::from_secs(1)).await;
    let held = backups.used(&base).await?;
    sleep(Duration::from_secs(6)).await;
    ensure!(backups.used(&base).await? == held);
    lab.signal("worker", "CONT").await?;
    backups.wait_used(&base, held + 4 * MIB).await?;

    worker.rewrite(FASTER)?;
    lab.signal("worker", "HUP").await?;
    for backup in [&first, &second] {
        one.wait(Resource::Backup, backup, "available").await?;
    }
    for (cloud, backup) in [(&one, &first), (&one, &second), (&other, &others)] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for (cloud, volume) in [(&one, &large), (&one, &next), (&other, &small)] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    worker.restore().await
}
