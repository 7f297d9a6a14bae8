//! What a backup records of its volume beside the data, and what a restore makes of that.

use api_compat::ids::VolumeId;
use api_compat::objects::{Backup, Volume as VolumeObject};
use api_compat::volume_metadata::{self, Change, Recorded, Target, VolumeColumns};

use super::{Error, Manager, now};
use crate::vault::BackupRecord;

impl Manager {
    /// What a backup records of its volume.
    pub(super) async fn metadata_text(&self, volume: &VolumeObject) -> Result<String, Error> {
        let user = self.db.volume_metadata(volume.id).await?;
        let glance = self.db.glance_metadata(volume.id).await?;
        Ok(volume_metadata::encode(
            &VolumeColumns::from(volume),
            &user,
            &glance,
        ))
    }

    /// What the metadata object changes of the volume; nothing when there is none.
    pub(super) async fn metadata_changes(
        &self,
        volume: &VolumeObject,
        record: &BackupRecord,
    ) -> Result<Vec<Change>, Error> {
        let Some(content) = self.vault.read_metadata(record).await? else {
            return Ok(Vec::new());
        };
        let recorded = volume_metadata::decode(&content)?;
        let target = Target {
            display_name: volume.display_name.as_deref(),
            volume_type_id: volume.volume_type_id.as_deref(),
            recorded_type_exists: self.recorded_type_exists(&recorded).await?,
        };
        Ok(volume_metadata::plan_restore(&recorded, target)?)
    }

    async fn recorded_type_exists(&self, recorded: &Recorded) -> Result<bool, Error> {
        match recorded
            .base
            .as_ref()
            .and_then(|base| base.volume_type_id.as_ref())
        {
            Some(id) => Ok(self.db.volume_type_exists(id).await?),
            None => Ok(false),
        }
    }

    /// Notes in the volume's metadata which backup it came from: on every other volume than the one
    /// that was backed up, and on that one if it carries a note already.
    pub(super) async fn mark_source(&self, backup: &Backup, volume: VolumeId) -> Result<(), Error> {
        const KEY: &str = "src_backup_id";
        let id = backup.id.to_string();
        let noted = self.db.volume_metadata(volume).await?;
        let noted = noted.into_iter().find(|(key, _)| key == KEY);
        let other = noted.is_some_and(|(_, noted)| noted != id);
        if backup.volume_id != volume || other {
            let now = now().naive_utc();
            self.db.set_volume_metadata(volume, KEY, &id, now).await?;
        }
        Ok(())
    }
}
