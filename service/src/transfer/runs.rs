//! Telling what of a block is to be written.

use std::ops::Range;

/// As long as the longest grain that is compared at once.
static ZEROS: [u8; 4096] = [0; 4096];

/// What is to be done about a run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// To be written.
    Data,
    /// Zeros, to be written or not.
    Zero,
    /// What the destination holds already.
    Same,
}

/// Cuts data that lies at `offset` into runs of one kind each; `old` is what the destination holds
/// there, if that is known.
///
/// Grains are aligned to multiples of `grain` from the beginning of the device, so that a run of
/// zeros frees whole blocks of the store below.
pub(super) fn runs(
    data: &[u8],
    old: Option<&[u8]>,
    offset: u64,
    grain: usize,
) -> Vec<(Range<usize>, Run)> {
    let grain = grain.max(1);
    let mut runs: Vec<(Range<usize>, Run)> = Vec::new();
    let misaligned = usize::try_from(offset % grain as u64).unwrap_or_default();
    let mut start = 0;
    let mut end = (grain - misaligned).min(data.len());
    while start < data.len() {
        let new = &data[start..end];
        let kind = if old.is_some_and(|old| old.get(start..end) == Some(new)) {
            Run::Same
        } else if is_zero(new) {
            Run::Zero
        } else {
            Run::Data
        };
        match runs.last_mut() {
            Some((run, last)) if *last == kind => run.end = end,
            _ => runs.push((start..end, kind)),
        }
        start = end;
        end = (end + grain).min(data.len());
    }
    runs
}

/// Comparing against zeros is a `memcmp`, which beats any loop of ours and stops at the first
/// difference.
pub(super) fn is_zero(data: &[u8]) -> bool {
    data.chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::Run::{Data, Same, Zero};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_follow_the_device_and_not_the_buffer() {
        let mut data = vec![0; 20];
        data[9] = 1;
        // Grains of 8 at 4: 4..8, 8..16, 16..24; the one byte lies at 13.
        assert_eq!(
            runs(&data, None, 4, 8),
            [(0..4, Zero), (4..12, Data), (12..20, Zero)]
        );
    }

    #[test]
    fn one_kind_is_one_run() {
        assert_eq!(runs(&[0; 9000], None, 0, 4096), [(0..9000, Zero)]);
        assert_eq!(runs(&[1; 9000], None, 0, 4096), [(0..9000, Data)]);
        assert_eq!(runs(&[], None, 0, 4096), []);
        assert_eq!(runs(&[0; 9], Some(&[0; 9]), 0, 4), [(0..9, Same)]);
    }

    #[test]
    fn only_what_differs_is_to_be_written() {
        let old = [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 0, 0];
        let new = [1, 1, 1, 1, 2, 9, 2, 2, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            runs(&new, Some(&old), 0, 4),
            [(0..4, Same), (4..8, Data), (8..12, Zero), (12..14, Same)]
        );
    }

    proptest! {
        #[test]
        fn runs_cover_everything_and_are_what_they_say(
            pairs in proptest::collection::vec((0u8..2, 0u8..2), 0..200),
            compared in any::<bool>(),
            offset in 0u64..64,
            grain in 1usize..20,
        ) {
            let (data, old): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let old = compared.then_some(&old[..]);
            let runs = runs(&data, old, offset, grain);
            let mut at = 0;
            for (range, kind) in &runs {
                prop_assert_eq!(range.start, at);
                let new = &data[range.clone()];
                match kind {
                    Same => prop_assert_eq!(Some(new), old.map(|old| &old[range.clone()])),
                    Zero => prop_assert!(new.iter().all(|byte| *byte == 0)),
                    Data => prop_assert!(new.iter().any(|byte| *byte != 0)),
                }
                at = range.end;
            }
            prop_assert_eq!(at, data.len());
            prop_assert!(runs.windows(2).all(|pair| pair[0].1 != pair[1].1));
        }
    }
}
