//! What this host tells cinder-volume about itself (os-brick's `get_connector_properties`).

use serde_json::{Value, json};

/// The properties that every connection needs. Those of iSCSI, Fibre Channel and NVMe are left out:
/// volumes in Ceph are reached without them.
pub fn properties(ip: &str) -> Value {
    json!({
        "platform": std::env::consts::ARCH,
        "os_type": std::env::consts::OS,
        "ip": ip,
        "host": gethostname::gethostname().to_string_lossy(),
        "multipath": false,
        "enforce_multipath": false,
        "do_local_attach": false,
    })
}
