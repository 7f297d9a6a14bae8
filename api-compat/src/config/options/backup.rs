//! Backups and the Ceph cluster that holds them.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::config::registry::{default, options};

/// Name of the only driver, as Cinder's API and database know it.
pub const CEPH_DRIVER: &str = "cinder.backup.drivers.ceph.CephBackupDriver";

options! {
    /// The backup service (Cinder's `backup/manager.py` and `backup/driver.py`).
    pub struct Backup in "DEFAULT" {
        /// Driver of the backups. Only Ceph's is there:
        /// cinder.backup.drivers.ceph.CephBackupDriver. It must be set, because Cinder's own
        /// default is another one and all services must agree. The name of its module, which
        /// older releases took, stands for it.
        backup_driver: String = default("cinder.backup.drivers.swift.SwiftBackupDriver"),
        /// Number of backups and restores that this worker runs at once; 0 sets no limit.
        backup_max_operations: usize = default("15"),
        /// Seconds between two looks whether a backup pool that cannot be worked with can be now; the
        /// first few follow sooner. One that works is looked at every ten seconds, at least.
        backup_driver_init_check_interval: u64 = default("60").min(5.0),
        /// Seconds between two reports to the scheduler that this worker can make backups.
        backup_driver_stats_polling_interval: u64 = default("60")
            .min(10.0)
            .formerly(&[("DEFAULT", "backup_driver_status_check_interval")]),
        /// Seconds between two notifications (backup.createprogress) that tell how far a backup is,
        /// and between two lines in the log that tell that of an operation.
        backup_timer_interval: u64 = default("120"),
    }
}

options! {
    /// The Ceph driver (Cinder's `backup/drivers/ceph.py`).
    pub struct Ceph in "DEFAULT" {
        /// Configuration file of the cluster that holds the backups.
        backup_ceph_conf: PathBuf = default("/etc/ceph/ceph.conf"),
        /// Ceph user for the backup cluster, without "client.". The user for the volumes comes
        /// with each volume's connection.
        backup_ceph_user: String = default("cinder"),
        /// Pool of the backups.
        backup_ceph_pool: String = default("backups"),
        /// Stripe unit of backup images in bytes; 0 takes the cluster's default. Needs
        /// backup_ceph_stripe_count.
        backup_ceph_stripe_unit: u64 = default("0"),
        /// Stripe count of backup images; 0 takes the cluster's default. Needs
        /// backup_ceph_stripe_unit.
        backup_ceph_stripe_count: u64 = default("0"),
        /// Whether backup images get a journal, so that they can be mirrored.
        backup_ceph_image_journals: bool = default("false"),
        /// Number of snapshots that stay on a source volume as the base of later incremental
        /// backups; 0 keeps all. A limit saves space; an incremental backup whose parent's
        /// snapshot is gone has to read the whole volume to find what differs.
        backup_ceph_max_snapshots: usize = default("0"),
        /// Bytes of a volume that is not in Ceph that are read at once. Those of more than 4 MiB
        /// are read in parts, several at a time.
        backup_ceph_chunk_size: u64 = default("134217728"),
        /// Whether a restore into a larger volume clears what lies behind the backup's end.
        restore_discard_excess_bytes: bool = default("true"),
    }
}

impl Backup {
    /// Takes the driver's module for its class: rows, records and the scheduler know the class.
    pub(in crate::config) fn name_driver(&mut self) {
        let module = CEPH_DRIVER.rsplit_once('.').map(|(module, _)| module);
        if module == Some(self.backup_driver.as_str()) {
            CEPH_DRIVER.clone_into(&mut self.backup_driver);
        }
    }
}

impl Ceph {
    /// Name of the backup cluster, which `$cluster` in its configuration stands for, as in the
    /// default of `keyring`. librados takes it from the file's name where nobody gives it another
    /// (`md_config_t::get_cluster_name`), and Python's worker gives none.
    #[must_use]
    pub fn cluster_name(&self) -> &str {
        let path = &self.backup_ceph_conf;
        let named = path.extension().is_some_and(|kind| kind == "conf");
        let name = path.file_stem().filter(|_| named).and_then(OsStr::to_str);
        name.unwrap_or("ceph")
    }
}
