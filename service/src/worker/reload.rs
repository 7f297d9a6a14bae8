//! What SIGHUP takes up: the log, its level, how much is done at once, and the versions of the other services.
//! All else needs a restart.

use std::sync::Arc;

use tracing::{error, info};

use super::command_line::CommandLine;
use super::logging::Log;
use crate::db::Database;
use crate::manager::Manager;
use crate::settings;

/// What can change while the worker runs.
pub struct Reload {
    command_line: CommandLine,
    log: Log,
    database: Database,
    manager: Arc<Manager>,
}

impl Reload {
    /// Knows where to look, and what to change.
    pub fn new(
        command_line: CommandLine,
        log: Log,
        database: Database,
        manager: Arc<Manager>,
    ) -> Self {
        Self {
            command_line,
            log,
            database,
            manager,
        }
    }

    /// Looks again. What cannot be used is told, and stays as it is.
    pub fn take_up(&self) {
        if let Err(error) = self.log.reopen() {
            error!("{error:#}");
        }
        let command_line = &self.command_line;
        match settings::load(&command_line.paths, command_line.overrides()) {
            Ok(config) => {
                self.log.levels().configure(&config.logging);
                let wanted = config.logging.debug;
                let ceilings = settings::ceilings(&config);
                self.manager.limit(&ceilings);
                info!(
                    debug = wanted,
                    operations = ceilings.operations,
                    operations_of_a_project = ceilings.of_a_project,
                    transfers = ceilings.transfers,
                    backup_bandwidth = ceilings.backup_bandwidth,
                    restore_bandwidth = ceilings.restore_bandwidth,
                    "Reloaded the configuration of the log and the limits"
                );
            }
            Err(error) => error!("Cannot reload: {error:#}"),
        }
        // Not here: the database may be away.
        let (database, manager) = (self.database.clone(), self.manager.clone());
        tokio::spawn(async move {
            let versions = database.versions().await.map_err(anyhow::Error::from);
            match versions.and_then(|versions| settings::history(&versions)) {
                Ok(history) => {
                    manager.speak(history);
                    info!(objects = %history, "Read the versions of the other services again");
                }
                Err(error) => error!("Cannot read the versions of the other services: {error:#}"),
            }
        });
    }
}
