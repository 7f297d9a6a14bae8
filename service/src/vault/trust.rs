//! Whether a volume's object map may be believed about what changed since its last backup.
//!
//! It must not where the volume was rolled back to a snapshot older than that backup. A rollback leaves no
//! trace of its own; but it changes all that changed between that snapshot and the backup. So a manifest
//! names a few parts of the volume that changed between the newest snapshot older than the backup and the
//! backup itself: if one of them did not change since, no rollback to that snapshot came to its end, nor to any
//! before it. Of one that broke off this tells nothing: the operator decides whether that is good enough.

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::{Error, Result, Vault, random};
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
) -> Option<Rollback> {
    let newest = match snapshots.newest_before(own)? {
        Newest::None => return Some(Rollback::Impossible),
        Newest::Gone => return None,
        Newest::Is(newest) => newest,
    };
    if !image.has_valid_fast_diff() {
        return None;
    }
    let parts = match changed_parts(image, &newest.name, NAMED, random).await {
        Ok(parts) => parts,
        Err(error) => {
            debug!(image = image.name(), %error, "Nobody knows how a rollback would show");
            return None;
        }
    };
    match parts.is_empty() {
        true => inherited,
        false => {
            let parts = parts.iter().map(|part| (part.start, part.end - part.start));
            Some(Rollback::Changes(parts.collect()))
        }
    }
}

/// Whether a volume, open at a newer snapshot, was certainly not rolled back to a snapshot older than
/// `since`.
async fn was_not_rolled_back(image: &Image, since: &str, rollback: &Rollback) -> Result<bool> {
    let Rollback::Changes(parts) = rollback else {
        return Ok(true);
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
    /// Whether a volume's object map is believed about what changed since the parent. The base image must
    /// read as that.
    ///
    /// # Errors
    /// `WrongMap` if something that it calls unchanged is not what the base image holds.
    pub(super) async fn believes_map(
        &self,
        volume: &Image,
        since: &str,
        base: &Image,
        rollback: Option<&Rollback>,
    ) -> Result<bool> {
        let Some(rollback) = rollback.filter(|_| self.engine.trust_object_map) else {
            return Ok(false);
        };
        if !volume.has_valid_fast_diff() {
            return Ok(false);
        }
        let believing = async {
            let unchanged = was_not_rolled_back(volume, since, rollback).await?;
            match unchanged {
                true => Ok(Some(
                    audit(volume, since, base, AUDITED, &self.engine.budget, random).await?,
                )),
                false => Ok(None),
            }
        };
        match believing.await {
            Ok(Some(Some(range))) => Err(Error::WrongMap(range)),
            Ok(Some(None)) => Ok(true),
            Ok(None) => {
                info!(
                    image = volume.name(),
                    "The volume may have been rolled back: asking about every object"
                );
                Ok(false)
            }
            // Whatever it is, the transfer comes upon it if it matters.
            Err::<_, Error>(error) => {
                warn!(image = volume.name(), %error, "The object map cannot be checked: asking about every object");
                Ok(false)
            }
        }
    }
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
