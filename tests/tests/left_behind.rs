//! What a worker leaves behind that has ended, in order or in the middle, and what a start makes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cinderblock_tests::{Broker, Cloud, Database, Lab, Reconfigured, Resource};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;
use uuid::Uuid;

/// Each of these tests stops what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Setup {
    lab: Lab,
    cloud: Cloud,
    database: Database,
}

impl Setup {
    async fn new() -> Result<Self> {
        let lab = Lab::from_env()?;
        Ok(Self {
            cloud: Cloud::login(&lab, "demo").await?,
            database: Database::new(&lab)?,
            lab,
        })
    }

    async fn begin_backup(&self, volume: &str) -> Result<String> {
        let body = json!({"backup": {"volume_id": volume}});
        self.cloud.begin_create(Resource::Backup, body).await
    }

    async fn status(&self, what: Resource, id: &str) -> Result<String> {
        let shown = self.cloud.show(what, id).await?.context("it is gone")?;
        Ok(shown["status"].as_str().unwrap_or_default().to_owned())
    }

    async fn becomes(&self, what: Resource, id: &str, wanted: &str) -> Result<()> {
        let mut status = String::new();
        for _ in 0..200 {
            status = self.status(what, id).await?;
            if status == wanted {
                return Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
        bail!("{what:?} {id} is {status}, not {wanted}")
    }

    async fn wait_logged(&self, backup: &str, text: &str) -> Result<()> {
        for _ in 0..200 {
            let lines = self.lab.logged(backup)?;
            if lines.iter().any(|line| line.contains(text)) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("the worker does not say {text:?} of {backup}")
    }

    /// Waits until a column of a backup's row holds something.
    async fn wait_written(&self, backup: &str, column: &str) -> Result<()> {
        let select = format!("SELECT {column} FROM backups WHERE id = '{backup}'");
        for _ in 0..300 {
            if !self.database.rows(&select).await?[0][column].is_null() {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("{column} is not written")
    }

    /// Records that a host has attached a volume, for a server or for itself.
    async fn attach(&self, volume: &str, server: Option<&str>) -> Result<String> {
        let id = Uuid::new_v4().to_string();
        let host = self.lab.variable("LAB_WORKER_HOST")?;
        let server = server.map_or("NULL".to_owned(), |server| format!("'{server}'"));
        let insert = format!(
            "INSERT INTO volume_attachment (created_at, deleted, id, volume_id, attached_host, \
             instance_uuid, attach_status) VALUES (UTC_TIMESTAMP(), 0, '{id}', '{volume}', \
             '{host}', {server}, 'attached')"
        );
        self.database.rows(&insert).await?;
        Ok(id)
    }
}

#[tokio::test]
async fn what_waits_in_the_queue_is_carried_out_by_the_next_start() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = cloud.create_volume(1).await?;
    let standing = cloud.back_up(&volume, false).await?;

    // The worker ends in order while it waits for cinder-volume.
    lab.command(&["stop", "cinder-volume"]).await?;
    let waiting = setup.begin_backup(&volume).await?;
    setup.wait_logged(&waiting, "Create backup started").await?;
    setup.wait_written(&waiting, "service").await?;
    lab.command(&["stop", "worker"]).await?;
    lab.command(&["start", "cinder-volume", "--wait"]).await?;
    let broker = Broker::connect(lab).await?;
    broker.wait_consumed("cinder-volume").await?;
    let target = cloud.create_volume(1).await?;
    cloud.begin_restore(&standing, Some(&target)).await?;
    let queue = format!("cinder-backup.{}", lab.variable("LAB_WORKER_HOST")?);
    for _ in 0..100 {
        let queued: BTreeSet<String> = broker.waiting(&queue).await?.into_iter().collect();
        if queued.contains("continue_backup") && queued.contains("restore_backup") {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }

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
async fn what_a_start_finds_is_ended_once_it_is_seen_that_nobody_is_at_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud, database) = (&setup.lab, &setup.cloud, &setup.database);
    let admin = Cloud::login(lab, "admin").await?;
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
    let shown = admin.show(Resource::Volume, source).await?;
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
    let mut attached = Vec::new();
    for volume in [source, target] {
        attached.push(setup.attach(volume, None).await?);
    }
    lab.command(&["stop", "cinder-volume"]).await?;

    // Who is at work on them cannot be seen.
    let starting = async {
        let options = "[cinderblock]\ncontinue_timeout = 8\n";
        let impatient = Reconfigured::broken_worker(lab, options).await?;
        let told = "Ceph does not tell whether a worker is at work";
        setup.wait_logged(made, told).await?;
        ensure!(setup.status(Resource::Backup, made).await? == "creating");
        Ok(impatient)
    };
    let impatient = lab.while_stopped("ceph-osd-backups", starting).await?;
    // Another backup still needs the volume.
    setup.becomes(Resource::Backup, old, "error").await?;
    ensure!(setup.status(Resource::Volume, held).await? == "backing-up");
    let broker = Broker::connect(lab).await?;
    let mut asked = Vec::new();
    for _ in 0..200 {
        asked = broker.waiting(&queue).await?;
        if asked.len() == 2 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    ensure!(asked == ["detach_volume"; 2], "{asked:?}");
    lab.command(&["start", "cinder-volume", "--wait"]).await?;

    for backup in [made, new] {
        setup.becomes(Resource::Backup, backup, "error").await?;
    }
    for (volume, status) in [
        (source, "available"),
        // cinder-volume has called it `available` with the end of its attachment.
        (target, "error_restoring"),
        (held, "available"),
    ] {
        setup.becomes(Resource::Volume, volume, status).await?;
    }
    setup
        .becomes(Resource::Backup, restored, "available")
        .await?;
    for attachment in attached {
        let select = format!("SELECT deleted FROM volume_attachment WHERE id = '{attachment}'");
        let rows = database.rows(&select).await?;
        ensure!(rows[0]["deleted"] == "1", "{rows:?}");
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
async fn a_backup_whose_row_goes_lets_its_volume_go_and_leaves_no_data() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = cloud.create_volume(1).await?;
    let removing = async {
        let backup = setup.begin_backup(&volume).await?;
        setup.wait_written(&backup, "service_metadata").await?;
        // As a worker of Python's does that is asked to delete it by force.
        let gone = "status = 'deleted', deleted = 1, deleted_at = UTC_TIMESTAMP()";
        setup.database.change("backups", &backup, gone).await?;
        Ok(backup)
    };
    let backup = lab.while_stopped("ceph-osd-backups", removing).await?;
    cloud.wait(Resource::Volume, &volume, "available").await?;
    setup.wait_logged(&backup, "The backup is gone").await?;
    let lines = lab.logged(&backup)?;
    let error = lines.iter().find(|line| line.contains(" ERROR "));
    ensure!(error.is_none(), "{error:?}");
    let left = cloud.backups()?.rados(&["-p", "backups", "ls"]).await?;
    ensure!(!left.contains(backup.as_str()), "{left}");
    cloud.delete(Resource::Volume, &volume).await
}
