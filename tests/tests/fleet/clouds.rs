//! Two clouds, each with a database and a broker's virtual host of its own: what is exported from one is
//! imported into the other, which has never heard of the backup or its volume.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cloud, Database, Resource};

use crate::{Fleet, OTHER_PYTHONS, OURS, host, verify};

const SECOND_OURS: &str = "second-worker";
const SECOND_PYTHONS: &str = "second-cinder-backup";

/// The second cloud's host of a worker. Ours has the name that ours has in the first cloud.
fn second_host(worker: &str) -> &str {
    match worker {
        SECOND_OURS => host(OURS),
        other => other,
    }
}

#[tokio::test]
async fn records_go_from_cloud_to_cloud() -> Result<()> {
    let fleet = Fleet::of(&[OURS, OTHER_PYTHONS]).await?;
    let (lab, first) = (&fleet.lab, &fleet.cloud);
    let start = async {
        lab.command(&["start", "second-cloud"]).await?;
        for worker in [SECOND_OURS, SECOND_PYTHONS] {
            lab.command(&["start", worker, "--wait"]).await?;
        }
        anyhow::Ok(())
    };
    let usage = first.backup_usage().await?;
    let volume = first.create_volume(1).await?;
    let hosts = [host(OURS), host(OTHER_PYTHONS)];
    let (made, ()) = tokio::try_join!(fleet.back_up_on_all(&volume, 1, &hosts), start)?;
    let ids: Vec<&str> = made.iter().map(|(backup, _)| backup.as_str()).collect();

    let second = Cloud::login_to_second(lab, "admin").await?;
    let database = Database::of_second(lab)?;
    ensure!(second.show(Resource::Volume, &volume).await?.is_none());
    for (exporter, importer) in [(OURS, SECOND_PYTHONS), (OTHER_PYTHONS, SECOND_OURS)] {
        fleet.database.route_to(&[host(exporter)]).await?;
        database.route_to(&[second_host(importer)]).await?;
        for backup in &ids {
            ensure!(second.show(Resource::Backup, backup).await?.is_none());
            let record = first.export_record(backup).await?;
            ensure!(fleet.host_of(backup).await? == host(exporter));
            second.begin_import(&record).await?;
            second.wait(Resource::Backup, backup, "available").await?;
            let sql = format!("SELECT host FROM backups WHERE id = '{backup}'");
            let rows = database.rows(&sql).await?;
            let row = rows.first().context("no row")?;
            ensure!(row["host"] == second_host(importer), "{row}");
        }
        verify(&second, &made).await?;
        if importer == SECOND_PYTHONS {
            for backup in &ids {
                database.lose_backup(backup).await?;
            }
        }
    }
    // In the second cloud both delete, each what is left of the other's chain.
    for (turn, backup) in ids.iter().enumerate().rev() {
        let worker = [SECOND_OURS, SECOND_PYTHONS][turn % 2];
        database.route_to(&[second_host(worker)]).await?;
        second.delete(Resource::Backup, backup).await?;
    }
    fleet.nothing_left(&volume, &ids).await?;
    lab.command(&["stop", "second-cloud"]).await?;

    // The first still has the rows, without data.
    fleet.database.route_to(&hosts).await?;
    for backup in ids.iter().rev() {
        first.delete(Resource::Backup, backup).await?;
    }
    first.delete(Resource::Volume, &volume).await?;
    ensure!(first.backup_usage().await? == usage, "{usage:?}");
    Ok(())
}
