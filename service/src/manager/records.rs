//! Records, by which a backup becomes known to another cloud.

use api_compat::backup_record;
use api_compat::ids::BackupId;
use api_compat::objects::Backup;
use api_compat::rpc::peer;
use api_compat::state::driver::{self, Operation};
use api_compat::state::{BackupStatus, Event, transition};
use serde_json::{Value, json};
use tracing::{error, info, warn};

use super::claim::Claim;
use super::{Context, Error, Manager, now};
use crate::db::{Done, Importer, Subject};

/// What `import_record` asks for.
pub(super) struct ImportRequest {
    /// The driver that made the backup.
    pub service: String,
    /// The record.
    pub url: String,
    /// The workers that have not been asked yet.
    pub hosts: Vec<String>,
}

impl Manager {
    /// `export_record`: what another cloud needs to import the backup.
    pub(super) async fn export_record(&self, id: BackupId) -> Result<Value, Error> {
        let mut row = self.backup(id).await?;
        let status = row.status.unwrap_or(BackupStatus::Error);
        transition(status, &Event::Export)?;
        let service = row.service.clone();
        if !self.is_ours(&row) {
            let theirs = service.unwrap_or_default();
            let refusal = driver::refuse(Operation::Export, &self.settings.driver, &theirs);
            return Err(refusal.into());
        }
        row.metadata = Some(self.db.backup_metadata(id).await?);
        Ok(json!({
            "backup_service": service,
            "backup_url": backup_record::encode(&row),
        }))
    }

    /// `import_record`: makes a row out of a record, or hands the request on to the next worker if
    /// the record is another driver's.
    pub(super) async fn import_record(
        &self,
        context: Context,
        message: Backup,
        request: ImportRequest,
    ) -> Result<(), Error> {
        let id = message.id;
        let claim = self.claim_next(id).await;
        info!(backup = %id, service = request.service, "Import record started");
        let row = self.backup(id).await?;
        let status = row.status.unwrap_or(BackupStatus::Error);
        transition(status, &Event::Import)?;
        let imported = match driver::is_ours(&self.settings.driver, Some(&request.service)) {
            true => self.import(&row, &request.url, &claim).await,
            false => self.hand_on(&context, &message, request).await,
        };
        if let Err(error) = &imported {
            error!(backup = %id, %error, "Import record failed");
            let reason = &error.to_string();
            if let Ok(change) = transition(status, &Event::ImportFailed { reason }) {
                self.write(Subject::alone(id, status), &change, Done::Nothing)
                    .await;
            }
        }
        imported
    }

    async fn import(&self, row: &Backup, url: &str, claim: &Claim<'_>) -> Result<(), Error> {
        let mut imported = backup_record::import(url, row.id)?;
        imported.volume_id.get_or_insert(row.volume_id);
        let located = Backup {
            volume_id: imported.volume_id.unwrap_or(row.volume_id),
            container: imported.container.clone(),
            service_metadata: imported.service_metadata.clone(),
            snapshot_id: imported.snapshot_id.clone(),
            ..row.clone()
        };
        // Rows without data behind them are of no use to anybody.
        let record = self.record(&located).await?;
        let finding = self.vault.find_restore_point(&record);
        match claim.carry(Box::pin(finding)).await {
            Ok(_) => {}
            Err(Error::Vault(error)) if error.is_not_found() => {
                if !claim.carry(Box::pin(self.vault.has_base(&record))).await? {
                    return Err(Error::Vault(error));
                }
                // As OpenStack's own tests import a record: under another id.
                warn!(backup = %row.id, %error, "Importing a record that cannot be restored");
            }
            Err(error) => return Err(error),
        }
        let status = row.status.unwrap_or(BackupStatus::Error);
        let change = transition(status, &Event::ImportSucceeded)?;
        let importer = Importer {
            service: &self.settings.driver,
            host: &self.settings.host,
            zone: &self.settings.availability_zone,
        };
        let done = Done::Imported {
            record: &imported,
            importer,
        };
        let now = now().naive_utc();
        self.db
            .change(Subject::alone(row.id, status), &change, done, now)
            .await?;
        info!(backup = %row.id, "Import record finished");
        Ok(())
    }

    /// Asks the last of the workers that have not been asked yet.
    async fn hand_on(
        &self,
        context: &Context,
        backup: &Backup,
        request: ImportRequest,
    ) -> Result<(), Error> {
        let ImportRequest {
            service,
            url,
            mut hosts,
        } = request;
        let Some(host) = hosts.pop() else {
            return Err(Error::NobodyImports(service));
        };
        info!(backup = %backup.id, host, "The record is another driver's: asking the next worker");
        let history = self.history();
        let cast = peer::import_record(&host, backup, &service, &url, &hosts, history);
        Ok(self.amqp.cast(cast, context).await?)
    }
}
