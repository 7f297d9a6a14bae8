//! A worker that is killed in the middle, and one whose pool is not there.

use anyhow::Result;
use cinderblock_tests::{Reconfigured, Resource};
use reqwest::Method;
use serde_json::json;

use crate::scenario::new_volume;
use crate::world::World;

/// Plays all of it with the backups of a volume, and deletes them. The worker is killed in the end.
pub async fn play(world: &mut World, held: &str, backups: [&str; 3]) -> Result<()> {
    let [making, restoring, deleting] = backups;
    let target = new_volume(world, "target").await?;
    let kill = ["stop", "--signal", "KILL", world.worker];
    world.lab.command(&kill).await?;
    let restores = format!("status = 'restoring', restore_volume_id = '{target}'");
    let backs_up = "status = 'backing-up', previous_status = 'available'";
    for (table, id, columns) in [
        (
            "backups",
            making,
            "status = 'creating', service_metadata = NULL",
        ),
        ("volumes", held, backs_up),
        ("backups", restoring, restores.as_str()),
        ("volumes", &target, "status = 'restoring-backup'"),
        ("backups", deleting, "status = 'deleting'"),
    ] {
        world.database.change(table, id, columns).await?;
    }
    let start = ["start", world.worker, "--wait"];
    world.lab.command(&start).await?;
    let cloud = &world.cloud;
    cloud.becomes(Resource::Backup, making, "error").await?;
    cloud
        .becomes(Resource::Backup, restoring, "available")
        .await?;
    cloud.wait_gone(Resource::Backup, deleting).await?;
    world.observe("a worker that was killed starts").await?;

    let nowhere = "[DEFAULT]\nbackup_ceph_pool = nowhere\n";
    let broken = Reconfigured::broken(&world.lab, world.worker, nowhere).await?;
    let played = without_pool(world, held, restoring).await;
    let cleaned = clean_up(world, held, &target, [making, restoring]).await;
    broken.kill().await?;
    played?;
    cleaned
}

async fn without_pool(world: &mut World, held: &str, restoring: &str) -> Result<()> {
    world.requests.wait_told(false).await?;
    world.observe("a worker without its pool starts").await?;

    let refused = world.cloud.begin_backup(held, false).await?;
    let refused = world.name(refused, "refused");
    world.cloud.wait_failed(&refused).await?;
    world.observe("nothing is scheduled without a pool").await?;
    let host = format!("host = '{}'", world.lab.variable("LAB_WORKER_HOST")?);
    let creating = format!("status = 'creating', fail_reason = NULL, {host}");
    world
        .database
        .change("backups", &refused, &creating)
        .await?;
    let backs_up = "status = 'backing-up', previous_status = 'available'";
    world.database.change("volumes", held, backs_up).await?;
    let (requests, broker) = (&world.requests, &world.broker);
    requests
        .again(broker, "create_backup", &refused, "creating", json!({}))
        .await?;
    world.cloud.wait_failed(&refused).await?;
    world.observe("a backup is made without a pool").await?;
    keep_up(world).await?;
    world.cloud.delete(Resource::Backup, &refused).await?;

    keep_up(world).await?;
    let path = format!("/backups/{restoring}");
    world.cloud.request(Method::DELETE, &path, None).await?;
    world
        .cloud
        .becomes(Resource::Backup, restoring, "error_deleting")
        .await?;
    world.observe("a backup is deleted without its pool").await
}

/// Deletes all, as far as a worker without its pool can, and then what was in there.
async fn clean_up(world: &World, held: &str, target: &str, backups: [&str; 2]) -> Result<()> {
    let nobodys = "status = 'available', service = NULL";
    for backup in backups {
        keep_up(world).await?;
        world.database.change("backups", backup, nobodys).await?;
        world.cloud.delete(Resource::Backup, backup).await?;
    }
    for image in world.backups.images("backups").await? {
        if image.contains(held) {
            let path = format!("backups/{image}");
            world.backups.rbd(&["snap", "purge", &path]).await?;
            world.backups.rbd(&["rm", &path]).await?;
        }
    }
    for volume in [target, held] {
        world.cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// A worker without its pool sends no heartbeat, and cinder-api has nobody to ask after a minute.
async fn keep_up(world: &World) -> Result<()> {
    let host = world.lab.variable("LAB_WORKER_HOST")?;
    let sql = format!("SELECT id FROM services WHERE topic = 'cinder-backup' AND host = '{host}'");
    for row in world.database.rows(&sql).await? {
        let id = row["id"].as_str().unwrap_or_default();
        let now = "updated_at = UTC_TIMESTAMP()";
        world.database.change("services", id, now).await?;
    }
    Ok(())
}
