//! How this host reaches volumes that are not in Ceph.

use std::path::PathBuf;

use crate::config::registry::{default, options};

options! {
    /// Attaching with os-brick (Cinder's `common/config.py` and `volume/driver.py`).
    pub struct Attach in "DEFAULT" {
        /// Configuration of cinder-rootwrap, with which commands are run as root.
        rootwrap_config: PathBuf = default("/etc/cinder/rootwrap.conf"),
        /// Whether volumes that are not in Ceph are attached through several paths.
        use_multipath_for_image_xfer: bool = default("false"),
        /// Whether attaching fails when several paths are wanted and multipathd does not run,
        /// instead of using one path.
        enforce_multipath_for_image_xfer: bool = default("false"),
        /// How often the host's devices are scanned for a volume that was attached.
        num_volume_device_scan_tries: u32 = default("3"),
    }
}
