//! Records: a backup whose rows are lost becomes known again.

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use cinderblock_tests::{Cloud, Database, Lab, Resource, image};
use serde_json::{Value, json};
use uuid::Uuid;

async fn admin() -> Result<(Lab, Cloud)> {
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "admin").await?;
    Ok((lab, cloud))
}

#[tokio::test]
async fn lost_rows_come_back_from_their_records() -> Result<()> {
    let (lab, cloud) = admin().await?;
    let (database, volumes) = (Database::new(&lab)?, cloud.volumes()?);
    let volume = cloud.create_volume(1).await?;
    let source = image(&volume);
    let mut made = Vec::new();
    for incremental in [false, true] {
        let turn = 1 + u8::from(incremental);
        volumes.write(&source, 0, &[turn; 9000]).await?;
        let content = volumes.content(&source).await?;
        let body = json!({"backup": {
            "volume_id": volume, "incremental": incremental, "name": format!("b{turn}"),
            "description": "Grüße", "metadata": {"a": "b"},
        }});
        let backup = cloud.create(Resource::Backup, body).await?;
        made.push((backup, content));
    }
    let mut kept = Vec::new();
    for (backup, _) in &made {
        let shown = cloud.show(Resource::Backup, backup).await?;
        kept.push((shown, cloud.export_record(backup).await?));
    }
    for (backup, _) in made.iter().rev() {
        database.lose_backup(backup).await?;
        ensure!(cloud.show(Resource::Backup, backup).await?.is_none());
    }
    for ((backup, content), (before, record)) in made.iter().zip(kept) {
        cloud.begin_import(&record).await?;
        let mut after = cloud.wait(Resource::Backup, backup, "available").await?;
        let mut before = before.context("the backup was there")?;
        for shown in [&mut before, &mut after] {
            shown["updated_at"].take();
        }
        ensure!(after == before, "{before}\n{after}");
        let restored = cloud.restore(backup, None).await?;
        let found = volumes.content(&image(&restored)).await?;
        ensure!(&found == content, "{backup} is restored as something else");
        cloud.delete(Resource::Volume, &restored).await?;
    }
    for (backup, _) in made.iter().rev() {
        cloud.delete(Resource::Backup, backup).await?;
    }
    let left = cloud.backups()?.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_record_that_cannot_be_imported_says_why() -> Result<()> {
    let (_, cloud) = admin().await?;
    let volume = cloud.create_volume(1).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let record = cloud.export_record(&backup).await?;
    cloud.delete(Resource::Backup, &backup).await?;

    // Its data is gone.
    cloud.begin_import(&record).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(reason.contains("No restore point"), "{reason}");
    cloud.delete(Resource::Backup, &backup).await?;

    let mut foreign = record.clone();
    foreign["backup_service"] = json!("cinder.backup.drivers.swift.SwiftBackupDriver");
    cloud.begin_import(&foreign).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(
        reason.contains("cannot find backup service to perform the import"),
        "{reason}"
    );
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_record_under_another_id_is_imported_and_leaves_the_original_alone() -> Result<()> {
    let (_, cloud) = admin().await?;
    let volume = cloud.create_volume(1).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let mut record = cloud.export_record(&backup).await?;
    let text = record["backup_url"].as_str().context("no backup_url")?;
    let mut said: Value = serde_json::from_slice(&BASE64_STANDARD.decode(text)?)?;
    let other = Uuid::new_v4().to_string();
    said["id"] = json!(other);
    record["backup_url"] = json!(BASE64_STANDARD.encode(said.to_string()));
    cloud.begin_import(&record).await?;
    cloud.wait(Resource::Backup, &other, "available").await?;

    // There is no data of that name.
    let target = cloud.create_volume(1).await?;
    cloud.begin_restore(&other, Some(&target)).await?;
    cloud
        .wait(Resource::Volume, &target, "error_restoring")
        .await?;
    cloud.wait(Resource::Backup, &other, "available").await?;
    cloud.delete(Resource::Backup, &other).await?;
    let restored = cloud.restore(&backup, None).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    for volume in [&restored, &target, &volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}
