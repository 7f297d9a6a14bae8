//! Volumes and backups whose data lies in erasure-coded pools.

use anyhow::{Result, ensure};
use cinderblock_tests::{Chain, Cluster, Resource};
use serde_json::Value;

const MIB: u64 = 1 << 20;

async fn data_pool(cluster: &Cluster, image: &str) -> Result<Value> {
    let info = cluster.rbd(&["info", image, "--format", "json"]).await?;
    let mut info: Value = serde_json::from_str(&info)?;
    Ok(info["data_pool"].take())
}

#[tokio::test]
async fn a_chain_lies_in_an_erasure_coded_pool() -> Result<()> {
    let mut chain = Chain::begin(1).await?;
    chain.write(0, 1, 9 * MIB).await?;
    let full = chain.back_up(false).await?;
    chain.write(MIB + 100, 2, 5000).await?;
    chain
        .volumes
        .discard(&chain.image(), 4 * MIB, 4 * MIB)
        .await?;
    let incremental = chain.back_up(true).await?;
    let base = format!("backups/volume-{}.backup.{full}", chain.volume);
    ensure!(data_pool(&chain.volumes, &chain.image()).await? == "volumes-data");
    ensure!(data_pool(&chain.backups, &base).await? == "backups-data");
    chain.verify().await?;
    for backup in [&incremental, &full] {
        chain.delete(backup).await?;
    }
    ensure!(chain.base_image().await?.is_none());
    chain.cloud.delete(Resource::Volume, &chain.volume).await
}
