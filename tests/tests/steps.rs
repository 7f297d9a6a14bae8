//! The worker is killed at every named step of every operation, and started again, or one of another host takes
//! over: the operation comes to its end, what it made is right, and nothing else is left of it.
//!
//! `STEPS` names those to try, with spaces between; by default a few of them are. With `STEPS_TAKEN_OVER=1` another
//! host takes over.

use std::env;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{
    Cloud, Content, Invariants, Lab, Reconfigured, Resource, Setup, eventually, image,
};
use serde_json::json;

/// The worker kills itself when it has come to the step that this names.
const KILL_AT: &str = "CINDERBLOCK_KILL_AT";

/// The worker of another host.
const OTHER: &str = "other-worker";

/// What is tried if nobody says more: one of each kind.
const FEW: &str = "source-snapshot-taken restore-point-made data-restored restore-point-removed";

/// What is under way when the worker comes to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Full,
    Incremental,
    /// With a temporary volume.
    OfSnapshot,
    Restore,
    Delete,
}

/// The operations that come to a step.
fn operations(step: &str) -> &'static [Operation] {
    use Operation::{Delete, Full, Incremental, OfSnapshot, Restore};
    match step {
        "backup-recorded"
        | "device-requested"
        | "source-attached"
        | "backup-placed"
        | "source-snapshot-taken"
        | "manifest-begun"
        | "data-stored"
        | "manifest-complete"
        | "restore-point-made"
        | "metadata-written" => &[Full, Incremental],
        "source-detached" | "backup-available" => &[Full, Incremental, OfSnapshot],
        "base-created" => &[Full],
        "restore-accepted" | "target-attached" | "data-restored" | "target-detached"
        | "metadata-restored" | "restore-ended" => &[Restore],
        "manifest-given-on"
        | "restore-point-removed"
        | "manifest-removed"
        | "backup-removed"
        | "row-deleted" => &[Delete],
        _ => &[],
    }
}

/// A volume with two backups, and what they hold.
struct Subject {
    volume: String,
    full: (String, Content),
    newest: (String, Content),
}

struct Trial {
    setup: Setup,
    invariants: Invariants,
    /// Whether another host carries on what the worker leaves.
    taken_over: bool,
    /// Operations that ended in an error, as Cinder's end when a worker dies.
    failed: Vec<String>,
}

impl Trial {
    async fn content(&self, volume: &str) -> Result<Content> {
        self.setup.cloud.volumes()?.content(&image(volume)).await
    }

    async fn back_up(
        &self,
        volume: &str,
        byte: u8,
        incremental: bool,
    ) -> Result<(String, Content)> {
        let volumes = self.setup.cloud.volumes()?;
        let (offset, data) = (u64::from(byte) << 22, vec![byte; 5 << 20]);
        volumes.write(&image(volume), offset, &data).await?;
        let content = self.content(volume).await?;
        let backup = self.setup.cloud.back_up(volume, incremental).await?;
        Ok((backup, content))
    }

    async fn subject(&self) -> Result<Subject> {
        let volume = self.setup.cloud.create_volume(1).await?;
        Ok(Subject {
            full: self.back_up(&volume, 1, false).await?,
            newest: self.back_up(&volume, 2, true).await?,
            volume,
        })
    }

    /// Has the worker come to a step of an operation, where it dies.
    async fn try_step(&mut self, step: &str, operation: Operation) -> Result<()> {
        let cloud = self.setup.cloud.clone();
        let lab = self.setup.lab.clone();
        let subject = self.subject().await?;
        start(&lab, Some(step)).await?;
        let begun = self.begin(&cloud, &subject, operation).await?;
        wait_dead(&lab).await?;
        match self.taken_over {
            true => {
                lab.command(&["start", OTHER, "--wait"]).await?;
                self.setup.database.route_to(&[OTHER]).await?;
                self.end(&cloud, &subject, operation, &begun, step).await?;
                start(&lab, None).await?;
                lab.command(&["stop", OTHER]).await?;
                let host = lab.variable("LAB_WORKER_HOST")?;
                self.setup.database.route_to(&[&host]).await?;
            }
            false => {
                start(&lab, None).await?;
                self.end(&cloud, &subject, operation, &begun, step).await?;
            }
        }
        // Whatever became of it, the chain goes on and the rest is as it was.
        let next = self.back_up(&subject.volume, 9, true).await?;
        for (backup, content) in [&subject.full, &next] {
            let restored = cloud.restore(backup, None).await?;
            let found = self.content(&restored).await?;
            ensure!(&found == content, "backup {backup} is something else");
            cloud.delete(Resource::Volume, &restored).await?;
        }
        self.invariants.hold().await?;
        cloud.delete(Resource::Backup, &next.0).await?;
        let newest = &subject.newest.0;
        if cloud.show(Resource::Backup, newest).await?.is_some() {
            cloud.delete(Resource::Backup, newest).await?;
        }
        cloud.delete(Resource::Backup, &subject.full.0).await?;
        cloud.delete(Resource::Volume, &subject.volume).await?;
        self.invariants.hold().await
    }

    /// Begins an operation; what it makes, or works on.
    async fn begin(
        &self,
        cloud: &Cloud,
        subject: &Subject,
        operation: Operation,
    ) -> Result<String> {
        let newest = &subject.newest.0;
        match operation {
            Operation::Full => cloud.begin_backup(&subject.volume, false).await,
            Operation::Incremental => cloud.begin_backup(&subject.volume, true).await,
            Operation::OfSnapshot => {
                let snapshot = cloud.create_snapshot(&subject.volume).await?;
                let body =
                    json!({"backup": {"volume_id": subject.volume, "snapshot_id": snapshot}});
                cloud.begin_create(Resource::Backup, body).await
            }
            Operation::Restore => cloud.begin_restore(newest, None).await,
            Operation::Delete => {
                cloud.begin_delete(Resource::Backup, newest).await?;
                Ok(newest.clone())
            }
        }
    }

    async fn end(
        &mut self,
        cloud: &Cloud,
        subject: &Subject,
        operation: Operation,
        begun: &str,
        step: &str,
    ) -> Result<()> {
        match operation {
            Operation::Full | Operation::Incremental | Operation::OfSnapshot => {
                if cloud.settled(Resource::Backup, begun).await?.as_deref() == Some("available") {
                    let restored = cloud.restore(begun, None).await?;
                    let same = self.content(&restored).await? == subject.newest.1;
                    ensure!(same, "backup {begun} is something else");
                    cloud.delete(Resource::Volume, &restored).await?;
                } else {
                    self.failed.push(format!("{operation:?} at {step}"));
                }
                cloud
                    .wait(Resource::Volume, &subject.volume, "available")
                    .await?;
                let shown = cloud
                    .show(Resource::Backup, begun)
                    .await?
                    .unwrap_or_default();
                cloud.delete(Resource::Backup, begun).await?;
                if let Some(snapshot) = shown["snapshot_id"].as_str() {
                    // The temporary volume is a clone of it.
                    self.invariants.hold().await?;
                    cloud.delete(Resource::Snapshot, snapshot).await?;
                }
                Ok(())
            }
            Operation::Restore => {
                let (backup, content) = &subject.newest;
                cloud.becomes(Resource::Backup, backup, "available").await?;
                if cloud.settled(Resource::Volume, begun).await?.as_deref() == Some("available") {
                    let same = &self.content(begun).await? == content;
                    ensure!(same, "backup {backup} was restored as something else");
                } else {
                    self.failed.push(format!("{operation:?} at {step}"));
                }
                cloud.delete(Resource::Volume, begun).await
            }
            Operation::Delete => cloud.wait_gone(Resource::Backup, begun).await,
        }
    }
}

/// Starts the worker, which may kill itself at a step.
async fn start(lab: &Lab, step: Option<&str>) -> Result<()> {
    let environment: Vec<(&str, &str)> = step.map(|step| (KILL_AT, step)).into_iter().collect();
    let restart = ["restart", "worker", "--wait"];
    lab.command_with(&restart, &environment).await?;
    Ok(())
}

async fn wait_dead(lab: &Lab) -> Result<()> {
    let running = async || lab.running().await;
    let dead = |running: &Vec<String>| !running.iter().any(|part| part == "worker");
    eventually("the worker has come to the step", running, dead).await?;
    Ok(())
}

#[tokio::test]
async fn whatever_step_the_worker_dies_at_the_next_start_leaves_all_in_order() -> Result<()> {
    let setup = Setup::new().await?;
    let worker = Reconfigured::worker(&setup.lab, "[cinderblock]\ntakeover_after = 20\n").await?;
    let mut trial = Trial {
        taken_over: env::var_os("STEPS_TAKEN_OVER").is_some(),
        invariants: Invariants::new(&setup.lab).await?,
        failed: Vec::new(),
        setup,
    };
    let steps = env::var("STEPS").unwrap_or(FEW.to_owned());
    for step in steps.split_whitespace() {
        let operations = operations(step);
        ensure!(!operations.is_empty(), "there is no step {step}");
        for operation in operations {
            println!("{operation:?} at {step}");
            let tried = trial.try_step(step, *operation).await;
            tried.with_context(|| format!("{operation:?} at {step}"))?;
        }
    }
    println!("Ended in an error: {:?}", trial.failed);
    worker.restore().await
}
