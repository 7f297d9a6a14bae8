//! `[cinderblock] independent_backups`: any backup of a chain can be deleted.

use anyhow::{Result, ensure};
use cinderblock_tests::{Chain, Lab, Reconfigured, Resource};
use reqwest::Method;

const MIB: u64 = 1 << 20;

/// Whether a backup is shown as an increment, and as one that others build on.
async fn shown(chain: &Chain, backup: &str) -> Result<(Option<bool>, Option<bool>)> {
    let shown = chain.cloud.show(Resource::Backup, backup).await?;
    let shown = shown.unwrap_or_default();
    let told = |key: &str| shown[key].as_bool();
    Ok((told("is_incremental"), told("has_dependent_backups")))
}

#[tokio::test]
async fn any_backup_of_a_chain_can_be_deleted() -> Result<()> {
    let lab = Lab::from_env()?;
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 8 * MIB).await?;
    let full = chain.back_up(false).await?;
    chain.write(2 * MIB, 2, MIB).await?;
    let first = chain.back_up(true).await?;
    ensure!(shown(&chain, &full).await? == (Some(false), Some(true)));
    ensure!(shown(&chain, &first).await? == (Some(true), Some(false)));

    let options = "[cinderblock]\nindependent_backups = true\n";
    let other = Reconfigured::worker(&lab, options).await?;
    // Those that are there already.
    for backup in [&full, &first] {
        ensure!(shown(&chain, backup).await? == (Some(false), Some(false)));
    }
    chain.write(5 * MIB, 3, MIB).await?;
    let second = chain.back_up(true).await?;
    chain.write(6 * MIB, 4, 5000).await?;
    let third = chain.back_up(true).await?;
    let base = format!("volume-{}.backup.{full}", chain.volume);
    for backup in [&second, &third] {
        ensure!(shown(&chain, backup).await? == (Some(false), Some(false)));
        let snapshots = chain.backups.snapshots(&format!("backups/{base}")).await?;
        ensure!(
            snapshots.iter().any(|name| name.contains(backup.as_str())),
            "{backup} is no increment: {snapshots:?}"
        );
    }

    chain.delete(&first).await?;
    chain.verify().await?;
    chain.delete(&full).await?;
    chain.verify().await?;
    chain.delete(&third).await?;
    // The next one builds on what is left.
    chain.write(7 * MIB, 5, MIB).await?;
    let fourth = chain.back_up(true).await?;
    ensure!(chain.base_image().await? == Some(base));
    chain.verify().await?;
    // Both at once: the image goes with whichever is last.
    let cloud = &chain.cloud;
    let deleting = async {
        for backup in [&second, &fourth] {
            let path = format!("/backups/{backup}");
            cloud.request(Method::DELETE, &path, None).await?;
        }
        Ok(())
    };
    lab.while_stopped("worker", deleting).await?;
    for backup in [&second, &fourth] {
        cloud.wait_gone(Resource::Backup, backup).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    ensure!(chain.volumes.snapshots(&chain.image()).await?.is_empty());
    chain.cloud.delete(Resource::Volume, &chain.volume).await?;
    other.restore().await
}
