//! Telling zeros from data.

use std::ops::Range;

/// As long as the longest grain that is compared at once.
static ZEROS: [u8; 4096] = [0; 4096];

/// Cuts data that lies at `offset` into runs that alternate between data (`true`) and zeros.
///
/// Grains are aligned to multiples of `grain` from the beginning of the device, so that a run of
/// zeros frees whole blocks of the store below.
pub(super) fn runs(data: &[u8], offset: u64, grain: usize) -> Vec<(Range<usize>, bool)> {
    let grain = grain.max(1);
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    let misaligned = usize::try_from(offset % grain as u64).unwrap_or_default();
    let mut start = 0;
    let mut end = (grain - misaligned).min(data.len());
    while start < data.len() {
        let has_data = !is_zero(&data[start..end]);
        match runs.last_mut() {
            Some((run, kind)) if *kind == has_data => run.end = end,
            _ => runs.push((start..end, has_data)),
        }
        start = end;
        end = (end + grain).min(data.len());
    }
    runs
}

/// Comparing against zeros is a `memcmp`, which beats any loop of ours and stops at the first
/// difference.
fn is_zero(data: &[u8]) -> bool {
    data.chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_follow_the_device_and_not_the_buffer() {
        let mut data = vec![0; 20];
        data[9] = 1;
        // Grains of 8 at 4: 4..8, 8..16, 16..24; the one byte lies at 13.
        assert_eq!(
            runs(&data, 4, 8),
            [(0..4, false), (4..12, true), (12..20, false)]
        );
    }

    #[test]
    fn one_kind_is_one_run() {
        assert_eq!(runs(&[0; 9000], 0, 4096), [(0..9000, false)]);
        assert_eq!(runs(&[1; 9000], 0, 4096), [(0..9000, true)]);
        assert_eq!(runs(&[], 0, 4096), []);
    }

    proptest! {
        #[test]
        fn runs_cover_everything_and_zero_runs_are_zero(
            data in proptest::collection::vec(prop_oneof![4 => Just(0u8), 1 => Just(1u8)], 0..200),
            offset in 0u64..64,
            grain in 1usize..20,
        ) {
            let runs = runs(&data, offset, grain);
            let mut at = 0;
            for (range, has_data) in &runs {
                prop_assert_eq!(range.start, at);
                prop_assert_eq!(data[range.clone()].iter().any(|byte| *byte != 0), *has_data);
                at = range.end;
            }
            prop_assert_eq!(at, data.len());
            prop_assert!(runs.windows(2).all(|pair| pair[0].1 != pair[1].1));
        }
    }
}
