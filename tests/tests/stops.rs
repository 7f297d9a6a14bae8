//! Signals in the middle of the work: what runs is finished or given up in order, and told.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use cinderblock_tests::{Broker, Reconfigured, Resource, Setup, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests ends the worker that the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

const STOPPING: &str = "Stopping: no new requests are taken";
const STOPPED: &str = "] Stopped";
const LEFT: &str = "Operations still run";
const VERSIONS: &str = "Read the versions of the other services again";

#[tokio::test]
async fn a_stop_in_order_tells_the_scheduler_and_finishes_what_runs() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let broker = Broker::connect(lab).await?;
    let volume = cloud.volume_with_data(1).await?;
    let told = broker.overhear("cinder-scheduler_fanout").await?;
    let (stopping, stopped) = (lab.times_logged(STOPPING)?, lab.times_logged(STOPPED)?);

    let ending = async {
        let known = lab.connections()?;
        let backup = cloud.begin_backup(&volume, false).await?;
        lab.wait_connections(known + 1).await?;
        lab.signal("worker", "USR2").await?;
        lab.wait_logged(&backup, "phase=").await?;
        lab.signal("worker", "TERM").await?;
        lab.wait_logged_again(STOPPING, stopping).await?;
        sleep(Duration::from_secs(3)).await;
        ensure!(cloud.status(Resource::Backup, &backup).await? == "creating");
        ensure!(lab.times_logged(STOPPED)? == stopped, "it does not wait");
        // A backup that is asked for now goes to another worker, or fails with a reason.
        let host = lab.variable("LAB_WORKER_HOST")?;
        let mut last = Value::Null;
        let reported = async || {
            let reports = broker.take(&told).await?;
            let of_host = reports.iter().rfind(|told| told["args"]["host"] == host);
            if let Some(report) = of_host {
                last = report["args"]["capabilities"]["backend_state"].clone();
            }
            Ok(last.clone())
        };
        let withdrawn = |last: &Value| *last == json!(false);
        eventually("the scheduler is told", reported, withdrawn).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("ceph-osd-volumes", ending).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    lab.wait_logged_again(STOPPED, stopped).await?;

    // Its process ends a moment later.
    lab.command(&["stop", "worker"]).await?;
    lab.command(&["start", "worker", "--wait"]).await?;
    let restored = cloud.restore(&backup, None).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    for volume in [&restored, &volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn after_a_second_signal_the_next_start_goes_on_or_cleans_up() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = cloud.volume_with_data(1).await?;
    let lost = cloud.volume_with_data(1).await?;
    let standing = cloud.back_up(&volume, false).await?;
    let target = cloud.create_volume(1).await?;
    let (stopping, left) = (lab.times_logged(STOPPING)?, lab.times_logged(LEFT)?);
    let stopped = lab.times_logged(STOPPED)?;

    let ending = async {
        let known = lab.connections()?;
        let backup = cloud.begin_backup(&volume, false).await?;
        cloud.begin_restore(&standing, Some(&target)).await?;
        lab.wait_connections(known + 2).await?;
        lab.signal("worker", "INT").await?;
        lab.wait_logged_again(STOPPING, stopping).await?;
        ensure!(lab.times_logged(LEFT)? == left, "it does not wait");
        lab.signal("worker", "INT").await?;
        lab.wait_logged_again(LEFT, left).await?;
        // Until then it might complete what the cluster holds up.
        lab.wait_logged_again(STOPPED, stopped).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("ceph-osd-volumes", ending).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    for (what, id, status) in [
        (Resource::Backup, &backup, "creating"),
        (Resource::Backup, &standing, "restoring"),
    ] {
        let found = cloud.status(what, id).await?;
        ensure!(found == status, "{what:?} {id} is {found}");
    }
    // Nobody is there who could take this one on, and its message is lost.
    let request_lost = cloud.begin_backup(&lost, false).await?;
    cloud.wait_failed(&request_lost).await?;
    let host = lab.variable("LAB_WORKER_HOST")?;
    let waiting =
        format!("status = 'creating', service = NULL, fail_reason = NULL, host = '{host}'");
    let database = &setup.database;
    database.change("backups", &request_lost, &waiting).await?;
    let held = "status = 'backing-up', previous_status = 'available'";
    database.change("volumes", &lost, held).await?;

    let impatient = Reconfigured::worker(lab, "[cinderblock]\ncontinue_timeout = 3\n").await?;
    let said = cloud.wait_failed(&request_lost).await?;
    ensure!(
        said == "incomplete backup reset on manager restart",
        "{said}"
    );
    for backup in [&backup, &standing] {
        cloud.wait(Resource::Backup, backup, "available").await?;
    }
    for volume in [&volume, &lost, &target] {
        cloud.wait(Resource::Volume, volume, "available").await?;
    }
    // The worker acts for itself here: there is no user to tell.
    for backup in [&backup, &standing] {
        let told = cloud.messages(backup).await?;
        ensure!(told.is_empty(), "{told:?}");
    }
    for backup in [&backup, &standing, &request_lost] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in [&volume, &lost, &target] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    impatient.restore().await
}

#[tokio::test]
async fn a_hangup_takes_up_the_log_its_level_and_the_versions_of_others() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let lab = &setup.lab;
    let levels = async || {
        let body = json!({"binary": "cinder-backup", "prefix": "cinder.backup.manager"});
        let path = "/os-services/get-log";
        let (_, answer) = setup.admin.request(Method::PUT, path, Some(body)).await?;
        Ok::<Value, anyhow::Error>(answer["log_levels"][0]["levels"].clone())
    };
    let folder = PathBuf::from(lab.variable("LAB_DIR")?);
    let (log, conf) = (
        folder.join("log/worker.log"),
        folder.join("etc/cinder/backup.conf"),
    );
    let (moved, original) = (log.with_extension("log.1"), fs::read_to_string(&conf)?);

    fs::rename(&log, &moved)?;
    fs::write(&conf, format!("{original}[DEFAULT]\ndebug = false\n"))?;
    let row = "INSERT INTO services (created_at, updated_at, deleted, host, `binary`, topic, \
               report_count, disabled, rpc_current_version, object_current_version, uuid) \
               VALUES (NOW(), NOW(), 0, 'older', 'cinder-volume', 'cinder-volume', 0, 1, '3.17', \
               '1.38', '7b0b8c3e-0000-4000-8000-000000000001')";
    setup.database.rows(row).await?;
    lab.signal("worker", "HUP").await?;
    // In the new file.
    let told = async || Ok(lab.logged(VERSIONS).unwrap_or_default());
    let told = eventually("the versions", told, |told| told.len() == 1).await;
    let changed = levels().await?;
    setup
        .database
        .rows("DELETE FROM services WHERE host = 'older'")
        .await?;
    fs::write(&conf, &original)?;
    // What another process reads afterwards is whole.
    let new = fs::read_to_string(&log)?;
    fs::write(&log, fs::read_to_string(&moved)? + &new)?;
    lab.signal("worker", "HUP").await?;
    let told = told?;
    ensure!(told[0].contains("objects=1.38"), "{told:?}");
    ensure!(changed["cinder.backup.manager"] == "INFO", "{changed}");
    lab.wait_logged(VERSIONS, "objects=1.39").await?;
    let changed = levels().await?;
    ensure!(changed["cinder.backup.manager"] == "DEBUG", "{changed}");
    Ok(())
}
