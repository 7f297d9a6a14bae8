//! Which chunks of a manifest there are.

use serde::{Deserialize, Serialize};

/// Numbers of chunks, as runs: the first and the last of each.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkList(Vec<(u32, u32)>);

impl ChunkList {
    /// The numbers, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Whether it has this one.
    pub fn has(&self, chunk: u32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < chunk);
        self.0.get(at).is_some_and(|(first, _)| *first <= chunk)
    }

    /// Whether it is in order, and all of it below `end`.
    pub fn is_sound(&self, end: u64) -> bool {
        let mut next = 0;
        for (first, last) in &self.0 {
            if u64::from(*first) < next || last < first {
                return false;
            }
            next = u64::from(*last) + 1;
        }
        next <= end
    }
}

/// Of numbers in ascending order.
impl FromIterator<u32> for ChunkList {
    fn from_iter<I: IntoIterator<Item = u32>>(chunks: I) -> Self {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for chunk in chunks {
            match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(chunk) => *last = chunk,
                _ => runs.push((chunk, chunk)),
            }
        }
        Self(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_listed_as_runs() {
        let list = ChunkList::from_iter([0, 1, 2, 7, 9, 10]);
        assert_eq!(list.0, [(0, 2), (7, 7), (9, 10)]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [0, 1, 2, 7, 9, 10]);
        let there: Vec<u32> = (0..12).filter(|chunk| list.has(*chunk)).collect();
        assert_eq!(there, [0, 1, 2, 7, 9, 10]);
    }

    #[test]
    fn what_is_out_of_order_or_behind_the_end_is_not_sound() {
        assert!(ChunkList(vec![(0, 2), (7, 10)]).is_sound(11));
        for (runs, end) in [
            (vec![(0, 2), (1, 7)], 11),
            (vec![(10, 9)], 11),
            (vec![(0, 2), (7, 10)], 10),
            (vec![(0, u32::MAX)], 11),
        ] {
            assert!(!ChunkList(runs.clone()).is_sound(end), "{runs:?}");
        }
    }
}
