//! How far a backup is, as Cinder's API, the log and notifications tell.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cloud, Lab, Reconfigured, Resource, eventually, image};
use serde_json::Value;

const OBJECTS: usize = 40;

/// What the worker is told, and where it serves metrics.
fn options() -> Result<(String, String)> {
    // Free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let options = format!(
        "
[DEFAULT]
backup_timer_interval = 1
[oslo_messaging_notifications]
driver = log
[cinderblock]
metrics_listen = {address}
"
    );
    Ok((options, format!("http://{address}/metrics")))
}

async fn object_count(cloud: &Cloud, backup: &str) -> Result<u64> {
    let shown = cloud.show(Resource::Backup, backup).await?;
    let count = shown.and_then(|backup| backup["object_count"].as_u64());
    Ok(count.unwrap_or_default())
}

#[tokio::test]
async fn it_is_told_while_objects_are_copied() -> Result<()> {
    let lab = Lab::from_env()?;
    let (options, metrics) = options()?;
    let worker = Reconfigured::worker(&lab, &options).await?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.volume_with_data(OBJECTS * 4).await?;
    let (volumes, image) = (cloud.volumes()?, image(&volume));

    volumes.slow_down(&image, 6 << 20).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    let base = format!("backups/volume-{volume}.backup.{backup}");
    let backups = cloud.backups()?;
    backups.wait_used(&base, 4 << 20).await?;
    let shown = async || {
        let all = lab.status(&[]).await?;
        Ok(all.into_iter().find(|line| line["backup"] == backup))
    };
    let moves = |line: &Option<Value>| {
        let line = line.as_ref();
        line.is_some_and(|line| line["bytes_per_second"].as_u64() > Some(0))
    };
    let line = eventually("the operator's tool shows it", shown, moves).await?;
    let line = line.context("it was found")?;
    ensure!(line["worker"] == "alive", "{line}");
    ensure!(line["status"] == "creating", "{line}");
    ensure!(line["phase"] == "moving_data", "{line}");
    ensure!(line["bytes_planned"] == (OBJECTS as u64) << 22, "{line}");
    ensure!(
        line["bytes_done"].as_u64() < line["bytes_planned"].as_u64(),
        "{line}"
    );
    ensure!(line["seconds_left"].as_u64() > Some(0), "{line}");
    let metrics = reqwest::get(&metrics).await?.error_for_status()?;
    let metrics = metrics.text().await?;
    let labels = format!("backup=\"{backup}\",operation=\"backup\"");
    let value = |name: &str| -> Result<u64> {
        let line = format!("cinderblock_operation_{name}_bytes{{{labels}}} ");
        let value = metrics.lines().find_map(|it| it.strip_prefix(&line));
        Ok(value.with_context(|| metrics.clone())?.parse()?)
    };
    ensure!(value("planned")? == (OBJECTS as u64) << 22, "{metrics}");
    ensure!(
        0 < value("done")? && value("done")? < value("planned")?,
        "{metrics}"
    );
    for (phase, count) in [("moving_data", 1), ("deleting", 0)] {
        let expected = format!("cinderblock_operations{{phase=\"{phase}\"}} {count}");
        ensure!(metrics.lines().any(|line| line == expected), "{metrics}");
    }
    // In the middle of it.
    let looking = async {
        let counted = async || object_count(&cloud, &backup).await;
        let halfway = eventually("objects are counted", counted, |count| *count > 0).await?;
        // Nobody waits for what does not answer.
        let shown = lab.tool(&["status"]).await?;
        ensure!(shown.status.code() == Some(1), "{shown:?}");
        let table = String::from_utf8(shown.stdout)?;
        ensure!(
            table.contains("the backup cluster does not answer"),
            "{table}"
        );
        Ok(halfway)
    };
    let halfway = lab.while_stopped("ceph-osd-backups", looking).await?;
    let watched = lab.tool(&["status", "--watch", &backup]).await?;
    ensure!(watched.status.code() == Some(0), "{watched:?}");
    let became = format!("{backup}  available\n");
    ensure!(watched.stdout == became.as_bytes(), "{watched:?}");
    let shown = cloud.show(Resource::Backup, &backup).await?;
    let shown = shown.context("it exists")?;
    ensure!(shown["status"] == "available", "{shown}");
    let line = &lab.status(&[&backup]).await?[0];
    ensure!(
        line["worker"].is_null() && line.get("phase").is_none(),
        "{line}"
    );
    ensure!(shown["object_count"] == OBJECTS, "{shown}");
    ensure!(0 < halfway && halfway < OBJECTS as u64, "{halfway}");

    let logged = lab.logged(&backup)?;
    let progress = |line: &&String| line.contains("backup.createprogress");
    let told: Vec<&String> = logged.iter().filter(progress).collect();
    ensure!(!told.is_empty(), "{logged:?}");
    ensure!(
        told.iter().all(|line| line.contains("\"backup_percent\"")),
        "{told:?}"
    );
    let rate = |line: &String| line.contains("of the data is dealt with, at");
    ensure!(logged.iter().any(rate), "{logged:?}");

    // An incremental counts what it has copied itself.
    volumes.write(&image, 0, &vec![0x78; 2 << 20]).await?;
    let incremental = cloud.back_up(&volume, true).await?;
    ensure!(object_count(&cloud, &incremental).await? == 1);
    for backup in [&incremental, &backup] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    let gone = lab.tool(&["status", &backup]).await?;
    ensure!(gone.status.code() == Some(1), "{gone:?}");
    let told = String::from_utf8_lossy(&gone.stderr);
    ensure!(
        told.contains(&format!("there is no backup {backup}")),
        "{told}"
    );
    cloud.delete(Resource::Volume, &volume).await?;
    worker.restore().await
}
