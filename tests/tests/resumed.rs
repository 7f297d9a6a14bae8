//! Operations in the middle of which the worker is killed: the next start goes on with them.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cloud, Lab, Reconfigured, Resource, Setup, eventually, image};
use serde_json::json;
use tokio::sync::Mutex;

/// Each of these tests kills the worker that the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1 << 20;

/// So slowly that it is met in the middle.
const SLOWLY: &str = "
[cinderblock]
backup_bandwidth = 4194304
restore_bandwidth = 4194304
checkpoint_interval = 1
";

/// A volume of which no two blocks are the same.
async fn volume(cloud: &Cloud) -> Result<String> {
    let volume = cloud.create_volume(1).await?;
    let numbers = (0..(48 * MIB / 8)).flat_map(|number: u64| number.to_be_bytes());
    let data: Vec<u8> = numbers.collect();
    cloud.volumes()?.write(&image(&volume), 0, &data).await?;
    Ok(volume)
}

async fn kill(lab: &Lab) -> Result<()> {
    let kill = ["stop", "--signal", "KILL", "worker"];
    lab.command(&kill).await.map(drop)
}

/// Starts it again, and lets it work as fast as it can.
async fn start(worker: &Reconfigured, lab: &Lab) -> Result<()> {
    worker.rewrite("")?;
    lab.command(&["start", "worker", "--wait"]).await.map(drop)
}

/// How many bytes of a backup were there when it was made.
fn kept(lab: &Lab, backup: &str) -> Result<u64> {
    let lines = lab.logged(backup)?;
    let stored = lines
        .iter()
        .rfind(|line| line.contains("Stored the volume's data"));
    let stored = stored.context("nothing was stored")?;
    let (_, rest) = stored.split_once("bytes_unchanged=").context("no bytes")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

async fn ensure_same(cloud: &Cloud, one: &str, other: &str) -> Result<()> {
    let volumes = cloud.volumes()?;
    let (one, other) = (image(one), image(other));
    let (one, other) = (volumes.content(&one).await?, volumes.content(&other).await?);
    ensure!(one == other, "the volumes differ");
    Ok(())
}

#[tokio::test]
async fn a_backup_goes_on_from_what_is_safe() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let worker = Reconfigured::worker(lab, SLOWLY).await?;
    let volume = volume(cloud).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    cloud.wait_noted(&backup).await?;
    kill(lab).await?;
    ensure!(cloud.status(Resource::Backup, &backup).await? == "creating");
    // It is the volume at the moment of its snapshot.
    let before = cloud.volumes()?.content(&image(&volume)).await?;
    let newer = vec![0xA5; 4 << 20];
    cloud.volumes()?.write(&image(&volume), 0, &newer).await?;
    start(&worker, lab).await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    lab.wait_logged(&backup, "Going on with the backup").await?;
    let kept = kept(lab, &backup)?;
    ensure!(kept >= MIB, "{kept} bytes were kept");
    let restored = cloud.restore(&backup, None).await?;
    let after = cloud.volumes()?.content(&image(&restored)).await?;
    ensure!(after == before, "the backup is not the volume as it was");
    let next = cloud.back_up(&volume, true).await?;
    let again = cloud.restore(&next, None).await?;
    ensure_same(cloud, &volume, &again).await?;
    for backup in [&next, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in [&volume, &restored, &again] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    worker.restore().await
}

#[tokio::test]
async fn a_backup_of_a_snapshot_goes_on_with_its_temporary_volume() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let worker = Reconfigured::worker(lab, SLOWLY).await?;
    let volume = volume(cloud).await?;
    let snapshot = cloud.create_snapshot(&volume).await?;
    let images = cloud.volumes()?.images("volumes").await?;
    let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
    let backup = cloud.begin_create(Resource::Backup, body).await?;
    cloud.wait_noted(&backup).await?;
    kill(lab).await?;
    start(&worker, lab).await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    cloud
        .wait(Resource::Snapshot, &snapshot, "available")
        .await?;
    let kept = kept(lab, &backup)?;
    ensure!(kept >= MIB, "{kept} bytes were kept");
    let volumes = cloud.volumes()?;
    let left = async || volumes.images("volumes").await;
    eventually("the temporary volume is gone", left, |left| *left == images).await?;
    let restored = cloud.restore(&backup, None).await?;
    ensure_same(cloud, &volume, &restored).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Snapshot, &snapshot).await?;
    for volume in [&volume, &restored] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    worker.restore().await
}

#[tokio::test]
async fn a_restore_goes_on() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = volume(cloud).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let worker = Reconfigured::worker(lab, SLOWLY).await?;
    let target = cloud.begin_restore(&backup, None).await?;
    cloud.volumes()?.wait_used(&image(&target), 4 * MIB).await?;
    kill(lab).await?;
    // Another volume was to be made of the backup, too, and is there already.
    let other = format!("restore_volume_id = '{volume}'");
    setup.database.change("backups", &backup, &other).await?;
    start(&worker, lab).await?;
    cloud.wait(Resource::Volume, &target, "available").await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    lab.wait_logged(&backup, "Going on with the restore")
        .await?;
    ensure!(cloud.status(Resource::Volume, &volume).await? == "available");
    let lines = lab.logged(&target)?;
    let restored = lines
        .iter()
        .rfind(|line| line.contains("Restored the volume's data"));
    let restored = restored.context("nothing was restored")?;
    let whole = format!("bytes_written={}", 48 * MIB);
    ensure!(
        !restored.contains(&whole),
        "all was written again: {restored}"
    );
    ensure_same(cloud, &volume, &target).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    for volume in [&volume, &target] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    worker.restore().await
}

#[tokio::test]
async fn a_backup_at_which_workers_die_is_given_up() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let worker = Reconfigured::worker(lab, SLOWLY).await?;
    let volume = volume(cloud).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    cloud.wait_noted(&backup).await?;
    kill(lab).await?;
    // As if ten had died before it was taken over.
    let (backups, owner) = (cloud.backups()?, format!("backup.{backup}.owner"));
    let mut record = backups.json("backups", &owner).await?;
    ensure!(record["died"] == 0, "{record}");
    record["died"] = json!(10);
    backups.put_json("backups", &owner, &record).await?;
    start(&worker, lab).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(
        reason == "incomplete backup reset on manager restart",
        "{reason}"
    );
    cloud.wait(Resource::Volume, &volume, "available").await?;
    cloud.delete(Resource::Backup, &backup).await?;
    let left = backups.rados(&["-p", "backups", "ls"]).await?;
    ensure!(!left.contains(&backup), "{left}");
    cloud.delete(Resource::Volume, &volume).await?;
    worker.restore().await
}

#[tokio::test]
async fn a_backup_whose_volume_was_set_free_is_given_up() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let worker = Reconfigured::worker(lab, SLOWLY).await?;
    let volume = volume(cloud).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    cloud.wait_noted(&backup).await?;
    kill(lab).await?;
    setup
        .admin
        .reset(Resource::Volume, &volume, "available")
        .await?;
    start(&worker, lab).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(reason.contains("no longer being backed up"), "{reason}");
    ensure!(cloud.status(Resource::Volume, &volume).await? == "available");
    cloud.delete(Resource::Backup, &backup).await?;
    let left = cloud.backups()?.rados(&["-p", "backups", "ls"]).await?;
    ensure!(!left.contains(&backup), "{left}");
    cloud.delete(Resource::Volume, &volume).await?;
    worker.restore().await
}
