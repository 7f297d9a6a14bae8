//! Two workers with the same host name: neither ends what the other is at work on.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use cinderblock_tests::{Cloud, Lab, Resource};
use serde_json::json;
use tokio::time::sleep;

const DATA: usize = 600 << 20;

struct Twins {
    lab: Lab,
    cloud: Cloud,
    volume: String,
}

impl Twins {
    /// Begins a backup, stops the volumes' cluster in the middle of it, and starts the other worker,
    /// which finds the backup unfinished.
    async fn meet<T>(&self, then: impl AsyncFnOnce(&str) -> Result<T>) -> Result<(String, T)> {
        let body = json!({"backup": {"volume_id": self.volume}});
        let backup = self.cloud.begin_create(Resource::Backup, body).await?;
        let base = format!("backups/volume-{}.backup.{backup}", self.volume);
        let backups = self.cloud.backups()?;
        for _ in 0..300 {
            // An error before the image is there.
            if backups.used(&base).await.is_ok_and(|used| used > 8 << 20) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let meeting = async {
            self.lab.command(&["start", "worker-2"]).await?;
            self.wait_told(&backup).await?;
            then(&backup).await
        };
        let came = self.lab.while_stopped("ceph-osd-volumes", meeting).await?;
        Ok((backup, came))
    }

    async fn wait_told(&self, backup: &str) -> Result<()> {
        for _ in 0..200 {
            let told = self.lab.logged_by("worker-2", backup).unwrap_or_default();
            let told = |text: &str| told.iter().any(|line| line.contains(text));
            if told("Another worker of this host is at work on the backup") {
                return Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
        bail!("the second worker does not say what it found");
    }

    async fn status(&self, backup: &str) -> Result<String> {
        let shown = self.cloud.show(Resource::Backup, backup).await?;
        let status = shown.as_ref().and_then(|shown| shown["status"].as_str());
        Ok(status.unwrap_or("gone").to_owned())
    }
}

#[tokio::test]
async fn what_another_worker_is_at_work_on_is_left_to_it_while_it_lives() -> Result<()> {
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let image = format!("volumes/volume-{volume}");
    let volumes = cloud.volumes()?;
    volumes.write(&image, 0, &vec![0x5a; DATA]).await?;
    let content = volumes.content(&image).await?;
    let twins = Twins { lab, cloud, volume };
    let (lab, cloud) = (&twins.lab, &twins.cloud);

    let (kept, status) = twins
        .meet(async |backup| {
            sleep(Duration::from_secs(8)).await;
            twins.status(backup).await
        })
        .await?;
    ensure!(status == "creating", "{status}");
    cloud.wait(Resource::Backup, &kept, "available").await?;
    lab.command(&["stop", "worker-2"]).await?;

    // One that is killed lives no more.
    let (given_up, ()) = twins
        .meet(async |backup| {
            let kill = ["stop", "--signal", "KILL", "worker"];
            lab.command(&kill).await?;
            for _ in 0..300 {
                if twins.status(backup).await? == "error" {
                    return Ok(());
                }
                sleep(Duration::from_millis(200)).await;
            }
            bail!("nobody gives the backup up")
        })
        .await?;
    let source = cloud.show(Resource::Volume, &twins.volume).await?;
    let source = source.unwrap_or_default();
    ensure!(source["status"] == "available", "{source}");
    volumes.wait_answers("volumes").await?;
    cloud.delete(Resource::Backup, &given_up).await?;

    let restored = cloud.restore(&kept, None).await?;
    let found = volumes
        .content(&format!("volumes/volume-{restored}"))
        .await?;
    ensure!(found == content, "the backup holds something else");
    lab.command(&["stop", "worker-2"]).await?;
    lab.command(&["start", "worker", "--wait"]).await?;
    cloud.delete(Resource::Backup, &kept).await?;
    for volume in [&restored, &twins.volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    let left = cloud.backups()?.rados(&["-p", "backups", "ls"]).await?;
    for backup in [&kept, &given_up] {
        ensure!(!left.contains(backup.as_str()), "{left}");
    }
    Ok(())
}
