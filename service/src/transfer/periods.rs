//! A set of parts of an image, one bit each.

use std::collections::BTreeSet;
use std::ops::Range;

/// Which stripe periods of an image are to be looked at. A 10 TiB image of 4 MiB objects takes 320
/// KiB, however its changes are scattered.
#[derive(Debug, Clone)]
pub struct Periods {
    words: Vec<u64>,
    period: u64,
    size: u64,
}

impl Periods {
    /// None of an image of `size` bytes.
    pub(super) fn none(size: u64, period: u64) -> Self {
        let period = period.max(1);
        let words = usize::try_from(size.div_ceil(period).div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            words: vec![0; words],
            period,
            size,
        }
    }

    /// All of an image of `size` bytes.
    pub(super) fn all(size: u64, period: u64) -> Self {
        let mut all = Self::none(size, period);
        all.insert(0..size);
        all
    }

    /// Adds all periods that a range touches; what lies behind the image's end is left out.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        let end = range.end.min(self.size);
        if range.start >= end {
            return;
        }
        for index in range.start / self.period..end.div_ceil(self.period) {
            if let Some(word) = self.words.get_mut((index / 64) as usize) {
                *word |= 1 << (index % 64);
            }
        }
    }

    /// Takes out all that another set of the same image has.
    pub(super) fn remove(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// Some of its periods, `wanted` at most, as ranges of bytes: those whose places among all of them
    /// `random` names.
    pub(super) fn some(&self, wanted: usize, mut random: impl FnMut() -> u64) -> Vec<Range<u64>> {
        let count = self
            .words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum();
        let places: BTreeSet<u64> = match count {
            0 => BTreeSet::new(),
            _ => (0..wanted).map(|_| random() % count).collect(),
        };
        let runs = self.runs(1).filter(|(_, inside)| *inside);
        let numbered = (0..).zip(runs).filter(|(place, _)| places.contains(place));
        numbered.map(|(_, (range, _))| range).collect()
    }

    fn contains(&self, index: u64) -> bool {
        let word = self.words.get((index / 64) as usize);
        word.is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    /// What of a range lies in the set.
    pub(super) fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = range.end.min(self.size);
        let mut at = range.start;
        std::iter::from_fn(move || {
            let next = |at: u64| (at / self.period + 1) * self.period;
            while at < end && !self.contains(at / self.period) {
                at = next(at);
            }
            let start = at;
            while at < end && self.contains(at / self.period) {
                at = next(at);
            }
            (start < end).then(|| start..at.min(end))
        })
    }

    /// The image as ranges of bytes that are in the set, each of at most `limit` periods, and ranges
    /// that are not.
    pub(super) fn runs(&self, limit: u64) -> impl Iterator<Item = (Range<u64>, bool)> + '_ {
        let count = self.size.div_ceil(self.period);
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= count {
                return None;
            }
            let (start, inside) = (at, self.contains(at));
            at += 1;
            while at < count && self.contains(at) == inside && !(inside && at - start >= limit) {
                at += 1;
            }
            let end = (at * self.period).min(self.size);
            Some((start * self.period..end, inside))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_image_and_are_cut() {
        let mut periods = Periods::none(105, 10);
        periods.insert(15..16);
        periods.insert(38..72);
        periods.insert(100..400);
        periods.insert(500..600);
        let runs: Vec<_> = periods.runs(3).collect();
        assert_eq!(
            runs,
            [
                (0..10, false),
                (10..20, true),
                (20..30, false),
                (30..60, true),
                (60..80, true),
                (80..100, false),
                (100..105, true)
            ]
        );
    }

    #[test]
    fn a_range_is_reduced_to_what_lies_in_the_set() {
        let mut periods = Periods::none(105, 10);
        periods.insert(15..16);
        periods.insert(38..72);
        periods.insert(100..105);
        let within = |range| periods.within(&range).collect::<Vec<_>>();
        assert_eq!(within(0..1000), [10..20, 30..80, 100..105]);
        assert_eq!(within(12..33), [12..20, 30..33]);
        assert_eq!(within(20..30), []);
        assert_eq!(within(40..45), vec![40..45]);
        assert_eq!(within(200..300), []);
    }

    #[test]
    fn some_of_what_is_left() {
        let mut periods = Periods::all(105, 10);
        let mut other = Periods::none(105, 10);
        other.insert(15..99);
        periods.remove(&other);
        let mut next = 0;
        let mut random = || {
            next += 4;
            next
        };
        // Places 4 % 2 and 8 % 2, then 12 % 2.
        assert_eq!(periods.some(2, &mut random), vec![0..10]);
        let mut one = 0;
        let all = periods.some(10, || {
            one += 1;
            one
        });
        assert_eq!(all, [0..10, 100..105]);
        assert_eq!(Periods::none(105, 10).some(9, random), []);
    }

    #[test]
    fn nothing_and_everything() {
        let mut periods = Periods::none(1000, 10);
        assert_eq!(periods.runs(7).collect::<Vec<_>>(), [(0..1000, false)]);
        periods.insert(0..1000);
        assert!(
            periods
                .runs(7)
                .all(|(range, inside)| inside && range.end - range.start <= 70)
        );
        assert_eq!(Periods::none(0, 10).runs(1).count(), 0);
    }
}
