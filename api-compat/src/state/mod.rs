//! Statuses of backups, volumes and snapshots, and which may follow which.

pub mod driver;
pub mod event;
pub mod status;
pub mod transition;

pub use event::{Blame, Change, Event, Refusal, Source, VolumeChange};
pub use status::{BackupStatus, SnapshotStatus, UnknownStatus, VolumeStatus};
pub use transition::{is_wanted, transition};
