//! Named steps of operations, after which tests kill the worker.
//!
//! At each of them something outside of the process has changed, and nothing is written yet of what comes
//! next. A build for tests (with debug assertions) kills itself when it has come to the step that
//! `CINDERBLOCK_KILL_AT` names, as `kill -9` would. Nothing of this is in a release.

use clap::ValueEnum;

/// A step of an operation, by what has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// The backup's row says who makes it.
    BackupRecorded,
    /// cinder-volume has been asked for the device.
    DeviceRequested,
    /// The row says where the data is going to be.
    BackupPlaced,
    /// The source's image can be opened.
    SourceAttached,
    /// The base image of a full backup is there.
    BaseCreated,
    /// The source has the backup's snapshot.
    SourceSnapshotTaken,
    /// The manifest has a draft.
    ManifestBegun,
    /// All data is in the base image.
    DataStored,
    /// The manifest is complete.
    ManifestComplete,
    /// The base image has the backup's snapshot.
    RestorePointMade,
    /// The metadata object is there.
    MetadataWritten,
    /// The source's attachment has ended.
    SourceDetached,
    /// The rows say that the backup is available.
    BackupAvailable,
    /// The row says that the backup is being restored here.
    RestoreAccepted,
    /// The volume's image can be opened.
    TargetAttached,
    /// All data is in the volume.
    DataRestored,
    /// The volume's attachment has ended.
    TargetDetached,
    /// The rows have the metadata of the backup's volume.
    MetadataRestored,
    /// The rows say that the volume is restored.
    RestoreEnded,
    /// What builds on a backup that is deleted has its digests.
    ManifestGivenOn,
    /// The base image does not have the backup's snapshot any more.
    RestorePointRemoved,
    /// The manifest is gone.
    ManifestRemoved,
    /// The metadata object is gone, and with it everything in the pool.
    BackupRemoved,
    /// The row is deleted.
    RowDeleted,
}

/// Says that an operation has come to a step.
pub fn reached(step: Step) {
    #[cfg(debug_assertions)]
    test_build::die_at(step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

/// What only builds for tests have.
#[cfg(debug_assertions)]
mod test_build {
    use std::sync::LazyLock;

    use clap::ValueEnum;
    use nix::sys::signal::{Signal, raise};

    use super::Step;

    static LAST: LazyLock<Option<Step>> = LazyLock::new(|| {
        let named = std::env::var("CINDERBLOCK_KILL_AT").ok()?;
        Some(Step::from_str(&named, false).expect("CINDERBLOCK_KILL_AT names a step"))
    });

    pub fn die_at(step: Step) {
        if *LAST == Some(step) {
            raise(Signal::SIGKILL).expect("a process may kill itself");
        }
    }
}
