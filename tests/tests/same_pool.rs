//! Backups in the pool of the volumes, as the volumes' user.

use anyhow::{Result, ensure};
use cinderblock_tests::{Cloud, Lab, Reconfigured, Resource};

const OPTIONS: &str = "[DEFAULT]
backup_ceph_conf = /etc/ceph/ceph.conf
backup_ceph_user = cinder
backup_ceph_pool = volumes
";

#[tokio::test]
async fn volumes_and_backups_share_a_pool() -> Result<()> {
    let lab = Lab::from_env()?;
    let cloud = Cloud::login(&lab, "demo").await?;
    let ceph = cloud.volumes()?;
    let other = Reconfigured::worker(&lab, OPTIONS).await?;

    let volume = cloud.create_volume(1).await?;
    let image = format!("volumes/volume-{volume}");
    let mut made = Vec::new();
    for turn in [1, 2] {
        ceph.write(&image, 0, &[turn; 5000]).await?;
        let content = ceph.content(&image).await?;
        made.push((cloud.back_up(&volume, turn > 1).await?, content));
    }
    let base = format!("volume-{volume}.backup.{}", made[0].0);
    ensure!(ceph.images("volumes").await?.contains(&base));
    for (backup, content) in &made {
        let restored = cloud.restore(backup, None).await?;
        let found = ceph.content(&format!("volumes/volume-{restored}")).await?;
        ensure!(&found == content, "{backup} is restored as something else");
    }
    for (backup, _) in made.iter().rev() {
        cloud.delete(Resource::Backup, backup).await?;
    }
    ensure!(!ceph.images("volumes").await?.contains(&base));
    ensure!(ceph.snapshots(&image).await?.is_empty());
    cloud.delete(Resource::Volume, &volume).await?;
    other.restore().await
}
