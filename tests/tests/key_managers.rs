//! A key manager that is away, one that is not supported, and Cinder's old one: nothing is lost, and
//! volumes that are not encrypted are not touched by it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{
    Barbican, Cloud, Database, Reconfigured, Resource, Setup, eventually, image,
};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests stops what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

const FIXED: &str = "00000000-0000-0000-0000-000000000000";

async fn tidy(cloud: &Cloud, backups: &[&String], volumes: &[&String]) -> Result<()> {
    for backup in backups {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in volumes {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_while_barbican_is_away() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let barbican = Barbican::new(&setup.lab, &setup.cloud)?;
    let (cloud, volumes) = (&setup.cloud, setup.cloud.volumes()?);
    let volume = cloud.create_encrypted_volume(None).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let target = cloud.create_encrypted_volume(None).await?;
    let (key, own) = (
        cloud.key(Resource::Volume, &target).await?,
        cloud.key(Resource::Backup, &backup).await?,
    );
    let content = volumes.content(&image(&target)).await?;

    setup.lab.command(&["stop", "barbican"]).await?;
    let failed = cloud.begin_backup(&volume, false).await?;
    let reason = cloud.wait_failed(&failed).await?;
    ensure!(reason.starts_with("Key manager error: GET /"), "{reason}");
    let shown = cloud.wait(Resource::Volume, &volume, "available").await?;
    ensure!(shown["encryption_key_id"].is_string(), "{shown}");
    ensure!(cloud.find_key(Resource::Backup, &failed).await?.is_none());

    cloud.begin_restore(&backup, Some(&target)).await?;
    cloud
        .wait(Resource::Volume, &target, "error_restoring")
        .await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    ensure!(volumes.content(&image(&target)).await? == content);
    ensure!(cloud.key(Resource::Volume, &target).await? == key);

    // A volume without a key needs nobody to keep it.
    let plain = cloud.create_volume(1).await?;
    let of_plain = cloud.back_up(&plain, false).await?;

    let doomed = format!("/backups/{backup}");
    cloud
        .request(reqwest::Method::DELETE, &doomed, None)
        .await?;
    let shown = cloud
        .wait(Resource::Backup, &backup, "error_deleting")
        .await?;
    let reason = shown["fail_reason"].to_string();
    ensure!(reason.contains("Key manager error: DELETE /"), "{reason}");
    ensure!(shown["encryption_key_id"] == own.as_str(), "{shown}");

    setup.lab.command(&["start", "barbican", "--wait"]).await?;
    ensure!(barbican.describe(&key).await?.is_some());
    for (what, id) in [(Resource::Backup, &backup), (Resource::Volume, &target)] {
        setup.admin.reset(what, id, "available").await?;
    }
    tidy(
        cloud,
        &[&backup, &failed, &of_plain],
        &[&volume, &target, &plain],
    )
    .await?;
    ensure!(barbican.describe(&own).await?.is_none());
    Ok(())
}

/// The worker that finds a deletion in its middle has no user's token, and needs none.
#[tokio::test]
async fn a_deletion_goes_on_after_a_kill_before_its_key_is_gone() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let barbican = Barbican::new(&setup.lab, &setup.cloud)?;
    let cloud = &setup.cloud;
    let volume = cloud.create_encrypted_volume(None).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let own = cloud.key(Resource::Backup, &backup).await?;
    let killing = async {
        let path = format!("/backups/{backup}");
        cloud.request(reqwest::Method::DELETE, &path, None).await?;
        let backups = cloud.backups()?;
        let of_volume = format!("volume-{volume}");
        let images = async || backups.images("backups").await;
        eventually("the data is gone", images, |images| {
            !images.iter().any(|name| name.starts_with(&of_volume))
        })
        .await?;
        sleep(Duration::from_secs(2)).await;
        let kill = ["stop", "--signal", "KILL", "worker"];
        setup.lab.command(&kill).await
    };
    setup.lab.while_stopped("barbican", killing).await?;
    let shown = cloud.show(Resource::Backup, &backup).await?;
    let shown = shown.context("the backup is gone before its key")?;
    ensure!(shown["status"] == "deleting", "{shown}");
    ensure!(shown["encryption_key_id"] == own.as_str(), "{shown}");
    setup.lab.command(&["start", "worker", "--wait"]).await?;
    cloud.wait_gone(Resource::Backup, &backup).await?;
    ensure!(barbican.describe(&own).await?.is_none());
    tidy(cloud, &[], &[&volume]).await
}

#[tokio::test]
async fn a_key_manager_that_is_not_supported_matters_to_encrypted_volumes_only() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.create_encrypted_volume(None).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let other = Reconfigured::worker(&setup.lab, "[key_manager]\nbackend = vault\n").await?;
    const REASON: &str = "[key_manager] backend: vault is not supported";
    ensure!(
        !setup.lab.logged(REASON)?.is_empty(),
        "the start told nothing"
    );

    let failed = cloud.begin_backup(&volume, false).await?;
    let reason = cloud.wait_failed(&failed).await?;
    ensure!(reason.contains(REASON), "{reason}");
    let path = format!("/backups/{backup}");
    cloud.request(reqwest::Method::DELETE, &path, None).await?;
    let reason = cloud.wait_failed(&backup).await?;
    ensure!(reason.contains(REASON), "{reason}");
    let plain = cloud.create_volume(1).await?;
    let of_plain = cloud.back_up(&plain, false).await?;
    cloud.restore(&of_plain, None).await?;
    cloud.delete(Resource::Backup, &of_plain).await?;

    // Nothing of the backup is gone.
    other.restore().await?;
    setup
        .admin
        .reset(Resource::Backup, &backup, "available")
        .await?;
    let volumes = cloud.volumes()?;
    let content = volumes.content(&image(&volume)).await?;
    let made = cloud.create_encrypted_volume(Some(&backup)).await?;
    ensure!(volumes.content(&image(&made)).await? == content);
    tidy(cloud, &[&backup, &failed], &[&volume, &made, &plain]).await
}

async fn set_key(database: &Database, volume: &str, key: &str) -> Result<()> {
    let columns = format!("encryption_key_id = '{key}'");
    database.change("volumes", volume, &columns).await
}

/// Cinder's ConfKeyManager has one key for everything; Barbican takes its place some day.
#[tokio::test]
async fn the_fixed_key_is_used_and_replaced() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let barbican = Barbican::new(&setup.lab, &setup.cloud)?;
    let cloud = &setup.cloud;
    let key: Vec<u8> = (7..39).collect();
    let digits: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
    let volume = cloud.create_encrypted_volume(None).await?;
    let own = cloud.key(Resource::Volume, &volume).await?;
    set_key(&setup.database, &volume, FIXED).await?;

    let class = "cinder.keymgr.conf_key_mgr.ConfKeyManager";
    let options = format!("[key_manager]\nbackend = {class}\nfixed_key = {digits}\n");
    let conf = Reconfigured::worker(&setup.lab, &options).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let deleted = cloud.back_up(&volume, true).await?;
    // The API does not show this one.
    let select = format!("SELECT encryption_key_id AS k FROM backups WHERE volume_id = '{volume}'");
    for row in setup.database.rows(&select).await? {
        ensure!(row["k"] == FIXED, "{row}");
    }
    cloud.delete(Resource::Backup, &deleted).await?;
    conf.restore().await?;

    let options = format!("[key_manager]\nfixed_key = {digits}\n");
    let moving = Reconfigured::worker(&setup.lab, &options).await?;
    let replaced = async || cloud.find_key(Resource::Backup, &backup).await;
    let replaced = eventually("a key in Barbican", replaced, Option::is_some).await?;
    let replaced = replaced.context("no key")?;
    // The user who owns the backup may read the key, which is the service's.
    ensure!(barbican.payload(&replaced).await? == key);
    // A volume that has the fixed key still: its backups get theirs in Barbican.
    let copied = cloud.back_up(&volume, true).await?;
    let copy = cloud.key(Resource::Backup, &copied).await?;
    ensure!(barbican.payload(&copy).await? == key);
    ensure!(copy != replaced);
    moving.restore().await?;
    for (backup, key) in [(&copied, &copy), (&backup, &replaced)] {
        cloud.delete(Resource::Backup, backup).await?;
        ensure!(barbican.describe(key).await?.is_none());
    }
    set_key(&setup.database, &volume, &own).await?;
    tidy(cloud, &[], &[&volume]).await
}
