//! The broker's absence, as one of our connections sees it.

use tracing::{debug, info, warn};

use crate::outage::Outage;

/// What went wrong since the broker was last reached.
pub struct Absence {
    purpose: &'static str,
    connected: bool,
    tries: u32,
    outage: Outage,
}

impl Absence {
    /// Nothing has gone wrong yet. `purpose` tells which connection it is.
    pub fn new(purpose: &'static str) -> Self {
        Self {
            purpose,
            connected: false,
            tries: 0,
            outage: Outage::default(),
        }
    }

    /// A connection that has just been lost.
    pub fn of_lost(purpose: &'static str, reason: &str) -> Self {
        let mut absence = Self {
            connected: true,
            ..Self::new(purpose)
        };
        absence.add(reason);
        absence
    }

    /// Counts a connection that was lost or a try that failed. A broker that is at once there again
    /// is worth no warning, and each reason only one.
    pub fn add(&mut self, reason: &str) {
        self.tries = self.tries.saturating_add(1);
        let (purpose, tries) = (self.purpose, self.tries);
        if std::mem::take(&mut self.connected) {
            info!(purpose, reason, "Lost the message broker; connecting again");
        } else if self.outage.failed(reason) {
            warn!(
                purpose,
                reason, "No message broker to work with; trying again"
            );
        } else {
            debug!(purpose, reason, tries, "Still without the message broker");
        }
    }

    /// How often it went wrong.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// It is over.
    pub fn end(&mut self) {
        self.connected = true;
        if std::mem::take(&mut self.tries) > 0 {
            let seconds = self.outage.ended().map_or(0, |away| away.as_secs());
            let purpose = self.purpose;
            info!(purpose, seconds, "Reached the message broker again");
        }
    }
}
