//! An import that a worker cannot carry out is handed on to the next.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::Resource;
use serde_json::json;

use crate::{Fleet, OTHER_OURS, OTHER_PYTHONS, OURS, host, verify};

const POSIX: &str = "cinder.backup.drivers.posix.PosixBackupDriver";

impl Fleet {
    /// Whether a worker has been asked to import a record.
    fn was_asked(&self, worker: &str, backup: &str, url: &str) -> Result<bool> {
        // Ours names the backup, Python's the record.
        let mut lines = self.lab.logged_by(worker, backup)?;
        lines.extend(self.lab.logged_by(worker, url)?);
        Ok(lines
            .iter()
            .any(|line| line.contains("Import record started")))
    }
}

#[tokio::test]
async fn what_is_foreign_to_one_is_handed_on() -> Result<()> {
    let fleet = Fleet::of(&[OURS, OTHER_PYTHONS]).await?;
    let cloud = &fleet.cloud;
    let volume = cloud.create_volume(1).await?;
    let (backup, content) = fleet.back_up(&volume, 1).await?;
    let record = cloud.export_record(&backup).await?;
    let url = record["backup_url"].as_str().context("no record")?;

    // Between two of ours, Python's with another driver.
    let folder = PathBuf::from(fleet.lab.variable("LAB_DIR")?);
    let file = folder.join(format!("etc/cinder/{OTHER_PYTHONS}.conf"));
    let original = fs::read_to_string(&file)?;
    fleet.lab.command(&["stop", OTHER_PYTHONS]).await?;
    fs::write(&file, format!("{original}backup_driver = {POSIX}\n"))?;
    let started = fleet.only(&[OURS, OTHER_PYTHONS, OTHER_OURS]).await;
    fs::write(&file, original)?;
    started?;

    // Nobody has this driver: all are asked, the newest first.
    let mut nobodys = record.clone();
    nobodys["backup_service"] = json!("cinder.backup.drivers.swift.SwiftBackupDriver");
    fleet.database.lose_backup(&backup).await?;
    cloud.begin_import(&nobodys).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(reason.contains("cannot find backup service"), "{reason}");
    for worker in [OTHER_OURS, OTHER_PYTHONS, OURS] {
        ensure!(fleet.was_asked(worker, &backup, url)?, "{worker}");
    }

    // Ours hands on to Python's.
    let mut pythons = record.clone();
    pythons["backup_service"] = json!(POSIX);
    fleet.database.lose_backup(&backup).await?;
    cloud.begin_import(&pythons).await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    ensure!(fleet.host_of(&backup).await? == host(OTHER_PYTHONS));

    // Python's hands on to ours.
    fleet.database.lose_backup(&backup).await?;
    fleet
        .database
        .route_to(&[host(OURS), host(OTHER_PYTHONS)])
        .await?;
    cloud.begin_import(&record).await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    ensure!(fleet.host_of(&backup).await? == host(OURS));

    fleet.only(&[OURS]).await?;
    verify(cloud, &[(backup.clone(), content)]).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await?;
    fleet.nothing_left(&volume, &[&backup]).await
}
