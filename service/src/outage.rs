//! When to tell that a part is away, and that it is back: each reason once, not at every try.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

/// Reasons that are remembered; a part that fails in ever new ways does not fill memory or log.
const REASONS: usize = 16;

/// What was told since the part was last there.
#[derive(Debug, Default)]
pub struct Outage {
    since: Option<Instant>,
    told: HashSet<String>,
}

impl Outage {
    /// Notes a try that failed; whether its reason is yet to be told.
    pub fn failed(&mut self, reason: &str) -> bool {
        self.since.get_or_insert_with(Instant::now);
        self.told.len() < REASONS && self.told.insert(reason.to_owned())
    }

    /// Notes a try that went well; how long the part was away, if it was.
    pub fn ended(&mut self) -> Option<Duration> {
        let away = self.since?.elapsed();
        *self = Self::default();
        Some(away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_is_told_once_and_the_end_too() {
        let mut outage = Outage::default();
        assert_eq!(outage.ended(), None);
        assert!(outage.failed("refused"));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(!outage.failed("refused"));
        assert!(outage.failed("no answer"));
        assert!(!outage.failed("refused"));
        assert_eq!(outage.ended(), Some(Duration::from_secs(40)));
        assert_eq!(outage.ended(), None);
        assert!(outage.failed("refused"));
        let told = (0..100).filter(|n| outage.failed(&n.to_string())).count();
        assert_eq!(told, REASONS - 1);
    }
}
