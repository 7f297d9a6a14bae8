//! The operator's tool reads backups again.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cloud, Lab, Resource, image};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// What `cinderblock verify` prints as JSON, and its exit status.
async fn verify(lab: &Lab, arguments: &[&str]) -> Result<(Vec<Value>, Option<i32>)> {
    let arguments = [&["verify", "--output", "json"], arguments].concat();
    let output = lab.tool(&arguments).await?;
    let told = String::from_utf8_lossy(&output.stderr);
    let reports = serde_json::from_slice(&output.stdout).with_context(|| told.into_owned())?;
    Ok((reports, output.status.code()))
}

#[tokio::test]
async fn damage_is_told_and_shows_in_the_exit_status() -> Result<()> {
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let (volumes, backups) = (cloud.volumes()?, cloud.backups()?);
    let volume = cloud.create_volume(1).await?;
    volumes.write(&image(&volume), 0, &vec![7; 9 << 20]).await?;
    let full = cloud.back_up(&volume, false).await?;
    volumes.write(&image(&volume), MIB, b"changed").await?;
    let next = cloud.back_up(&volume, true).await?;

    let (reports, status) = verify(&lab, &[&full, &next]).await?;
    ensure!(status == Some(0), "{reports:?}");
    for (report, backup) in reports.iter().zip([&full, &next]) {
        ensure!(report["backup"] == backup.as_str(), "{report}");
        ensure!(report["result"] == "verified", "{report}");
        ensure!(report["bytes_read"].as_u64() >= Some(9 * MIB), "{report}");
        ensure!(report["pool"] == "backups", "{report}");
    }

    // An object of the full one that the increment has, too.
    let base = format!("backups/volume-{volume}.backup.{full}");
    let info = backups.rbd(&["info", "--format", "json", &base]).await?;
    let info: Value = serde_json::from_str(&info)?;
    let prefix = info["block_name_prefix"].as_str().context("a prefix")?;
    let object = format!("{prefix}.{:016x}", 1);
    backups.rados(&["-p", "backups", "rm", &object]).await?;
    let (reports, status) = verify(&lab, &["--all"]).await?;
    ensure!(status == Some(4), "{reports:?}");
    for backup in [&full, &next] {
        let mut reports = reports.iter();
        let report = reports.find(|report| report["backup"] == backup.as_str());
        let report = report.context("all are told of")?;
        ensure!(report["result"] == "damaged", "{report}");
        let damage = &report["damage"][0];
        ensure!(damage["object"] == object.as_str(), "{report}");
        ensure!(damage["offset"] == 4 * MIB, "{report}");
        ensure!(damage["length"] == 4 * MIB, "{report}");
    }
    let table = lab.tool(&["verify", &next]).await?;
    ensure!(table.status.code() == Some(4), "{table:?}");
    let table = String::from_utf8(table.stdout)?;
    ensure!(
        table.contains(&format!("object {object} in pool backups")),
        "{table}"
    );

    cloud.delete(Resource::Backup, &next).await?;
    let (reports, status) = verify(&lab, &[&next]).await?;
    ensure!(status == Some(1), "{reports:?}");
    ensure!(
        reports[0]["error"] == "there is no such backup",
        "{reports:?}"
    );
    let misused = lab.tool(&["verify"]).await?;
    ensure!(misused.status.code() == Some(2), "{misused:?}");
    cloud.delete(Resource::Backup, &full).await
}
