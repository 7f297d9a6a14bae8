//! Records, by which a backup becomes known to another cloud.

use api_compat::backup_record;
use api_compat::ids::BackupId;
use api_compat::state::driver::{self, Operation};
use api_compat::state::{BackupStatus, Change, Event, transition};
use serde_json::{Value, json};

use super::{Error, Manager};
use crate::db::{Done, Subject};

impl Manager {
    /// `export_record`: what another cloud needs to import the backup.
    pub(super) async fn export_record(&self, id: BackupId) -> Result<Value, Error> {
        let mut row = self.backup(id).await?;
        let status = row.status.unwrap_or(BackupStatus::Error);
        transition(status, &Event::Export).map_err(|refusal| Error::Refused(Box::new(refusal)))?;
        let service = row.service.clone().unwrap_or_default();
        if !self.is_ours(&row) {
            let refusal = driver::refuse(Operation::Export, &self.settings.driver, &service);
            return Err(Error::Refused(Box::new(refusal)));
        }
        row.metadata = Some(self.db.backup_metadata(id).await?);
        Ok(json!({
            "backup_service": service,
            "backup_url": backup_record::encode(&row),
        }))
    }

    /// `import_record` is not served yet: the row that the API has made for it says so.
    pub(super) async fn refuse_import(&self, id: BackupId) -> Result<(), Error> {
        let reason = "Import record failed: this backup service does not import records.";
        let row = self.backup(id).await?;
        let subject = Subject {
            backup: id,
            status: row.status.unwrap_or(BackupStatus::Error),
            volume: None,
            snapshot: None,
        };
        let change = Change {
            backup: Some(BackupStatus::Error),
            fail_reason: Some(reason.to_owned()),
            ..Change::default()
        };
        self.write(subject, &change, Done::Nothing).await;
        Err(Error::Invalid(reason.to_owned()))
    }
}
