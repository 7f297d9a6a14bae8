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

/// What `cinderblock status` prints of backups, or of all that are under way.
async fn status(lab: &Lab, backups: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["status", "--output", "json"], backups].concat();
    let output = lab.tool(&arguments).await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(0), "{told}");
    serde_json::from_slice(&output.stdout).with_context(|| told.into_owned())
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
        let all = status(&lab, &[]).await?;
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
    let moving = "cinderblock_operations{phase=\"moving_data\"} 1";
    ensure!(metrics.lines().any(|line| line == moving), "{metrics}");
    // In the middle of it.
    let looking = async {
        let counted = async || object_count(&cloud, &backup).await;
        eventually("objects are counted", counted, |count| *count > 0).await
    };
    let halfway = lab.while_stopped("ceph-osd-backups", looking).await?;
    let watched = lab.tool(&["status", "--watch", &backup]).await?;
    ensure!(watched.status.code() == Some(0), "{watched:?}");
    let shown = cloud.show(Resource::Backup, &backup).await?;
    let shown = shown.context("it exists")?;
    ensure!(shown["status"] == "available", "{shown}");
    let line = &status(&lab, &[&backup]).await?[0];
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
