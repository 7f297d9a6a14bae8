//! Requests that find their rows in another state than they were sent for: what becomes of the backup,
//! its volume and its snapshot, and what the user is told.
//!
//! The worker is stopped while a request waits for it and the rows are changed.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cloud, Database, Resource, Setup, eventually};
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

/// Sends requests and changes rows while the worker does not look.
async fn while_it_sleeps<T>(setup: &Setup, doing: impl Future<Output = Result<T>>) -> Result<T> {
    setup.lab.while_stopped("worker", doing).await
}

/// Sends the request to make a backup, and changes rows before it is seen.
async fn create(setup: &Setup, body: &Value, changes: &[(&str, &str, &str)]) -> Result<String> {
    let (cloud, body) = (&setup.cloud, json!({"backup": body}));
    let backup = cloud.begin_create(Resource::Backup, body).await?;
    // By then the scheduler has read what it needs.
    setup.database.wait_written(&backup, "host").await?;
    change(&setup.database, &backup, changes).await?;
    Ok(backup)
}

/// Changes rows; those without an id are of the backup.
async fn change(database: &Database, backup: &str, changes: &[(&str, &str, &str)]) -> Result<()> {
    for (table, id, columns) in changes {
        let id = if id.is_empty() { backup } else { id };
        database.change(table, id, columns).await?;
    }
    Ok(())
}

/// The worker has written that it refuses this, once, and the user was told this.
async fn refused(setup: &Setup, backup: &str, said: &str, told: &[&str]) -> Result<()> {
    told_about(&setup.cloud, backup, told).await?;
    let error = setup.lab.wait_error(backup).await?;
    ensure!(error.contains(said), "{error}");
    Ok(())
}

async fn told_about(cloud: &Cloud, id: &str, told: &[&str]) -> Result<()> {
    if told.is_empty() {
        // It would come a moment after the status.
        sleep(Duration::from_secs(3)).await;
    }
    let messages = async || cloud.messages(id).await;
    let messages = eventually(id, messages, |messages| messages.len() >= told.len()).await?;
    let fits = |(message, text): (&String, &&str)| message.contains(text);
    ensure!(messages.len() == told.len(), "{id}: {messages:?}");
    ensure!(messages.iter().zip(told).all(fits), "{id}: {messages:?}");
    Ok(())
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
        snapshots.push(cloud.create_snapshot(busy).await?);
    }
    let [lost, used] = [&snapshots[0], &snapshots[1]];
    let of = |volume: &str| json!({"volume_id": volume});
    let from = |snapshot: &str| json!({"volume_id": busy, "snapshot_id": snapshot});

    let sent = async {
        Ok([
            create(&setup, &of(gone), &[("volumes", gone, GONE)]).await?,
            create(&setup, &from(lost), &[("snapshots", lost, GONE)]).await?,
            create(&setup, &from(used), &[("snapshots", used, FAILED)]).await?,
            create(&setup, &of(busy), &[("volumes", busy, FAILED)]).await?,
            create(&setup, &of(reset), &[("backups", "", FAILED)]).await?,
        ])
    };
    let [of_gone, of_lost, of_used, of_busy, of_reset] = while_it_sleeps(&setup, sent).await?;

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
        let shown = cloud.becomes(Resource::Backup, backup, "error").await?;
        let said = shown["fail_reason"].as_str().unwrap_or_default();
        ensure!(said.contains(reason), "{said}");
        refused(&setup, backup, reason, &told).await?;
    }
    // Its status was changed by somebody, who knows why.
    let reason = "expected backup status creating but got error";
    refused(&setup, &of_reset, reason, &[unfit]).await?;
    let shown = cloud.show(Resource::Backup, &of_reset).await?;
    ensure!(shown.is_some_and(|shown| shown["fail_reason"].is_null()));

    // What somebody else uses is left to him.
    for (what, id) in [(Resource::Volume, busy), (Resource::Snapshot, used)] {
        let status = cloud.status(what, id).await?;
        ensure!(status == "error", "{what:?} {id} is {status}");
    }

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
        change(database, "", &changes).await
    };
    while_it_sleeps(&setup, sent).await?;

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
            cloud.becomes(Resource::Volume, target, volume).await?;
        }
        cloud.becomes(Resource::Backup, backup, status).await?;
        refused(&setup, backup, said, told.as_slice()).await?;
    }
    // Cinder's message about the volume has the volume's id.
    let about_volume = "restore backup:Volume status is invalid.";
    told_about(cloud, &targets[1], &[about_volume]).await?;

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
        change(database, "", &changes).await
    };
    while_it_sleeps(&setup, sent).await?;

    cloud.becomes(Resource::Backup, nobodys, "error").await?;
    cloud.becomes(Resource::Backup, others, "error").await?;
    // Its pool cannot be found.
    cloud.becomes(Resource::Backup, lost, "error").await?;
    let failed = "delete backup:Backup driver failed to delete backup.";
    refused(&setup, lost, "Pool ghost", &[failed]).await?;
    database
        .change("backups", lost, "container = 'backups'")
        .await?;
    let unfit = "delete backup:Backup status is invalid.";
    let said = "expected backup status deleting but got available";
    refused(&setup, kept, said, &[unfit]).await?;
    let said = "backup service currently";
    refused(&setup, others, said, &[]).await?;
    refused(&setup, not_reset, said, &[]).await?;
    for backup in [kept, not_reset] {
        let status = cloud.status(Resource::Backup, backup).await?;
        ensure!(status == "available", "{backup} is {status}");
    }
    let restored = cloud.restore(kept, None).await?;
    cloud.delete(Resource::Volume, &restored).await?;

    for backup in &backups {
        database.change("backups", backup, &ours).await?;
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Volume, &source).await
}
