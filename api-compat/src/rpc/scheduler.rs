//! What we tell cinder-scheduler: that we are here and able to make backups.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::outgoing::{Destination, Kind, Outgoing};

/// What a scheduler must know of a backup service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities<'a> {
    /// Whether backups can be made right now. A scheduler never forgets a service by itself, so
    /// a worker that stops says `false` as its last word.
    pub backend_state: bool,
    /// `backup_driver`.
    pub driver_name: &'a str,
    /// `storage_availability_zone`.
    pub availability_zone: &'a str,
}

/// Tells all schedulers. Without it none of them ever sends a `create_backup` here.
pub fn update_service_capabilities(
    host: &str,
    capabilities: &Capabilities<'_>,
    now: DateTime<Utc>,
) -> Outgoing {
    Outgoing::new(
        Destination::Fanout("cinder-scheduler"),
        Kind::Cast,
        "update_service_capabilities",
        "3.3",
        [
            ("service_name", json!("backup")),
            ("host", json!(host)),
            (
                "capabilities",
                json!({
                    "backend_state": capabilities.backend_state,
                    "driver_name": capabilities.driver_name,
                    "availability_zone": capabilities.availability_zone,
                }),
            ),
            ("cluster_name", json!(null)),
            // The scheduler's parser insists on the fraction (cinder/scheduler/manager.py).
            (
                "timestamp",
                json!(now.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()),
            ),
        ],
    )
}
