//! The same operations with Python's worker and with ours, one after the other in the same cloud: rows,
//! messages, notifications, requests to other services, levels of the log, images, objects, contents and
//! quota are compared field by field after each.
//!
//! What may differ after which steps is listed in `allowed`, each with its reason; `docs/compatibility.md`
//! tells it to operators. Anything else fails the test.

mod allowed;
mod differences;
mod names;
mod refusals;
mod requests;
mod scenario;
mod starts;
mod world;

use anyhow::{Result, ensure};
use cinderblock_tests::Lab;

#[tokio::test]
async fn both_workers_leave_the_same_behind() -> Result<()> {
    let lab = Lab::from_env()?;
    lab.command(&["stop", "worker"]).await?;
    lab.command(&["start", "cinder-backup", "--wait"]).await?;
    let theirs = scenario::play(&lab, "cinder-backup").await;
    lab.command(&["stop", "--signal", "KILL", "cinder-backup"])
        .await?;
    lab.command(&["start", "worker", "--wait"]).await?;
    let theirs = theirs?;
    let ours = scenario::play(&lab, "worker").await;
    lab.command(&["start", "worker", "--wait"]).await?;
    let ours = ours?;

    let found = differences::find(&theirs, &ours);
    ensure!(
        found.unexpected.is_empty(),
        "Python's worker and ours differ:\n{}",
        found.unexpected.join("\n")
    );
    ensure!(
        found.unseen.is_empty(),
        "differences that are allowed and were not seen:\n{}",
        found.unseen.join("\n")
    );
    Ok(())
}
