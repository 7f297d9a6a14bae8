//! Requests that find their rows in another state than they were sent for.
//!
//! Python's worker believes the status inside a message, ours the row: both say the same here. The
//! worker hangs while a request waits for it and the rows are changed.

use anyhow::Result;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use cinderblock_tests::Resource;
use reqwest::Method;
use serde_json::json;

use crate::scenario::{make, new_volume};
use crate::starts;
use crate::world::World;

const FAILED: &str = "status = 'error'";
const FREE: &str = "status = 'available'";
const OURS: &str = "service = 'cinder.backup.drivers.ceph.CephBackupDriver'";
const SWIFT: &str = "cinder.backup.drivers.swift.SwiftBackupDriver";
const OTHERS: &str = "service = 'cinder.backup.drivers.swift.SwiftBackupDriver'";

/// Plays all of it.
pub async fn play(world: &mut World) -> Result<()> {
    creates(world).await?;
    let volume = new_volume(world, "source").await?;
    let mut backups = Vec::new();
    for name in ["one", "two", "others"] {
        backups.push(make(world, &volume, json!({}), name).await?);
    }
    let [one, two, others] = [&backups[0], &backups[1], &backups[2]].map(String::as_str);
    world.database.change("backups", others, OTHERS).await?;
    world.observe("three backups are made").await?;

    restores(world, one, two, others).await?;
    deletes_and_resets(world, one, two, others).await?;
    records(world, one, two, others).await?;

    world.database.change("backups", others, OURS).await?;
    starts::play(world, &volume, [one, two, others]).await
}

/// Sends requests and changes rows while the worker does not look.
async fn while_it_sleeps<T>(world: &World, doing: impl Future<Output = Result<T>>) -> Result<T> {
    world.lab.while_stopped(world.worker, doing).await
}

async fn creates(world: &mut World) -> Result<()> {
    let volume = new_volume(world, "busy").await?;
    let snapshot = world.cloud.create_snapshot(&volume).await?;
    let snapshot = world.name(snapshot, "used");
    let sources = [
        (json!({"snapshot_id": snapshot}), "snapshots", &snapshot),
        (json!({}), "volumes", &volume),
    ];
    let sent = async {
        let mut sent = Vec::new();
        for (source, table, id) in sources {
            let mut body = json!({"backup": {"volume_id": volume, "force": true}});
            if let Some(snapshot) = source.get("snapshot_id") {
                body["backup"]["snapshot_id"] = snapshot.clone();
            }
            let backup = world.cloud.begin_create(Resource::Backup, body).await?;
            // By then the scheduler has sent it on.
            world
                .cloud
                .becomes(Resource::Backup, &backup, "creating")
                .await?;
            world.database.change(table, id, FAILED).await?;
            sent.push(backup);
        }
        Ok(sent)
    };
    let sent = while_it_sleeps(world, sent).await?;
    let mut refused = Vec::new();
    for (backup, name) in sent.into_iter().zip(["of-used", "of-busy"]) {
        world.cloud.wait_failed(&backup).await?;
        refused.push(world.name(backup, name));
    }
    let step = "backups are made of a volume and a snapshot that others use";
    world.observe(step).await?;
    for backup in &refused {
        world.cloud.delete(Resource::Backup, backup).await?;
    }
    world
        .observe("backups that no driver began are deleted")
        .await?;
    world.database.change("snapshots", &snapshot, FREE).await?;
    world.cloud.delete(Resource::Snapshot, &snapshot).await?;
    world.database.change("volumes", &volume, FREE).await?;
    world.cloud.delete(Resource::Volume, &volume).await
}

async fn restores(world: &mut World, one: &str, two: &str, others: &str) -> Result<()> {
    let mut targets = Vec::new();
    for name in ["unfit", "waiting", "foreign"] {
        targets.push(new_volume(world, name).await?);
    }
    let [unfit, waiting, foreign] = [&targets[0], &targets[1], &targets[2]];
    let sent = async {
        world.cloud.begin_restore(one, Some(unfit)).await?;
        world.cloud.begin_restore(others, Some(foreign)).await?;
        world.database.change("volumes", unfit, FAILED).await?;
        let waits = "status = 'restoring-backup'";
        world.database.change("volumes", waiting, waits).await?;
        world.database.change("backups", two, FAILED).await
    };
    while_it_sleeps(world, sent).await?;
    world.requests.hear()?;
    let args = json!({"volume_id": waiting, "volume_is_new": false});
    let (requests, broker) = (&world.requests, &world.broker);
    requests
        .again(broker, "restore_backup", two, "error", args)
        .await?;
    world
        .cloud
        .becomes(Resource::Volume, unfit, "error_restoring")
        .await?;
    world
        .cloud
        .becomes(Resource::Volume, waiting, "error")
        .await?;
    world
        .cloud
        .becomes(Resource::Volume, foreign, "error")
        .await?;
    for backup in [one, others] {
        world
            .cloud
            .becomes(Resource::Backup, backup, "available")
            .await?;
    }
    world.observe("restores are refused").await?;
    for volume in &targets {
        world.cloud.delete(Resource::Volume, volume).await?;
    }
    let available = "status = 'available', fail_reason = NULL";
    world.database.change("backups", two, available).await
}

async fn deletes_and_resets(world: &mut World, one: &str, two: &str, others: &str) -> Result<()> {
    let path = format!("/backups/{others}");
    world.cloud.request(Method::DELETE, &path, None).await?;
    world.cloud.wait_failed(others).await?;
    let (requests, broker) = (&world.requests, &world.broker);
    requests
        .again(broker, "delete_backup", two, "available", json!({}))
        .await?;
    world.observe("deletes are refused").await?;
    let available = "status = 'available', fail_reason = NULL";
    for backup in [two, others] {
        world.database.change("backups", backup, available).await?;
    }

    world
        .database
        .change("backups", one, "service = NULL")
        .await?;
    for backup in [others, one] {
        let reset = json!({"os-reset_status": {"status": "error"}});
        world.cloud.action(Resource::Backup, backup, reset).await?;
    }
    world.observe("what is not ours is reset").await?;
    let ours = format!("{OURS}, {FREE}");
    world.database.change("backups", one, &ours).await
}

async fn records(world: &mut World, one: &str, two: &str, others: &str) -> Result<()> {
    let path = format!("/backups/{others}/export_record");
    let (status, answer) = world.cloud.request(Method::GET, &path, None).await?;
    let refused = json!({"status": status.as_u16(), "answer": answer});
    world.note("another driver's backup is exported", refused);
    world.database.change("backups", two, FAILED).await?;
    let (requests, broker) = (&world.requests, &world.broker);
    let refused = requests.call(broker, "export_record", two, "error").await?;
    world.database.change("backups", two, FREE).await?;
    world.note("a failed backup is exported", refused);

    let record = world.cloud.export_record(one).await?;
    let foreign = json!({"backup_url": record["backup_url"], "backup_service": SWIFT});
    world.database.lose_backup(one).await?;
    world.cloud.begin_import(&foreign).await?;
    world.cloud.wait_failed(one).await?;
    world.observe("another driver's record is imported").await?;

    let of_two = world.cloud.export_record(two).await?;
    let incomplete = json!({"id": one}).to_string();
    for (step, url) in [
        ("a record that is none is imported", json!("none")),
        (
            "a record without its fields is imported",
            BASE64_STANDARD.encode(incomplete).into(),
        ),
        (
            "another backup's record is imported",
            of_two["backup_url"].clone(),
        ),
    ] {
        world
            .database
            .change("backups", one, "status = 'creating'")
            .await?;
        let args = json!({
            "backup_service": record["backup_service"], "backup_url": url, "backup_hosts": [],
        });
        let (requests, broker) = (&world.requests, &world.broker);
        requests
            .again(broker, "import_record", one, "creating", args)
            .await?;
        world.cloud.wait_failed(one).await?;
        world.observe(step).await?;
    }
    world.database.lose_backup(one).await?;
    world.cloud.begin_import(&record).await?;
    world.cloud.wait(Resource::Backup, one, "available").await?;
    world.observe("its own record is imported").await
}
