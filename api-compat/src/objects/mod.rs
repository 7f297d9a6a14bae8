//! Cinder's versioned objects (oslo.versionedobjects): the envelope and the objects that a backup
//! service receives and sends.
//!
//! A receiver reads the fields that it knows and ignores the rest; it accepts every minor version
//! of the major version that it knows. (Python refuses a higher minor version. Accepting it lets
//! a worker live through an upgrade of its neighbours.)

pub mod backup;
pub mod envelope;
pub mod log_level;
pub mod snapshot;
pub mod version;
pub mod volume;

pub(crate) mod date;

pub use backup::{Backup, BackupDevice, BackupDeviceInfo, BackupImport};
pub use envelope::{Lazy, ObjectError, WireObject, decode, encode};
pub use log_level::{LogLevel, LogLevelList};
pub use snapshot::Snapshot;
pub use version::{ObjectHistory, Version};
pub use volume::{Volume, VolumeAttachment, VolumeAttachmentList, VolumeType};
