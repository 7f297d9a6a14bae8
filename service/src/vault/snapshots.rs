//! Snapshots of images: which there are, whether they still stand, and removing those of backups.

use api_compat::ids::BackupId;

use super::{Error, Result, Vault, Volume, plan};
use crate::rbd::{ErrorKind, Image, Pool, Snapshot};

impl Vault {
    /// Removes from a volume the snapshots of backups that are not `live` any more, and the oldest of
    /// the others beyond `keep` (0 keeps all), as `backup_ceph_max_snapshots` asks.
    pub async fn trim_source(&self, source: &Volume, live: &[BackupId], keep: usize) -> Result<()> {
        let listed = snapshots_if_exists(&source.pool, &source.image)
            .await?
            .unwrap_or_default();
        let surplus = plan::surplus_snapshots(&listed, live, keep);
        let surplus: Vec<&str> = surplus.iter().map(String::as_str).collect();
        remove_snapshots(&source.pool, &source.image, &surplus).await
    }

    /// Removes a backup's snapshots from its source volume.
    pub async fn release_source(&self, source: &Volume, backup: BackupId) -> Result<()> {
        let listed = snapshots_if_exists(&source.pool, &source.image)
            .await?
            .unwrap_or_default();
        let own = plan::snapshots_of(backup, &listed);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        remove_snapshots(&source.pool, &source.image, &own).await
    }
}

/// Makes sure that snapshots of an image are still there which were read: of those that it had `then`,
/// the ones of these names. Where one went meanwhile, librbd noticed nothing: what it had held reads as
/// zeros, and what changed since then as unchanged.
///
/// # Errors
/// `Missing` if one is gone, or the image.
pub(super) async fn still_stand(
    pool: &Pool,
    image: &str,
    then: &[Snapshot],
    names: &[&str],
) -> Result<()> {
    let gone = |what: &str| Error::missing(format!("{what} was removed while it was read"));
    let head = match pool.open(image, None).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(gone(image)),
        opened => opened?,
    };
    let now = head.snapshots().await;
    head.close().await;
    let now = now?;
    for name in names {
        let stands = then
            .iter()
            .any(|snapshot| snapshot.name == *name && now.contains(snapshot));
        if !stands {
            return Err(gone(&format!("Snapshot {name} of {image}")));
        }
    }
    Ok(())
}

/// The snapshots of an open image, in the order of their ids.
pub(super) async fn snapshot_names(image: &Image) -> Result<Vec<String>> {
    let snapshots = image.snapshots().await?.into_iter();
    Ok(snapshots.map(|snapshot| snapshot.name).collect())
}

/// The snapshots of an image, in the order of their ids; `None` when there is no such image.
pub(super) async fn snapshots_if_exists(pool: &Pool, image: &str) -> Result<Option<Vec<String>>> {
    match pool.open(image, None).await {
        Ok(image) => {
            let names = snapshot_names(&image).await;
            image.close().await;
            Ok(Some(names?))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes those of `snapshots` that exist, if the image does.
pub(super) async fn remove_snapshots(pool: &Pool, image: &str, snapshots: &[&str]) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let image = match pool.open_rw(image).await {
        Ok(image) => image,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut outcome = Ok(());
    for snapshot in snapshots {
        match image.remove_snapshot(snapshot).await {
            Err(error) if error.kind() != ErrorKind::NotFound => outcome = Err(error.into()),
            _ => {}
        }
    }
    image.close().await;
    outcome
}
