//! What may differ between Python's worker and ours, and why.

use serde_json::Value;

/// A field that may differ.
pub struct Allowed {
    pub steps: Steps,
    /// Parts of the field's path.
    pub path: &'static [&'static str],
    pub how: How,
    pub reason: &'static str,
}

/// After which steps.
pub enum Steps {
    /// After all of these.
    In(&'static [&'static str]),
    /// After any from the one to the other.
    From(&'static str, &'static str),
    /// After any.
    All,
}

/// How it may differ.
pub enum How {
    /// Python's is there, and ours is not, or null.
    OnlyTheirs,
    /// Ours is there, and Python's is not, or null.
    OnlyOurs,
    /// Python's has this in it, and ours that.
    Says(&'static str, &'static str),
    /// In any way.
    Somehow,
}

use How::{OnlyOurs, OnlyTheirs, Says, Somehow};
use Steps::{All, From, In};

const DELETED: &[&str] = &[
    "increment is deleted",
    "full is deleted",
    "in-use is deleted",
    "a backup whose image is gone is deleted",
    "a backup without its restore point is deleted",
    "a worker that was killed starts",
];

const RESTORED: &[&str] = &[
    "an increment is restored to a new volume",
    "a full backup is restored to another volume",
    "a full backup is restored to its volume",
    "a backup is restored to a volume whose image is gone",
];

const OF_SNAPSHOT: &[&str] = &["of-snapshot is made", "of-snapshot is deleted"];

const NOT_READ: &[&str] = &["a backup is restored whose image is gone"];

const NOT_ATTACHED: &[&str] = &[
    "a backup is made of a volume whose image is gone",
    "a backup is restored to a volume whose image is gone",
];

const REFUSED: &[&str] = &["restores are refused", "deletes are refused"];

const FAILED: (&str, &str) = ("RBD image not found", "cannot open volumes/volume-<broken>");

pub const ALLOWED: &[Allowed] = &[
    Allowed {
        steps: All,
        path: &["/object_count"],
        how: Somehow,
        reason: "the objects that were copied are counted",
    },
    // What is left on volumes.
    Allowed {
        steps: From(
            "an increment is restored to a new volume",
            "full is deleted",
        ),
        path: &["/images/volumes/volume-<restored>/snapshots/backup.<increment>."],
        how: OnlyTheirs,
        reason: "no snapshot is left on a restored volume",
    },
    Allowed {
        steps: From("increment is deleted", "full is deleted"),
        path: &["/images/volumes/volume-<volume>/snapshots/backup.<increment>."],
        how: OnlyTheirs,
        reason: "a backup's snapshot on its volume goes with the backup",
    },
    Allowed {
        steps: In(&["full is deleted"]),
        path: &["/images/volumes/volume-<volume>/snapshots/backup.<full>."],
        how: OnlyTheirs,
        reason: "a backup's snapshot on its volume goes with the backup",
    },
    Allowed {
        steps: From("in-use is deleted", "of-snapshot is deleted"),
        path: &["/images/volumes/volume-<used>/snapshots/backup.<in-use>."],
        how: OnlyTheirs,
        reason: "a backup's snapshot on its volume goes with the backup",
    },
    Allowed {
        steps: From(
            "a backup whose image is gone is deleted",
            "a backup without its restore point is deleted",
        ),
        path: &[
            "/images/volumes/volume-<broken>",
            "/snapshots/backup.<lost>.",
        ],
        how: OnlyTheirs,
        reason: "a backup's snapshot on its volume goes with the backup",
    },
    Allowed {
        steps: In(&["a backup without its restore point is deleted"]),
        path: &["/images/volumes/volume-<broken>/snapshots/backup.<kept>."],
        how: OnlyTheirs,
        reason: "a backup's snapshot on its volume goes with the backup",
    },
    // Backups of snapshots.
    Allowed {
        steps: In(&["of-snapshot is made"]),
        path: &["/images/backups/volume-<used>.backup.base"],
        how: OnlyTheirs,
        reason: "a backup of a snapshot has an image of its own",
    },
    Allowed {
        steps: In(&["of-snapshot is made"]),
        path: &["/images/backups/volume-<used>.backup.<of-snapshot>"],
        how: OnlyOurs,
        reason: "a backup of a snapshot has an image of its own",
    },
    Allowed {
        steps: In(OF_SNAPSHOT),
        path: &["/rows/backups/<of-snapshot>/service_metadata"],
        how: OnlyOurs,
        reason: "its row names that image",
    },
    Allowed {
        steps: In(OF_SNAPSHOT),
        path: &[
            "/notifications/notifications.info <of-snapshot>/",
            "/payload/service_metadata",
        ],
        how: OnlyOurs,
        reason: "its row names that image",
    },
    Allowed {
        steps: In(&["of-snapshot is deleted"]),
        path: &["/asked/delete_backup 1/args/backup/", "/service_metadata"],
        how: OnlyOurs,
        reason: "its row names that image",
    },
    // What is asked of other services.
    Allowed {
        steps: In(RESTORED),
        path: &["/asked/secure_file_operations_enabled 1"],
        how: OnlyTheirs,
        reason: "asked only where a device cannot be opened",
    },
    Allowed {
        steps: In(DELETED),
        path: &["/asked/initialize_connection 1"],
        how: OnlyOurs,
        reason: "a delete looks for the volume, whose snapshot it removes",
    },
    Allowed {
        steps: In(NOT_READ),
        path: &["/asked/", "_connection 1"],
        how: OnlyTheirs,
        reason: "a volume is attached when the backup was found",
    },
    Allowed {
        steps: In(NOT_READ),
        path: &["/asked/remove_export 1"],
        how: OnlyTheirs,
        reason: "a volume is attached when the backup was found",
    },
    Allowed {
        steps: In(NOT_READ),
        path: &["/asked/secure_file_operations_enabled 1"],
        how: OnlyTheirs,
        reason: "a volume is attached when the backup was found",
    },
    Allowed {
        steps: In(NOT_ATTACHED),
        path: &["/asked/remove_export 1"],
        how: OnlyOurs,
        reason: "every step of detaching is taken",
    },
    Allowed {
        steps: All,
        path: &[
            "/asked/",
            "_backup",
            "/args/backup/versioned_object.data/container",
        ],
        how: OnlyOurs,
        reason: "the pool is recorded when the backup is taken on",
    },
    Allowed {
        steps: All,
        path: &["/asked/get_backup_device", "/versioned_object.changes"],
        how: OnlyTheirs,
        reason: "the sender's changes mean nothing to the receiver",
    },
    Allowed {
        steps: All,
        path: &[
            "/asked/",
            "/args/volume/versioned_object.data/volume_attachment",
        ],
        how: OnlyTheirs,
        reason: "cinder-volume reads the attachments where it needs them",
    },
    Allowed {
        steps: In(&["of-snapshot is made"]),
        path: &["/asked/delete_volume 1/args/volume/versioned_object.data/volume_type"],
        how: OnlyTheirs,
        reason: "cinder-volume reads the type where it needs it",
    },
    Allowed {
        steps: All,
        path: &[
            "/asked/",
            "/args/volume/versioned_object.data/admin_metadata",
        ],
        how: OnlyTheirs,
        reason: "cinder-volume reads the metadata where it needs it",
    },
    Allowed {
        steps: In(&["of-snapshot is made"]),
        path: &["/asked/delete_volume 1/args/volume/versioned_object.data/metadata"],
        how: OnlyTheirs,
        reason: "cinder-volume reads the metadata where it needs it",
    },
    Allowed {
        steps: In(&["of-snapshot is made"]),
        path: &["/asked/initialize_connection 1/args/volume/", "/updated_at"],
        how: OnlyOurs,
        reason: "the temporary volume's row is read again",
    },
    // The rows of backups that failed, their reasons, and levels of the log.
    Allowed {
        steps: In(&[
            "a backup is made of a volume whose image is gone",
            "a failed backup is deleted",
        ]),
        path: &["/rows/backups/<failed>/container"],
        how: OnlyOurs,
        reason: "the pool is recorded when the backup is taken on",
    },
    Allowed {
        steps: In(&[
            "a backup is made of a volume whose image is gone",
            "a failed backup is deleted",
        ]),
        path: &["/rows/backups/<failed>/fail_reason"],
        how: Says(FAILED.0, FAILED.1),
        reason: "errors of Ceph are told in words of our own",
    },
    Allowed {
        steps: In(&["a failed backup is deleted"]),
        path: &[
            "/notifications/notifications.info <failed>/",
            "/payload/fail_reason",
        ],
        how: Says(FAILED.0, FAILED.1),
        reason: "errors of Ceph are told in words of our own",
    },
    Allowed {
        steps: In(&["a failed backup is deleted"]),
        path: &["/asked/delete_backup 1/args/backup/", "/fail_reason"],
        how: Says(FAILED.0, FAILED.1),
        reason: "errors of Ceph are told in words of our own",
    },
    Allowed {
        steps: In(&[
            "a backup whose image is gone is deleted",
            "a failed backup is deleted",
        ]),
        path: &["/logged/WARNING"],
        how: OnlyTheirs,
        reason: "a delete whose data is gone has nothing to warn of",
    },
    // Refusals.
    Allowed {
        steps: In(REFUSED),
        path: &["/notifications/notifications.info <two>/0/payload/service_metadata"],
        how: OnlyOurs,
        reason: "the row is told of, not the backup in the message",
    },
    Allowed {
        steps: In(REFUSED),
        path: &["/rows/backups/<two>/fail_reason"],
        how: OnlyTheirs,
        reason: "a backup in another status is left to whoever gave it that",
    },
    Allowed {
        steps: In(&["deletes are refused"]),
        path: &["/rows/backups/<two>/status"],
        how: Says("error", "available"),
        reason: "a backup in another status is left to whoever gave it that",
    },
    Allowed {
        steps: In(&["what is not ours is reset"]),
        path: &["/rows/backups/<one>/status"],
        how: Says("available", "error"),
        reason: "a backup that no driver began can be reset",
    },
    Allowed {
        steps: In(&["what is not ours is reset"]),
        path: &["/notifications/notifications.info <one>/1"],
        how: OnlyOurs,
        reason: "a backup that no driver began can be reset",
    },
    // A worker that was killed, and one without its pool.
    Allowed {
        steps: From(
            "a worker that was killed starts",
            "a backup is deleted without its pool",
        ),
        path: &["/images/volumes/volume-<source>/snapshots/backup.<others>."],
        how: OnlyTheirs,
        reason: "a backup's snapshot on its volume goes with the backup",
    },
    Allowed {
        steps: In(&["a worker that was killed starts"]),
        path: &["/logged/ERROR"],
        how: OnlyOurs,
        reason: "what a dead worker left unfinished has failed",
    },
    Allowed {
        steps: In(&["a backup is made without a pool"]),
        path: &["/notifications/notifications.info <refused>/0/payload/host"],
        how: OnlyOurs,
        reason: "the row is told of, not the backup in the message",
    },
    Allowed {
        steps: In(&["a record without its fields is imported"]),
        path: &["/rows/backups/<one>/fail_reason"],
        how: Says("there are missing fields (", "there are missing fields ("),
        reason: "Python names them in any order",
    },
];

impl Allowed {
    /// Whether it is about a field after the step of that number.
    pub fn covers(
        &self,
        steps: &[&str],
        number: usize,
        path: &str,
        theirs: Option<&Value>,
        ours: Option<&Value>,
    ) -> bool {
        let at = |step: &str| steps.iter().position(|known| *known == step);
        let then = match self.steps {
            Steps::In(named) => named.contains(&steps[number]),
            Steps::From(first, last) => {
                at(first).is_some_and(|first| first <= number)
                    && at(last).is_some_and(|last| number <= last)
            }
            Steps::All => true,
        };
        let says = |value: Option<&Value>, text| {
            let said = value.and_then(Value::as_str);
            said.is_some_and(|said| said.contains(text))
        };
        let so = match self.how {
            How::OnlyTheirs => is_none(ours),
            How::OnlyOurs => is_none(theirs),
            How::Says(python, rust) => says(theirs, python) && says(ours, rust),
            How::Somehow => theirs.is_some() && ours.is_some(),
        };
        then && so && self.path.iter().all(|part| path.contains(part))
    }
}

fn is_none(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}
