//! Bad input, at each of its addresses: the reply, `fail_reason`, the log. The worker goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Broker, Cloud, Resource, Setup, backup_object, eventually, image};
use serde_json::{Value, json};
use tokio::sync::RwLock;

/// One of these tests takes the worker's permissions away, which the others need.
static PERMISSIONS: RwLock<()> = RwLock::const_new(());

const NOBODY: &str = "11111111-2222-3333-4444-555555555555";

/// A backup ends in `error`, and everybody is told: the reason that its row, and the log, name.
async fn fails(setup: &Setup, backup: &str, message: &str) -> Result<String> {
    let cloud = &setup.cloud;
    let reason = cloud.wait_failed(backup).await?;
    // The rest of the failure is written after the status.
    let error = setup.lab.wait_error(backup).await?;
    ensure!(error.contains(&reason), "{reason}: {error}");
    let messages = async || cloud.messages(backup).await;
    let told = eventually("a message", messages, |told| !told.is_empty()).await?;
    ensure!(
        told == [format!(r#""create backup:{message}""#)],
        "{told:?}"
    );
    Ok(reason)
}

/// The worker takes work as before.
async fn still_works(cloud: &Cloud) -> Result<()> {
    let volume = cloud.create_volume(1).await?;
    let backup = cloud.back_up(&volume, false).await?;
    cloud.delete(Resource::Backup, &backup).await
}

#[tokio::test]
async fn messages_that_are_none_are_dropped() -> Result<()> {
    let _kept = PERMISSIONS.read().await;
    let setup = Setup::new().await?;
    let broker = Broker::connect(&setup.lab).await?;
    let bodies: [&[u8]; 6] = [
        b"",
        b"no JSON at all \xff\xfe",
        b"[1, 2, 3]",
        br#"{"oslo.version": "9.0", "oslo.message": "{}"}"#,
        br#"{"oslo.version": "2.0", "oslo.message": "{\"args\": {}}"}"#,
        &[b'['; 100_000],
    ];
    for body in bodies {
        broker.publish_to_worker(body).await?;
    }
    still_works(&setup.cloud).await
}

#[tokio::test]
async fn calls_are_answered_with_pythons_exceptions() -> Result<()> {
    let _kept = PERMISSIONS.read().await;
    let setup = Setup::new().await?;
    let broker = Broker::connect(&setup.lab).await?;
    let call = async |method: &str, version: &str, args: Value| {
        broker.call_worker(method, version, args).await
    };
    let failure = call("no_such_thing", "2.0", json!({})).await?;
    ensure!(failure["class"] == "NoSuchMethod", "{failure}");
    let failure = call("export_record", "3.0", json!({"backup": {}})).await?;
    ensure!(failure["class"] == "UnsupportedVersion", "{failure}");
    let failure = call("export_record", "2.99", json!({"backup": {}})).await?;
    ensure!(failure["class"] == "UnsupportedVersion", "{failure}");
    let failure = call("export_record", "2.0", json!({"unheard_of": 1})).await?;
    ensure!(failure["class"] == "TypeError", "{failure}");
    let unknown = json!({"backup": backup_object(NOBODY)});
    let failure = call("export_record", "2.0", unknown).await?;
    ensure!(failure["class"] == "BackupNotFound", "{failure}");
    let mut hostile = backup_object("../../../etc/passwd");
    hostile["versioned_object.data"]["service_metadata"] = json!("{\"base\": \"../x\"}");
    let failure = call("export_record", "2.0", json!({"backup": hostile})).await?;
    ensure!(failure["class"].is_string(), "{failure}");
    still_works(&setup.cloud).await
}

#[tokio::test]
async fn operations_on_what_does_not_exist_change_nothing() -> Result<()> {
    let _kept = PERMISSIONS.read().await;
    let setup = Setup::new().await?;
    let broker = Broker::connect(&setup.lab).await?;
    let object = backup_object(NOBODY);
    for (method, args) in [
        ("create_backup", json!({"backup": object})),
        ("delete_backup", json!({"backup": object})),
        (
            "restore_backup",
            json!({"backup": object, "volume_id": NOBODY}),
        ),
        ("reset_status", json!({"backup": object, "status": "error"})),
    ] {
        broker.cast_to_worker(method, "2.0", args).await?;
    }
    still_works(&setup.cloud).await
}

#[tokio::test]
async fn a_message_that_comes_again_changes_nothing() -> Result<()> {
    let _kept = PERMISSIONS.read().await;
    let setup = Setup::new().await?;
    let broker = Broker::connect(&setup.lab).await?;
    let volume = setup.cloud.create_volume(1).await?;
    let backup = setup.cloud.back_up(&volume, false).await?;
    let restored = setup.cloud.restore(&backup, None).await?;
    let mut object = backup_object(&backup);
    object["versioned_object.data"]["volume_id"] = json!(volume);
    for (method, args) in [
        ("create_backup", json!({"backup": object})),
        (
            "restore_backup",
            json!({"backup": object, "volume_id": restored}),
        ),
        ("delete_backup", json!({"backup": object})),
    ] {
        broker.cast_to_worker(method, "2.0", args).await?;
    }
    still_works(&setup.cloud).await?;
    for (what, id) in [
        (Resource::Backup, &backup),
        (Resource::Volume, &volume),
        (Resource::Volume, &restored),
    ] {
        let status = setup.cloud.status(what, id).await?;
        ensure!(status == "available", "{what:?} {id} is {status}");
    }
    setup.cloud.delete(Resource::Backup, &backup).await
}

#[tokio::test]
async fn a_container_that_is_not_allowed_is_refused_with_the_reason() -> Result<()> {
    let _kept = PERMISSIONS.read().await;
    let setup = Setup::new().await?;
    let volume = setup.cloud.create_volume(1).await?;
    for container in ["volumes", "no-such-pool", "a/b", "../x"] {
        let body = json!({"backup": {"volume_id": volume, "container": container}});
        let backup = setup.cloud.begin_create(Resource::Backup, body).await?;
        let message = "Backup driver failed to create backup.";
        let reason = fails(&setup, &backup, message).await?;
        ensure!(
            reason.contains(container) && reason.contains("not allowed"),
            "{reason}"
        );
        setup
            .cloud
            .wait(Resource::Volume, &volume, "available")
            .await?;
        setup.cloud.delete(Resource::Backup, &backup).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_volume_whose_image_is_gone_fails_with_the_reason() -> Result<()> {
    let _kept = PERMISSIONS.read().await;
    let setup = Setup::new().await?;
    let volume = setup.cloud.create_volume(1).await?;
    let remove = ["rm", "--no-progress", &image(&volume)];
    setup.cloud.volumes()?.rbd(&remove).await?;
    let backup = setup.cloud.begin_backup(&volume, false).await?;
    let message = "Failed to attach volume.";
    let reason = fails(&setup, &backup, message).await?;
    ensure!(reason.contains(&volume), "{reason}");
    setup
        .cloud
        .wait(Resource::Volume, &volume, "available")
        .await?;
    setup.cloud.delete(Resource::Backup, &backup).await
}

#[tokio::test]
async fn without_permission_in_ceph_a_backup_fails_and_leaves_nothing() -> Result<()> {
    let _alone = PERMISSIONS.write().await;
    let setup = Setup::new().await?;
    let backups = setup.cloud.backups()?;
    let volume = setup.cloud.volume_with_data(1).await?;
    let user = "client.cinder-backup";
    let before: Value = serde_json::from_str(
        &backups
            .ceph(&["auth", "get", user, "--format", "json"])
            .await?,
    )?;
    let osd = before[0]["caps"]["osd"]
        .as_str()
        .context("no capability")?
        .to_owned();
    let caps = async |osd: &str| {
        let words = ["auth", "caps", user, "mon", "profile rbd", "osd", osd];
        backups.ceph(&words).await
    };
    // To read is allowed, to write is not.
    caps("allow r").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let outcome = async {
        let backup = setup.cloud.begin_backup(&volume, false).await?;
        let reason = setup.cloud.wait_failed(&backup).await?;
        Ok::<_, anyhow::Error>((backup, reason))
    }
    .await;
    caps(&osd).await?;
    let (backup, reason) = outcome?;
    ensure!(reason.to_lowercase().contains("permi"), "{reason}");
    setup
        .cloud
        .wait(Resource::Volume, &volume, "available")
        .await?;
    let snapshots = setup.cloud.volumes()?.snapshots(&image(&volume)).await?;
    ensure!(snapshots.is_empty(), "{snapshots:?}");
    setup.cloud.delete(Resource::Backup, &backup).await?;
    let left = backups.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    still_works(&setup.cloud).await
}
