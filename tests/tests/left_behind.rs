//! What a worker leaves behind that has ended, in order or in the middle, and what a start makes of it.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Broker, Reconfigured, Resource, Setup, eventually};
use serde_json::json;
use tokio::sync::Mutex;
use uuid::Uuid;

/// Each of these tests stops what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Records that the worker's host has attached a volume for itself.
async fn attach(setup: &Setup, volume: &str) -> Result<String> {
    let id = Uuid::new_v4().to_string();
    let host = setup.lab.variable("LAB_WORKER_HOST")?;
    let insert = format!(
        "INSERT INTO volume_attachment (created_at, deleted, id, volume_id, attached_host, \
         instance_uuid, attach_status) VALUES (UTC_TIMESTAMP(), 0, '{id}', '{volume}', \
         '{host}', NULL, 'attached')"
    );
    setup.database.rows(&insert).await?;
    Ok(id)
}

#[tokio::test]
async fn what_waits_in_the_queue_is_carried_out_by_the_next_start() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = cloud.create_volume(1).await?;
    let standing = cloud.back_up(&volume, false).await?;
    // Before: the scheduler places nothing on a cinder-volume that was away for long.
    let target = cloud.create_volume(1).await?;

    // The worker ends in order while it waits for cinder-volume.
    lab.command(&["stop", "cinder-volume"]).await?;
    let waiting = cloud.begin_backup(&volume, false).await?;
    lab.wait_logged(&waiting, "Create backup started").await?;
    setup.database.wait_written(&waiting, "service").await?;
    lab.command(&["stop", "worker"]).await?;
    lab.command(&["start", "cinder-volume", "--wait"]).await?;
    let broker = Broker::connect(lab).await?;
    broker.wait_consumed("cinder-volume").await?;
    cloud.begin_restore(&standing, Some(&target)).await?;
    let queue = format!("cinder-backup.{}", lab.variable("LAB_WORKER_HOST")?);
    let queued = async || broker.waiting(&queue).await;
    eventually("both are in the queue", queued, |queued| {
        let has = |method: &str| queued.iter().any(|queued| queued == method);
        has("continue_backup") && has("restore_backup")
    })
    .await?;

    lab.command(&["start", "worker", "--wait"]).await?;
    cloud.wait(Resource::Backup, &waiting, "available").await?;
    cloud.wait(Resource::Volume, &target, "available").await?;
    cloud.wait(Resource::Backup, &standing, "available").await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    for backup in [&waiting, &standing] {
        let lines = lab.logged(backup)?;
        let error = lines.iter().find(|line| line.contains(" ERROR "));
        ensure!(error.is_none(), "{error:?}");
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in [&target, &volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_start_finds_goes_on_or_ends_once_it_is_seen_that_nobody_is_at_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud, database) = (&setup.lab, &setup.cloud, &setup.database);
    let mut volumes = Vec::new();
    for _ in 0..3 {
        volumes.push(cloud.create_volume(1).await?);
    }
    let [source, target, held] = [&volumes[0], &volumes[1], &volumes[2]];
    let mut backups = Vec::new();
    for volume in [source, source, held, held] {
        backups.push(cloud.back_up(volume, false).await?);
    }
    let [made, restored, old, new] = [0, 1, 2, 3].map(|at| &backups[at]);
    let shown = setup.admin.show(Resource::Volume, source).await?;
    let shown = shown.context("the volume is gone")?;
    let host = shown["os-vol-host-attr:host"].as_str().context("no host")?;
    let (backend, _) = host.split_once('#').context("no pool")?;
    let (host, _) = backend.split_once('@').context("no backend")?;
    let queue = format!("cinder-volume.{backend}.{host}");

    lab.command(&["stop", "worker"]).await?;
    let restoring = format!("status = 'restoring', restore_volume_id = '{target}'");
    for (table, id, columns) in [
        ("backups", made, "status = 'creating'"),
        ("backups", restored, restoring.as_str()),
        ("backups", old, "status = 'creating'"),
        // Of one that waits for cinder-volume.
        (
            "backups",
            new,
            "status = 'creating', service_metadata = NULL",
        ),
        ("volumes", source, "status = 'backing-up'"),
        ("volumes", held, "status = 'backing-up'"),
        ("volumes", target, "status = 'restoring-backup'"),
    ] {
        database.change(table, id, columns).await?;
    }
    let previous = "previous_status = 'available'";
    for volume in &volumes {
        database.change("volumes", volume, previous).await?;
    }
    // Nobody is going to try that one again.
    let deaths = json!({"host": "somewhere", "id": Uuid::new_v4(), "died": 10});
    let owner = format!("backup.{old}.owner");
    cloud
        .backups()?
        .put_json("backups", &owner, &deaths)
        .await?;
    let mut attached = Vec::new();
    for volume in [source, target] {
        attached.push(attach(&setup, volume).await?);
    }
    lab.command(&["stop", "cinder-volume"]).await?;

    // Who is at work on them cannot be seen.
    let starting = async {
        // Longer than it takes to see that `held` is kept for `new`, shorter than a request waits for
        // cinder-volume.
        let options = "[DEFAULT]\nrpc_response_timeout = 180\n\
                       [cinderblock]\ncontinue_timeout = 20\n";
        let impatient = Reconfigured::broken_worker(lab, options).await?;
        let told = "Ceph does not tell whether a worker is at work";
        lab.wait_logged(made, told).await?;
        ensure!(cloud.status(Resource::Backup, made).await? == "creating");
        Ok(impatient)
    };
    let impatient = lab.while_stopped("ceph-osd-backups", starting).await?;
    // Another backup still needs the volume.
    cloud.becomes(Resource::Backup, old, "error").await?;
    ensure!(cloud.status(Resource::Volume, held).await? == "backing-up");
    let broker = Broker::connect(lab).await?;
    let asked = async || broker.waiting(&queue).await;
    eventually("two requests", asked, |asked| {
        *asked == ["detach_volume"; 2]
    })
    .await?;
    lab.command(&["start", "cinder-volume", "--wait"]).await?;

    cloud.becomes(Resource::Backup, new, "error").await?;
    cloud.wait(Resource::Backup, made, "available").await?;
    lab.wait_logged(made, "The restore point is complete already")
        .await?;
    for (volume, status) in [
        (source, "available"),
        // cinder-volume has called it `available` with the end of its attachment.
        (target, "error_restoring"),
        (held, "available"),
    ] {
        cloud.becomes(Resource::Volume, volume, status).await?;
    }
    cloud
        .becomes(Resource::Backup, restored, "available")
        .await?;
    for attachment in attached {
        let select = format!("SELECT deleted FROM volume_attachment WHERE id = '{attachment}'");
        let deleted = async || Ok(database.rows(&select).await?[0]["deleted"].clone());
        eventually("the attachment is ended", deleted, |it| it == "1").await?;
    }
    for backup in &backups {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in &volumes {
        cloud.delete(Resource::Volume, volume).await?;
    }
    impatient.restore().await
}

#[tokio::test]
async fn a_backup_that_is_reset_after_a_kill_lets_its_volume_go() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = cloud.create_volume(1).await?;
    // It waits for cinder-volume when the worker dies.
    lab.command(&["stop", "cinder-volume"]).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    setup.database.wait_written(&backup, "service").await?;
    let kill = ["stop", "--signal", "KILL", "worker"];
    lab.command(&kill).await?;
    let impatient = Reconfigured::worker(lab, "[cinderblock]\ncontinue_timeout = 8\n").await?;
    let admin = &setup.admin;
    admin.reset(Resource::Backup, &backup, "error").await?;
    cloud
        .becomes(Resource::Volume, &volume, "available")
        .await?;

    lab.command(&["start", "cinder-volume", "--wait"]).await?;
    let broker = Broker::connect(lab).await?;
    broker.wait_consumed("cinder-volume").await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await?;
    impatient.restore().await
}

#[tokio::test]
async fn a_backup_whose_row_goes_lets_its_volume_go_and_leaves_no_data() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = cloud.create_volume(1).await?;
    let removing = async {
        let backup = cloud.begin_backup(&volume, false).await?;
        setup
            .database
            .wait_written(&backup, "service_metadata")
            .await?;
        // As a worker of Python's does that is asked to delete it by force.
        let gone = "status = 'deleted', deleted = 1, deleted_at = UTC_TIMESTAMP()";
        setup.database.change("backups", &backup, gone).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("ceph-osd-backups", removing).await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    lab.wait_logged(&backup, "The backup is gone").await?;
    let lines = lab.logged(&backup)?;
    let error = lines.iter().find(|line| line.contains(" ERROR "));
    ensure!(error.is_none(), "{error:?}");
    let backups = cloud.backups()?;
    let left = async || backups.rados(&["-p", "backups", "ls"]).await;
    let nothing = |left: &String| !left.contains(backup.as_str());
    eventually("nothing is left", left, nothing).await?;
    cloud.delete(Resource::Volume, &volume).await
}
