//! Removing a backup from its pool.

use std::time::Duration;

use api_compat::ids::BackupId;
use api_compat::names::{self, BackupSnapshot};
use backon::{ConstantBuilder, ExponentialBuilder, Retryable};
use tracing::{info, warn};

use super::plan::{Candidate, Deletion};
use super::snapshots::{remove_snapshots, snapshots_if_exists};
use super::turn::in_turn_of;
use super::{BackupRecord, Error, Result, Vault, manifest};
use crate::rbd::{self, ErrorKind, Pool};
use crate::steps::{Step, reached};

impl Vault {
    /// Removes a backup's restore point, its base image when nothing else is in it, and its
    /// metadata object. What is gone already is no error, so that a delete can be repeated.
    ///
    /// # Errors
    /// `Missing` if the pool does not exist in which the record's image was made: under another name
    /// the backup may still be there.
    pub async fn delete(&self, record: &BackupRecord) -> Result<()> {
        let pool = match self.pool_of(record).await {
            Err(error) if error.is_not_found() && record.base.is_some() => {
                return Err(Error::missing(format!(
                    "Pool {}, in which backup {} was made, does not exist",
                    self.pool_name(record),
                    record.backup
                )));
            }
            Err(error) if error.is_not_found() => {
                warn!(backup = %record.backup, "The backup's pool does not exist; nothing to delete");
                return Ok(());
            }
            pool => pool?,
        };
        let patience = ConstantBuilder::default()
            .with_delay(Duration::from_secs(1))
            .with_max_times(5);
        // A snapshot that another deletion removes just now has a name of librbd's own for a moment.
        let found = (|| self.deletions(&pool, record))
            .retry(patience)
            .when(|error| matches!(error, Error::Damaged(_)))
            .await?;
        let building: Vec<BackupId> = found
            .iter()
            .flat_map(|(candidate, _)| backups_in(candidate))
            .collect();
        let giving = manifest::give_on(&pool, record.backup, &building);
        in_turn_of(&pool, record.volume, giving).await?;
        reached(Step::ManifestGivenOn);
        for (candidate, deletion) in &found {
            remove(&pool, record, candidate, deletion).await?;
        }
        reached(Step::RestorePointRemoved);
        let removing = async {
            // To one that was completed meanwhile, too. From now on nothing builds on this backup.
            for candidate in self.find(&pool, record).await? {
                manifest::give_on(&pool, record.backup, &backups_in(&candidate)).await?;
            }
            manifest::remove(&pool, record.backup).await
        };
        in_turn_of(&pool, record.volume, removing).await?;
        reached(Step::ManifestRemoved);
        // librbd moves an image to the trash before it removes what is in it.
        for image in record.candidates() {
            let missing = found.iter().all(|(candidate, _)| candidate.image != image);
            if missing && record.may_be_half_removed(image) {
                remove_image(&pool, &image.to_string()).await?;
            }
        }
        // Last, since for a full copy in the shared image it is the proof of ownership.
        pool.remove_object(&names::metadata_object(record.backup))
            .await?;
        reached(Step::BackupRemoved);
        Ok(())
    }

    /// What there is of a backup, and what its deletion does to it.
    async fn deletions(
        &self,
        pool: &Pool,
        record: &BackupRecord,
    ) -> Result<Vec<(Candidate, Deletion)>> {
        let found = self.find(pool, record).await?;
        let complete = self.has_metadata(record).await?;
        found
            .into_iter()
            .map(|candidate| {
                let deletion = record.deletion(&candidate, complete)?;
                Ok((candidate, deletion))
            })
            .collect()
    }
}

/// The backups that have a restore point in an image.
fn backups_in(candidate: &Candidate) -> Vec<BackupId> {
    let names = candidate.snapshots.iter();
    names
        .filter_map(|name| BackupSnapshot::parse(name)?.backup())
        .collect()
}

async fn remove(
    pool: &Pool,
    record: &BackupRecord,
    candidate: &Candidate,
    deletion: &Deletion,
) -> Result<()> {
    let image = candidate.image.to_string();
    let snapshots: Vec<&str> = deletion.snapshots.iter().map(String::as_str).collect();
    remove_snapshots(pool, &image, &snapshots).await?;
    // The others in the image may have been deleted at the same time: whoever is last finds it empty.
    let emptied = match record.sole && !snapshots.is_empty() && !deletion.remove_image {
        true => snapshots_if_exists(pool, &image).await?,
        false => None,
    };
    if deletion.remove_image || emptied.is_some_and(|left| left.is_empty()) {
        remove_image(pool, &image).await?;
        info!(image, "Removed the base image");
        return Ok(());
    }
    // Not removed here: the row may be in the database of another cloud that shares the pool.
    if !deletion.unknown.is_empty() {
        warn!(
            image,
            snapshots = deletion.unknown.join(", "),
            "The base image stays for the sake of backups of which there is no row"
        );
    }
    Ok(())
}

/// Removes an image. A watcher keeps it busy: a client that died is forgotten by the cluster after
/// 30 s, and later where it has much to do: the tries span 65 s.
pub(super) async fn remove_image(pool: &Pool, image: &str) -> rbd::Result<()> {
    let patience = ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(10))
        .with_max_times(9);
    let removed = (|| pool.remove_image(image))
        .retry(patience)
        .when(|error| {
            matches!(
                error.kind(),
                // Another deletion removes it, or a snapshot of it, just now.
                ErrorKind::Stale | ErrorKind::HasSnapshots | ErrorKind::Busy
            )
        })
        .notify(|error, pause| warn!(image, %error, "Retrying in {} s", pause.as_secs()))
        .await;
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
