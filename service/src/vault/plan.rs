//! What to do with a chain, decided from plain facts.
//!
//! Nothing here talks to a cluster: the rooms beside gather the facts, ask, and act.

use std::fmt;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::names::{self, BackupImage, BackupSnapshot, NameError};
use api_compat::objects::Backup;

use super::error::Error;
use crate::rbd::ErrorKind;
use crate::transfer::TransferError;

/// A backup that is to be made.
#[derive(Debug, Clone)]
pub struct BackupSpec {
    /// The backup's id.
    pub backup: BackupId,
    /// The id in the backup's row; for a backup of a snapshot the volume of that snapshot.
    pub volume: VolumeId,
    /// The pool that receives it.
    pub pool: String,
    /// For an incremental, the backup that it builds on.
    pub parent: Option<Parent>,
    /// Whether an attempt before this one has died that may have made its restore point.
    pub again: bool,
}

/// The backup that an incremental builds on.
#[derive(Debug, Clone, Copy)]
pub struct Parent {
    /// Its id.
    pub backup: BackupId,
    /// The image that holds its chain.
    pub base: BackupImage,
}

/// What an incremental found of its parent.
#[derive(Debug, Clone, Default)]
pub struct ParentFacts {
    /// Snapshots on the parent's base image; `None` when that image does not exist.
    pub base_snapshots: Option<Vec<String>>,
    /// Snapshots on the source volume; `None` when it is not in Ceph.
    pub source_snapshots: Option<Vec<String>>,
}

/// How a backup is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// Everything that is allocated, into an image of its own.
    Full,
    /// Every byte, into an image of its own: it is not asked what is allocated.
    Whole,
    /// What changed since this snapshot, which stands on the source and in the base image.
    Incremental {
        /// The parent's snapshot.
        from: String,
    },
    /// What differs from whatever the base image of the parent holds: both are read as a whole.
    Compared,
}

impl Method {
    /// Whether the backup goes into the image of its parent, and not into one of its own.
    pub fn builds_on_parent(&self) -> bool {
        matches!(self, Self::Incremental { .. } | Self::Compared)
    }
}

/// For the log.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Whole => f.write_str("full, byte by byte"),
            Self::Incremental { from } => write!(f, "incremental since {from}"),
            Self::Compared => f.write_str("incremental, by comparing"),
        }
    }
}

/// Why nobody tells what changed since the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDiff {
    /// The source is a block device or file.
    #[error("the volume is not in Ceph")]
    NotInCeph,
    /// The source has no snapshot that a backup builds on: trimmed by `backup_ceph_max_snapshots`,
    /// migrated or retyped.
    #[error("the volume does not have the parent's snapshot")]
    NotOnSource,
    /// It was tried.
    #[error("the incremental backup failed")]
    Failed,
    /// The parent's image does not exist.
    #[error("the parent's image does not exist")]
    NoImage,
    /// The parent's image does not hold the parent.
    #[error("the parent's image does not hold its restore point")]
    NoRestorePoint,
    /// The parent's image holds the parent more than once.
    #[error("the parent's image holds {0} restore points of it")]
    Ambiguous(usize),
}

/// Decides how a backup with a parent is made: in the parent's image, as long as that holds backups;
/// otherwise what is in it may be all that there is of the parent. If it is not told what changed, why.
pub fn choose(parent: &Parent, facts: &ParentFacts) -> (Method, Option<NoDiff>) {
    let Some(in_base) = &facts.base_snapshots else {
        return (Method::Full, Some(NoDiff::NoImage));
    };
    let no_diff = match &snapshots_of(parent.backup, in_base)[..] {
        [] if !holds_backups(in_base) => return (Method::Full, Some(NoDiff::NoRestorePoint)),
        [] => NoDiff::NoRestorePoint,
        [from] => match &facts.source_snapshots {
            Some(snapshots) if snapshots.contains(from) => {
                let from = from.clone();
                return (Method::Incremental { from }, None);
            }
            Some(_) => NoDiff::NotOnSource,
            None => NoDiff::NotInCeph,
        },
        several => NoDiff::Ambiguous(several.len()),
    };
    (Method::Compared, Some(no_diff))
}

/// How to make a backup after `method` has failed; none where that would fail for the same reason.
pub fn instead(method: &Method, error: &Error) -> Option<Method> {
    use ErrorKind::{NoSpace, Permission, Shutdown, Unreachable};

    if let Some(NoSpace | Permission | Shutdown | Unreachable) = error.kind() {
        return None;
    }
    match (method, error) {
        (Method::Whole, _) => None,
        // It cannot be told what changed; the snapshot may be gone since which that was asked for.
        (
            Method::Incremental { .. },
            Error::Transfer(TransferError::Plan(_) | TransferError::PlanBrokeOff),
        ) => Some(Method::Compared),
        // That of the image of the chain: the volume itself is read byte by byte if need be.
        (
            Method::Compared,
            Error::Transfer(TransferError::Plan(_) | TransferError::PlanBrokeOff),
        ) => Some(Method::Full),
        (Method::Full, Error::Transfer(TransferError::Plan(_) | TransferError::PlanBrokeOff)) => {
            Some(Method::Whole)
        }
        // Nobody knows what else it does not say.
        (Method::Incremental { .. }, Error::WrongMap(_)) => Some(Method::Compared),
        // What was to be built on is gone or unreadable: the rest of the image may serve all the same.
        (Method::Incremental { .. }, Error::Missing(_) | Error::Damaged(_)) => {
            Some(Method::Compared)
        }
        // What is wrong with the image of the chain is not with a new one.
        (
            Method::Incremental { .. } | Method::Compared,
            Error::Missing(_)
            | Error::Damaged(_)
            | Error::Rbd(_)
            | Error::Transfer(TransferError::Write { .. } | TransferError::Flush(_)),
        ) => Some(Method::Full),
        _ => None,
    }
}

/// Whether any of `snapshots` was made for `backup`: another attempt may have named it after another time.
pub fn is_made<'a>(backup: BackupId, snapshots: impl IntoIterator<Item = &'a str>) -> bool {
    snapshots.into_iter().any(|name| is_of(backup, name))
}

fn is_of(backup: BackupId, snapshot: &str) -> bool {
    BackupSnapshot::parse(snapshot).is_some_and(|snapshot| snapshot.is_of(backup))
}

/// Those of `snapshots` that were made for `backup`.
pub fn snapshots_of(backup: BackupId, snapshots: &[String]) -> Vec<String> {
    snapshots
        .iter()
        .filter(|name| is_of(backup, name))
        .cloned()
        .collect()
}

/// Whether any of `snapshots` belongs to some backup.
pub fn holds_backups(snapshots: &[String]) -> bool {
    snapshots
        .iter()
        .any(|name| BackupSnapshot::parse(name).is_some())
}

/// The backup snapshots of a source volume on which no incremental will build: those of backups that
/// are not `live`, and the oldest of the others beyond `keep`, which keeps all if it is zero
/// (`backup_ceph_max_snapshots`). `listed` is in the order of their ids.
pub fn surplus_snapshots(listed: &[String], live: &[BackupId], keep: usize) -> Vec<String> {
    let ours = listed.iter().filter_map(|name| {
        let snapshot = BackupSnapshot::parse(name)?;
        Some((name, live.iter().any(|backup| snapshot.is_of(*backup))))
    });
    let (kept, stale): (Vec<_>, Vec<_>) = ours.partition(|(_, live)| *live);
    let beyond = match keep {
        0 => 0,
        keep => kept.len().saturating_sub(keep),
    };
    let oldest = kept.into_iter().take(beyond);
    stale
        .into_iter()
        .chain(oldest)
        .map(|(name, _)| name.clone())
        .collect()
}

/// What a backup's row says about where it lies.
#[derive(Debug, Clone)]
pub struct BackupRecord {
    /// The backup's id.
    pub backup: BackupId,
    /// The volume that it was made of.
    pub volume: VolumeId,
    /// The pool (`container`); `None` means the configured one.
    pub pool: Option<String>,
    /// The base image that `service_metadata` names, already checked to be one of this volume.
    pub base: Option<BackupImage>,
    /// Whether it was made of a snapshot: Python puts those into the volume's shared image.
    pub of_snapshot: bool,
    /// Whether no other live backup names the same base image; of backups of snapshots that name
    /// none, whether it is the only complete one.
    pub sole: bool,
}

/// One image in which a backup may lie, with what was found there.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The image.
    pub image: BackupImage,
    /// Its snapshots.
    pub snapshots: Vec<String>,
}

impl BackupRecord {
    /// What a row says.
    ///
    /// # Errors
    /// If it names an image that is not one of the volume's.
    pub fn of(row: &Backup, sole: bool) -> Result<Self, NameError> {
        Ok(Self {
            backup: row.id,
            volume: row.volume_id,
            pool: row.container.clone().filter(|pool| !pool.is_empty()),
            base: names::recorded_image(row.volume_id, row.service_metadata.as_deref())?,
            of_snapshot: row.snapshot_id.is_some(),
            sole,
        })
    }

    /// The images in which this backup may lie, most likely first, without repetition.
    pub fn candidates(&self) -> Vec<BackupImage> {
        let mut images: Vec<BackupImage> = self.base.into_iter().collect();
        for image in [self.own_image(), BackupImage::legacy(self.volume)] {
            if !images.contains(&image) {
                images.push(image);
            }
        }
        images
    }

    /// Whether an image that is not there may be one whose removal was interrupted: once this backup
    /// is gone, nothing else will ever ask for it.
    pub fn may_be_half_removed(&self, image: BackupImage) -> bool {
        image == self.own_image() || (self.base == Some(image) && self.sole)
    }

    fn own_image(&self) -> BackupImage {
        BackupImage::own(self.volume, self.backup)
    }

    /// Where to read this backup, of the candidates that exist: a snapshot of its own wins;
    /// a full copy without one (non-RBD source, or a snapshot's, made by Python) is the image
    /// itself, provided that the image is this backup's for certain. Such a copy's row names no
    /// image; where one is named, only a snapshot counts, since the image may hold what a later
    /// backup wrote.
    ///
    /// `metadata_object` tells whether `backup.<id>.meta` exists: it is written when a copy is
    /// complete, and is the only proof that the shared image is this backup's.
    pub fn restore_point(
        &self,
        found: &[Candidate],
        metadata_object: bool,
    ) -> Result<Option<(BackupImage, Option<String>)>, Error> {
        for candidate in found {
            match &snapshots_of(self.backup, &candidate.snapshots)[..] {
                [] => {}
                [one] => return Ok(Some((candidate.image, Some(one.clone())))),
                several => {
                    return Err(Error::damaged(format!(
                        "Backup should only have one snapshot but instead has {}",
                        several.len()
                    )));
                }
            }
        }
        if self.base.is_some() {
            return Ok(None);
        }
        let whole = found
            .iter()
            .find(|candidate| metadata_object && self.owns_whole(candidate, metadata_object));
        if let Some(candidate) = whole {
            return Ok(Some((candidate.image, None)));
        }
        // Python makes the shared image anew for another snapshot after it has lost the first.
        let claimed = found
            .iter()
            .find(|candidate| self.may_hold_whole(candidate, metadata_object));
        match claimed {
            Some(candidate) => Err(Error::damaged(format!(
                "Other backups of snapshots claim image {} as well: nobody can tell which of them \
                 it holds.",
                candidate.image
            ))),
            None => Ok(None),
        }
    }

    /// Whether an image without any backup's snapshot is this backup's alone.
    ///
    /// The image that carries this backup's id is, and so is the base of a chain that no other
    /// row names any more. The volume's shared image is only when the backup is of a snapshot and
    /// its metadata object proves that the copy was finished, and no other backup can say the same: a
    /// row that failed before owns nothing there, and taking it for the owner is how Python deletes
    /// other backups' data.
    pub fn owns_whole(&self, candidate: &Candidate, metadata_object: bool) -> bool {
        if holds_backups(&candidate.snapshots) {
            return false;
        }
        if candidate.image == self.own_image() || self.base == Some(candidate.image) {
            return self.sole;
        }
        self.may_hold_whole(candidate, metadata_object) && self.sole
    }

    /// Whether the volume's shared image may be this backup of a snapshot.
    fn may_hold_whole(&self, candidate: &Candidate, metadata_object: bool) -> bool {
        let full_copy = candidate.image.is_legacy() && !holds_backups(&candidate.snapshots);
        full_copy && self.base.is_none() && self.of_snapshot && metadata_object
    }

    /// What deleting this backup does to one image.
    ///
    /// # Errors
    /// `Damaged` if the image has to go and cannot: it has snapshots that are no backup's.
    pub fn deletion(
        &self,
        candidate: &Candidate,
        metadata_object: bool,
    ) -> Result<Deletion, Error> {
        let own = snapshots_of(self.backup, &candidate.snapshots);
        let others: Vec<String> = candidate
            .snapshots
            .iter()
            .filter(|name| !own.contains(name))
            .cloned()
            .collect();
        let remaining = Candidate {
            image: candidate.image,
            snapshots: others,
        };
        let chain_ends = !own.is_empty() && !holds_backups(&remaining.snapshots) && self.sole;
        let remove_image = chain_ends || self.owns_whole(candidate, metadata_object);
        let foreign: Vec<&str> = remaining
            .snapshots
            .iter()
            .map(String::as_str)
            // librbd removes those of mirroring with the image.
            .filter(|name| !name.starts_with(".mirror."))
            .collect();
        if remove_image && !foreign.is_empty() {
            return Err(Error::damaged(format!(
                "Image {} goes with its last backup and has snapshots that are no backup's: {}. \
                 Nothing was removed.",
                candidate.image,
                foreign.join(", ")
            )));
        }
        // The row of a backup in this image names it, so that this one is not the only one that does.
        // Only old rows of Python's, which live in a legacy image, name none.
        let known = !self.sole || self.base != Some(candidate.image) || candidate.image.is_legacy();
        let mut unknown = remaining.snapshots;
        unknown.retain(|name| !known && BackupSnapshot::parse(name).is_some());
        Ok(Deletion {
            remove_image,
            snapshots: own,
            unknown,
        })
    }
}

/// What deleting a backup does to one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Snapshots to remove.
    pub snapshots: Vec<String>,
    /// Whether nothing of a backup is left then, so that the image goes too.
    pub remove_image: bool,
    /// Snapshots for whose sake the image stays, of backups that no row tells of.
    pub unknown: Vec<String>,
}

#[cfg(test)]
mod tests;
