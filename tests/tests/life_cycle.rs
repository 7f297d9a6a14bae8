//! A volume's life with backups, through the unmodified `openstack` client.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cluster, Lab, eventually, image, run};
use serde_json::Value;
use tokio::process::Command;

const MIB: u64 = 1 << 20;

/// Runs `openstack` and reads its answer.
async fn openstack(arguments: &[&str]) -> Result<Value> {
    let text = run(Command::new("openstack")
        .args(arguments)
        .args(["-f", "json"]))
    .await?;
    Ok(serde_json::from_str(&text)?)
}

fn text(answer: &Value, key: &str) -> Result<String> {
    Ok(answer[key]
        .as_str()
        .with_context(|| format!("no {key} in {answer}"))?
        .to_owned())
}

async fn wait(show: &[&str], wanted: &str) -> Result<Value> {
    let what = format!("{show:?} becomes {wanted}");
    let shown = async || {
        let shown = openstack(show).await?;
        ensure!(!text(&shown, "status")?.starts_with("error"), "{shown}");
        Ok(shown)
    };
    eventually(&what, shown, |shown| shown["status"] == wanted).await
}

async fn back_up(arguments: &[&str]) -> Result<String> {
    let mut words = vec!["volume", "backup", "create"];
    words.extend(arguments);
    let id = text(&openstack(&words).await?, "id")?;
    wait(&["volume", "backup", "show", &id], "available").await?;
    Ok(id)
}

async fn restore(backup: &str, name: &str) -> Result<String> {
    let answer = openstack(&["volume", "backup", "restore", backup, name]).await?;
    let volume = text(&answer, "volume_id")?;
    wait(&["volume", "show", &volume], "available").await?;
    Ok(volume)
}

#[tokio::test]
async fn back_up_change_back_up_restore_both_delete() -> Result<()> {
    let lab = Lab::from_env()?;
    let (volumes, backups) = (Cluster::volumes(&lab)?, Cluster::backups(&lab)?);

    let volume = text(
        &openstack(&["volume", "create", "--size", "1", "life-cycle"]).await?,
        "id",
    )?;
    wait(&["volume", "show", &volume], "available").await?;
    volumes
        .write(&image(&volume), 0, &vec![0x11; 3 << 20])
        .await?;
    volumes
        .write(&image(&volume), 700 * MIB + 512, b"a late block")
        .await?;
    let first = volumes.content(&image(&volume)).await?;
    let full = back_up(&["--name", "life-full", "--property", "a=b", &volume]).await?;

    volumes
        .write(&image(&volume), MIB, &vec![0x22; 1 << 20])
        .await?;
    volumes.discard(&image(&volume), 0, MIB).await?;
    let second = volumes.content(&image(&volume)).await?;
    let incremental = back_up(&["--name", "life-inc", "--incremental", &volume]).await?;

    let shown = openstack(&["volume", "backup", "show", &incremental]).await?;
    ensure!(shown["is_incremental"] == true, "{shown}");
    ensure!(shown["size"] == 1, "{shown}");
    let shown = openstack(&["volume", "backup", "show", &full]).await?;
    ensure!(shown["has_dependent_backups"] == true, "{shown}");

    let base = format!("backups/volume-{volume}.backup.{full}");
    let on_base = backups.snapshots(&base).await?;
    ensure!(on_base.len() == 2, "{on_base:?}");
    let on_source = volumes.snapshots(&image(&volume)).await?;
    ensure!(on_source == on_base, "{on_source:?} is not {on_base:?}");

    for (backup, content) in [(&full, &first), (&incremental, &second)] {
        let restored = restore(backup, &format!("restored-{backup}")).await?;
        ensure!(&volumes.content(&image(&restored)).await? == content);
        ensure!(volumes.snapshots(&image(&restored)).await?.is_empty());
        let used = volumes.used(&image(&restored)).await?;
        ensure!(used <= 16 * MIB, "the restored volume takes {used} bytes");
    }

    for backup in [&incremental, &full] {
        run(Command::new("openstack").args(["volume", "backup", "delete", backup])).await?;
        let show = ["volume", "backup", "show", backup];
        let gone = async || Ok(openstack(&show).await.is_err());
        eventually("the backup is gone", gone, |gone| *gone).await?;
    }
    let left = backups.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    ensure!(volumes.snapshots(&image(&volume)).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_service_is_listed_as_up() -> Result<()> {
    Lab::from_env()?;
    // Listing services is the administrator's; the lab's environment is that of a user.
    let text = run(Command::new("openstack")
        .envs([
            ("OS_USERNAME", "admin"),
            ("OS_PASSWORD", "admin"),
            ("OS_PROJECT_NAME", "admin"),
        ])
        .args([
            "volume",
            "service",
            "list",
            "--service",
            "cinder-backup",
            "-f",
            "json",
        ]))
    .await?;
    let services: Vec<Value> = serde_json::from_str(&text)?;
    ensure!(
        services
            .iter()
            .any(|service| service["State"] == "up" && service["Status"] == "enabled"),
        "{text}"
    );
    Ok(())
}
