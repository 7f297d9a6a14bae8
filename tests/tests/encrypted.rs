//! Encrypted volumes: the data is copied as it is, and every backup and every restored volume gets a
//! key of its own in a real Barbican, with which its LUKS header opens.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use cinderblock_tests::{Barbican, Cloud, Cluster, Database, Lab, Resource, image};
use serde_json::json;

struct Setup {
    cloud: Cloud,
    volumes: Cluster,
    barbican: Barbican,
}

impl Setup {
    async fn new() -> Result<Self> {
        let lab = Lab::from_env()?;
        let cloud = Cloud::login(&lab, "demo").await?;
        Ok(Self {
            volumes: cloud.volumes()?,
            barbican: Barbican::new(&lab, &cloud)?,
            cloud,
        })
    }

    /// The key of a volume, with which it opens and with no other.
    async fn opening_key(&self, volume: &str) -> Result<String> {
        let key = self.cloud.key(Resource::Volume, volume).await?;
        let mut payload = self.barbican.payload(&key).await?;
        let opens = self.volumes.opens_with(&image(volume), &payload).await?;
        ensure!(opens, "{volume} does not open with {key}");
        payload[0] ^= 1;
        let opens = self.volumes.opens_with(&image(volume), &payload).await?;
        ensure!(!opens, "{volume} opens with another key");
        Ok(key)
    }

    async fn is_there(&self, key: &str) -> Result<bool> {
        Ok(self.barbican.describe(key).await?.is_some())
    }

    async fn delete(&self, what: Resource, id: &str) -> Result<()> {
        self.cloud.delete(what, id).await
    }
}

#[tokio::test]
async fn every_backup_and_every_restored_volume_has_a_key_of_its_own() -> Result<()> {
    let setup = Setup::new().await?;
    let (cloud, volumes) = (&setup.cloud, &setup.volumes);
    let volume = cloud.create_encrypted_volume(None).await?;
    let key = setup.opening_key(&volume).await?;
    volumes.write(&image(&volume), 64 << 20, &[1; 9000]).await?;
    let full = cloud.back_up(&volume, false).await?;
    let first = volumes.content(&image(&volume)).await?;
    // Behind the volume's size, since the header in front of the data counts for nothing in it.
    volumes.write(&image(&volume), 1 << 30, &[2; 9000]).await?;
    let incremental = cloud.back_up(&volume, true).await?;
    let second = volumes.content(&image(&volume)).await?;

    // The same key for castellan, whoever stored it.
    let (described, payload) = (
        setup.barbican.describe(&key).await?,
        setup.barbican.payload(&key).await?,
    );
    let mut keys = BTreeSet::from([key.clone()]);
    for backup in [&full, &incremental] {
        let own = cloud.key(Resource::Backup, backup).await?;
        ensure!(setup.barbican.describe(&own).await? == described);
        ensure!(setup.barbican.payload(&own).await? == payload);
        keys.insert(own);
    }

    // Into a volume with a key, which opens nothing any more.
    let existing = cloud.create_encrypted_volume(None).await?;
    let former = setup.opening_key(&existing).await?;
    cloud.restore(&incremental, Some(&existing)).await?;
    ensure!(volumes.content(&image(&existing)).await? == second);
    keys.insert(setup.opening_key(&existing).await?);
    ensure!(
        !setup.is_there(&former).await?,
        "the former key is still there"
    );

    // Into a volume that is made of it.
    let made = cloud.create_encrypted_volume(Some(&full)).await?;
    ensure!(volumes.content(&image(&made)).await? == first);
    keys.insert(setup.opening_key(&made).await?);
    ensure!(keys.len() == 5, "a key is used twice: {keys:?}");

    // Into the volume that was backed up, which opens with its own.
    cloud.restore(&full, Some(&volume)).await?;
    ensure!(volumes.content(&image(&volume)).await? == first);
    ensure!(setup.opening_key(&volume).await? == key, "another key");

    for backup in [&incremental, &full] {
        let own = cloud.key(Resource::Backup, backup).await?;
        setup.delete(Resource::Backup, backup).await?;
        ensure!(
            !setup.is_there(&own).await?,
            "the backup's key is still there"
        );
    }
    for left in [&volume, &existing, &made] {
        setup.opening_key(left).await?;
        setup.delete(Resource::Volume, left).await?;
    }
    Ok(())
}

/// A record may be edited before it is imported, and name any key then.
#[tokio::test]
async fn a_key_that_is_somebody_elses_stays() -> Result<()> {
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let (volume, other) = (
        cloud.create_encrypted_volume(None).await?,
        cloud.create_encrypted_volume(None).await?,
    );
    let backup = cloud.back_up(&volume, false).await?;
    let others = cloud.key(Resource::Volume, &other).await?;
    let names = format!("encryption_key_id = '{}'", others.replace('-', ""));
    let database = Database::new(&Lab::from_env()?)?;
    database.change("backups", &backup, &names).await?;
    setup.delete(Resource::Backup, &backup).await?;
    ensure!(setup.is_there(&others).await?, "the key is gone");
    for volume in [&volume, &other] {
        setup.opening_key(volume).await?;
        setup.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// A snapshot has its volume's key: what was in the volume when it was made opens with no other.
#[tokio::test]
async fn the_former_key_stays_for_the_snapshots_of_a_volume() -> Result<()> {
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = cloud.create_encrypted_volume(None).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let target = cloud.create_encrypted_volume(None).await?;
    let former = setup.opening_key(&target).await?;
    let payload = setup.barbican.payload(&former).await?;
    let snapshot = cloud.create_snapshot(&target).await?;
    cloud.restore(&backup, Some(&target)).await?;
    ensure!(setup.opening_key(&target).await? != former);
    let before = format!("{}@snapshot-{snapshot}", image(&target));
    ensure!(setup.barbican.payload(&former).await? == payload);
    ensure!(setup.volumes.opens_with(&before, &payload).await?);
    setup.delete(Resource::Snapshot, &snapshot).await?;
    setup.delete(Resource::Backup, &backup).await?;
    for volume in [&volume, &target] {
        setup.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// A backup of a snapshot comes from a temporary volume with a key of its own.
#[tokio::test]
async fn a_snapshot_of_an_encrypted_volume_is_backed_up() -> Result<()> {
    let setup = Setup::new().await?;
    let (cloud, volumes) = (&setup.cloud, &setup.volumes);
    let volume = cloud.create_encrypted_volume(None).await?;
    let content = volumes.content(&image(&volume)).await?;
    let snapshot = cloud.create_snapshot(&volume).await?;
    let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
    let backup = cloud.create(Resource::Backup, body).await?;
    let made = cloud.create_encrypted_volume(Some(&backup)).await?;
    ensure!(volumes.content(&image(&made)).await? == content);
    setup.opening_key(&made).await?;
    setup.delete(Resource::Backup, &backup).await?;
    setup.delete(Resource::Snapshot, &snapshot).await?;
    for volume in [&volume, &made] {
        setup.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// What could not be read in a volume of another type is not written into it.
#[tokio::test]
async fn a_volume_of_another_type_is_refused_before_the_first_byte() -> Result<()> {
    let setup = Setup::new().await?;
    let (cloud, volumes) = (&setup.cloud, &setup.volumes);
    let volume = cloud.create_encrypted_volume(None).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let plain = cloud.create_volume(1).await?;
    volumes.write(&image(&plain), 0, &[3; 5000]).await?;
    let content = volumes.content(&image(&plain)).await?;
    cloud.begin_restore(&backup, Some(&plain)).await?;
    cloud
        .wait(Resource::Volume, &plain, "error_restoring")
        .await?;
    cloud.wait(Resource::Backup, &backup, "available").await?;
    ensure!(volumes.content(&image(&plain)).await? == content);
    ensure!(cloud.find_key(Resource::Volume, &plain).await?.is_none());
    setup.delete(Resource::Backup, &backup).await?;
    for volume in [&volume, &plain] {
        setup.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// Data that is not encrypted opens with no key.
#[tokio::test]
async fn a_volume_loses_its_key_to_data_that_is_not_encrypted() -> Result<()> {
    let setup = Setup::new().await?;
    let (cloud, volumes) = (&setup.cloud, &setup.volumes);
    let plain = cloud.create_volume(1).await?;
    volumes.write(&image(&plain), 0, &[4; 5000]).await?;
    let content = volumes.content(&image(&plain)).await?;
    let backup = cloud.back_up(&plain, false).await?;
    ensure!(cloud.find_key(Resource::Backup, &backup).await?.is_none());
    let target = cloud.create_encrypted_volume(None).await?;
    let former = setup.opening_key(&target).await?;
    cloud.restore(&backup, Some(&target)).await?;
    ensure!(volumes.content(&image(&target)).await? == content);
    ensure!(cloud.find_key(Resource::Volume, &target).await?.is_none());
    ensure!(!setup.is_there(&former).await?);
    setup.delete(Resource::Backup, &backup).await?;
    for volume in [&plain, &target] {
        setup.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}
