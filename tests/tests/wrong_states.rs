//! Requests that find their rows in another state than they were sent for: what becomes of the backup,
//! its volume and its snapshot, and what the user is told.
//!
//! The worker is stopped while a request waits for it and the rows are changed.

use anyhow::{Context, Result, bail, ensure};
use cinderblock_tests::{Cloud, Database, Lab, Resource};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Duration, sleep};

/// Each of these tests stops the worker that the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

const GONE: &str = "deleted = 1, status = 'deleted'";
const THERE_AGAIN: &str = "deleted = 0, status = 'available'";
const FAILED: &str = "status = 'error'";
const OTHERS: &str = "service = 'cinder.backup.drivers.swift.SwiftBackupDriver'";

struct Setup {
    lab: Lab,
    cloud: Cloud,
    admin: Cloud,
    database: Database,
}

impl Setup {
    async fn new() -> Result<Self> {
        let lab = Lab::from_env()?;
        Ok(Self {
            cloud: Cloud::login(&lab, "demo").await?,
            admin: Cloud::login(&lab, "admin").await?,
            database: Database::new(&lab)?,
            lab,
        })
    }

    /// Sends requests and changes rows while the worker does not look.
    async fn while_it_sleeps<T>(&self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        self.lab.while_stopped("worker", doing).await
    }

    /// Sends the request to make a backup, and changes rows before it is seen.
    async fn create(&self, body: &Value, changes: &[(&str, &str, &str)]) -> Result<String> {
        let body = json!({"backup": body});
        let backup = self.cloud.begin_create(Resource::Backup, body).await?;
        // By then the scheduler has sent it on.
        for _ in 0..300 {
            let shown = self.cloud.show(Resource::Backup, &backup).await?;
            if shown.is_some_and(|shown| shown["status"] == "creating") {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.change(&backup, changes).await?;
        Ok(backup)
    }

    /// Changes rows; those without an id are of the backup.
    async fn change(&self, backup: &str, changes: &[(&str, &str, &str)]) -> Result<()> {
        for (table, id, columns) in changes {
            let id = if id.is_empty() { backup } else { id };
            self.database.change(table, id, columns).await?;
        }
        Ok(())
    }

    /// Waits until a row has a status, and stays so.
    async fn becomes(&self, what: Resource, id: &str, wanted: &str) -> Result<Value> {
        let mut last = Value::Null;
        for _ in 0..100 {
            let shown = self.cloud.show(what, id).await?.context("it is gone")?;
            if shown["status"] == wanted {
                return Ok(shown);
            }
            last = shown;
            sleep(Duration::from_millis(200)).await;
        }
        bail!("{what:?} {id} does not become {wanted}: {last}")
    }

    /// The worker has written that it refuses this, once, and the user was told this.
    async fn refused(&self, backup: &str, said: &str, told: &[&str]) -> Result<()> {
        self.told_about(backup, told).await?;
        let lines = self.lab.logged(backup)?;
        let errors: Vec<_> = lines
            .iter()
            .filter(|line| line.contains(" ERROR "))
            .collect();
        ensure!(errors.len() == 1, "{errors:?}");
        ensure!(errors[0].contains(said), "{errors:?}");
        Ok(())
    }

    async fn told_about(&self, id: &str, told: &[&str]) -> Result<()> {
        let mut messages = Vec::new();
        for _ in 0..30 {
            messages = self.cloud.messages(id).await?;
            if messages.len() == told.len() && !told.is_empty() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let fits = |(message, text): (&String, &&str)| message.contains(text);
        ensure!(messages.len() == told.len(), "{id}: {messages:?}");
        ensure!(messages.iter().zip(told).all(fits), "{id}: {messages:?}");
        Ok(())
    }
}

#[tokio::test]
async fn a_backup_of_what_is_gone_or_used_by_others_fails() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, database) = (&setup.cloud, &setup.database);
    let mut volumes = Vec::new();
    for _ in 0..3 {
        volumes.push(cloud.create_volume(1).await?);
    }
    let [gone, busy, reset] = [&volumes[0], &volumes[1], &volumes[2]];
    let mut snapshots = Vec::new();
    for _ in 0..2 {
        let body = json!({"snapshot": {"volume_id": busy}});
        snapshots.push(cloud.create(Resource::Snapshot, body).await?);
    }
    let [lost, used] = [&snapshots[0], &snapshots[1]];
    let of = |volume: &str| json!({"volume_id": volume});
    let from = |snapshot: &str| json!({"volume_id": busy, "snapshot_id": snapshot});

    let sent = async {
        Ok([
            setup.create(&of(gone), &[("volumes", gone, GONE)]).await?,
            setup
                .create(&from(lost), &[("snapshots", lost, GONE)])
                .await?,
            setup
                .create(&from(used), &[("snapshots", used, FAILED)])
                .await?,
            setup
                .create(&of(busy), &[("volumes", busy, FAILED)])
                .await?,
            setup.create(&of(reset), &[("backups", "", FAILED)]).await?,
        ])
    };
    let [of_gone, of_lost, of_used, of_busy, of_reset] = setup.while_it_sleeps(sent).await?;

    let driver = "create backup:Backup driver failed to create backup.";
    let unfit = "create backup:Backup status is invalid.";
    for (backup, reason, told) in [
        (&of_gone, "could not be found", vec![driver]),
        (&of_lost, "could not be found", vec![driver]),
        (
            &of_used,
            "expected snapshot status backing-up but got error",
            vec![],
        ),
        (
            &of_busy,
            "expected volume status backing-up but got error",
            vec![],
        ),
    ] {
        let shown = setup.becomes(Resource::Backup, backup, "error").await?;
        let said = shown["fail_reason"].as_str().unwrap_or_default();
        ensure!(said.contains(reason), "{said}");
        setup.refused(backup, reason, &told).await?;
    }
    // Its status was changed by somebody, who knows why.
    let reason = "expected backup status creating but got error";
    setup.refused(&of_reset, reason, &[unfit]).await?;
    let shown = cloud.show(Resource::Backup, &of_reset).await?;
    ensure!(shown.is_some_and(|shown| shown["fail_reason"].is_null()));

    // What somebody else uses is left to him.
    for (what, id) in [(Resource::Volume, busy), (Resource::Snapshot, used)] {
        let shown = cloud.show(what, id).await?.context("it is gone")?;
        ensure!(shown["status"] == "error", "{shown}");
    }
    let volume = cloud.show(Resource::Volume, busy).await?;
    ensure!(volume.is_some_and(|volume| volume["status"] == "error"));

    for backup in [&of_gone, &of_lost, &of_used, &of_busy, &of_reset] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for snapshot in &snapshots {
        database.change("snapshots", snapshot, THERE_AGAIN).await?;
        cloud.delete(Resource::Snapshot, snapshot).await?;
    }
    for volume in &volumes {
        database.change("volumes", volume, THERE_AGAIN).await?;
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_restore_to_what_is_gone_or_unfit_is_refused() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, database) = (&setup.cloud, &setup.database);
    let source = cloud.create_volume(1).await?;
    let (mut backups, mut targets) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        backups.push(cloud.back_up(&source, false).await?);
        targets.push(cloud.create_volume(1).await?);
    }
    let changes = [
        ("volumes", targets[0].as_str(), GONE),
        ("volumes", targets[1].as_str(), FAILED),
        ("backups", backups[2].as_str(), "size = 2"),
        ("backups", backups[3].as_str(), FAILED),
        ("backups", backups[4].as_str(), OTHERS),
    ];
    let sent = async {
        for (backup, target) in backups.iter().zip(&targets) {
            cloud.begin_restore(backup, Some(target)).await?;
        }
        setup.change("", &changes).await
    };
    setup.while_it_sleeps(sent).await?;

    let unfit = "restore backup:Backup status is invalid.";
    let failed = "restore backup:Backup driver failed to restore backup.";
    let cases = [
        ("available", None, "could not be found", Some(failed)),
        (
            "available",
            Some("error_restoring"),
            "expected volume status restoring-backup,creating but got error",
            None,
        ),
        (
            "available",
            Some("error_restoring"),
            "1 GiB is smaller than the backup's 2 GiB",
            Some(failed),
        ),
        (
            "error",
            Some("error"),
            "expected backup status restoring but got error",
            Some(unfit),
        ),
        ("available", Some("error"), "backup service currently", None),
    ];
    for ((backup, target), (status, volume, said, told)) in backups.iter().zip(&targets).zip(cases)
    {
        if let Some(volume) = volume {
            setup.becomes(Resource::Volume, target, volume).await?;
        }
        setup.becomes(Resource::Backup, backup, status).await?;
        setup.refused(backup, said, told.as_slice()).await?;
    }
    // Cinder's message about the volume has the volume's id.
    let about_volume = "restore backup:Volume status is invalid.";
    setup.told_about(&targets[1], &[about_volume]).await?;

    let ours = format!(
        "service = (SELECT s FROM (SELECT service AS s FROM backups WHERE id = '{}') AS b)",
        backups[0]
    );
    database.change("backups", &backups[4], &ours).await?;
    for backup in &backups {
        cloud.delete(Resource::Backup, backup).await?;
    }
    database.change("volumes", &targets[0], THERE_AGAIN).await?;
    for volume in targets.iter().chain([&source]) {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_delete_or_a_reset_of_what_is_not_ours_or_cannot_be_changes_nothing() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, database) = (&setup.cloud, &setup.database);
    let source = cloud.create_volume(1).await?;
    let mut backups = Vec::new();
    for _ in 0..5 {
        backups.push(cloud.back_up(&source, false).await?);
    }
    let [kept, others, not_reset, nobodys, lost] = [0, 1, 2, 3, 4].map(|each| &backups[each]);
    let shown = database
        .rows(&format!("SELECT service FROM backups WHERE id = '{kept}'"))
        .await?;
    let service = shown[0]["service"].as_str().context("no service")?;
    let ours = format!("service = '{service}'");

    let sent = async {
        for backup in [kept, others, lost] {
            let path = format!("/backups/{backup}");
            let (status, answer) = cloud.request(Method::DELETE, &path, None).await?;
            ensure!(status.is_success(), "{answer}");
        }
        for backup in [not_reset, nobodys] {
            let reset = json!({"os-reset_status": {"status": "error"}});
            setup.admin.action(Resource::Backup, backup, reset).await?;
        }
        let changes = [
            ("backups", kept.as_str(), "status = 'available'"),
            ("backups", others.as_str(), OTHERS),
            ("backups", not_reset.as_str(), OTHERS),
            ("backups", nobodys.as_str(), "service = NULL"),
            ("backups", lost.as_str(), "container = 'ghost'"),
        ];
        setup.change("", &changes).await
    };
    setup.while_it_sleeps(sent).await?;

    // In the order of the requests: with the last one all have been looked at.
    setup.becomes(Resource::Backup, nobodys, "error").await?;
    setup.becomes(Resource::Backup, others, "error").await?;
    // Its pool cannot be found.
    setup.becomes(Resource::Backup, lost, "error").await?;
    let failed = "delete backup:Backup driver failed to delete backup.";
    setup.refused(lost, "Pool ghost", &[failed]).await?;
    database
        .change("backups", lost, "container = 'backups'")
        .await?;
    let unfit = "delete backup:Backup status is invalid.";
    let said = "expected backup status deleting but got available";
    setup.refused(kept, said, &[unfit]).await?;
    let said = "backup service currently";
    setup.refused(others, said, &[]).await?;
    setup.refused(not_reset, said, &[]).await?;
    for backup in [kept, not_reset] {
        let shown = cloud.show(Resource::Backup, backup).await?;
        let shown = shown.context("the backup is gone")?;
        ensure!(shown["status"] == "available", "{shown}");
    }
    let restored = cloud.restore(kept, None).await?;
    cloud.delete(Resource::Volume, &restored).await?;

    for backup in &backups {
        database.change("backups", backup, &ours).await?;
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Volume, &source).await
}
