//! Restores into volumes that are new, larger, used before, and the backup's own.

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Cluster, Content, Database, Lab, Resource, image};
use serde_json::json;

const MIB: u64 = 1 << 20;

struct Setup {
    cloud: Cloud,
    volumes: Cluster,
    volume: String,
    content: Content,
    full: String,
    incremental: String,
}

async fn set_up() -> Result<Setup> {
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volumes = cloud.volumes()?;
    let volume = cloud.create_volume(1).await?;
    volumes.write(&image(&volume), 0, &vec![1; 2 << 20]).await?;
    let full = cloud.back_up(&volume, false).await?;
    volumes.write(&image(&volume), MIB, b"changed").await?;
    volumes
        .write(&image(&volume), 1023 * MIB, &vec![9; 1 << 20])
        .await?;
    let incremental = cloud.back_up(&volume, true).await?;
    let content = volumes.content(&image(&volume)).await?;
    Ok(Setup {
        cloud,
        volumes,
        volume,
        content,
        full,
        incremental,
    })
}

#[tokio::test]
async fn to_an_existing_volume_nothing_old_shines_through() -> Result<()> {
    let setup = set_up().await?;
    let target = setup.cloud.create_volume(1).await?;
    // Old data where the backup has data, where it has holes, and at the very end.
    for offset in [0, 3 * MIB + 17, 512 * MIB, 1024 * MIB - 4096] {
        setup
            .volumes
            .write(&image(&target), offset, &[0xEE; 4096])
            .await?;
    }
    setup
        .cloud
        .restore(&setup.incremental, Some(&target))
        .await?;
    ensure!(setup.volumes.content(&image(&target)).await? == setup.content);
    ensure!(setup.volumes.snapshots(&image(&target)).await?.is_empty());
    let used = setup.volumes.used(&image(&target)).await?;
    ensure!(used <= 16 * MIB, "the restored volume takes {used} bytes");
    Ok(())
}

#[tokio::test]
async fn to_the_volume_that_was_backed_up() -> Result<()> {
    let setup = set_up().await?;
    let source = image(&setup.volume);
    setup
        .volumes
        .write(&source, 10 * MIB, &vec![0xAA; 5 << 20])
        .await?;
    setup
        .cloud
        .restore(&setup.incremental, Some(&setup.volume))
        .await?;
    ensure!(setup.volumes.content(&source).await? == setup.content);
    // And the chain goes on.
    setup
        .volumes
        .write(&source, 20 * MIB, b"after the restore")
        .await?;
    let content = setup.volumes.content(&source).await?;
    let next = setup.cloud.back_up(&setup.volume, true).await?;
    let restored = setup.cloud.restore(&next, None).await?;
    ensure!(setup.volumes.content(&image(&restored)).await? == content);
    Ok(())
}

#[tokio::test]
async fn to_a_larger_volume_the_rest_is_zero() -> Result<()> {
    let setup = set_up().await?;
    let target = setup.cloud.create_volume(2).await?;
    setup
        .volumes
        .write(&image(&target), 1500 * MIB, &[0xEE; 4096])
        .await?;
    setup.cloud.restore(&setup.full, Some(&target)).await?;
    let first = setup.cloud.restore(&setup.full, None).await?;
    // Grown by zeroes, the small one must equal the large one.
    setup
        .volumes
        .rbd(&["resize", "--no-progress", "--size", "2G", &image(&first)])
        .await?;
    ensure!(
        setup.volumes.content(&image(&first)).await?
            == setup.volumes.content(&image(&target)).await?
    );
    Ok(())
}

#[tokio::test]
async fn metadata_comes_back_and_the_source_is_marked() -> Result<()> {
    let setup = set_up().await?;
    let Setup { cloud, volume, .. } = &setup;
    let path = format!("/volumes/{volume}/metadata");
    let body = json!({"metadata": {"purpose": "books", "umlaut": "Zürich"}});
    let (status, answer) = cloud
        .request(reqwest::Method::POST, &path, Some(body))
        .await?;
    ensure!(status.is_success(), "{answer}");
    let backup = cloud.back_up(volume, true).await?;
    let restored = cloud.restore(&backup, None).await?;
    let shown = cloud
        .show(Resource::Volume, &restored)
        .await?
        .unwrap_or_default();
    ensure!(shown["metadata"]["purpose"] == "books", "{shown}");
    ensure!(shown["metadata"]["umlaut"] == "Zürich", "{shown}");
    ensure!(
        shown["metadata"]["src_backup_id"] == backup.as_str(),
        "{shown}"
    );
    Ok(())
}

#[tokio::test]
async fn without_the_data_it_fails_and_says_so() -> Result<()> {
    let setup = set_up().await?;
    let Setup {
        cloud,
        volume,
        full,
        incremental,
        ..
    } = &setup;
    let backups = cloud.backups()?;
    let base = format!("backups/volume-{volume}.backup.{full}");
    backups
        .rbd(&["snap", "purge", "--no-progress", &base])
        .await?;
    backups.rbd(&["rm", "--no-progress", &base]).await?;
    let target = cloud.begin_restore(incremental, None).await?;
    cloud
        .wait(Resource::Volume, &target, "error_restoring")
        .await?;
    // The backup itself is still there to be looked at and deleted.
    cloud
        .wait(Resource::Backup, incremental, "available")
        .await?;
    cloud.delete(Resource::Backup, incremental).await?;
    cloud.delete(Resource::Backup, full).await
}

#[tokio::test]
async fn several_volumes_are_created_from_one_backup_at_a_time() -> Result<()> {
    let setup = set_up().await?;
    let (cloud, lab) = (&setup.cloud, Lab::from_env()?);
    let asking = async {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let body = json!({"volume": {"size": 1, "backup_id": setup.incremental}});
            asked.push(cloud.begin_create(Resource::Volume, body).await?);
        }
        Ok(asked)
    };
    // Each is accepted while the backup is available.
    let made = lab.while_stopped("cinder-volume", asking).await?;
    for volume in &made {
        cloud.wait(Resource::Volume, volume, "available").await?;
        let content = setup.volumes.content(&image(volume)).await?;
        ensure!(content == setup.content, "{volume} holds something else");
    }
    let backup = &setup.incremental;
    cloud.wait(Resource::Backup, backup, "available").await?;
    for volume in &made {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn metadata_of_more_than_a_mebibyte_comes_back() -> Result<()> {
    const PAIRS: u32 = 5000;
    let lab = Lab::from_env()?;
    let (cloud, database) = (Cloud::login(&lab, "demo").await?, Database::new(&lab)?);
    let volume = cloud.create_volume(1).await?;
    database
        .add_metadata(&volume, PAIRS, &"v".repeat(255))
        .await?;
    let backup = cloud.back_up(&volume, false).await?;
    let object = format!("backup.{backup}.meta");
    let backups = cloud.backups()?;
    let stat = backups.rados(&["-p", "backups", "stat", &object]).await?;
    let size = stat.rsplit("size ").next().unwrap_or_default().trim();
    ensure!(size.parse::<u64>()? > MIB, "{stat}");

    let restored = cloud.restore(&backup, None).await?;
    let count = format!(
        "SELECT COUNT(*) AS n FROM volume_metadata \
         WHERE volume_id = '{restored}' AND deleted = 0 AND `key` LIKE 'key-%'"
    );
    let counted = database.rows(&count).await?;
    ensure!(counted[0]["n"] == format!("{PAIRS}"), "{counted:?}");
    cloud.delete(Resource::Backup, &backup).await?;
    for volume in [&restored, &volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// The flag is for those who use a volume: cinder-volume tells of it where an administrator asks.
#[tokio::test]
async fn a_volume_that_its_users_may_only_read_is_backed_up_and_restored() -> Result<()> {
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "admin").await?;
    let volumes = cloud.volumes()?;
    let volume = cloud.create_volume(1).await?;
    let image = image(&volume);
    let read_only = json!({"os-update_readonly_flag": {"readonly": true}});
    cloud.action(Resource::Volume, &volume, read_only).await?;
    volumes.write(&image, MIB, b"kept").await?;
    let content = volumes.content(&image).await?;
    let backup = cloud.back_up(&volume, false).await?;
    volumes.write(&image, MIB, b"lost").await?;
    cloud.restore(&backup, Some(&volume)).await?;
    ensure!(volumes.content(&image).await? == content);
    cloud.delete(Resource::Backup, &backup).await?;
    ensure!(volumes.snapshots(&image).await?.is_empty());
    cloud.delete(Resource::Volume, &volume).await
}
