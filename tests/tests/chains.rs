//! Chains of backups: every order of making, restoring and deleting keeps every other backup whole.

use anyhow::{Result, ensure};
use cinderblock_tests::{Chain, Cloud, Lab, Resource, image};
use serde_json::json;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn deletes_from_the_end_leave_the_rest_whole() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 8 * MIB).await?;
    let full = chain.back_up(false).await?;
    chain.write(2 * MIB + 100, 2, MIB).await?;
    let first = chain.back_up(true).await?;
    chain
        .volumes
        .discard(&chain.image(), 4 * MIB, 4 * MIB)
        .await?;
    chain.write(900 * MIB, 3, 5000).await?;
    let second = chain.back_up(true).await?;
    chain.verify().await?;

    // One in the middle, or the first, has backups that depend on it: Cinder's API refuses.
    let path = format!("/backups/{first}");
    let (status, _) = chain
        .cloud
        .request(reqwest::Method::DELETE, &path, None)
        .await?;
    ensure!(status == reqwest::StatusCode::BAD_REQUEST, "{status}");

    chain.delete(&second).await?;
    chain.verify().await?;
    // The next incremental builds on `first` although the image's head holds `second`. What that
    // wrote at 900 MiB was a hole in `first` and is one again: no diff tells of it.
    chain
        .volumes
        .discard(&chain.image(), 896 * MIB, 8 * MIB)
        .await?;
    chain.write(5 * MIB, 4, MIB).await?;
    let third = chain.back_up(true).await?;
    chain.verify().await?;
    for backup in [&third, &first, &full] {
        chain.delete(backup).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    ensure!(chain.volumes.snapshots(&chain.image()).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn two_chains_of_one_volume_do_not_touch_each_other() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 4 * MIB).await?;
    let old = chain.back_up(false).await?;
    chain.write(MIB, 2, MIB).await?;
    chain.back_up(false).await?;
    chain.write(3 * MIB, 3, 2 * MIB).await?;
    chain.back_up(true).await?;
    chain.delete(&old).await?;
    chain.verify().await
}

#[tokio::test]
async fn a_volume_that_grew_goes_on_in_its_chain() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    chain.write(1000 * MIB, 1, MIB).await?;
    chain.back_up(false).await?;
    chain
        .cloud
        .action(
            Resource::Volume,
            &chain.volume,
            json!({"os-extend": {"new_size": 2}}),
        )
        .await?;
    chain
        .cloud
        .wait(Resource::Volume, &chain.volume, "available")
        .await?;
    chain.write(2000 * MIB, 2, MIB).await?;
    chain.back_up(true).await?;
    chain.verify().await?;

    // An old, small point into a volume as large as the grown one: its image has the full size.
    let (old, _) = &chain.made[0];
    let target = chain.cloud.create_volume(2).await?;
    chain.cloud.restore(old, Some(&target)).await?;
    let info = chain.volumes.rbd(&["info", &image(&target)]).await?;
    ensure!(info.contains("size 2 GiB"), "{info}");
    Ok(())
}

#[tokio::test]
async fn an_unchanged_volume_costs_nothing() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 7, 16 * MIB).await?;
    chain.back_up(false).await?;
    chain.back_up(true).await?;
    let base = chain.base_image().await?.unwrap_or_default();
    let used = chain.backups.used(&format!("backups/{base}")).await?;
    ensure!(used <= 17 * MIB, "the image takes {used} bytes");
    chain.verify().await
}

#[tokio::test]
async fn an_incremental_without_its_parents_snapshot_is_compared() -> Result<()> {
    let lab = Lab::from_env()?;
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 24 * MIB).await?;
    chain.back_up(false).await?;
    let source = chain.image();
    for snapshot in chain.volumes.snapshots(&source).await? {
        let snapshot = format!("{source}@{snapshot}");
        chain
            .volumes
            .rbd(&["snap", "rm", "--no-progress", &snapshot])
            .await?;
    }
    chain.write(8 * MIB, 2, MIB).await?;
    let compared = chain.back_up(true).await?;
    ensure!(chain.is_incremental(&compared).await?);
    let logged = lab.logged(&compared)?;
    let told = "does not have the parent's snapshot";
    ensure!(logged.iter().any(|line| line.contains(told)), "{logged:?}");
    ensure!(chain.cloud.messages(&chain.volume).await?.is_empty());
    chain.verify().await?;
    // The new one takes what differs, and can be built on.
    let base = chain.base_image().await?.unwrap_or_default();
    let used = chain.backups.used(&format!("backups/{base}")).await?;
    ensure!(used <= 32 * MIB, "the image takes {used} bytes");
    chain.write(12 * MIB, 3, MIB).await?;
    chain.back_up(true).await?;
    chain.verify().await
}

#[tokio::test]
async fn a_chain_that_lost_a_restore_point_goes_on_by_comparing() -> Result<()> {
    let lab = Lab::from_env()?;
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 2 * MIB).await?;
    let full = chain.back_up(false).await?;
    let base = format!("backups/volume-{}.backup.{full}", chain.volume);
    chain.write(0, 3, MIB).await?;
    let parent = chain.back_up(true).await?;
    for snapshot in chain.backups.snapshots(&base).await? {
        if snapshot.contains(&parent) {
            let lost = format!("{base}@{snapshot}");
            chain.backups.rbd(&["snap", "rm", &lost]).await?;
        }
    }
    chain.made.retain(|(id, _)| *id != parent);
    // Whatever the image holds now.
    let other = vec![9; 3 << 20];
    chain.backups.write(&base, 5 * MIB, &other).await?;
    chain.write(MIB, 2, MIB).await?;
    let compared = chain.back_up(true).await?;
    ensure!(chain.is_incremental(&compared).await?);
    let logged = lab.logged(&compared)?;
    let told = "does not hold its restore point";
    ensure!(logged.iter().any(|line| line.contains(told)), "{logged:?}");
    chain.verify().await?;
    for backup in [&compared, &parent, &full] {
        chain.delete(backup).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    chain.cloud.delete(Resource::Volume, &chain.volume).await
}

#[tokio::test]
async fn a_chain_of_which_nothing_is_left_is_followed_by_a_full_backup() -> Result<()> {
    let lab = Lab::from_env()?;
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 2 * MIB).await?;
    for (damage, reason) in [
        // What the image holds may be all that is left of the parent.
        (&["snap", "purge"][..], "does not hold its restore point"),
        (&["rm"], "does not exist"),
    ] {
        let parent = chain.back_up(false).await?;
        let base = format!("backups/volume-{}.backup.{parent}", chain.volume);
        chain.backups.rbd(&["snap", "purge", &base]).await?;
        chain
            .backups
            .rbd(&[damage, &[base.as_str()]].concat())
            .await?;
        chain.made.retain(|(id, _)| id != &parent);
        let told = chain.cloud.messages(&chain.volume).await?.len();

        chain.write(MIB, 2, MIB).await?;
        let forced = chain.back_up(true).await?;
        ensure!(!chain.is_incremental(&forced).await?);
        chain.verify().await?;
        let logged = lab.logged(&forced)?;
        let warned = |line: &&String| {
            line.contains("WARNING")
                && line.contains("Making a full backup instead")
                && line.contains(reason)
        };
        ensure!(logged.iter().filter(warned).count() == 1, "{logged:?}");
        let messages = chain.cloud.messages(&chain.volume).await?;
        ensure!(messages.len() == told + 1, "{messages:?}");
        chain.cloud.delete(Resource::Backup, &parent).await?;
        chain.delete(&forced).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    chain.cloud.delete(Resource::Volume, &chain.volume).await
}

#[tokio::test]
async fn a_snapshot_is_backed_up_as_often_as_one_likes() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 5, 3 * MIB).await?;
    let content = chain.volumes.content(&chain.image()).await?;
    let snapshot = chain.cloud.create_snapshot(&chain.volume).await?;
    chain.write(MIB, 6, MIB).await?;
    // Each is a full one, whatever was asked for: no parent stands in the way of a deletion.
    for incremental in [false, true] {
        let body = json!({"backup": {
            "volume_id": chain.volume, "snapshot_id": snapshot, "incremental": incremental,
        }});
        let backup = chain.cloud.create(Resource::Backup, body).await?;
        let shown = chain.cloud.show(Resource::Backup, &backup).await?;
        ensure!(shown.is_some_and(|backup| backup["is_incremental"] == false));
        chain.made.push((backup, content.clone()));
    }
    chain.verify().await?;
    let shown = chain
        .cloud
        .wait(Resource::Snapshot, &snapshot, "available")
        .await?;
    ensure!(shown["status"] == "available");
    for (backup, _) in chain.made.clone() {
        chain.delete(&backup).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_volume_in_use_is_backed_up_and_let_go() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    let lab = Lab::from_env()?;
    chain.write(0, 1, 2 * MIB).await?;
    lab.command(&["volume-attach", &chain.volume]).await?;
    let full = chain.back_up(false).await?;
    chain.write(MIB, 2, MIB).await?;
    let incremental = chain.back_up(true).await?;
    let shown = chain.cloud.show(Resource::Volume, &chain.volume).await?;
    ensure!(shown.is_some_and(|volume| volume["status"] == "in-use"));
    chain.verify().await?;
    for backup in [&incremental, &full] {
        chain.delete(backup).await?;
    }
    ensure!(chain.volumes.snapshots(&chain.image()).await?.is_empty());
    let shown = chain.cloud.show(Resource::Volume, &chain.volume).await?;
    ensure!(shown.is_some_and(|volume| volume["status"] == "in-use"));
    lab.command(&["volume-detach", &chain.volume]).await?;
    Ok(())
}

#[tokio::test]
async fn a_volume_that_is_reverted_to_a_snapshot_goes_on_in_its_chain() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 9 * MIB).await?;
    chain.back_up(false).await?;
    // What it holds is older than the incremental, which is what makes reverting special.
    let snapshot = chain.cloud.create_snapshot(&chain.volume).await?;
    chain.write(0, 2, 2 * MIB).await?;
    chain.write(40 * MIB, 3, MIB).await?;
    chain.back_up(true).await?;
    let revert = json!({"revert": {"snapshot_id": snapshot}});
    let volume = chain.volume.clone();
    chain
        .cloud
        .action(Resource::Volume, &volume, revert)
        .await?;
    for (what, id) in [(Resource::Volume, &volume), (Resource::Snapshot, &snapshot)] {
        chain.cloud.wait(what, id, "available").await?;
    }
    chain.back_up(true).await?;
    chain.verify().await
}

#[tokio::test]
async fn quota_counts_what_there_is() -> Result<()> {
    let lab = Lab::from_env()?;
    // The administrator's project: no other test makes backups in it.
    let cloud = Cloud::login(&lab, "admin").await?;
    let (backups, gigabytes) = cloud.backup_usage().await?;
    let volume = cloud.create_volume(2).await?;
    let backup = cloud.back_up(&volume, false).await?;
    ensure!(cloud.backup_usage().await? == (backups + 1, gigabytes + 2));
    cloud.delete(Resource::Backup, &backup).await?;
    ensure!(cloud.backup_usage().await? == (backups, gigabytes));
    Ok(())
}
