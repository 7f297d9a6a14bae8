//! When to tell how far an operation is, and what.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// An operation whose data is being moved.
pub struct Pace {
    interval: Duration,
    /// For how long back the rate is a mean, at least since it was told the last time.
    window: Duration,
    /// When how many bytes were done, the latest last; never empty.
    marks: VecDeque<(Instant, u64)>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    /// What is done of what is planned, in per cent.
    pub percent: f64,
    /// Bytes a second.
    pub rate: u64,
    /// How long it will take at that rate; none if nothing is moved.
    pub left: Option<Duration>,
}

impl Pace {
    /// One that is looked at from now on, when so many bytes are done, and is to be told of at this interval.
    pub fn new(interval: Duration, done: u64) -> Self {
        Self {
            interval,
            window: Duration::ZERO,
            marks: VecDeque::from([(Instant::now(), done)]),
        }
    }

    /// The same with a rate that is a mean over this time.
    pub fn over(self, window: Duration) -> Self {
        Self { window, ..self }
    }

    /// Notes how many bytes are done of those that are planned; what is to be told, if it is time.
    pub fn look(&mut self, planned: u64, done: u64) -> Option<Told> {
        let (last, _) = self.marks[self.marks.len() - 1];
        if last.elapsed() < self.interval || planned == 0 {
            return None;
        }
        while self.marks.len() > 1 && self.marks[0].0.elapsed() > self.window {
            self.marks.pop_front();
        }
        let (since, before) = self.marks[0];
        let took = since.elapsed();
        let moved = done.saturating_sub(before) as f64;
        let rate = moved / took.as_secs_f64().max(f64::MIN_POSITIVE);
        let left = planned.saturating_sub(done) as f64 / rate;
        self.marks.push_back((Instant::now(), done));
        Some(Told {
            percent: done.min(planned) as f64 * 100.0 / planned as f64,
            rate: rate as u64,
            left: Duration::try_from_secs_f64(left).ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_told_at_intervals() {
        let mut pace = Pace::new(Duration::from_secs(10), 0);
        let mut look = async |planned, done| {
            tokio::time::advance(Duration::from_secs(5)).await;
            pace.look(planned, done)
        };
        assert_eq!(look(1000, 100).await, None);
        let told = Told {
            percent: 20.0,
            rate: 20,
            left: Some(Duration::from_secs(40)),
        };
        assert_eq!(look(1000, 200).await, Some(told));
        assert_eq!(look(1000, 200).await, None);
        let still = Told {
            percent: 20.0,
            rate: 0,
            left: None,
        };
        assert_eq!(look(1000, 200).await, Some(still));
        // More is found to do nothing for than was planned.
        assert_eq!(look(100, 200).await, None);
        assert_eq!(look(100, 200).await.map(|told| told.percent), Some(100.0));
        // Nothing is known yet.
        assert_eq!(look(0, 0).await, None);
        assert_eq!(look(0, 0).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_a_mean_over_a_window() {
        let mut pace = Pace::new(Duration::from_secs(1), 0).over(Duration::from_secs(10));
        let mut rate = async |done| {
            tokio::time::advance(Duration::from_secs(2)).await;
            pace.look(1000, done).map(|told| told.rate)
        };
        // Two steps at once, now and then.
        let rates = [
            rate(0).await,
            rate(40).await,
            rate(40).await,
            rate(80).await,
        ];
        assert_eq!(rates, [Some(0), Some(10), Some(6), Some(10)]);
        let rates = [rate(80).await, rate(120).await, rate(120).await];
        assert_eq!(rates, [Some(8), Some(12), Some(8)]);
        for _ in 0..4 {
            rate(120).await;
        }
        assert_eq!(rate(120).await, Some(0));
    }
}
