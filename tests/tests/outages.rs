//! Services that are away: what waits for them ends with a reason, and goes on when they are back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Broker, Cloud, Lab, Reconfigured, Resource, run};
use reqwest::Method;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests stops what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn a_backup_fails_when_cinder_volume_does_not_answer() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let impatient = Reconfigured::worker(&lab, "[cinderblock]\ncontinue_timeout = 3\n").await?;
    lab.command(&["stop", "cinder-volume"]).await?;

    let body = json!({"backup": {"volume_id": volume}});
    let backup = cloud.begin_create(Resource::Backup, body).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(
        reason.contains("cinder-volume did not answer within 3 s"),
        "{reason}"
    );
    cloud.wait(Resource::Volume, &volume, "available").await?;

    // Its answer comes late, to a backup that has failed, which stays so.
    lab.command(&["start", "cinder-volume", "--wait"]).await?;
    let broker = Broker::connect(&lab).await?;
    consumed(&broker, "cinder-volume").await?;
    let next = cloud.back_up(&volume, false).await?;
    cloud.wait_failed(&backup).await?;
    for backup in [&next, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    impatient.restore().await
}

async fn consumed(broker: &Broker, queue: &str) -> Result<()> {
    for _ in 0..600 {
        if broker.is_consumed(queue).await? {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("nobody consumes {queue}")
}

/// Sends a signal to a part of the lab.
async fn signal(lab: &Lab, part: &str, signal: &str) -> Result<()> {
    let status = lab.command(&["status"]).await?;
    let pid = status
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find_map(|words| (words.first() == Some(&part)).then(|| words.get(2).copied())?)
        .with_context(|| format!("no {part} in\n{status}"))?;
    run(Command::new("kill").args([&format!("-{signal}"), pid])).await?;
    Ok(())
}

#[tokio::test]
async fn a_backup_that_is_deleted_while_it_is_made_is_gone() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let admin = Cloud::login(&lab, "admin").await?;
    let (volumes, backups) = (cloud.volumes()?, cloud.backups()?);
    let volume = cloud.create_volume(1).await?;
    let image = format!("volumes/volume-{volume}");
    volumes.write(&image, 0, &vec![0x5A; 400 << 20]).await?;

    let body = json!({"backup": {"volume_id": volume}});
    let backup = cloud.begin_create(Resource::Backup, body).await?;
    while volumes.snapshots(&image).await?.is_empty() {
        sleep(Duration::from_millis(50)).await;
    }
    // The backups' cluster does not answer any more, in the middle of the transfer.
    signal(&lab, "ceph-osd-backups", "STOP").await?;
    let reset = json!({"os-reset_status": {"status": "error"}});
    let asked = async {
        admin.action(Resource::Backup, &backup, reset).await?;
        cloud.wait_failed(&backup).await?;
        let path = format!("/backups/{backup}");
        let (status, answer) = cloud.request(Method::DELETE, &path, None).await?;
        ensure!(status.is_success(), "{answer}");
        // Longer than the deletion would take if it did not wait for the transfer.
        sleep(Duration::from_secs(2)).await;
        let shown = cloud.show(Resource::Backup, &backup).await?;
        ensure!(shown.is_some_and(|shown| shown["status"] == "deleting"));
        Ok(())
    };
    let asked = asked.await;
    signal(&lab, "ceph-osd-backups", "CONT").await?;
    asked?;

    cloud.wait_gone(Resource::Backup, &backup).await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    ensure!(volumes.snapshots(&image).await?.is_empty());
    let left = backups.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn work_goes_on_when_broker_and_database_are_back() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let full = cloud.back_up(&volume, false).await?;

    for part in ["mariadb", "rabbitmq"] {
        lab.command(&["restart", part, "--wait"]).await?;
    }
    let broker = Broker::connect(&lab).await?;
    let worker = format!("cinder-backup.{}", lab.variable("LAB_WORKER_HOST")?);
    for queue in [
        &worker,
        "cinder-backup",
        "cinder-scheduler",
        "cinder-volume",
    ] {
        consumed(&broker, queue).await?;
    }
    let incremental = cloud.back_up(&volume, true).await?;
    for backup in [&incremental, &full] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    Ok(())
}
