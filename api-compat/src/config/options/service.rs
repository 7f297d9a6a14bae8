//! Who this worker is, and how it shows that it is alive.

use std::path::PathBuf;

use crate::config::registry::{Default, default, from, options};

options! {
    /// Identity and heartbeat of the service (Cinder's `common/config.py` and `service.py`).
    pub struct Service in "DEFAULT" {
        /// Name of this worker: in the services table, in the name of its queue and in the host
        /// of its backups. Two machines that run at the same time must never share it.
        host: String = from(Default::Hostname),
        /// IP address of this machine, which storage back ends are told when a volume is
        /// attached.
        my_ip: String = from(Default::Address),
        /// Top directory of Cinder's own files, which other options may name as $state_path.
        state_path: PathBuf = default("/var/lib/cinder"),
        /// Availability zone of this worker. The scheduler gives it backups of this zone.
        storage_availability_zone: String = default("nova"),
        /// Seconds between two heartbeats in the services table.
        report_interval: u64 = default("10"),
        /// Seconds without a heartbeat after which a service counts as down. Must be the same for
        /// all services.
        service_down_time: u64 = default("60"),
        /// Seconds that running operations get to finish after SIGTERM; 0 waits for them without
        /// limit.
        graceful_shutdown_timeout: u64 = default("60"),
        /// Whether a worker that starts for the first time is enabled. If false, an operator
        /// enables it.
        enable_new_services: bool = default("true"),
        /// Seconds after which messages to users about failed operations expire.
        message_ttl: u64 = default("2592000"),
    }
}
