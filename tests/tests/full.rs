//! Pools in which there is no room: an operation fails and says so, nothing of it is left, and what makes
//! room works.

use anyhow::{Result, ensure};
use cinderblock_tests::{Cluster, Invariants, Reconfigured, Resource, Setup, eventually};
use tokio::sync::Mutex;

/// Each of these tests fills the pools that the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Slowly enough to be met in the middle.
const SLOWLY: &str = "
[cinderblock]
backup_bandwidth = 16777216
restore_bandwidth = 16777216
";

/// What a pool has no more room by.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Quota,
    /// The ratio at which OSDs count as full.
    Osds,
}

/// A pool that is full until it is emptied.
struct Full {
    limit: Limit,
    cluster: Cluster,
    pool: &'static str,
}

impl Full {
    async fn fill(limit: Limit, cluster: Cluster, pool: &'static str) -> Result<Self> {
        let this = Self {
            limit,
            cluster,
            pool,
        };
        this.set("1", ["0.000001"; 3]).await?;
        this.wait(true).await?;
        Ok(this)
    }

    async fn empty(self) -> Result<()> {
        self.set("0", ["0.95", "0.9", "0.85"]).await?;
        self.wait(false).await
    }

    async fn set(&self, bytes: &str, ratios: [&str; 3]) -> Result<()> {
        match self.limit {
            Limit::Quota => {
                let set = ["osd", "pool", "set-quota", self.pool, "max_bytes", bytes];
                self.cluster.ceph(&set).await?;
            }
            Limit::Osds => {
                let names = ["full", "backfillfull", "nearfull"];
                for (name, ratio) in names.iter().zip(ratios) {
                    let set = ["osd", &format!("set-{name}-ratio"), ratio];
                    self.cluster.ceph(&set).await?;
                }
            }
        }
        Ok(())
    }

    async fn wait(&self, full: bool) -> Result<()> {
        let health = async || self.cluster.ceph(&["health", "detail"]).await;
        let is = |health: &String| health.contains("POOL_FULL") == full;
        eventually("the pool is full, or has room", health, is).await?;
        Ok(())
    }
}

/// Does something in a pool that is full, which it is not afterwards whatever came of it.
async fn while_full<T>(
    (limit, cluster, pool): (Limit, Cluster, &'static str),
    doing: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    let full = Full::fill(limit, cluster, pool).await?;
    let done = doing().await;
    full.empty().await?;
    done
}

#[tokio::test]
async fn a_backup_fails_and_leaves_nothing_and_others_can_be_deleted() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let worker = Reconfigured::worker(&setup.lab, SLOWLY).await?;
    let invariants = Invariants::new(&setup.lab).await?;
    let volume = cloud.volume_with_data(96).await?;
    for (limit, said) in [
        (Limit::Quota, "Disk quota exceeded"),
        (Limit::Osds, "No space left on device"),
    ] {
        let old = cloud.back_up(&volume, false).await?;
        let backup = cloud.begin_backup(&volume, false).await?;
        let base = format!("backups/volume-{volume}.backup.{backup}");
        cloud.backups()?.wait_used(&base, 8 << 20).await?;
        while_full((limit, cloud.backups()?, "backups"), async || {
            let reason = cloud.wait_failed(&backup).await?;
            ensure!(reason.contains(said), "{reason}");
            cloud.wait(Resource::Volume, &volume, "available").await?;
            let left = cloud.backups()?.images("backups").await?;
            ensure!(!left.iter().any(|image| image.contains(&backup)));
            for backup in [&backup, &old] {
                cloud.delete(Resource::Backup, backup).await?;
            }
            invariants.hold().await
        })
        .await?;
    }
    let backup = cloud.back_up(&volume, false).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await?;
    worker.restore().await
}

#[tokio::test]
async fn a_restore_fails_and_can_be_repeated() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let worker = Reconfigured::worker(&setup.lab, SLOWLY).await?;
    let invariants = Invariants::new(&setup.lab).await?;
    let volume = cloud.volume_with_data(96).await?;
    let target = cloud.create_volume(1).await?;
    let backup = cloud.back_up(&volume, false).await?;
    cloud.begin_restore(&backup, Some(&target)).await?;
    let image = cinderblock_tests::image(&target);
    cloud.volumes()?.wait_used(&image, 8 << 20).await?;
    while_full((Limit::Quota, cloud.volumes()?, "volumes"), async || {
        cloud
            .becomes(Resource::Volume, &target, "error_restoring")
            .await?;
        cloud.wait(Resource::Backup, &backup, "available").await?;
        let error = setup.lab.wait_error(&backup).await?;
        ensure!(error.contains("Disk quota exceeded"), "{error}");
        invariants.hold().await
    })
    .await?;
    setup
        .admin
        .reset(Resource::Volume, &target, "available")
        .await?;
    cloud.restore(&backup, Some(&target)).await?;
    let volumes = cloud.volumes()?;
    let found = volumes.content(&image).await?;
    let expected = volumes.content(&cinderblock_tests::image(&volume)).await?;
    ensure!(found == expected, "the volumes differ");
    cloud.delete(Resource::Backup, &backup).await?;
    for volume in [&volume, &target] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    worker.restore().await
}
