//! What things are called in a Ceph pool (cinder/backup/drivers/ceph.py).
//!
//! | thing | name |
//! |---|---|
//! | image of a full backup and its increments | `volume-<volume>.backup.<backup>` |
//! | image of a legacy or snapshot-sourced backup | `volume-<volume>.backup.base` |
//! | snapshot of a backup, on the volume and on the image | `backup.<backup>.snap.<time>` |
//! | metadata object of a backup | `backup.<backup>.meta` |
//! | what a backup's data was when it was stored; ours | `backup.<backup>.manifest`, `backup.<backup>.manifest.<part>` |
//! | object that names the worker at work on a backup; ours | `backup.<backup>.owner` |
//! | object on which the workers of a host hold leases; ours | `cinderblock.workers.<host>` |
//! | object on which whoever changes manifests takes turns; ours, there only for a moment | `cinderblock.turn.<volume>` |

use std::fmt;

use chrono::{DateTime, Utc};

use crate::ids::{BackupId, VolumeId};
use crate::service_metadata::{self, NotServiceMetadata};

/// Why a name is not used.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// `service_metadata` is not what Cinder writes.
    #[error(transparent)]
    ServiceMetadata(#[from] NotServiceMetadata),
    /// `service_metadata` names an image that is not a backup of this volume. Whoever may import
    /// records can write anything there; another volume's image must not be reached through it.
    #[error("base image {image:?} is not a backup image of volume {volume}")]
    ForeignImage {
        /// The image that is named.
        image: String,
        /// The volume that the backup is of.
        volume: VolumeId,
    },
}

/// An image that holds backups of one volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackupImage {
    volume: VolumeId,
    first: Option<BackupId>,
}

impl BackupImage {
    /// The image that begins with the full backup `first`.
    pub fn own(volume: VolumeId, first: BackupId) -> Self {
        Self {
            volume,
            first: Some(first),
        }
    }

    /// The image `….backup.base`, which no single backup owns.
    pub fn legacy(volume: VolumeId) -> Self {
        Self {
            volume,
            first: None,
        }
    }

    /// Recognises a backup image's name.
    pub fn parse(name: &str) -> Option<Self> {
        let (volume, first) = name.strip_prefix("volume-")?.split_once(".backup.")?;
        let volume = volume.parse().ok()?;
        match first {
            "base" => Some(Self::legacy(volume)),
            id => Some(Self::own(volume, id.parse().ok()?)),
        }
    }

    /// The volume whose backups it holds.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Whether this is `….backup.base`: it may hold what belongs to another backup, and must not
    /// be removed without proof that it does not.
    pub fn is_legacy(&self) -> bool {
        self.first.is_none()
    }
}

impl fmt::Display for BackupImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first {
            Some(first) => write!(f, "volume-{}.backup.{first}", self.volume),
            None => write!(f, "volume-{}.backup.base", self.volume),
        }
    }
}

/// The image that a backup's `service_metadata` names; none where nothing is written, as in old rows of
/// Python's. `volume` is the backup's `volume_id`, never the volume's `_name_id`.
///
/// # Errors
/// [`NameError::ServiceMetadata`] and [`NameError::ForeignImage`].
pub fn recorded_image(
    volume: VolumeId,
    service_metadata: Option<&str>,
) -> Result<Option<BackupImage>, NameError> {
    let Some(text) = service_metadata.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let name = service_metadata::base(text)?;
    match BackupImage::parse(&name) {
        Some(image) if image.volume == volume => Ok(Some(image)),
        _ => Err(NameError::ForeignImage {
            image: name.chars().take(128).collect(),
            volume,
        }),
    }
}

/// The name of a backup's snapshot. The same name stands on the source volume and on the image.
///
/// Cinder recognises such snapshots by `^backup\.([a-z0-9\-]+?)\.snap\.(.+)$` and removes them
/// before it deletes a volume, so everything that matches counts, whatever the id looks like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupSnapshot {
    backup: String,
    time: String,
}

impl BackupSnapshot {
    /// The name of a snapshot that is made now.
    pub fn new(backup: BackupId, now: DateTime<Utc>) -> Self {
        Self {
            backup: backup.to_string(),
            time: python_time(now),
        }
    }

    /// Recognises the name of a backup's snapshot.
    pub fn parse(name: &str) -> Option<Self> {
        let (backup, time) = name.strip_prefix("backup.")?.split_once(".snap.")?;
        let id_like = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if backup.is_empty() || !backup.bytes().all(id_like) {
            return None;
        }
        // `.` matches no line feed.
        (!time.is_empty() && !time.contains('\n')).then(|| Self {
            backup: backup.to_owned(),
            time: time.to_owned(),
        })
    }

    /// The id in the name; none if it is not a backup's id.
    pub fn backup(&self) -> Option<BackupId> {
        self.backup.parse().ok()
    }

    /// Whether the name is that of a snapshot of this backup.
    pub fn is_of(&self, backup: BackupId) -> bool {
        self.backup() == Some(backup)
    }
}

impl fmt::Display for BackupSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backup.{}.snap.{}", self.backup, self.time)
    }
}

/// `str(time.time())`: the shortest text that reads back as the same double, with at least one
/// digit after the point.
fn python_time(time: DateTime<Utc>) -> String {
    let microseconds = time.timestamp_micros() as f64;
    format!("{:?}", microseconds / 1e6)
}

/// The name of a backup's metadata object (`backup.<id>.meta`).
pub fn metadata_object(backup: BackupId) -> String {
    format!("backup.{backup}.meta")
}

/// The object that says of a backup what its data was when it was stored. Python's workers know none.
pub fn manifest_object(backup: BackupId) -> String {
    format!("backup.{backup}.manifest")
}

/// One part of that; of those that belong to a set, its name stands before the number.
pub fn manifest_chunk_object(backup: BackupId, set: Option<&str>, part: u32) -> String {
    match set {
        Some(set) => format!("backup.{backup}.manifest.{set}.{part:08x}"),
        None => format!("backup.{backup}.manifest.{part:08x}"),
    }
}

/// The object that names the worker that is at work on a backup. Python's workers know none.
pub fn owner_object(backup: BackupId) -> String {
    format!("backup.{backup}.owner")
}

/// The object on which the workers of a host hold leases. Python's workers know none.
pub fn workers_object(host: &str) -> String {
    format!("cinderblock.workers.{}", host.escape_default())
}

/// The object on which those take turns who change the manifests of a volume's backups. Python's workers
/// know none.
pub fn turn_object(volume: VolumeId) -> String {
    format!("cinderblock.turn.{volume}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use proptest::prelude::*;
    use uuid::Uuid;

    const V: &str = "06a314a8-3f21-44ef-b19e-2fb9b505d554";
    const B: &str = "246c011b-8fab-4538-90c2-f0ded6b69811";

    fn v() -> VolumeId {
        V.parse().unwrap()
    }

    fn b() -> BackupId {
        B.parse().unwrap()
    }

    #[test]
    fn names_are_those_of_a_recorded_backup() {
        assert_eq!(
            BackupImage::own(v(), b()).to_string(),
            format!("volume-{V}.backup.{B}")
        );
        assert_eq!(
            BackupImage::legacy(v()).to_string(),
            format!("volume-{V}.backup.base")
        );
        assert_eq!(metadata_object(b()), format!("backup.{B}.meta"));
    }

    #[test]
    fn times_are_written_as_pythons_floats() {
        let at = |seconds, nanos| Utc.timestamp_opt(seconds, nanos).unwrap();
        let name = |time| BackupSnapshot::new(b(), time).to_string();
        assert_eq!(
            name(at(1_795_208_565, 525_314_800)),
            format!("backup.{B}.snap.1795208565.525314")
        );
        assert_eq!(
            name(at(1_763_672_614, 0)),
            format!("backup.{B}.snap.1763672614.0")
        );
        assert_eq!(
            name(at(1_763_672_614, 450_000_000)),
            format!("backup.{B}.snap.1763672614.45")
        );
    }

    #[test]
    fn the_recogniser_is_cinders_expression() {
        let recognised = format!("backup.{B}.snap.1795208565.5253148");
        let snapshot = BackupSnapshot::parse(&recognised).unwrap();
        assert_eq!(snapshot.to_string(), recognised);
        assert!(snapshot.is_of(b()));
        let odd = BackupSnapshot::parse("backup.x-1.snap.a.snap.b").unwrap();
        assert_eq!(odd.backup(), None);
        assert_eq!(odd.to_string(), "backup.x-1.snap.a.snap.b");
        for name in [
            "backup..snap.1",
            "backup.X.snap.1",
            "backup.a.b.snap.1",
            "backup.a.snap.",
            "backup.a.snap.1\n2",
            "xbackup.a.snap.1",
            "snapshot-1",
            "backup.a.meta",
        ] {
            assert!(BackupSnapshot::parse(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn the_base_is_the_recorded_one_then_the_parents_then_the_own() {
        let recorded = format!("{{\"base\": \"volume-{V}.backup.{B}\"}}");
        let legacy = format!("{{\"base\": \"volume-{V}.backup.base\"}}");
        let image = |text| recorded_image(v(), text).unwrap();
        assert_eq!(image(Some(&legacy)), Some(BackupImage::legacy(v())));
        assert_eq!(image(Some(&recorded)), Some(BackupImage::own(v(), b())));
        assert_eq!(image(Some("")), None);
        assert_eq!(image(None), None);
    }

    #[test]
    fn a_forged_base_is_refused() {
        let other = Uuid::from_u128(7);
        for image in [
            format!("volume-{other}.backup.{B}"),
            format!("volume-{V}.backup.{B}@snap"),
            format!("volumes/volume-{V}.backup.{B}"),
            format!("volume-{V}.backup.{B}/x"),
            format!("volume-{V}"),
            String::new(),
        ] {
            let text = serde_json::json!({ "base": image }).to_string();
            assert!(
                matches!(
                    recorded_image(v(), Some(&text)),
                    Err(NameError::ForeignImage { .. })
                ),
                "{image:?} was accepted"
            );
        }
        let broken = recorded_image(v(), Some("{"));
        assert!(matches!(broken, Err(NameError::ServiceMetadata(_))));
    }

    proptest! {
        #[test]
        fn image_names_round_trip(volume: u128, first: Option<u128>) {
            let volume = VolumeId::from(Uuid::from_u128(volume));
            let image = match first {
                Some(first) => BackupImage::own(volume, Uuid::from_u128(first).into()),
                None => BackupImage::legacy(volume),
            };
            prop_assert_eq!(BackupImage::parse(&image.to_string()), Some(image));
        }

        #[test]
        fn what_is_recognised_prints_as_it_was(name in "(backup\\.)?\\PC{0,20}(\\.snap\\.)?\\PC{0,20}") {
            if let Some(snapshot) = BackupSnapshot::parse(&name) {
                prop_assert_eq!(snapshot.to_string(), name.clone());
            }
            if let Some(image) = BackupImage::parse(&name) {
                prop_assert_eq!(image.to_string(), name);
            }
        }
    }
}
