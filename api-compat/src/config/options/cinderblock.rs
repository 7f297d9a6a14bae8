//! Options that Cinder does not have.

use std::net::SocketAddr;

use crate::config::registry::{default, options, unset};

options! {
    /// What only this implementation can be told.
    pub struct Cinderblock in "cinderblock" {
        /// Number of parts of up to 2 MiB that one transfer reads and writes at a time; of smaller parts up to
        /// four times as many.
        transfer_depth: usize = default("16").min(1.0).max(1024.0),
        /// Bytes that all transfers of this worker together keep in flight. The default is
        /// 128 MiB.
        transfer_memory: u64 = default("134217728").min(16_777_216.0),
        /// Number of parts of up to 2 MiB that all transfers of this worker together read and write at a
        /// time; they are shared fairly between projects. Zero does not limit them. Read again at SIGHUP.
        transfer_operations: usize = default("64"),
        /// Bytes a second that all backups of this worker together read of their volumes, at most. Zero
        /// does not limit them. Read again at SIGHUP.
        backup_bandwidth: u64 = default("0"),
        /// Bytes a second that all restores of this worker together read or compare, at most. Zero does not
        /// limit them. Read again at SIGHUP.
        restore_bandwidth: u64 = default("0"),
        /// Number of backups and restores of one project that run at once on this worker. Zero means all of
        /// backup_max_operations but an eighth, which is left to others. Read again at SIGHUP, as
        /// backup_max_operations is.
        max_operations_per_project: usize = default("0"),
        /// Number of parts of a volume whose changes are looked for at once.
        diff_scanners: usize = default("8").min(1.0).max(64.0),
        /// Believe the object map of a volume about what did not change since its last backup, where
        /// nothing speaks against it: no rollback to an older snapshot is found, and some parts that are
        /// compared are the same. Otherwise the OSDs are asked about every object that the volume had,
        /// which takes some seconds for a TiB and misses nothing. Maps are wrong after a rollback that was
        /// interrupted, and where Ceph clients older than 16.2.14, 17.2.7 or Linux 6.4 wrote while a
        /// snapshot was taken (Ceph tracker 61616): a backup would miss what they do not mark.
        trust_object_map: bool = default("false"),
        /// Seconds of work that an interruption of a full backup of a volume in Ceph costs at most: as often
        /// it is noted, beside the backup, how far that is, and a worker that starts again goes on from there.
        /// Increments, and backups of other volumes, begin again.
        checkpoint_interval: u64 = default("30").min(1.0),
        /// Address and port on which metrics for Prometheus are served, without a login and without TLS:
        /// http://ADDRESS:PORT/metrics. Unset serves none.
        metrics_listen: Option<SocketAddr> = unset(),
        /// Restore a backup of which some parts are not what was stored as it is, and name those parts
        /// in the log. Otherwise the restore fails at the first of them.
        restore_damaged: bool = default("false"),
        /// Seconds after which a backup fails for which cinder-volume has not answered with the
        /// device to read, counted anew while cinder-volume is alive and makes a temporary volume or
        /// snapshot for it. As long a start waits for requests of which it finds only rows, where nobody
        /// has begun them or cinder-volume is away, and for cinder-volume before it goes on with a backup.
        continue_timeout: u64 = default("600").min(1.0),
        /// Seconds without any sign of life after which what a worker of Cinderblock's began is gone on with
        /// by another one that has the same backup_ceph_pool, database and availability zone: 20 at
        /// least. Zero leaves it to the next start of a worker of that host.
        takeover_after: u64 = default("60"),
        /// Pools that a user may name as the container of a backup, besides backup_ceph_pool.
        allowed_containers: Vec<String> = default(""),
        /// Let users delete any backup of a chain, not only the newest. Each is a whole restore point
        /// already; once it is complete it is no longer recorded as building on another, so that the
        /// API shows it as a full backup. Incremental backups of this host that are there already are
        /// treated so at the start.
        independent_backups: bool = default("false"),
        /// Python interpreter that has os-brick, with which volumes that are not in Ceph are
        /// attached: a path, or a name that is looked for in PATH. Without os-brick, or with an
        /// empty value, only volumes in Ceph can be backed up and restored.
        os_brick_python: String = default("python3"),
    }
}
