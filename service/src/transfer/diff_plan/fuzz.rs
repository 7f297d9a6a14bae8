//! Whatever librbd calls back with, up to the steps of a transfer.

use super::super::extent::{Cut, ExtentKind, Splitter, Step};
use super::*;

/// How many steps a range is cut into, at most.
const STEPS: u64 = 64;

#[test]
fn diffs() {
    cinderblock_fuzz::run("diffs", |input| {
        let mut numbers = input
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_be_bytes(*bytes));
        let (Some(start), Some(end)) = (numbers.next(), numbers.next()) else {
            return;
        };
        let range = start..end;
        let numbers: Vec<u64> = numbers.collect();
        // The last bit of a length tells whether there is something.
        let changes: Vec<Change> = numbers
            .as_chunks::<2>()
            .0
            .iter()
            .take(200)
            .map(|[offset, length]| Change {
                offset: *offset,
                length: length >> 1,
                exists: length & 1 == 1,
            })
            .collect();
        for holes in [Holes::Skip, Holes::Zero] {
            let extents = exact_extents(&range, changes.clone(), holes);
            assert_covers(&range, &changes, holes, &extents);
            assert_steps(&range, &extents);
        }
    });
}

/// Each byte at which something begins or ends is what it must be, and so are those beside it.
fn assert_covers(range: &Range<u64>, changes: &[Change], holes: Holes, extents: &[Extent]) {
    assert!(
        extents
            .windows(2)
            .all(|pair| pair[0].end() <= pair[1].offset)
    );
    assert!(extents.iter().all(|extent| extent.length > 0));
    let end = |change: &Change| change.offset.saturating_add(change.length);
    let bounds = changes
        .iter()
        .flat_map(|change| [change.offset, end(change)]);
    let bounds = bounds.chain([range.start, range.end]);
    for at in bounds.flat_map(|at| [at.saturating_sub(1), at]) {
        let found = extents
            .iter()
            .find(|extent| (extent.offset..extent.end()).contains(&at));
        let named = |exists| {
            let mut those = changes.iter().filter(|change| change.exists == exists);
            those.any(|change| (change.offset..end(change)).contains(&at))
        };
        let expected = match range.contains(&at) {
            true if named(true) => Some(ExtentKind::Data),
            true if holes == Holes::Zero || named(false) => Some(ExtentKind::Zero),
            _ => None,
        };
        assert_eq!(found.map(|extent| extent.kind), expected, "at {at}");
    }
}

/// Every byte is dealt with once, in steps that are not too large.
fn assert_steps(range: &Range<u64>, extents: &[Extent]) {
    let step = (range.end.saturating_sub(range.start) / STEPS)
        .max(1 << 16)
        .next_power_of_two();
    let cut = Cut {
        step,
        grain: 1 << 16,
        end: range.end,
    };
    let mut splitter = Splitter::new(cut);
    let mut steps = Vec::new();
    for extent in extents {
        splitter.push(*extent);
        steps.extend(std::iter::from_fn(|| splitter.next()));
    }
    steps.extend(splitter.finish());
    let planned: u64 = extents.iter().map(|extent| extent.length).sum();
    assert_eq!(steps.iter().map(Step::length).sum::<u64>(), planned);
    for one in &steps {
        if let Step::Copy { span, .. } = one {
            assert!(span.start < span.end && span.end <= range.end);
            assert_eq!(span.start / step, (span.end - 1) / step);
        }
    }
}
