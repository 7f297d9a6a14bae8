//! What lies in the backup pools: base images, a snapshot for each backup, manifests, metadata objects.
//!
//! [`plan`] decides from plain facts; the other files gather the facts and act. The order of a
//! backup is: base image, snapshot of the source, data, flush, manifest, snapshot of the base, metadata
//! object; the caller writes the row last. Each step is keyed by the backup's id, so that what was
//! interrupted after any of them can be repeated or undone.

mod damage;
mod delete;
mod device;
mod error;
mod manifest;
mod metadata;
mod owner;
pub mod plan;
mod report;
mod restore;
mod resume;
mod snapshots;
mod store;
mod trust;
mod turn;
mod undo;
mod verify;

pub use damage::Damage;
pub use error::{Error, Result};
pub use owner::{Owned, Stage, TakenOver, Worker};
pub use plan::{BackupRecord, BackupSpec, Method, NoDiff, Parent};
pub use report::{Report, Work};
pub use restore::{RestorePoint, TargetSize};
pub use store::BackupPlan;
pub use undo::Made;
pub use verify::{Known, Verified};

use std::time::Duration;

use crate::rbd::{ClusterOptions, Image, Link, Pool};
use crate::transfer::Budget;

/// How new base images look.
#[derive(Debug, Clone, Default)]
pub struct ImageFormat {
    /// Bytes of a stripe; 0 for the plain layout (`backup_ceph_stripe_unit`).
    pub stripe_unit: u64,
    /// Objects that a stripe spans; 0 for the plain layout (`backup_ceph_stripe_count`).
    pub stripe_count: u64,
    /// Whether images are journaled (`backup_ceph_image_journals`).
    pub journaling: bool,
}

/// How the vault moves bytes.
#[derive(Clone)]
pub struct Engine {
    /// Bytes in flight, shared by all operations of the worker.
    pub budget: Budget,
    /// Reads and writes in flight in one operation.
    pub depth: usize,
    /// Concurrent look-ups of exact extents in one operation.
    pub scanners: usize,
    /// Whether the object map of a volume is believed about what did not change, as far as nothing speaks
    /// against it (`trust_object_map`).
    pub trust_object_map: bool,
    /// Whether a restore point that is damaged is restored as it is (`restore_damaged`).
    pub restore_damaged: bool,
    /// How often it is noted how far a full backup is, at least (`checkpoint_interval`).
    pub checkpoint_interval: Duration,
    /// Bytes of a device that are read at once, at most (`backup_ceph_chunk_size`).
    pub chunk_size: u64,
    /// Whether a restore clears what a larger volume has behind the backup's end
    /// (`restore_discard_excess_bytes`).
    pub zero_excess: bool,
}

/// A volume's image and the pool that holds it.
#[derive(Clone)]
pub struct Volume {
    /// The pool, in whatever cluster the volume lies.
    pub pool: Pool,
    /// The image's name.
    pub image: String,
}

impl Volume {
    /// Opens the image for looking at it.
    pub async fn open_read_only(&self) -> Result<Image> {
        let opened = self.pool.open(&self.image, None).await;
        opened.map_err(Error::Volume)
    }

    /// Opens the image for writing, or for changing its snapshots.
    pub async fn open(&self) -> Result<Image> {
        let opened = self.pool.open_rw(&self.image).await;
        opened.map_err(Error::Volume)
    }
}

/// The backup pools of one cluster.
pub struct Vault {
    link: Link,
    default_pool: String,
    format: ImageFormat,
    engine: Engine,
}

impl Vault {
    /// A vault that connects at its first use.
    pub fn new(
        cluster: ClusterOptions,
        default_pool: String,
        format: ImageFormat,
        engine: Engine,
    ) -> Self {
        Self {
            link: Link::new(cluster),
            default_pool,
            format,
            engine,
        }
    }

    /// The pool that receives backups whose request names none.
    pub fn default_pool(&self) -> &str {
        &self.default_pool
    }

    /// Whether the cluster answers and the configured pool can be opened.
    pub async fn check(&self) -> Result<()> {
        let pool = self.pool(&self.default_pool).await?;
        Ok(pool.probe().await?)
    }

    async fn pool(&self, name: &str) -> Result<Pool> {
        Ok(self.link.pool(name).await?)
    }

    async fn pool_of(&self, record: &BackupRecord) -> Result<Pool> {
        self.pool(self.pool_name(record)).await
    }

    fn pool_name<'a>(&'a self, record: &'a BackupRecord) -> &'a str {
        record.pool.as_deref().unwrap_or(&self.default_pool)
    }
}

/// A number that nobody can foretell.
fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}
