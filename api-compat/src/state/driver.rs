//! Whether a backup was made by our driver (`_is_our_backup` in cinder/backup/manager.py), and
//! with which words it is refused if it was not.

use super::event::{Blame, Change, Refusal};
use super::status::{BackupStatus, VolumeStatus};

/// The only driver that there is. Python's workers and cinder-volume's RBD driver look at this
/// text in `backups.service`.
pub const CEPH: &str = "cinder.backup.drivers.ceph.CephBackupDriver";

/// Whether a backup whose row names the driver `service` is ours. A row that names none was never
/// begun by any; old rows name the module without the class.
pub fn is_ours(configured: &str, service: Option<&str>) -> bool {
    service.is_none_or(|service| configured.starts_with(service))
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `restore_backup`.
    Restore,
    /// `delete_backup`.
    Delete,
    /// `export_record`.
    Export,
    /// `reset_status`.
    ResetStatus,
}

/// Refuses an operation on a backup of another driver's.
pub fn refuse(operation: Operation, configured: &str, service: &str) -> Refusal {
    let name = match operation {
        Operation::Restore => "Restore backup",
        Operation::Delete => "Delete backup",
        Operation::Export => "Export record",
        Operation::ResetStatus => "Reset backup status",
    };
    let reason = format!(
        "{name} aborted, the backup service currently configured [{configured}] is not the \
         backup service that was used to create this backup [{service}]."
    );
    let change = match operation {
        Operation::Restore => Change {
            backup: Some(BackupStatus::Available),
            ..Change::of_volume(VolumeStatus::Error)
        },
        Operation::Delete => Change::failed(&reason),
        Operation::Export | Operation::ResetStatus => Change::default(),
    };
    Refusal {
        change: Box::new(change),
        ..Refusal::new(Blame::Backup, reason)
    }
}

/// What becomes of a record that no worker's driver can import.
pub fn nobody_imports(service: &str) -> String {
    format!(
        "Import record failed, cannot find backup service to perform the import. Request service \
         {service}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_and_the_class_are_ours() {
        assert!(is_ours(CEPH, Some(CEPH)));
        assert!(is_ours(CEPH, Some("cinder.backup.drivers.ceph")));
        assert!(is_ours(CEPH, Some("")));
        assert!(is_ours(CEPH, None));
        assert!(!is_ours(
            CEPH,
            Some("cinder.backup.drivers.swift.SwiftBackupDriver")
        ));
    }

    #[test]
    fn refusals_are_cinders_words() {
        let refusal = refuse(Operation::Delete, "ours", "theirs");
        let text = "Delete backup aborted, the backup service currently configured [ours] is not \
                    the backup service that was used to create this backup [theirs].";
        assert_eq!(refusal.reason, text);
        assert_eq!(refusal.change.backup, Some(BackupStatus::Error));
        assert_eq!(refusal.change.fail_reason.as_deref(), Some(text));
        let refusal = refuse(Operation::Restore, "ours", "theirs");
        assert_eq!(refusal.change.backup, Some(BackupStatus::Available));
        assert_eq!(refusal.change.volume.unwrap().status, VolumeStatus::Error);
        assert_eq!(
            *refuse(Operation::Export, "a", "b").change,
            Change::default()
        );
    }
}
