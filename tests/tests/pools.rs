//! Other pools than the usual one: that of the volumes, and one that does not exist.

use std::time::Duration;

use anyhow::{Result, ensure};
use cinderblock_tests::{
    Broker, Cloud, Database, Lab, Reconfigured, Resource, backup_object, eventually, image,
};
use reqwest::Method;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests restarts the worker.
static ALONE: Mutex<()> = Mutex::const_new(());

const SHARED: &str = "[DEFAULT]
backup_ceph_conf = /etc/ceph/ceph.conf
backup_ceph_user = cinder
backup_ceph_pool = volumes
";

/// How often the scheduler was told that the worker takes no backups.
fn times_withdrawn(lab: &Lab) -> Result<usize> {
    let host = lab.variable("LAB_WORKER_HOST")?;
    let about = format!("Received backup service update from {host}");
    let reports = lab.logged_by("cinder-scheduler", &about)?;
    let withdrawn = |report: &&String| report.contains("'backend_state': False");
    Ok(reports.iter().filter(withdrawn).count())
}

#[tokio::test]
async fn volumes_and_backups_share_a_pool() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let ceph = cloud.volumes()?;
    let other = Reconfigured::worker(&lab, SHARED).await?;

    let volume = cloud.create_volume(1).await?;
    let source = image(&volume);
    let mut made = Vec::new();
    for turn in [1, 2] {
        ceph.write(&source, 0, &[turn; 5000]).await?;
        let content = ceph.content(&source).await?;
        made.push((cloud.back_up(&volume, turn > 1).await?, content));
    }
    let base = format!("volume-{volume}.backup.{}", made[0].0);
    ensure!(ceph.images("volumes").await?.contains(&base));
    for (backup, content) in &made {
        let restored = cloud.restore(backup, None).await?;
        let found = ceph.content(&image(&restored)).await?;
        ensure!(&found == content, "{backup} is restored as something else");
    }
    for (backup, _) in made.iter().rev() {
        cloud.delete(Resource::Backup, backup).await?;
    }
    ensure!(!ceph.images("volumes").await?.contains(&base));
    ensure!(ceph.snapshots(&source).await?.is_empty());
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
    let snapshots = cloud.volumes()?.snapshots(&image(&volume)).await?;
    ensure!(snapshots.is_empty(), "{snapshots:?}");
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
    let known = times_withdrawn(&lab)?;
    let other = Reconfigured::broken_worker(&lab, missing).await?;
    let times = async || times_withdrawn(&lab);
    eventually("the scheduler is told", times, |times| *times > known).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
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

#[tokio::test]
async fn without_its_pool_it_refuses_and_counts_as_down() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let (cloud, database) = (Cloud::login(&lab, "demo").await?, Database::new(&lab)?);
    let broker = Broker::connect(&lab).await?;
    let volume = cloud.create_volume(1).await?;
    let standing = cloud.back_up(&volume, false).await?;
    let second = cloud.back_up(&volume, false).await?;
    let missing = "[DEFAULT]\nbackup_ceph_pool = ghost\nreport_interval = 3\n";
    let other = Reconfigured::broken_worker(&lab, missing).await?;
    broker
        .wait_consumed(&format!(
            "cinder-backup.{}",
            lab.variable("LAB_WORKER_HOST")?
        ))
        .await?;

    let reported = async || {
        let select = "SELECT report_count, updated_at FROM services \
                      WHERE `binary` = 'cinder-backup' AND deleted = 0";
        database.rows(select).await
    };
    let before = reported().await?;
    let path = format!("/backups/{standing}");
    let (status, answer) = cloud.request(Method::DELETE, &path, None).await?;
    ensure!(status.is_success(), "{answer}");
    // As if cinder-scheduler had not heard of it yet.
    let held = "status = 'backing-up', previous_status = 'available'";
    database.change("volumes", &volume, held).await?;
    database
        .change("backups", &second, "status = 'creating'")
        .await?;
    let args = json!({"backup": backup_object(&second)});
    broker.cast_to_worker("create_backup", "2.0", args).await?;
    let told = format!(
        "SELECT event_id FROM messages WHERE resource_uuid IN ('{standing}', '{second}') \
         ORDER BY event_id"
    );
    let messages = async || database.rows(&told).await;
    let messages = eventually("two messages", messages, |messages| messages.len() == 2).await?;
    let events: Vec<&str> = messages
        .iter()
        .filter_map(|message| message["event_id"].as_str())
        .collect();
    let expected = [
        "VOLUME_VOLUME_BACKUP_013_018",
        "VOLUME_VOLUME_BACKUP_014_018",
    ];
    ensure!(events == expected, "{events:?}");
    ensure!(cloud.status(Resource::Backup, &standing).await? == "error_deleting");
    ensure!(cloud.status(Resource::Backup, &second).await? == "error");
    ensure!(cloud.status(Resource::Volume, &volume).await? == "available");
    // Longer than two reports are apart.
    sleep(Duration::from_secs(8)).await;
    ensure!(reported().await? == before, "it reports that it works");

    other.restore().await?;
    for backup in [&second, &standing] {
        database
            .change("backups", backup, "status = 'available'")
            .await?;
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Volume, &volume).await
}
