//! The worker's row in `services`: what `openstack volume service list` shows.

use std::time::Duration;

use api_compat::config::Config;
use api_compat::rpc::version;
use chrono::Utc;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::BINARY;
use crate::db::{self, Database, Registration};

/// Says at intervals that the worker is alive.
pub struct Heartbeat {
    database: Database,
    registration: Registration,
    row: i32,
    interval: Duration,
}

impl Heartbeat {
    /// Finds or creates the worker's row.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn register(config: &Config, database: Database) -> db::Result<Self> {
        let registration = Registration {
            host: config.service.host.clone(),
            binary: BINARY.to_owned(),
            zone: config.service.storage_availability_zone.clone(),
            rpc_version: config
                .cinderblock
                .advertised_rpc_version
                .as_str()
                .to_owned(),
            object_version: version::OBJECTS.to_string(),
            enabled: config.service.enable_new_services,
        };
        let row = database
            .register(&registration, Utc::now().naive_utc())
            .await?;
        Ok(Self {
            database,
            registration,
            row,
            interval: Duration::from_secs(config.service.report_interval),
        })
    }

    /// Reports until `stop`, while `ready` says that the worker can work: others shall see it down
    /// when it cannot.
    pub async fn run(mut self, mut ready: watch::Receiver<bool>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                changed = ready.changed() => if changed.is_err() { return },
            }
            if *ready.borrow_and_update() {
                self.report().await;
            }
        }
    }

    async fn report(&mut self) {
        let now = Utc::now().naive_utc();
        let zone = &self.registration.zone;
        match self.database.heartbeat(self.row, zone, now).await {
            Ok(true) => {}
            Ok(false) => match self.database.register(&self.registration, now).await {
                Ok(row) => {
                    info!("The service's row was gone and is created anew");
                    self.row = row;
                }
                Err(error) => warn!(%error, "Cannot create the service's row anew"),
            },
            Err(error) => warn!(%error, "Cannot report that the service is alive"),
        }
    }
}
