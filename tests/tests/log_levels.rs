//! An operator asks what is logged, and changes it, through Cinder's API.

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Lab, Resource, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const MANAGER: &str = "cinder.backup.manager";

/// The levels of the worker's loggers that begin with `prefix`.
async fn levels(admin: &Cloud, prefix: &str) -> Result<Value> {
    let body = json!({"binary": "cinder-backup", "prefix": prefix});
    let (status, mut answer) = admin
        .request(Method::PUT, "/os-services/get-log", Some(body))
        .await?;
    ensure!(status.is_success(), "{status}: {answer}");
    Ok(answer["log_levels"][0]["levels"].take())
}

async fn set(admin: &Cloud, level: &str) -> Result<()> {
    let body = json!({"binary": "cinder-backup", "prefix": MANAGER, "level": level});
    let (status, answer) = admin
        .request(Method::PUT, "/os-services/set-log", Some(body))
        .await?;
    ensure!(status.is_success(), "{status}: {answer}");
    // A cast: it is done once the next call shows it.
    let (levels, wanted) = (
        async || levels(admin, MANAGER).await,
        json!({MANAGER: level}),
    );
    eventually("the level is set", levels, |levels| *levels == wanted).await?;
    Ok(())
}

#[tokio::test]
async fn a_level_is_shown_and_changed() -> Result<()> {
    let lab = Lab::from_env()?;
    let (cloud, admin) = (
        Cloud::login(&lab, "demo").await?,
        Cloud::login(&lab, "admin").await?,
    );
    let all = levels(&admin, "").await?;
    ensure!(all["cinder.backup.vault"] == "DEBUG", "{all}");
    ensure!(all["lapin"] == "CRITICAL", "{all}");

    let volume = cloud.create_volume(1).await?;
    for (level, seen) in [("ERROR", false), ("INFO", true), ("DEBUG", true)] {
        set(&admin, level).await?;
        let backup = cloud.back_up(&volume, false).await?;
        let lines = lab.logged(&backup)?;
        let of_manager = lines.iter().any(|line| line.contains(MANAGER));
        ensure!(of_manager == seen, "{level}: {lines:?}");
        cloud.delete(Resource::Backup, &backup).await?;
    }
    cloud.delete(Resource::Volume, &volume).await
}
