//! The keys of encrypted volumes in Cinder's workflows. Every backup and every restored volume has a
//! copy of its own, so that each can be deleted without regard to the others.
//!
//! A copy is stored before a row names it, and deleted before the row goes: what an end in the middle
//! leaves behind is a key that nobody uses, never a row whose key is gone.

use std::sync::Arc;

use api_compat::backup_record;
use api_compat::ids::VolumeId;
use api_compat::objects::{Backup, Volume};
use api_compat::secret::FIXED_KEY;
use api_compat::state::{BackupStatus, Event, transition};
use api_compat::user_message::{Action, Detail};
use api_compat::volume_metadata::Change as MetadataChange;
use tracing::{error, info, warn};

use super::{Context, Error, Manager, now};
use crate::db::{Done, NewKey, Subject};

/// After how many failures the rest of the backups keep the fixed key: most likely, all would fail.
const FAILURES: usize = 3;

/// What a restore does to the keys of its volume.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rekeying {
    /// Whether the data is encrypted.
    pub encrypted: bool,
    /// The key that was stored for the volume.
    pub copy: Option<String>,
    /// The key that the volume had, if it gets another or none.
    old: Option<String>,
    /// The recorded key, if it becomes the backup's own.
    adopted: Option<String>,
}

/// The keys on which a restore decides.
#[derive(Debug, Clone, Copy, Default)]
struct Known<'a> {
    /// In the metadata: that of the volume that was backed up, then.
    recorded: Option<&'a str>,
    /// The target's.
    volume: Option<&'a str>,
    /// The backup's own.
    backup: Option<&'a str>,
    /// Of the volume that was backed up, now.
    source: Option<&'a str>,
}

/// What a volume shall have that gets a backup's data.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// What it has.
    Same,
    /// A copy of this key.
    CopyOf {
        key: &'a str,
        /// Whether the recorded key becomes the backup's own.
        adopt: bool,
    },
    /// No key.
    None,
}

fn decide(known: Known<'_>) -> Wanted<'_> {
    if known.recorded == known.volume {
        return Wanted::Same;
    }
    match (known.backup, known.recorded) {
        (Some(key), _) => Wanted::CopyOf { key, adopt: false },
        // Before Cinder gave backups a key, the recorded one was the backup's own. It is not where
        // the volume that was backed up has it still.
        (None, Some(key)) => Wanted::CopyOf {
            key,
            adopt: known.source != Some(key),
        },
        (None, None) => Wanted::None,
    }
}

impl Manager {
    /// Gives a new backup a copy of its volume's key, if there is one; the backup's key.
    pub(super) async fn key_for_backup(
        &self,
        context: &Context,
        row: &Backup,
        volume: &Volume,
    ) -> Result<Option<String>, Error> {
        let Some(key) = volume
            .encryption_key_id
            .as_deref()
            .filter(|key| !key.is_empty())
        else {
            return Ok(row.encryption_key_id.clone());
        };
        if row.encryption_key_id.is_some() {
            // The request came twice.
            return Ok(row.encryption_key_id.clone());
        }
        let copy = self.keys.copy(context, key).await?;
        let new = NewKey {
            backup: row.id,
            status: Some(BackupStatus::Creating),
            from: None,
            to: Some(&copy),
        };
        if self.db.replace_backup_key(new, now().naive_utc()).await? {
            return Ok(Some(copy));
        }
        self.drop_copy(context, Some(&copy)).await;
        Err(Error::CalledOff)
    }

    /// Refuses to delete a backup whose key nobody could delete, before its data is touched.
    pub(super) fn check_key(&self, row: &Backup) -> Result<(), Error> {
        match own_key(row) {
            Some(key) => Ok(self.keys.check(key)?),
            None => Ok(()),
        }
    }

    /// Deletes the key of a backup whose data is gone.
    pub(super) async fn delete_key(&self, context: &Context, row: &Backup) -> Result<(), Error> {
        let Some(key) = own_key(row) else {
            return Ok(());
        };
        if let Err(error) = self.try_delete_key(context, row, key).await {
            let reason = &error.to_string();
            let row = self.backup(row.id).await?;
            let status = row.status.unwrap_or(BackupStatus::Error);
            if let Ok(change) = transition(status, &Event::KeyDeleteFailed { reason }) {
                let subject = Subject::alone(row.id, status);
                self.write(subject, &change, Done::Nothing).await;
            }
            let detail = Detail::BackupDeleteDriverError;
            self.tell_user(context, Action::Delete, row.id, detail)
                .await;
            return Err(error);
        }
        Ok(())
    }

    async fn try_delete_key(
        &self,
        context: &Context,
        row: &Backup,
        key: &str,
    ) -> Result<(), Error> {
        // An imported record may name any key.
        if !self.keys.keeps(key) && self.db.is_key_of_another(row.id, key).await? {
            warn!(
                backup = %row.id, key,
                "The backup's key is also that of a volume, a snapshot or another backup, and stays"
            );
        } else {
            self.keys.delete(context, key).await?;
        }
        let gone = NewKey {
            backup: row.id,
            status: None,
            from: Some(key),
            to: None,
        };
        self.db.replace_backup_key(gone, now().naive_utc()).await?;
        Ok(())
    }

    /// Stores the key that a volume gets with a backup's data, before the first byte is written, and
    /// puts it into the changes of the volume's row.
    pub(super) async fn key_for_volume(
        &self,
        context: &Context,
        backup: &Backup,
        volume: &Volume,
        changes: &mut [MetadataChange],
    ) -> Result<Rekeying, Error> {
        let change = changes.iter_mut().find_map(|change| match change {
            MetadataChange::EncryptionKey(key) => Some(key),
            _ => None,
        });
        let recorded_one = matches!(change, Some(Some(_)));
        let same = Rekeying {
            encrypted: recorded_one || backup.encryption_key_id.is_some(),
            ..Rekeying::default()
        };
        let Some(recorded) = change else {
            return Ok(same);
        };
        let source = self.db.volume(backup.volume_id).await?;
        let wanted = decide(Known {
            recorded: recorded.as_deref(),
            volume: volume.encryption_key_id.as_deref(),
            backup: backup.encryption_key_id.as_deref(),
            source: source
                .as_ref()
                .and_then(|source| source.encryption_key_id.as_deref()),
        });
        let old = volume.encryption_key_id.clone();
        let keys = match wanted {
            Wanted::Same => return Ok(same),
            Wanted::CopyOf { key, adopt } => Rekeying {
                copy: Some(self.keys.copy(context, key).await?),
                old,
                adopted: recorded.clone().filter(|_| adopt),
                ..same
            },
            Wanted::None => {
                warn!(
                    volume = %volume.id, backup = %backup.id,
                    "The volume is not encrypted any more: the backup is of one that was not"
                );
                Rekeying { old, ..same }
            }
        };
        recorded.clone_from(&keys.copy);
        Ok(keys)
    }

    /// Ends a restore whose volume has its new key: the old one opens nothing any more. What fails now
    /// leaves a key that nobody uses, and the volume as it shall be.
    pub(super) async fn keys_restored(
        &self,
        context: &Context,
        backup: &Backup,
        volume: VolumeId,
        keys: &Rekeying,
    ) {
        if let Some(key) = &keys.adopted {
            let new = NewKey {
                backup: backup.id,
                status: None,
                from: None,
                to: Some(key),
            };
            if let Err(error) = self.db.replace_backup_key(new, now().naive_utc()).await {
                warn!(backup = %backup.id, %error, "Cannot note the backup's key");
            }
        }
        let Some(old) = &keys.old else { return };
        match self.db.is_key_of_snapshot(volume, old).await {
            Ok(true) => {
                info!(%volume, key = old, "The volume's former key stays for its snapshots")
            }
            Ok(false) => self.drop_copy(context, Some(old)).await,
            Err(error) => warn!(%volume, key = old, %error, "The volume's former key stays"),
        }
    }

    /// Deletes a key that nobody uses; one that cannot be deleted is told of in the log.
    pub(super) async fn drop_copy(&self, context: &Context, key: Option<&str>) {
        let Some(key) = key else { return };
        if let Err(error) = self.keys.delete(context, key).await {
            warn!(key, %error, "A key that nobody uses stays in the key manager");
        }
    }

    /// Gives the backups of this host that still use the fixed key one of their own, in the
    /// background, where that is configured.
    pub fn replace_fixed_key(self: &Arc<Self>) {
        if !self.keys.replaces_fixed_key() {
            return;
        }
        let manager = self.clone();
        tokio::spawn(async move {
            if let Err(error) = manager.replace_all_fixed_keys().await {
                error!(%error, "Cannot find the backups that use the fixed key");
            }
        });
    }

    async fn replace_all_fixed_keys(&self) -> Result<(), Error> {
        let fixed = FIXED_KEY.to_string();
        let rows = self
            .db
            .backups_with_key(&self.settings.host, &fixed)
            .await?;
        let mut failures = 0;
        for row in rows {
            match self.replace_fixed_key_of(&row, &fixed).await {
                Ok(()) => {
                    info!(backup = %row.id, "Migrated the backup's encryption key to Barbican")
                }
                Err(error) => {
                    error!(backup = %row.id, %error, "Error migrating encryption key");
                    failures += 1;
                }
            }
            if failures > FAILURES {
                error!("Aborting encryption key migration (too many errors)");
                break;
            }
        }
        Ok(())
    }

    async fn replace_fixed_key_of(&self, row: &Backup, fixed: &str) -> Result<(), Error> {
        let user = Some(row.user_id.as_str()).filter(|user| !user.is_empty());
        let stored = self.keys.store_fixed(user).await?;
        let new = NewKey {
            backup: row.id,
            status: None,
            from: Some(fixed),
            to: Some(&stored),
        };
        if self.db.replace_backup_key(new, now().naive_utc()).await? {
            return Ok(());
        }
        self.keys.discard(&stored).await;
        Err(Error::CalledOff)
    }
}

/// The key that goes with a backup. The row of an import that failed owns none, whatever its columns
/// still say.
fn own_key(row: &Backup) -> Option<&str> {
    let key = row.encryption_key_id.as_deref();
    key.filter(|_| !backup_record::is_awaited(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: Wanted<'static> = Wanted::CopyOf {
        key: "backup",
        adopt: false,
    };

    #[test]
    fn a_restored_volume_gets_a_copy_of_the_backups_key() {
        let known = Known {
            recorded: Some("recorded"),
            backup: Some("backup"),
            ..Known::default()
        };
        assert_eq!(decide(known), COPY);
        for volume in ["backup", "another"] {
            let volume = Some(volume);
            assert_eq!(decide(Known { volume, ..known }), COPY);
        }
    }

    #[test]
    fn the_volume_that_was_backed_up_keeps_its_key() {
        let known = Known {
            recorded: Some("recorded"),
            volume: Some("recorded"),
            backup: Some("backup"),
            source: Some("recorded"),
        };
        assert_eq!(decide(known), Wanted::Same);
        assert_eq!(decide(Known::default()), Wanted::Same);
    }

    #[test]
    fn a_backup_without_a_key_of_its_own_gets_the_recorded_one() {
        let known = Known {
            recorded: Some("recorded"),
            volume: Some("another"),
            source: Some("newer"),
            ..Known::default()
        };
        let copy = |adopt| Wanted::CopyOf {
            key: "recorded",
            adopt,
        };
        assert_eq!(decide(known), copy(true));
        let source = Some("recorded");
        assert_eq!(decide(Known { source, ..known }), copy(false));
    }

    #[test]
    fn data_that_is_not_encrypted_takes_the_key_away() {
        let known = Known {
            volume: Some("another"),
            ..Known::default()
        };
        assert_eq!(decide(known), Wanted::None);
    }
}
