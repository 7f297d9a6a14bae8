//! The operations that both workers carry out.

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use cinderblock_tests::{Lab, Resource, image};
use serde_json::{Value, json};

use crate::refusals;
use crate::world::World;

const MIB: u64 = 1 << 20;

/// Plays everything with the worker that runs; what stood after each step.
pub async fn play(lab: &Lab, worker: &'static str) -> Result<Vec<(String, Value)>> {
    // Who may export and import records.
    let mut world = World::new(lab, "admin", worker).await?;
    chain(&mut world).await?;
    sources(lab, &mut world).await?;
    failures(&mut world).await?;
    refusals::play(&mut world).await?;
    world.note("the scheduler is told", world.requests.capabilities()?);
    Ok(world.seen)
}

/// No two blocks are the same.
fn data() -> Vec<u8> {
    let words = (0..3 * MIB / 8).map(|word| (word + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}

pub async fn new_volume(world: &mut World, name: &str) -> Result<String> {
    let body = json!({"volume": {
        "size": 1, "name": "data", "description": "d", "metadata": {"tier": "gold", "a": "ä"},
    }});
    let id = world.cloud.create(Resource::Volume, body).await?;
    Ok(world.name(id, name))
}

async fn back_up(world: &mut World, volume: &str, more: Value, name: &str) -> Result<String> {
    let id = make(world, volume, more, name).await?;
    world.volume_content(volume).await?;
    world.backup_content(volume, &id).await?;
    world.observe(&format!("{name} is made")).await?;
    Ok(id)
}

pub async fn make(world: &mut World, volume: &str, more: Value, name: &str) -> Result<String> {
    let mut body = json!({"volume_id": volume, "force": true, "name": name});
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    let body = json!({"backup": body});
    let id = world.cloud.begin_create(Resource::Backup, body).await?;
    let id = world.name(id, name);
    world.cloud.wait(Resource::Backup, &id, "available").await?;
    Ok(id)
}

async fn delete(world: &mut World, backup: &str, name: &str) -> Result<()> {
    world.cloud.delete(Resource::Backup, backup).await?;
    world.observe(&format!("{name} is deleted")).await
}

/// A chain, restored to new and existing volumes, exported, imported and deleted.
async fn chain(world: &mut World) -> Result<()> {
    let volume = new_volume(world, "volume").await?;
    let data = data();
    world.volumes.write(&image(&volume), MIB, &data).await?;
    let full = back_up(world, &volume, json!({"metadata": {"k": "v"}}), "full").await?;
    world.volumes.write(&image(&volume), 0, &data).await?;
    let more = json!({"incremental": true, "description": "text"});
    let incremental = back_up(world, &volume, more, "increment").await?;

    let restored = world.cloud.restore(&incremental, None).await?;
    let restored = world.name(restored, "restored");
    world.volume_content(&restored).await?;
    world
        .observe("an increment is restored to a new volume")
        .await?;
    let other = new_volume(world, "other").await?;
    world.volumes.write(&image(&other), 64 * MIB, &data).await?;
    world.cloud.restore(&full, Some(&other)).await?;
    world.volume_content(&other).await?;
    world
        .observe("a full backup is restored to another volume")
        .await?;
    world.cloud.restore(&full, Some(&volume)).await?;
    world.volume_content(&volume).await?;
    world
        .observe("a full backup is restored to its volume")
        .await?;

    let reset = json!({"os-reset_status": {"status": "error"}});
    world
        .cloud
        .action(Resource::Backup, &incremental, reset)
        .await?;
    world.observe("an increment is reset to error").await?;
    let reset = json!({"os-reset_status": {"status": "available"}});
    world
        .cloud
        .action(Resource::Backup, &incremental, reset)
        .await?;
    world.observe("an increment is reset to available").await?;

    let record = world.cloud.export_record(&incremental).await?;
    world.note("an increment is exported", record_of(&record)?);
    world.database.lose_backup(&incremental).await?;
    world.cloud.begin_import(&record).await?;
    world
        .cloud
        .wait(Resource::Backup, &incremental, "available")
        .await?;
    world.observe("an increment is imported").await?;

    delete(world, &incremental, "increment").await?;
    delete(world, &full, "full").await?;
    for volume in [&restored, &other, &volume] {
        world.cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// What a record says.
fn record_of(record: &Value) -> Result<Value> {
    let text = record["backup_url"].as_str().context("no backup_url")?;
    let mut said: Value = serde_json::from_slice(&BASE64_STANDARD.decode(text)?)?;
    said["service"] = record["backup_service"].clone();
    Ok(said)
}

/// Volumes in use, and snapshots.
async fn sources(lab: &Lab, world: &mut World) -> Result<()> {
    let volume = new_volume(world, "used").await?;
    lab.command(&["volume-attach", &volume]).await?;
    let in_use = back_up(world, &volume, json!({}), "in-use").await?;
    delete(world, &in_use, "in-use").await?;
    lab.command(&["volume-detach", &volume]).await?;

    let snapshot = world.cloud.create_snapshot(&volume).await?;
    let snapshot = world.name(snapshot, "snapshot");
    let more = json!({"snapshot_id": snapshot});
    let of_snapshot = back_up(world, &volume, more, "of-snapshot").await?;
    delete(world, &of_snapshot, "of-snapshot").await?;
    world.cloud.delete(Resource::Snapshot, &snapshot).await?;
    world.cloud.delete(Resource::Volume, &volume).await
}

/// What cannot work, and what is told of it.
async fn failures(world: &mut World) -> Result<()> {
    let volume = new_volume(world, "broken").await?;
    world.volumes.write(&image(&volume), 0, &[1; 5000]).await?;
    let backup = back_up(world, &volume, json!({}), "lost").await?;
    let second = back_up(world, &volume, json!({}), "kept").await?;

    // The image of a backup is gone.
    let base = format!("backups/volume-{volume}.backup.{backup}");
    world.backups.rbd(&["snap", "purge", &base]).await?;
    world.backups.rbd(&["rm", &base]).await?;
    let target = world.cloud.begin_restore(&backup, None).await?;
    let target = world.name(target, "target");
    world
        .cloud
        .wait(Resource::Volume, &target, "error_restoring")
        .await?;
    world
        .observe("a backup is restored whose image is gone")
        .await?;
    delete(world, &backup, "a backup whose image is gone").await?;

    // The source is gone.
    let away = format!("{}.away", image(&volume));
    world.volumes.rbd(&["mv", &image(&volume), &away]).await?;
    let failed = world.cloud.begin_backup(&volume, false).await?;
    let failed = world.name(failed, "failed");
    world.cloud.wait_failed(&failed).await?;
    world
        .observe("a backup is made of a volume whose image is gone")
        .await?;
    world.volumes.rbd(&["mv", &away, &image(&volume)]).await?;
    delete(world, &failed, "a failed backup").await?;

    // The target is gone.
    let hollow = new_volume(world, "hollow").await?;
    world.volumes.rbd(&["rm", &image(&hollow)]).await?;
    world.cloud.begin_restore(&second, Some(&hollow)).await?;
    world
        .cloud
        .wait(Resource::Volume, &hollow, "error_restoring")
        .await?;
    world
        .observe("a backup is restored to a volume whose image is gone")
        .await?;
    world.cloud.delete(Resource::Volume, &hollow).await?;

    // Its restore point is gone.
    let base = format!("backups/volume-{volume}.backup.{second}");
    world.backups.rbd(&["snap", "purge", &base]).await?;
    delete(world, &second, "a backup without its restore point").await?;
    for volume in [&target, &volume] {
        world.cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}
