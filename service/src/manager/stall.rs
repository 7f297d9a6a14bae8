//! When to tell that an operation stands still, and that it goes on.

use std::time::Duration;

use tokio::time::Instant;

/// How long an operation may stand still before an operator is told.
pub const LONG: Duration = Duration::from_secs(30);

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// It has stood still for [`LONG`].
    Stopped,
    /// It goes on after that was told.
    Resumed,
}

/// An operation that is looked at now and then.
pub struct Stall {
    seen: (u64, u64),
    since: Instant,
    told: bool,
}

impl Default for Stall {
    fn default() -> Self {
        Self {
            seen: (0, 0),
            since: Instant::now(),
            told: false,
        }
    }
}

impl Stall {
    /// Notes how far the operation is; what is to be told, if anything.
    pub fn look(&mut self, now: (u64, u64)) -> Option<Motion> {
        if self.seen != now {
            let told = self.told;
            *self = Self {
                seen: now,
                ..Self::default()
            };
            return told.then_some(Motion::Resumed);
        }
        if self.told || self.since.elapsed() < LONG {
            return None;
        }
        self.told = true;
        Some(Motion::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn standing_still_is_told_once_and_going_on_too() {
        let mut stall = Stall::default();
        let mut look = async |now| {
            tokio::time::advance(Duration::from_secs(5)).await;
            stall.look(now)
        };
        for done in 0..20 {
            assert_eq!(look((100, done)).await, None);
        }
        for _ in 0..5 {
            assert_eq!(look((100, 19)).await, None);
        }
        assert_eq!(look((100, 19)).await, Some(Motion::Stopped));
        for _ in 0..20 {
            assert_eq!(look((100, 19)).await, None);
        }
        // Less is planned: the source was looked at.
        assert_eq!(look((90, 19)).await, Some(Motion::Resumed));
        assert_eq!(look((90, 20)).await, None);
    }
}
