//! What others do while data is moved: the backup that is complete stands, and the worker goes on
//! answering.
//!
//! A cluster is stopped, so that everything is met in its middle.

use std::env::temp_dir;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{
    Broker, Cloud, Cluster, Database, Lab, Reconfigured, Resource, Setup, eventually, image,
};
use serde_json::json;
use tokio::sync::Mutex;

/// Each of these tests stops what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits until the user is told this, and nothing else.
async fn wait_told(cloud: &Cloud, backup: &str, message: &str) -> Result<()> {
    let messages = async || cloud.messages(backup).await;
    let wanted = [format!("\"{message}\"")];
    eventually(message, messages, |told| *told == wanted).await?;
    Ok(())
}

/// How often the worker has told that it lives.
async fn report_count(database: &Database) -> Result<u64> {
    let select = "SELECT report_count FROM services \
                  WHERE `binary` = 'cinder-backup' AND deleted = 0";
    let rows = database.rows(select).await?;
    let count = rows.first().and_then(|row| row["report_count"].as_str());
    Ok(count.context("the worker has no row")?.parse()?)
}

#[tokio::test]
async fn a_volume_that_does_not_let_go_or_is_deleted_costs_no_backup() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let impatient = Reconfigured::worker(lab, "[DEFAULT]\nrpc_response_timeout = 15\n").await?;
    let mut volumes = Vec::new();
    for _ in 0..3 {
        volumes.push(setup.cloud.volume_with_data(1).await?);
    }
    let [held, deleted, source] = [&volumes[0], &volumes[1], &volumes[2]];
    let standing = cloud.back_up(source, false).await?;
    let target = cloud.create_volume(1).await?;
    // Before: the scheduler places nothing on a cinder-volume that was away for long.
    let restored = cloud.create_volume(1).await?;

    let changing = async {
        let known = lab.connections()?;
        let of_held = cloud.begin_backup(held, false).await?;
        let of_deleted = cloud.begin_backup(deleted, false).await?;
        cloud.begin_restore(&standing, Some(&target)).await?;
        lab.wait_connections(known + 3).await?;
        let gone = "deleted = 1, status = 'deleted'";
        setup.database.change("volumes", deleted, gone).await?;
        lab.signal("cinder-volume", "STOP").await?;
        Ok((of_held, of_deleted))
    };
    let (of_held, of_deleted) = lab.while_stopped("ceph-osd-volumes", changing).await?;
    cloud.volumes()?.wait_answers("volumes").await?;

    for backup in [&of_held, &of_deleted, &standing] {
        cloud.wait(Resource::Backup, backup, "available").await?;
    }
    for volume in [held, &target] {
        cloud.wait(Resource::Volume, volume, "available").await?;
    }
    for (backup, message) in [
        (&of_held, "create backup:Failed to detach volume."),
        (&standing, "restore backup:Failed to detach volume."),
    ] {
        wait_told(cloud, backup, message).await?;
    }
    let late = |line: &String| line.contains("Cannot detach") && line.contains("after 15 s");
    ensure!(lab.logged(&of_held)?.iter().any(late));
    lab.signal("cinder-volume", "CONT").await?;

    cloud.restore(&of_deleted, Some(&restored)).await?;
    let there = "deleted = 0, status = 'available'";
    setup.database.change("volumes", deleted, there).await?;
    let clusters = cloud.volumes()?;
    let content = async |volume: &str| clusters.content(&image(volume)).await;
    for volume in [&restored, &target] {
        ensure!(content(volume).await? == content(deleted).await?);
    }
    for backup in [&of_held, &of_deleted, &standing] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in volumes.iter().chain([&restored, &target]) {
        cloud.delete(Resource::Volume, volume).await?;
    }
    impatient.restore().await
}

#[tokio::test]
async fn what_cannot_be_cleaned_up_costs_no_backup() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = setup.cloud.volume_with_data(1).await?;
    let lab = &setup.lab;
    let changing = async {
        let known = lab.connections()?;
        let backup = cloud.begin_backup(&volume, false).await?;
        lab.wait_connections(known + 1).await?;
        let unknown = "temp_volume_id = 'no id of a volume'";
        setup.database.change("backups", &backup, unknown).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("ceph-osd-backups", changing).await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    let message = "create backup:Cleanup of temporary volume/snapshot failed.";
    wait_told(cloud, &backup, message).await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn the_worker_lives_and_answers_while_data_stands_still() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let pinging = Reconfigured::worker(lab, "[DEFAULT]\nrpc_ping_enabled = true\n").await?;
    let broker = Broker::connect(lab).await?;
    let mut volumes = Vec::new();
    for _ in 0..6 {
        volumes.push(setup.cloud.volume_with_data(1).await?);
    }
    let looking = async {
        let known = lab.connections()?;
        let mut backups = Vec::new();
        for volume in &volumes {
            backups.push(cloud.begin_backup(volume, false).await?);
        }
        lab.wait_connections(known + volumes.len()).await?;
        let count = async || report_count(&setup.database).await;
        let before = count().await?;
        eventually("two reports", count, |count| *count >= before + 2).await?;
        let pong = broker
            .ask_worker("oslo_rpc_server_ping", "1.0", json!({}))
            .await?;
        ensure!(pong == json!("pong"), "{pong}");
        no_key_of_ceph_on_disk(lab).await?;
        Ok(backups)
    };
    // Without the backups' cluster it would say after a while that it cannot work.
    let backups = lab.while_stopped("ceph-osd-volumes", looking).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    for (backup, volume) in backups.iter().zip(&volumes) {
        cloud.wait(Resource::Backup, backup, "available").await?;
        cloud.delete(Resource::Backup, backup).await?;
        cloud.delete(Resource::Volume, volume).await?;
    }
    pinging.restore().await
}

/// Python's worker keeps the key of the volumes' user in a temporary file while a volume is attached.
async fn no_key_of_ceph_on_disk(lab: &Lab) -> Result<()> {
    let volumes = Cluster::volumes(lab)?;
    let print = ["auth", "print-key", "client.cinder"];
    let key = volumes.ceph(&print).await?;
    let folder = PathBuf::from(lab.variable("LAB_DIR")?);
    for folder in [temp_dir(), folder.join("run"), folder.join("log")] {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            // Those of the other services are none of ours.
            if !path.is_file() || path.extension().is_some_and(|end| end == "log") {
                continue;
            }
            // It may be gone by now.
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            ensure!(!text.contains(key.trim()), "the key is in {path:?}");
        }
    }
    ensure!(lab.logged(key.trim())?.is_empty(), "the key is in the log");
    Ok(())
}
