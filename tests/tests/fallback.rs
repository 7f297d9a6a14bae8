//! A backup that fails in the middle is made in another way.

use anyhow::{Result, ensure};
use cinderblock_tests::{Chain, Lab, Resource};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn an_incremental_that_fails_is_made_by_comparing() -> Result<()> {
    let lab = Lab::from_env()?;
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, MIB).await?;
    let full = chain.back_up(false).await?;
    let base = format!("backups/volume-{}.backup.{full}", chain.volume);
    chain.write(64 * MIB, 2, 96 * MIB).await?;
    let content = chain.volumes.content(&chain.image()).await?;
    let before = chain.volumes.snapshots(&chain.image()).await?;
    ensure!(before.len() == 1, "{before:?}");

    chain.volumes.slow_down(&chain.image(), 6 * MIB).await?;
    let backup = chain.cloud.begin_backup(&chain.volume, true).await?;
    chain.backups.wait_used(&base, 12 * MIB).await?;
    // What the parent left on the volume is removed by somebody: the changes since then are unknown.
    let removing = async {
        let snapshot = format!("{}@{}", chain.image(), before[0]);
        chain.volumes.rbd(&["snap", "rm", &snapshot]).await
    };
    lab.while_stopped("ceph-osd-backups", removing).await?;
    chain
        .cloud
        .wait(Resource::Backup, &backup, "available")
        .await?;

    ensure!(chain.is_incremental(&backup).await?);
    let logged = lab.logged(&backup)?;
    let count = |text: &str| logged.iter().filter(|line| line.contains(text)).count();
    ensure!(count("making it in another way") == 1, "{logged:?}");
    let told = "Comparing the volume with its backup";
    ensure!(count(told) == 1, "{logged:?}");
    let messages = chain.cloud.messages(&chain.volume).await?;
    ensure!(messages.is_empty(), "{messages:?}");
    chain.made.push((backup.clone(), content));
    chain.verify().await?;
    for backup in [&backup, &full] {
        chain.delete(backup).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    ensure!(chain.volumes.snapshots(&chain.image()).await?.is_empty());
    chain.cloud.delete(Resource::Volume, &chain.volume).await?;
    Ok(())
}
