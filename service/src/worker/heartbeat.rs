//! The worker's row in `services`: what `openstack volume service list` shows.

use std::pin::pin;
use std::time::Duration;

use api_compat::config::{Config, seconds};
use api_compat::rpc::version;
use chrono::{NaiveDateTime, Utc};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::BINARY;
use crate::db::{self, Database, ErrorKind, Registration};
use crate::outage::Outage;

/// How long the database may take before it is told that it does not answer.
const SLOW: Duration = Duration::from_secs(5);

/// Says at intervals that the worker is alive.
pub struct Heartbeat {
    database: Database,
    registration: Registration,
    row: i32,
    interval: Duration,
    /// What a log may tell of where the database is.
    location: String,
    outage: Outage,
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
            rpc_version: version::BACKUP_RPC.to_string(),
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
            interval: seconds(config.service.report_interval),
            location: config.database_url.location(),
            outage: Outage::default(),
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
        let (database, zone) = (self.database.clone(), self.registration.zone.clone());
        let mut written = pin!(database.heartbeat(self.row, &zone, now));
        let in_time = tokio::time::timeout(SLOW, &mut written).await;
        let written = match in_time {
            Ok(written) => written,
            Err(_) => {
                let reason = database.trouble().await;
                self.failed(&reason.unwrap_or_else(|| format!("no answer for {SLOW:?}")));
                written.await
            }
        };
        match written {
            Ok(there) => {
                if let Some(away) = self.outage.ended() {
                    let (database, seconds) = (&self.location, away.as_secs());
                    info!(database, seconds, "Reached the database again");
                }
                if !there {
                    self.register_anew(now).await;
                }
            }
            Err(error) => {
                let reason = match error.kind() {
                    ErrorKind::Unreachable => database.trouble().await,
                    _ => None,
                };
                self.failed(&reason.unwrap_or_else(|| error.to_string()));
            }
        }
    }

    fn failed(&mut self, error: &str) {
        let database = &self.location;
        if self.outage.failed(error) {
            warn!(
                database,
                error, "Cannot report to the database that the service is alive; trying again"
            );
        }
    }

    async fn register_anew(&mut self, now: NaiveDateTime) {
        match self.database.register(&self.registration, now).await {
            Ok(row) => {
                info!("The service's row was gone and is created anew");
                self.row = row;
            }
            Err(error) => warn!(%error, "Cannot create the service's row anew"),
        }
    }
}
