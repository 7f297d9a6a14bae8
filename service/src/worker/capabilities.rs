//! What the scheduler is told: without it no backup ever comes here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_compat::config::{Config, seconds};
use api_compat::messaging::RequestContext;
use api_compat::rpc::scheduler;
use chrono::Utc;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::FIRST_LOOK;
use crate::amqp::Amqp;
use crate::outage::Outage;

/// How long one report may wait for a broker: long enough to give up a host or two that do not
/// answer. The next one follows anyway.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publishes whether this worker can make backups.
#[derive(Clone)]
pub struct Capabilities {
    amqp: Amqp,
    host: String,
    driver: String,
    zone: String,
    interval: Duration,
    outage: Arc<Mutex<Outage>>,
}

impl Capabilities {
    /// Nothing is published yet.
    pub fn new(config: &Config, amqp: Amqp) -> Self {
        Self {
            amqp,
            host: config.service.host.clone(),
            driver: config.backup.backup_driver.clone(),
            zone: config.service.storage_availability_zone.clone(),
            interval: seconds(config.backup.backup_driver_stats_polling_interval),
            outage: Arc::default(),
        }
    }

    /// Publishes at intervals, when it changes whether the worker can work, and when a scheduler
    /// asks.
    pub async fn run(
        self,
        mut ready: watch::Receiver<bool>,
        asked: Arc<Notify>,
        stop: CancellationToken,
    ) {
        // A worker that can work shall not be known as one that cannot, not for a moment: the first
        // look at the vault is waited for.
        let looked = ready.wait_for(|ready| *ready);
        if let Ok(Err(_)) = tokio::time::timeout(FIRST_LOOK, looked).await {
            return;
        }
        loop {
            let works = *ready.borrow_and_update();
            let publishing = self.publish(works, PATIENCE);
            if stop.run_until_cancelled(publishing).await.is_none() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = asked.notified() => {}
                () = tokio::time::sleep(self.interval) => {}
                changed = ready.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Tells every scheduler that no backup can be made here any more.
    pub async fn say_farewell(&self) {
        self.publish(false, PATIENCE).await;
    }

    /// Tells every scheduler once.
    async fn publish(&self, works: bool, patience: Duration) {
        let now = Utc::now();
        let capabilities = scheduler::Capabilities {
            backend_state: works,
            driver_name: &self.driver,
            availability_zone: &self.zone,
        };
        let report = scheduler::update_service_capabilities(&self.host, &capabilities, now);
        let context = RequestContext::admin(&format!("req-{}", Uuid::new_v4()), now);
        let deadline = Instant::now() + patience;
        let outcome = self.amqp.cast_before(report, &context, deadline).await;
        // Whoever panicked while holding it left it whole.
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => match outage.ended() {
                Some(_) => info!(backend_state = works, "Told the scheduler again"),
                None => debug!(backend_state = works, "Told the scheduler"),
            },
            Err(error) if outage.failed(&error.to_string()) => {
                warn!(%error, "Cannot tell the scheduler whether backups can be made; trying again");
            }
            Err(error) => debug!(%error, "Still cannot tell the scheduler"),
        }
    }
}
