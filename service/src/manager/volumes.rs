//! Volumes and snapshots as a workflow needs them: the rows, and the same attached.

use std::collections::BTreeMap;

use api_compat::ids::{BackupId, SnapshotId, VolumeId};
use api_compat::objects::{Backup, BackupDevice, BackupDeviceInfo, Lazy, Snapshot, Volume};
use api_compat::state;
use api_compat::state::{SnapshotStatus, VolumeStatus};

use super::claim::{Claim, Phase};
use super::{Context, Error, Manager};
use crate::attach::{self, Attached, Wanted};
use crate::db::Subject;
use crate::transfer::Access;
use crate::vault;

const GIB: u64 = 1 << 30;

/// The bytes of a volume, as its row says.
pub(super) fn size_of(volume: &Volume) -> u64 {
    bytes(volume.size.unwrap_or(0))
}

fn bytes(gibibytes: i64) -> u64 {
    u64::try_from(gibibytes).unwrap_or(0) * GIB
}

/// A backup in the making, and what it is made of.
pub(super) struct Making {
    pub backup: Backup,
    pub volume: Option<Volume>,
    pub snapshot: Option<Snapshot>,
    volume_status: VolumeStatus,
}

impl Making {
    /// The volume that is backed up, or whose snapshot is.
    pub fn source_volume(&self) -> Result<&Volume, Error> {
        let id = self.backup.volume_id;
        let volume = self.volume.as_ref();
        volume.ok_or_else(|| Error::VolumeNotFound(id.to_string()))
    }

    /// What gets its status back at the end, for the decision.
    pub fn source(&self) -> state::Source<'_> {
        if self.backup.snapshot_id.is_some() {
            let snapshot = self.snapshot.as_ref();
            return match snapshot.and_then(|snapshot| snapshot.status.as_ref()) {
                Some(status) => state::Source::Snapshot { status },
                None => state::Source::Gone,
            };
        }
        match &self.volume {
            Some(volume) => state::Source::Volume {
                status: &self.volume_status,
                previous: volume.previous_status.as_ref(),
            },
            None => state::Source::Gone,
        }
    }

    /// The same when the operation ends: what is no longer `backing-up` was given another status
    /// by somebody else, and keeps it.
    pub fn held(&self) -> state::Source<'_> {
        let held = match self.source() {
            state::Source::Volume { status, .. } => *status == VolumeStatus::BackingUp,
            state::Source::Snapshot { status } => *status == SnapshotStatus::BackingUp,
            state::Source::Gone => false,
        };
        if held {
            self.source()
        } else {
            state::Source::Gone
        }
    }

    /// The bytes that its source has: a snapshot keeps the size that its volume had.
    pub fn size(&self, volume: &Volume) -> u64 {
        let taken = self.snapshot.as_ref();
        let taken = taken.and_then(|snapshot| snapshot.volume_size);
        taken.map_or_else(|| size_of(volume), bytes)
    }

    /// The rows that a decision changes.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            backup: self.backup.id,
            status: self.backup.status.unwrap_or(state::BackupStatus::Error),
            host: None,
            // The volume of a snapshot, even of one that is gone, is nobody's to change here.
            volume: match (&self.volume, &self.backup.snapshot_id) {
                (Some(volume), None) => Some((volume.id, &self.volume_status)),
                _ => None,
            },
            snapshot: self.snapshot.as_ref().map(|snapshot| snapshot.id),
        }
    }
}

/// What cinder-volume has prepared to be read for a backup.
pub(super) struct Prepared {
    volume: VolumeId,
    /// A snapshot of it, if that is read.
    snapshot: Option<SnapshotId>,
    /// Whether its files are read with the rights of their owner only; unless it is asked again.
    secure: Option<bool>,
}

impl Prepared {
    /// As cinder-volume tells it.
    pub fn told(row: &Backup, device: &BackupDeviceInfo) -> Self {
        let (volume, snapshot) = match &device.device {
            BackupDevice::Volume(volume) => (volume.id, None),
            // One of the volume that is backed up.
            BackupDevice::Snapshot(snapshot) => (row.volume_id, Some(snapshot.id)),
        };
        Self {
            volume,
            snapshot,
            secure: Some(device.secure_enabled),
        }
    }

    /// As cinder-volume has noted it in the row: what it made for the backup, or else what the backup is
    /// of.
    pub fn noted(row: &Backup) -> Result<Self, Error> {
        let snapshot = match (&row.temp_volume_id, &row.temp_snapshot_id) {
            (Some(_), _) => None,
            (None, Some(made)) => Some(made),
            (None, None) => row.snapshot_id.as_ref(),
        };
        Ok(Self {
            volume: match &row.temp_volume_id {
                Some(made) => made.parse()?,
                None => row.volume_id,
            },
            snapshot: snapshot.map(|id| id.parse()).transpose()?,
            secure: None,
        })
    }
}

impl Manager {
    /// Reads a backup with its volume or snapshot; those may be gone.
    pub(super) async fn making(&self, id: BackupId) -> Result<Making, Error> {
        self.making_of(self.backup(id).await?).await
    }

    /// The same for a row that was read, which may be deleted.
    pub(super) async fn making_of(&self, backup: Backup) -> Result<Making, Error> {
        let volume = self.db.volume(backup.volume_id).await?;
        let snapshot = match &backup.snapshot_id {
            Some(id) => match id.parse() {
                Ok(id) => self.db.snapshot(id).await?,
                // What has no id of a snapshot's is none.
                Err(_) => None,
            },
            None => None,
        };
        let status = volume.as_ref().and_then(|volume| volume.status.clone());
        Ok(Making {
            backup,
            volume,
            snapshot,
            volume_status: status.unwrap_or_else(|| VolumeStatus::from("")),
        })
    }

    /// A volume as cinder-volume wants it: with its metadata and its type.
    pub(super) async fn whole_volume(&self, id: VolumeId) -> Result<Volume, Error> {
        let volume = self.db.volume(id).await?;
        let mut volume = volume.ok_or_else(|| Error::VolumeNotFound(id.to_string()))?;
        let metadata: BTreeMap<_, _> = self.db.volume_metadata(id).await?.into_iter().collect();
        volume.metadata = Some(metadata);
        if let Some(id) = &volume.volume_type_id {
            volume.volume_type = match self.db.volume_type(id).await? {
                Some(volume_type) => Lazy::Set(Box::new(volume_type)),
                None => Lazy::Unset,
            };
        }
        Ok(volume)
    }

    /// Attaches a volume to which a backup is to be restored.
    pub(super) async fn attach_target(
        &self,
        context: &Context,
        id: VolumeId,
        claim: &Claim<'_>,
    ) -> Result<Attached, Error> {
        let volume = self.whole_volume(id).await?;
        let wanted = Wanted {
            volume: &volume,
            snapshot: None,
            access: Access::Write,
            secure: None,
        };
        self.attach(context, wanted, claim).await
    }

    async fn attach(
        &self,
        context: &Context,
        wanted: Wanted<'_>,
        claim: &Claim<'_>,
    ) -> Result<Attached, Error> {
        let (history, cancel) = (self.history(), claim.cancel());
        claim.enter(Phase::Attaching);
        let attached = self.attacher.attach(context, wanted, history, cancel).await;
        claim.enter(Phase::Preparing);
        attached.map_err(|error| match error {
            attach::Error::CalledOff => Error::CalledOff,
            error => Error::Attach(error),
        })
    }

    /// Where a volume lies, for what does not touch its data.
    pub(super) async fn locate(
        &self,
        context: &Context,
        id: VolumeId,
    ) -> Result<vault::Volume, Error> {
        let volume = self.whole_volume(id).await?;
        let history = self.history();
        let (pool, image) = self.attacher.locate(context, &volume, history).await?;
        Ok(vault::Volume { pool, image })
    }

    /// Attaches what cinder-volume has prepared for a backup.
    pub(super) async fn attach_prepared(
        &self,
        context: &Context,
        prepared: &Prepared,
        claim: &Claim<'_>,
    ) -> Result<Attached, Error> {
        let volume = self.whole_volume(prepared.volume).await?;
        let wanted = Wanted {
            volume: &volume,
            snapshot: prepared.snapshot,
            access: Access::Read,
            secure: prepared.secure,
        };
        self.attach(context, wanted, claim).await
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::tests::row;
    use super::*;

    #[test]
    fn what_was_made_for_a_backup_is_read_and_else_what_it_is_of() {
        let id = |number: u128| Some(Uuid::from_u128(number).to_string());
        for (temp_volume, temp_snapshot, snapshot, expected) in [
            (None, None, None, (2, None)),
            (None, None, id(5), (2, Some(5))),
            (id(3), None, None, (3, None)),
            (id(3), None, id(5), (3, None)),
            (None, id(4), None, (2, Some(4))),
        ] {
            let row = row(|row| {
                row.temp_volume_id = temp_volume.clone();
                row.temp_snapshot_id = temp_snapshot.clone();
                row.snapshot_id = snapshot.clone();
            });
            let noted = Prepared::noted(&row).expect("ids");
            let (volume, snapshot) = expected;
            assert_eq!(noted.volume, Uuid::from_u128(volume).into());
            let expected = snapshot.map(|it| SnapshotId::from(Uuid::from_u128(it)));
            assert_eq!(noted.snapshot, expected);
        }
        assert!(Prepared::noted(&row(|row| row.temp_volume_id = Some("x".into()))).is_err());
    }
}
