//! Bad input, at each of its addresses: the reply, `fail_reason`, the log. The worker goes on.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Broker, Cloud, Resource, Setup, backup_object, eventually, image};
use serde_json::{Value, json};

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

/// Whoever can put a message into the queue chooses which backup, and no more.
#[tokio::test]
async fn what_a_message_says_of_a_backup_leads_to_nobody_elses() -> Result<()> {
    let setup = Setup::new().await?;
    let (cloud, database) = (&setup.cloud, &setup.database);
    let broker = Broker::connect(&setup.lab).await?;
    let (volume, theirs) = (
        cloud.volume_with_data(1).await?,
        setup.admin.create_volume(1).await?,
    );
    let content = cloud.volumes()?.content(&image(&volume)).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let other = setup.admin.back_up(&theirs, false).await?;
    let base = format!("volume-{theirs}.backup.{other}");
    let mut forged = backup_object(&backup);
    for (field, value) in [
        ("volume_id", json!(theirs)),
        ("parent_id", json!(other)),
        ("project_id", json!(setup.admin.project())),
        ("container", json!("volumes")),
        ("service_metadata", json!(json!({"base": base}).to_string())),
        ("temp_volume_id", json!(theirs)),
        ("temp_snapshot_id", json!(theirs)),
        ("encryption_key_id", json!(other)),
    ] {
        forged["versioned_object.data"][field] = value;
    }

    let target = cloud.create_volume(1).await?;
    let begun = "status = 'restoring-backup', previous_status = 'available'";
    database.change("volumes", &target, begun).await?;
    let begun = "status = 'restoring'";
    database.change("backups", &backup, begun).await?;
    let args = json!({"backup": forged, "volume_id": target});
    broker.cast_to_worker("restore_backup", "2.0", args).await?;
    cloud.wait(Resource::Volume, &target, "available").await?;
    ensure!(cloud.volumes()?.content(&image(&target)).await? == content);

    // Of the rows, too, it believes no image that is not the volume's own.
    let lying = format!("service_metadata = '{}'", json!({"base": base}));
    let select = format!("SELECT service_metadata FROM backups WHERE id = '{backup}'");
    let kept = database.rows(&select).await?;
    let kept = kept[0]["service_metadata"].as_str().context("none")?;
    database.change("backups", &backup, &lying).await?;
    let refused = cloud.begin_restore(&backup, Some(&target)).await?;
    cloud
        .wait(Resource::Volume, &refused, "error_restoring")
        .await?;
    let reason = setup.lab.wait_error(&backup).await?;
    ensure!(reason.contains(&base), "{reason}");
    cloud.wait(Resource::Backup, &backup, "available").await?;
    let honest = format!("service_metadata = '{kept}', status = 'deleting'");
    database.change("backups", &backup, &honest).await?;

    let args = json!({"backup": forged});
    broker.cast_to_worker("delete_backup", "2.0", args).await?;
    cloud.wait_gone(Resource::Backup, &backup).await?;
    let left = cloud.backups()?.images("backups").await?;
    ensure!(left.contains(&base), "{left:?}");
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    setup.admin.restore(&other, Some(&theirs)).await?;
    setup.admin.delete(Resource::Backup, &other).await?;
    setup.admin.delete(Resource::Volume, &theirs).await
}

#[tokio::test]
async fn ids_that_are_none_reach_neither_ceph_nor_the_log_as_they_are() -> Result<()> {
    let setup = Setup::new().await?;
    let broker = Broker::connect(&setup.lab).await?;
    let volume = setup.cloud.create_volume(1).await?;
    let backup = setup.cloud.back_up(&volume, false).await?;
    let mark = format!("mark-{}", uuid::Uuid::new_v4().simple());
    let long = mark.repeat((64 << 10) / mark.len());
    for id in [
        format!("{backup}/{mark}"),
        format!("{backup}@{mark}"),
        format!("../{mark}"),
        format!("{backup}\0{mark}"),
        format!("{backup}\n{mark} ERROR"),
        long,
    ] {
        let object = backup_object(&id);
        for (method, args) in [
            ("create_backup", json!({"backup": object})),
            (
                "continue_backup",
                json!({"backup": object, "backup_device": null}),
            ),
            ("delete_backup", json!({"backup": object})),
            ("export_record", json!({"backup": object})),
            ("reset_status", json!({"backup": object, "status": "error"})),
            (
                "restore_backup",
                json!({"backup": backup_object(&backup), "volume_id": id}),
            ),
        ] {
            let failure = broker.call_worker(method, "2.0", args).await?;
            ensure!(failure["class"].is_string(), "{method} {id:?}: {failure}");
        }
    }
    for line in setup.lab.logged(&mark)? {
        let is_line = line.starts_with("20") && line.len() < 1000 && !line.contains('\0');
        ensure!(is_line, "{line:?}");
    }
    for (what, id) in [(Resource::Backup, &backup), (Resource::Volume, &volume)] {
        ensure!(setup.cloud.status(what, id).await? == "available", "{id}");
    }
    still_works(&setup.cloud).await?;
    setup.cloud.delete(Resource::Backup, &backup).await
}
