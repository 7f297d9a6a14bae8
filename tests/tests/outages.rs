//! Services that are away: what waits for them ends with a reason, and goes on when they are back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Broker, Cloud, Database, Lab, Reconfigured, Resource, eventually, image};
use reqwest::Method;
use serde_json::{Value, json};
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

    let backup = cloud.begin_backup(&volume, false).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(
        reason.contains("cinder-volume did not answer within 3 s"),
        "{reason}"
    );
    cloud.wait(Resource::Volume, &volume, "available").await?;

    // Its answer comes late, to a backup that has failed, which stays so.
    lab.command(&["start", "cinder-volume", "--wait"]).await?;
    let broker = Broker::connect(&lab).await?;
    broker.wait_consumed("cinder-volume").await?;
    impatient.restore().await?;
    let next = cloud.back_up(&volume, false).await?;
    cloud.wait_failed(&backup).await?;
    for backup in [&next, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backup_waits_for_as_long_as_cinder_volume_copies_its_volume() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let (cloud, database) = (Cloud::login(&lab, "demo").await?, Database::new(&lab)?);
    let volume = cloud.create_volume(1).await?;
    let impatient = Reconfigured::worker(&lab, "[cinderblock]\ncontinue_timeout = 3\n").await?;

    // What it makes of a volume in use, or of a snapshot.
    let copy = uuid::Uuid::new_v4();
    let waiting = async {
        let insert = format!(
            "INSERT INTO volumes (id, created_at, deleted, use_quota, host, size, status, \
             display_name, volume_type_id, project_id) SELECT '{copy}', \
             UTC_TIMESTAMP() + INTERVAL 1 HOUR, 0, 0, host, size, 'creating', \
             'backup-vol-{volume}', volume_type_id, project_id FROM volumes WHERE id = '{volume}'"
        );
        database.rows(&insert).await?;
        let backup = cloud.begin_backup(&volume, false).await?;
        let told = "cinder-volume still prepares what is to be backed up";
        lab.wait_logged(&backup, told).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("cinder-volume", waiting).await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    // Not before: without it the worker would lose patience.
    let delete = format!("DELETE FROM volumes WHERE id = '{copy}'");
    database.rows(&delete).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await?;
    impatient.restore().await
}

#[tokio::test]
async fn a_backup_is_completed_although_the_database_is_away_at_its_end() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let volumes = cloud.volumes()?;
    volumes.write(&image(&volume), 0, &[0x33; 100_000]).await?;
    let content = volumes.content(&image(&volume)).await?;

    let making = async {
        let known = lab.connections()?;
        let backup = cloud.begin_backup(&volume, false).await?;
        lab.wait_connections(known + 1).await?;
        lab.command(&["stop", "mariadb"]).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("ceph-osd-backups", making).await?;
    sleep(Duration::from_secs(5)).await;
    lab.command(&["start", "mariadb", "--wait"]).await?;

    cloud.wait(Resource::Backup, &backup, "available").await?;
    let restored = cloud.restore(&backup, None).await?;
    let found = volumes.content(&image(&restored)).await?;
    ensure!(found == content, "the backup is restored as something else");
    cloud.delete(Resource::Backup, &backup).await
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
        broker.wait_consumed(queue).await?;
    }
    let incremental = cloud.back_up(&volume, true).await?;
    for backup in [&incremental, &full] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_without_memory_delays_the_end_of_a_backup_and_not_its_data() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.volume_with_data(32).await?;
    cloud.volumes()?.slow_down(&image(&volume), 8 << 20).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    let base = format!("backups/volume-{volume}.backup.{backup}");
    cloud.backups()?.wait_used(&base, 1 << 20).await?;
    let watermark = async |share: &str| {
        let set = ["rabbitmqctl", "--", "set_vm_memory_high_watermark", share];
        lab.command(&set).await.map(drop)
    };
    watermark("0.00001").await?;
    let meanwhile = async {
        lab.wait_logged(&backup, "Stored the volume's data").await?;
        // Longer than the broker is given to confirm a message.
        sleep(Duration::from_secs(20)).await;
        cloud.status(Resource::Backup, &backup).await
    };
    let meanwhile = meanwhile.await;
    watermark("0.4").await?;
    ensure!(meanwhile? == "creating");
    cloud.wait(Resource::Backup, &backup, "available").await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    let next = cloud.back_up(&volume, true).await?;
    for backup in [&next, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_request_that_is_taken_while_the_database_is_away_is_carried_out() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let impatient = Reconfigured::worker(&lab, "[database]\ndb_max_retries = 0\n").await?;

    lab.signal("worker", "STOP").await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    lab.command(&["stop", "mariadb"]).await?;
    lab.signal("worker", "CONT").await?;
    sleep(Duration::from_secs(5)).await;
    lab.command(&["start", "mariadb", "--wait"]).await?;

    cloud.wait(Resource::Backup, &backup, "available").await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    cloud.delete(Resource::Backup, &backup).await?;
    impatient.restore().await
}

#[tokio::test]
async fn a_worker_that_the_clusters_have_fenced_off_connects_again() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    // Makes sure that it is connected to both.
    let full = cloud.back_up(&volume, false).await?;

    let mut listed = Vec::new();
    for (cluster, user) in [
        (cloud.backups()?, "client.cinder-backup"),
        (cloud.volumes()?, "client.cinder"),
    ] {
        let clients = cluster.clients(user).await?;
        ensure!(!clients.is_empty(), "nobody is connected as {user}");
        for client in clients {
            let list = ["osd", "blocklist", "add", &client];
            cluster.ceph(&list).await?;
            listed.push((cluster.clone(), client));
        }
    }
    let incremental = cloud.back_up(&volume, true).await?;
    let restored = cloud.restore(&incremental, None).await?;
    for (cluster, client) in listed {
        cluster.ceph(&["osd", "blocklist", "rm", &client]).await?;
    }
    for backup in [&incremental, &full] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Volume, &restored).await
}

#[tokio::test]
async fn a_backup_is_deleted_by_force_although_the_volumes_cluster_is_away() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let admin = Cloud::login(&lab, "admin").await?;
    let volume = cloud.create_volume(1).await?;

    let deleting = async {
        let backup = cloud.begin_backup(&volume, false).await?;
        // The operator is told that it stands still.
        let told = |line: &String| line.contains(" WARNING ") && line.contains("for 30 s");
        let lines = async || lab.logged(&backup);
        eventually("a warning", lines, |lines| lines.iter().any(told)).await?;
        let forced = json!({"os-force_delete": {}});
        admin.action(Resource::Backup, &backup, forced).await?;
        cloud.wait_gone(Resource::Backup, &backup).await?;
        cloud.wait(Resource::Volume, &volume, "available").await
    };
    lab.while_stopped("ceph-osd-volumes", deleting).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    let next = cloud.back_up(&volume, false).await?;
    cloud.delete(Resource::Backup, &next).await?;
    // Whatever the first one left on the volume went with the second.
    let snapshots = cloud.volumes()?.snapshots(&image(&volume)).await?;
    ensure!(snapshots.is_empty(), "{snapshots:?}");
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_snapshot_leaves_a_volume_in_use_although_the_worker_was_restarted() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    lab.command(&["volume-attach", &volume]).await?;
    let backup = cloud.back_up(&volume, false).await?;
    // Where the volume lies is known as long as the worker lives.
    let first = cloud.back_up(&volume, true).await?;
    let deleting = cloud.delete(Resource::Backup, &first);
    lab.while_stopped("cinder-volume", deleting).await?;
    let snapshots = cloud.volumes()?.snapshots(&image(&volume)).await?;
    ensure!(snapshots.len() == 1, "{snapshots:?}");
    lab.command(&["restart", "worker", "--wait"]).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    let snapshots = cloud.volumes()?.snapshots(&image(&volume)).await?;
    ensure!(snapshots.is_empty(), "{snapshots:?}");
    lab.command(&["volume-detach", &volume]).await?;
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_delete_does_not_wait_for_cinder_volume_nor_take_a_connection_from_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let admin = Cloud::login(&lab, "admin").await?;
    let volume = cloud.create_volume(1).await?;
    lab.command(&["volume-attach", &volume]).await?;
    let backup = cloud.back_up(&volume, false).await?;
    // It knows no more where the volume lies.
    lab.command(&["restart", "worker", "--wait"]).await?;
    let shown = admin.show(Resource::Volume, &volume).await?;
    let shown = shown.context("the volume is gone")?;
    let host = shown["os-vol-host-attr:host"].as_str().context("no host")?;
    let (backend, _) = host.split_once('#').context("no pool")?;
    let (host, _) = backend.split_once('@').context("no backend")?;

    lab.command(&["stop", "cinder-volume"]).await?;
    let path = format!("/backups/{backup}");
    cloud.request(Method::DELETE, &path, None).await?;
    // Giving back a connection that may be the server's own would tear the volume off it.
    let (broker, queue) = (
        Broker::connect(&lab).await?,
        format!("cinder-volume.{backend}.{host}"),
    );
    let mut asked = BTreeSet::new();
    let shown = async || {
        asked.extend(broker.waiting(&queue).await?);
        cloud.show(Resource::Backup, &backup).await
    };
    eventually("the backup is gone", shown, Option::is_none).await?;
    asked.extend(broker.waiting(&queue).await?);
    lab.command(&["start", "cinder-volume", "--wait"]).await?;
    broker.wait_consumed("cinder-volume").await?;
    ensure!(asked.iter().eq(["initialize_connection"]), "{asked:?}");

    // The snapshot went with the next backup.
    let next = cloud.back_up(&volume, false).await?;
    let snapshots = cloud.volumes()?.snapshots(&image(&volume)).await?;
    ensure!(snapshots.len() == 1, "{snapshots:?}");
    cloud.delete(Resource::Backup, &next).await?;
    lab.command(&["volume-detach", &volume]).await?;
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_scheduler_that_starts_is_told() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    // By itself it would tell in an hour.
    let rarely = "[DEFAULT]\nbackup_driver_stats_polling_interval = 3600\n";
    let silent = Reconfigured::worker(&lab, rarely).await?;
    let broker = Broker::connect(&lab).await?;
    let told = broker.overhear("cinder-scheduler_fanout").await?;
    lab.command(&["restart", "cinder-scheduler"]).await?;
    let host = lab.variable("LAB_WORKER_HOST")?;
    let reports = async || broker.take(&told).await;
    let of_worker = |report: &Value| report["args"]["host"] == host;
    let what = "a report of the worker's";
    eventually(what, reports, |reports| reports.iter().any(of_worker)).await?;
    let backup = cloud.back_up(&volume, false).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await?;
    silent.restore().await
}
