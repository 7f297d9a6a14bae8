//! Two hosts: each goes on with what the other has made.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::Resource;

use crate::{Fleet, OTHER_PYTHONS, OURS, host, verify};

impl Fleet {
    /// Lets Cinder take a host that does not run for one that is down; at once, not in a minute.
    async fn age(&self, worker: &str) -> Result<()> {
        let host = host(worker);
        let sql = format!("SELECT id FROM services WHERE host = '{host}' AND deleted = 0");
        for row in self.database.rows(&sql).await? {
            let id = row["id"].as_str().context("no id")?;
            let long_ago = "updated_at = '2020-01-01 00:00:00'";
            self.database.change("services", id, long_ago).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn each_goes_on_with_what_the_other_host_made() -> Result<()> {
    let fleet = Fleet::of(&[OURS, OTHER_PYTHONS]).await?;
    let cloud = &fleet.cloud;
    let usage = cloud.backup_usage().await?;
    let volume = cloud.create_volume(1).await?;
    let hosts = [host(OURS), host(OTHER_PYTHONS)];
    let mut made = fleet.back_up_on_all(&volume, 1, &hosts[..1]).await?;

    // The host that made the last one is down.
    fleet.lab.command(&["stop", OURS]).await?;
    fleet.age(OURS).await?;
    let next = u8::try_from(made.len())? + 1;
    let increment = fleet.back_up(&volume, next).await?;
    ensure!(fleet.host_of(&increment.0).await? == host(OTHER_PYTHONS));
    let last = made.last().context("none was made")?;
    verify(cloud, std::slice::from_ref(last)).await?;
    ensure!(fleet.host_of(&last.0).await? == host(OTHER_PYTHONS));
    made.push(increment);
    fleet.lab.command(&["start", OURS, "--wait"]).await?;

    let later = fleet.back_up_on_all(&volume, next + 1, &hosts[..1]);
    made.extend(later.await?);
    for restorer in hosts {
        fleet.database.route_to(&[restorer]).await?;
        verify(cloud, &made).await?;
        for (backup, _) in &made {
            cloud.export_record(backup).await?;
            ensure!(fleet.host_of(backup).await? == restorer);
        }
    }
    // What one has made the other deletes, and in turns.
    let ids: Vec<&str> = made.iter().map(|(backup, _)| backup.as_str()).collect();
    for (turn, backup) in ids.iter().enumerate().rev() {
        fleet.database.route_to(&[hosts[turn % 2]]).await?;
        cloud.delete(Resource::Backup, backup).await?;
    }
    cloud.delete(Resource::Volume, &volume).await?;
    fleet.nothing_left(&volume, &ids).await?;
    ensure!(cloud.backup_usage().await? == usage, "{usage:?}");
    fleet.database.route_to(&hosts).await
}
