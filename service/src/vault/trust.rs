//! Whether a volume's object map may be believed about what changed since its last backup.
//!
//! It must not where the volume was rolled back to a snapshot older than that backup. A rollback leaves no
//! trace of its own; but it changes all that changed between that snapshot and the backup. So a manifest
//! names a few parts of the volume that changed between the newest snapshot older than the backup and the
//! backup itself: if one of them did not change since, there was no rollback to that snapshot, nor to any
//! before it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, Result, Vault};
use crate::rbd::{Image, Snapshot};
use crate::transfer::{audit, changed_parts, has_changed};

/// How many parts a manifest names: as long as one of them is not written again, it is of use.
const NAMED: usize = 16;

/// How many parts are compared with the backup.
const AUDITED: usize = 16;

/// How a rollback of a volume to a snapshot that is older than a backup would show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rollback {
    /// There was no such snapshot.
    Impossible,
    /// Each of these parts of the volume, given as first byte and length, would be another.
    Changes(Vec<(u64, u64)>),
}

/// The snapshots that were there when a backup took its own.
pub(super) struct Snapshots {
    /// Listed before. None if the backup's own was there already: nobody knows what has happened since.
    pub before: Option<Vec<Snapshot>>,
    /// Listed afterwards.
    pub after: Vec<Snapshot>,
}

impl Snapshots {
    /// The newest of those that are older than `own`.
    fn newest_before(&self, own: &str) -> Option<Newest<'_>> {
        let before = self.before.as_ref()?;
        let own = self.after.iter().find(|snapshot| snapshot.name == own)?;
        let older = before.iter().chain(&self.after);
        let newest = older
            .filter(|snapshot| snapshot.id < own.id)
            .max_by_key(|snapshot| snapshot.id);
        Some(match newest {
            None => Newest::None,
            Some(newest) if self.after.contains(newest) => Newest::Is(newest),
            Some(_) => Newest::Gone,
        })
    }
}

enum Newest<'a> {
    None,
    Is(&'a Snapshot),
    Gone,
}

/// How a rollback would show to a snapshot older than a backup's own, at which `image` is open; none if it
/// might not show. `inherited` is what is known of the parent, if nothing changed since that.
pub(super) async fn rollback_of(
    image: &Image,
    own: &str,
    snapshots: &Snapshots,
    inherited: Option<Rollback>,
) -> Result<Option<Rollback>> {
    let newest = match snapshots.newest_before(own) {
        None | Some(Newest::Gone) => return Ok(None),
        Some(Newest::None) => return Ok(Some(Rollback::Impossible)),
        Some(Newest::Is(newest)) => newest,
    };
    if !image.has_valid_fast_diff() {
        return Ok(None);
    }
    let parts = changed_parts(image, &newest.name, NAMED, random).await?;
    Ok(match parts.is_empty() {
        true => inherited,
        false => Some(Rollback::Changes(
            parts
                .iter()
                .map(|part| (part.start, part.end - part.start))
                .collect(),
        )),
    })
}

/// Whether a volume, open at a newer snapshot, was certainly not rolled back to a snapshot older than
/// `since`.
pub(super) async fn was_not_rolled_back(
    image: &Image,
    since: &str,
    rollback: Option<&Rollback>,
) -> Result<bool> {
    let parts = match rollback {
        None => return Ok(false),
        Some(Rollback::Impossible) => return Ok(true),
        Some(Rollback::Changes(parts)) => parts,
    };
    for (start, length) in parts {
        let part = *start..start.saturating_add(*length).min(image.known_size());
        if !part.is_empty() && !has_changed(image, since, part).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Vault {
    /// Compares some of what a volume's object map calls unchanged with the base image, which reads as the
    /// parent.
    ///
    /// # Errors
    /// `WrongMap` if something differs.
    pub(super) async fn audit(&self, volume: &Image, since: &str, base: &Image) -> Result<()> {
        let budget = &self.engine.budget;
        match audit(volume, since, base, AUDITED, budget, random).await? {
            Some(range) => Err(Error::WrongMap(range)),
            None => Ok(()),
        }
    }
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: u64, name: &str) -> Snapshot {
        Snapshot {
            id,
            name: name.to_owned(),
            size: 1,
        }
    }

    fn newest(before: Option<&[Snapshot]>, after: &[Snapshot]) -> String {
        let snapshots = Snapshots {
            before: before.map(<[_]>::to_vec),
            after: after.to_vec(),
        };
        match snapshots.newest_before("own") {
            None => "unknown".to_owned(),
            Some(Newest::None) => "none".to_owned(),
            Some(Newest::Gone) => "gone".to_owned(),
            Some(Newest::Is(newest)) => newest.name.clone(),
        }
    }

    #[test]
    fn the_newest_older_snapshot_is_looked_for_before_and_after() {
        let [one, two] = [snapshot(1, "one"), snapshot(2, "two")];
        let (own, three) = (snapshot(5, "own"), snapshot(6, "three"));
        let both = [one.clone(), two.clone()];
        let after = [one.clone(), two, own.clone(), three.clone()];
        assert_eq!(newest(Some(&both), &after), "two");
        // Taken in between, and removed in between.
        assert_eq!(newest(Some(&both[..1]), &after), "two");
        assert_eq!(
            newest(Some(&both), &[one, own.clone(), three.clone()]),
            "gone"
        );
        assert_eq!(newest(Some(&[]), &[own, three]), "none");
        assert_eq!(newest(None, &after), "unknown");
    }
}
