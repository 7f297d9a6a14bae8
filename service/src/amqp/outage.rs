//! What went wrong since the broker was last reached, told once.

use std::collections::HashSet;

use tracing::{debug, info, warn};

/// A broker's absence, as one of our connections sees it.
pub struct Outage {
    purpose: &'static str,
    tries: u32,
    reasons: HashSet<String>,
}

impl Outage {
    /// Nothing has gone wrong yet. `purpose` tells which connection it is.
    pub fn new(purpose: &'static str) -> Self {
        Self {
            purpose,
            tries: 0,
            reasons: HashSet::new(),
        }
    }

    /// Counts a try that failed, and logs each reason once.
    pub fn add(&mut self, reason: String) {
        self.tries = self.tries.saturating_add(1);
        let (purpose, tries) = (self.purpose, self.tries);
        if self.reasons.contains(&reason) {
            debug!(purpose, reason, tries, "Still without the message broker");
        } else {
            warn!(
                purpose,
                reason, "No message broker to work with; trying again"
            );
            self.reasons.insert(reason);
        }
    }

    /// How often it went wrong.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// It is over.
    pub fn end(&mut self) {
        if self.tries > 0 {
            info!(purpose = self.purpose, "Reached the message broker again");
        }
        self.tries = 0;
        self.reasons.clear();
    }
}
