//! Two workers with the same host name: neither ends what the other is at work on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Broker, Cloud, Lab, Reconfigured, Resource, eventually, image};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests starts and stops what the other needs.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Twins {
    lab: Lab,
    cloud: Cloud,
    broker: Broker,
    volume: String,
}

const WORKS: &str = "The backup pool can be worked with";

/// The scheduler cannot tell it from the first one: it is there when it takes its part of the messages
/// and does not refuse them.
async fn start_second(lab: &Lab, broker: &Broker) -> Result<()> {
    let known = lab.times_logged_by("worker-2", WORKS);
    lab.command(&["start", "worker-2"]).await?;
    broker.wait_workers(2).await?;
    lab.wait_logged_again_by("worker-2", WORKS, known).await
}

impl Twins {
    /// Begins a backup, stops the volumes' cluster in the middle of it, and starts the other worker,
    /// which finds the backup unfinished.
    async fn meet<T>(&self, then: impl AsyncFnOnce(&str) -> Result<T>) -> Result<(String, T)> {
        let backup = self.cloud.begin_backup(&self.volume, false).await?;
        let base = format!("backups/volume-{}.backup.{backup}", self.volume);
        let backups = self.cloud.backups()?;
        backups.wait_used(&base, 4 << 20).await?;
        let meeting = async {
            start_second(&self.lab, &self.broker).await?;
            let told = "Another worker of this host is at work on the backup";
            self.lab.wait_logged_by("worker-2", &backup, told).await?;
            then(&backup).await
        };
        let came = self.lab.while_stopped("ceph-osd-volumes", meeting).await?;
        Ok((backup, came))
    }
}

#[tokio::test]
async fn what_one_worker_began_and_the_other_completed_stays_complete() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.create_volume(1).await?;
    let impatient = Reconfigured::worker(&lab, "[cinderblock]\ncontinue_timeout = 20\n").await?;
    start_second(&lab, &Broker::connect(&lab).await?).await?;
    let mut backups = Vec::new();
    let mut shared = false;
    // The broker gives requests to them in turns.
    while !shared && backups.len() < 4 {
        let backup = cloud.back_up(&volume, false).await?;
        let said = |worker: &str, text: &str| {
            let lines = lab.logged_by(worker, &backup).unwrap_or_default();
            lines.iter().any(|line| line.contains(text))
        };
        let began = |worker| said(worker, "Create backup started");
        let completed = |worker| said(worker, "Create backup finished");
        shared = (began("worker") && completed("worker-2"))
            || (began("worker-2") && completed("worker"));
        backups.push(backup);
    }
    ensure!(shared, "one worker gets everything");

    // Several volumes from one backup, of which each worker gets some: they wait for each other.
    let asking = async {
        let mut asked = Vec::new();
        for _ in 0..4 {
            let body = json!({"volume": {"size": 1, "backup_id": backups[0]}});
            asked.push(cloud.begin_create(Resource::Volume, body).await?);
        }
        Ok(asked)
    };
    let restored = lab.while_stopped("cinder-volume", asking).await?;
    for volume in &restored {
        cloud.wait(Resource::Volume, volume, "available").await?;
        cloud.delete(Resource::Volume, volume).await?;
    }
    cloud
        .wait(Resource::Backup, &backups[0], "available")
        .await?;
    // Whoever began it has waited for cinder-volume by then.
    sleep(Duration::from_secs(22)).await;
    for backup in &backups {
        let shown = cloud.show(Resource::Backup, backup).await?;
        let shown = shown.unwrap_or_default();
        ensure!(shown["status"] == "available", "{shown}");
        ensure!(cloud.messages(backup).await?.is_empty());
        cloud.delete(Resource::Backup, backup).await?;
    }
    lab.command(&["stop", "worker-2"]).await?;
    cloud.delete(Resource::Volume, &volume).await?;
    impatient.restore().await
}

#[tokio::test]
async fn what_another_worker_is_at_work_on_is_left_to_it_while_it_lives() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let volume = cloud.volume_with_data(128).await?;
    let (volumes, source) = (cloud.volumes()?, image(&volume));
    let content = volumes.content(&source).await?;
    volumes.slow_down(&source, 6 << 20).await?;
    let twins = Twins {
        broker: Broker::connect(&lab).await?,
        lab,
        cloud,
        volume,
    };
    let (lab, cloud, broker) = (&twins.lab, &twins.cloud, &twins.broker);

    let sent = broker.overhear_worker().await?;
    let (kept, status) = twins
        .meet(async |backup| {
            // Each of them gets once more what the first one is at work on.
            let sent = broker.take(&sent).await?;
            let answer = sent.iter().find(|sent| sent["method"] == "continue_backup");
            let answer = answer.context("cinder-volume did not answer")?;
            for _ in 0..2 {
                broker.repeat_to_worker(answer).await?;
            }
            let told = "Another attempt makes backup";
            lab.wait_logged_by("worker-2", backup, told).await?;
            cloud.status(Resource::Backup, backup).await
        })
        .await?;
    ensure!(status == "creating", "{status}");
    cloud.wait(Resource::Backup, &kept, "available").await?;
    lab.command(&["stop", "worker-2"]).await?;

    // One that is killed lives no more.
    let (taken_over, ()) = twins
        .meet(async |backup| {
            let kill = ["stop", "--signal", "KILL", "worker"];
            lab.command(&kill).await?;
            let told = "Going on with the backup";
            lab.wait_logged_by("worker-2", backup, told).await
        })
        .await?;
    volumes.wait_answers("volumes").await?;
    cloud
        .wait(Resource::Backup, &taken_over, "available")
        .await?;
    cloud
        .wait(Resource::Volume, &twins.volume, "available")
        .await?;

    let mut restored = Vec::new();
    for backup in [&kept, &taken_over] {
        let volume = cloud.restore(backup, None).await?;
        let found = volumes.content(&image(&volume)).await?;
        ensure!(found == content, "the backup holds something else");
        restored.push(volume);
    }
    lab.command(&["stop", "worker-2"]).await?;
    lab.command(&["start", "worker", "--wait"]).await?;
    for backup in [&kept, &taken_over] {
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in restored.iter().chain([&twins.volume]) {
        cloud.delete(Resource::Volume, volume).await?;
    }
    let left = cloud.backups()?.rados(&["-p", "backups", "ls"]).await?;
    for backup in [&kept, &taken_over] {
        ensure!(!left.contains(backup.as_str()), "{left}");
    }
    Ok(())
}

#[tokio::test]
async fn a_restore_that_waits_for_the_other_worker_hears_of_a_reset() -> Result<()> {
    let _alone = ALONE.lock().await;
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let admin = Cloud::login(&lab, "admin").await?;
    let volume = cloud.volume_with_data(64).await?;
    let backup = cloud.back_up(&volume, false).await?;
    let base = format!("backups/volume-{volume}.backup.{backup}");
    cloud.backups()?.slow_down(&base, 2 << 20).await?;
    start_second(&lab, &Broker::connect(&lab).await?).await?;

    let asking = async {
        let mut asked = Vec::new();
        for _ in 0..2 {
            let body = json!({"volume": {"size": 1, "backup_id": backup}});
            asked.push(cloud.begin_create(Resource::Volume, body).await?);
        }
        Ok(asked)
    };
    let targets = lab.while_stopped("cinder-volume", asking).await?;
    let waits = async || {
        let said = |worker| lab.logged_by(worker, &backup).unwrap_or_default();
        let lines = [said("worker"), said("worker-2")].concat();
        Ok(lines
            .iter()
            .any(|line| line.contains("Waiting for another worker of this host")))
    };
    eventually("one waits for the other", waits, |waits| *waits).await?;
    // Neither can end before it is reset.
    let resetting = admin.reset(Resource::Backup, &backup, "error");
    lab.while_stopped("ceph-osd-volumes", resetting).await?;
    cloud.volumes()?.wait_answers("volumes").await?;
    // One was broken off; the other finds a backup that is none to restore, and is refused as always.
    let statuses = async || {
        let mut statuses = Vec::new();
        for target in &targets {
            statuses.push(cloud.status(Resource::Volume, target).await?);
        }
        statuses.sort();
        Ok(statuses)
    };
    eventually("both have ended", statuses, |statuses| {
        *statuses == ["error", "error_restoring"]
    })
    .await?;
    ensure!(cloud.status(Resource::Backup, &backup).await? == "error");

    lab.command(&["stop", "worker-2"]).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    for volume in targets.iter().chain([&volume]) {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}
