//! The broker's absence, as one of our connections sees it.

use tracing::{debug, info, warn};

use crate::outage::Outage;

/// What went wrong since the broker was last reached.
pub struct Absence {
    purpose: &'static str,
    tries: u32,
    outage: Outage,
}

impl Absence {
    /// Nothing has gone wrong yet. `purpose` tells which connection it is.
    pub fn new(purpose: &'static str) -> Self {
        Self {
            purpose,
            tries: 0,
            outage: Outage::default(),
        }
    }

    /// Counts a try that failed, and logs each reason once.
    pub fn add(&mut self, reason: &str) {
        self.tries = self.tries.saturating_add(1);
        let (purpose, tries) = (self.purpose, self.tries);
        if self.outage.failed(reason) {
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
        self.tries = 0;
        if let Some(away) = self.outage.ended() {
            let (purpose, seconds) = (self.purpose, away.as_secs());
            info!(purpose, seconds, "Reached the message broker again");
        }
    }
}
