//! Bad input, at each of its addresses: the reply, `fail_reason`, the log. The worker goes on.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cinderblock_tests::{Broker, Cloud, Lab, Resource, backup_object};
use serde_json::{Value, json};

const NOBODY: &str = "11111111-2222-3333-4444-555555555555";

struct Setup {
    lab: Lab,
    cloud: Cloud,
    broker: Broker,
}

impl Setup {
    async fn new() -> Result<Self> {
        let lab = Lab::from_env()?;
        Ok(Self {
            cloud: Cloud::login(&lab, "demo").await?,
            broker: Broker::connect(&lab).await?,
            lab,
        })
    }

    /// A backup ends in `error`, and everybody is told: the reason that its row, and the log, name.
    async fn fails(&self, backup: &str, message: &str) -> Result<String> {
        let reason = self.cloud.wait_failed(backup).await?;
        let lines = self.lab.logged(backup)?;
        let errors = lines.iter().filter(|line| line.contains(" ERROR "));
        ensure!(errors.clone().count() == 1, "{lines:?}");
        ensure!(
            errors.clone().all(|line| line.contains(&reason)),
            "{reason}: {lines:?}"
        );
        // Only the rest of the failure is written after the status.
        for _ in 0..50 {
            let told = self.cloud.messages(backup).await?;
            if told == [format!(r#""create backup:{message}""#)] {
                return Ok(reason);
            }
            ensure!(told.is_empty(), "{told:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the user is not told of {backup}")
    }

    /// The worker takes work as before.
    async fn still_works(&self) -> Result<()> {
        let volume = self.cloud.create_volume(1).await?;
        let backup = self.cloud.back_up(&volume, false).await?;
        self.cloud.delete(Resource::Backup, &backup).await
    }
}

#[tokio::test]
async fn messages_that_are_none_are_dropped() -> Result<()> {
    let setup = Setup::new().await?;
    let bodies: [&[u8]; 6] = [
        b"",
        b"no JSON at all \xff\xfe",
        b"[1, 2, 3]",
        br#"{"oslo.version": "9.0", "oslo.message": "{}"}"#,
        br#"{"oslo.version": "2.0", "oslo.message": "{\"args\": {}}"}"#,
        &[b'['; 100_000],
    ];
    for body in bodies {
        setup.broker.publish_to_worker(body).await?;
    }
    setup.still_works().await
}

#[tokio::test]
async fn calls_are_answered_with_pythons_exceptions() -> Result<()> {
    let setup = Setup::new().await?;
    let call = async |method: &str, version: &str, args: Value| {
        setup.broker.call_worker(method, version, args).await
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
    setup.still_works().await
}

#[tokio::test]
async fn operations_on_what_does_not_exist_change_nothing() -> Result<()> {
    let setup = Setup::new().await?;
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
        setup.broker.cast_to_worker(method, "2.0", args).await?;
    }
    setup.still_works().await
}

#[tokio::test]
async fn a_message_that_comes_again_changes_nothing() -> Result<()> {
    let setup = Setup::new().await?;
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
        setup.broker.cast_to_worker(method, "2.0", args).await?;
    }
    setup.still_works().await?;
    for (what, id) in [
        (Resource::Backup, &backup),
        (Resource::Volume, &volume),
        (Resource::Volume, &restored),
    ] {
        let shown = setup.cloud.show(what, id).await?.context("it is gone")?;
        ensure!(shown["status"] == "available", "{shown}");
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
        let reason = setup.fails(&backup, message).await?;
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
    let image = format!("volumes/volume-{volume}");
    setup
        .cloud
        .volumes()?
        .rbd(&["rm", "--no-progress", &image])
        .await?;
    let body = json!({"backup": {"volume_id": volume}});
    let backup = setup.cloud.begin_create(Resource::Backup, body).await?;
    let message = "Failed to attach volume.";
    let reason = setup.fails(&backup, message).await?;
    ensure!(reason.contains(&volume), "{reason}");
    setup
        .cloud
        .wait(Resource::Volume, &volume, "available")
        .await?;
    setup.cloud.delete(Resource::Backup, &backup).await
}

#[tokio::test]
async fn without_permission_in_ceph_a_backup_fails_and_leaves_nothing() -> Result<()> {
    let setup = Setup::new().await?;
    let backups = setup.cloud.backups()?;
    let volume = setup.cloud.create_volume(1).await?;
    let image = format!("volumes/volume-{volume}");
    setup.cloud.volumes()?.write(&image, 0, &[7; 8192]).await?;
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
    let body = json!({"backup": {"volume_id": volume}});
    let outcome = async {
        let backup = setup.cloud.begin_create(Resource::Backup, body).await?;
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
    ensure!(setup.cloud.volumes()?.snapshots(&image).await?.is_empty());
    setup.cloud.delete(Resource::Backup, &backup).await?;
    let left = backups.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    setup.still_works().await
}
