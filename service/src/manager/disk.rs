//! An attached volume, and the vault's way with it: by what RBD knows, or byte by byte.

use std::pin::Pin;

use super::now;
use crate::attach::{Attached, Medium};
use crate::transfer::{Device, Job, Stats, TransferError};
use crate::vault::{BackupPlan, BackupSpec, RestorePoint, Result, TargetSize, Vault, Volume};

/// Where the bytes of an attached volume are.
pub(super) enum Disk {
    Image(Volume),
    Device(Device),
}

impl From<&Attached> for Disk {
    fn from(attached: &Attached) -> Self {
        match &attached.medium {
            Medium::Image { pool, image } => Self::Image(Volume {
                pool: pool.clone(),
                image: image.clone(),
            }),
            Medium::Device(device) => Self::Device(device.clone()),
        }
    }
}

impl Disk {
    /// Decides how to back it up; a device as the `size` bytes of its volume.
    pub async fn plan(&self, vault: &Vault, spec: &BackupSpec, size: u64) -> Result<BackupPlan> {
        match self {
            Self::Image(volume) => vault.plan_backup(spec, volume, now()).await,
            Self::Device(_) => vault.plan_copy(spec, size, now()).await,
        }
    }

    /// Backs it up.
    pub async fn store(&self, vault: &Vault, plan: &BackupPlan, job: &Job) -> Result<Stats> {
        match self {
            Self::Image(volume) => vault.store(plan, volume, job).await,
            Self::Device(device) => vault.store_device(plan, device, job).await,
        }
    }

    /// The image, in which backups leave snapshots; a device keeps nothing of them.
    pub fn image(&self) -> Option<Volume> {
        match self {
            Self::Image(volume) => Some(volume.clone()),
            Self::Device(_) => None,
        }
    }

    /// Writes a restore point into it, as a volume of that size, if that is `wanted` when it comes to it.
    pub async fn restore(
        &self,
        vault: &Vault,
        point: &RestorePoint,
        (size, new): (TargetSize, bool),
        job: &Job,
        wanted: Pin<Box<dyn Future<Output = bool> + Send + '_>>,
    ) -> Result<Stats> {
        match self {
            Self::Image(volume) => {
                let restoring = vault.restore_if(point, volume, (size, new), job, wanted);
                restoring.await
            }
            Self::Device(_) if !wanted.await => Err(TransferError::Cancelled.into()),
            Self::Device(device) => {
                let restoring = vault.restore_device(point, device, size, new, job);
                restoring.await
            }
        }
    }
}

/// Removes what a failed backup left, also on the image of which it was made.
pub(super) async fn undo(vault: &Vault, plan: &BackupPlan, image: Option<&Volume>) {
    match image {
        Some(volume) => vault.undo(plan, volume).await,
        None => vault.undo_copy(plan).await,
    }
}
