//! Extents, and how they become steps of a transfer.

use std::ops::Range;

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// What is in it.
    pub kind: ExtentKind,
}

/// What is in an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes to be read and written.
    Data,
    /// Nothing: it reads as zeros.
    Zero,
}

impl Extent {
    /// An extent of data.
    pub fn data(range: Range<u64>) -> Self {
        Self::new(range, ExtentKind::Data)
    }

    /// An extent of zeros.
    pub fn zero(range: Range<u64>) -> Self {
        Self::new(range, ExtentKind::Zero)
    }

    fn new(range: Range<u64>, kind: ExtentKind) -> Self {
        Self {
            offset: range.start,
            length: range.end.saturating_sub(range.start),
            kind,
        }
    }

    /// What of it lies in a range; none if nothing does.
    pub(super) fn within(&self, range: &Range<u64>) -> Option<Self> {
        let range = self.offset.max(range.start)..self.end().min(range.end);
        (range.start < range.end).then(|| Self::new(range, self.kind))
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The largest step that zeroes, in steps that move data: cheap for each object, but it must end soon
/// when it is cancelled.
const ZERO_FACTOR: u64 = 16;

/// What a transfer does at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Reads a span of the source and takes the parts of it to the sink. Parts of zeros may reach
    /// beyond the span, where the source has ended.
    Copy {
        span: Range<u64>,
        parts: Vec<Extent>,
    },
    /// Zeroes a range, nothing of which is read.
    Zero(Range<u64>),
}

impl Step {
    /// Bytes of the plan that it deals with.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Copy { parts, .. } => parts.iter().map(|part| part.length).sum(),
            Self::Zero(range) => range.end - range.start,
        }
    }
}

/// How steps are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// No span crosses a multiple of that, which is a multiple of the object size, or divides it.
    pub step: u64,
    /// Spans begin and end at multiples of that, which divides the step.
    pub grain: u64,
    /// Where the source ends, and with it every span.
    pub end: u64,
}

/// Cuts and joins extents into steps. Extents that share a grain, or touch, are read together; zeros
/// that fill whole grains are not read.
#[derive(Debug)]
pub(super) struct Splitter {
    cut: Cut,
    /// To be cut.
    ready: Option<Extent>,
    /// Waits for what continues it.
    open: Option<Step>,
}

impl Splitter {
    pub(super) fn new(cut: Cut) -> Self {
        let grain = cut.grain.max(1);
        Self {
            cut: Cut {
                step: (cut.step / grain).max(1) * grain,
                grain,
                end: cut.end,
            },
            ready: None,
            open: None,
        }
    }

    /// Takes another extent. Only when [`Splitter::next`] has nothing more to give.
    pub(super) fn push(&mut self, extent: Extent) {
        debug_assert!(self.ready.is_none());
        self.ready = Some(extent).filter(|extent| extent.length > 0);
    }

    /// No more extents will come: the last step, when [`Splitter::next`] has nothing more.
    pub(super) fn finish(&mut self) -> Option<Step> {
        self.open.take()
    }

    /// The next step, or nothing until another extent is pushed.
    pub(super) fn next(&mut self) -> Option<Step> {
        loop {
            // What is full need not wait for what comes behind it.
            if self.open.as_ref().is_some_and(|open| self.is_full(open)) {
                return self.open.take();
            }
            let extent = self.ready.take()?;
            let piece = self.first_piece(&extent);
            self.ready = Some(Extent::new(piece.end()..extent.end(), extent.kind))
                .filter(|rest| rest.length > 0);
            let step = self.step_of(piece);
            match self.open.take() {
                None => self.open = Some(step),
                Some(open) => match self.join(open, step) {
                    Ok(joined) => self.open = Some(joined),
                    Err((done, step)) => {
                        self.open = Some(step);
                        return Some(done);
                    }
                },
            }
        }
    }

    /// What of an extent goes into its first step.
    fn first_piece(&self, extent: &Extent) -> Extent {
        let Cut { step, grain, end } = self.cut;
        let next = |size: u64| {
            (extent.offset / size)
                .saturating_add(1)
                .saturating_mul(size)
        };
        let limit = match extent.kind {
            ExtentKind::Data => next(step),
            // Zeros behind the source's end are not read, and fill their grain without that.
            ExtentKind::Zero if extent.offset >= end => next(step.saturating_mul(ZERO_FACTOR)),
            ExtentKind::Zero if !extent.offset.is_multiple_of(grain) => next(grain),
            ExtentKind::Zero => {
                let whole = match extent.end() >= end {
                    true => extent.end(),
                    false => extent.end() / grain * grain,
                };
                match whole > extent.offset {
                    true => whole.min(next(step.saturating_mul(ZERO_FACTOR))),
                    false => extent.end(),
                }
            }
        };
        Extent::new(extent.offset..extent.end().min(limit), extent.kind)
    }

    fn step_of(&self, piece: Extent) -> Step {
        let Cut { grain, end, .. } = self.cut;
        let fills = |at: u64| at.is_multiple_of(grain) || at >= end;
        if piece.kind == ExtentKind::Zero && fills(piece.offset) && fills(piece.end()) {
            return Step::Zero(piece.offset..piece.end());
        }
        let last = piece.end().div_ceil(grain).saturating_mul(grain).min(end);
        let start = piece.offset / grain * grain;
        Step::Copy {
            // An extent beyond the source's end, which is an error, stays one.
            span: start..last.max(match piece.kind {
                ExtentKind::Data => piece.end(),
                ExtentKind::Zero => start,
            }),
            parts: vec![piece],
        }
    }

    /// Both as one, if they touch and no boundary lies between them; else both.
    fn join(&self, open: Step, step: Step) -> Result<Step, (Step, Step)> {
        match (open, step) {
            (Step::Zero(first), Step::Zero(second))
                if first.end == second.start
                    && self.same_step(first.start, second.start, ZERO_FACTOR) =>
            {
                Ok(Step::Zero(first.start..second.end))
            }
            (
                Step::Copy {
                    span: first,
                    mut parts,
                },
                Step::Copy {
                    span: second,
                    parts: more,
                },
            ) if (first.start..=first.end).contains(&second.start)
                && self.same_step(first.start, second.start, 1) =>
            {
                for part in more {
                    match parts.last_mut() {
                        Some(last) if last.kind == part.kind && last.end() == part.offset => {
                            last.length += part.length;
                        }
                        _ => parts.push(part),
                    }
                }
                let span = first.start..first.end.max(second.end);
                Ok(Step::Copy { span, parts })
            }
            both => Err(both),
        }
    }

    fn same_step(&self, one: u64, other: u64, factor: u64) -> bool {
        let step = self.cut.step.saturating_mul(factor);
        one / step == other / step
    }

    /// Whether nothing can be joined to it any more.
    fn is_full(&self, step: &Step) -> bool {
        match step {
            Step::Copy { span, parts } => {
                let reached = parts.last().map_or(span.start, Extent::end);
                span.end.is_multiple_of(self.cut.step) && reached >= span.end
            }
            Step::Zero(range) => {
                let step = self.cut.step.saturating_mul(ZERO_FACTOR);
                range.end.is_multiple_of(step)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAR: u64 = u64::MAX;

    fn steps((step, grain, end): (u64, u64, u64), extents: &[Extent]) -> Vec<Step> {
        let mut splitter = Splitter::new(Cut { step, grain, end });
        let mut steps = Vec::new();
        for extent in extents {
            splitter.push(*extent);
            steps.extend(std::iter::from_fn(|| splitter.next()));
        }
        steps.extend(splitter.finish());
        steps
    }

    fn copy(span: Range<u64>, parts: &[Extent]) -> Step {
        Step::Copy {
            span,
            parts: parts.to_vec(),
        }
    }

    fn whole(range: Range<u64>) -> Step {
        copy(range.clone(), &[Extent::data(range)])
    }

    #[test]
    fn adjacent_extents_are_joined_and_cut_at_boundaries() {
        let extents = [
            Extent::data(2..5),
            Extent::data(5..9),
            Extent::data(9..17),
            Extent::data(18..20),
        ];
        assert_eq!(
            steps((8, 1, FAR), &extents),
            [whole(2..8), whole(8..16), whole(16..17), whole(18..20)]
        );
    }

    #[test]
    fn data_and_zeros_are_not_joined_and_zeros_go_in_larger_steps() {
        let extents = [
            Extent::data(0..4),
            Extent::zero(4..100),
            Extent::zero(100..200),
        ];
        assert_eq!(
            steps((8, 1, FAR), &extents),
            [whole(0..4), Step::Zero(4..128), Step::Zero(128..200)]
        );
    }

    #[test]
    fn whole_grains_are_read_and_only_the_extents_are_written() {
        let extents = [
            Extent::data(5..6),
            Extent::zero(7..30),
            Extent::data(41..42),
            Extent::data(50..51),
        ];
        assert_eq!(
            steps((32, 4, FAR), &extents),
            [
                copy(4..8, &[Extent::data(5..6), Extent::zero(7..8)]),
                Step::Zero(8..28),
                copy(28..32, &[Extent::zero(28..30)]),
                copy(40..44, &[Extent::data(41..42)]),
                copy(48..52, &[Extent::data(50..51)]),
            ]
        );
    }

    #[test]
    fn the_end_of_the_source_fills_its_grain() {
        let extents = [Extent::data(5..6), Extent::zero(6..100)];
        assert_eq!(
            steps((32, 4, 10), &extents),
            [
                copy(4..8, &[Extent::data(5..6), Extent::zero(6..8)]),
                Step::Zero(8..100),
            ]
        );
        let behind = [Extent::data(8..10), Extent::zero(10..30)];
        assert_eq!(
            steps((32, 4, 10), &behind),
            [copy(8..10, &[Extent::data(8..10)]), Step::Zero(10..30)]
        );
    }

    #[test]
    fn an_endless_extent_is_cut_without_waiting() {
        let mut splitter = Splitter::new(Cut {
            step: 4096,
            grain: 1,
            end: FAR,
        });
        splitter.push(Extent::data(0..u64::MAX));
        assert_eq!(splitter.next(), Some(whole(0..4096)));
        assert_eq!(splitter.next(), Some(whole(4096..8192)));
    }

    proptest! {
        #[test]
        fn every_byte_comes_out_once_and_in_bounds(
            grains in 1u64..8,
            grain in 1u64..6,
            end in 0u64..900,
            parts in proptest::collection::vec((0u64..20, 0u64..60, any::<bool>()), 0..20),
        ) {
            let mut at = 0;
            let mut extents = Vec::new();
            for (gap, length, data) in parts {
                at += gap;
                let range = at..at + length;
                // There is no data where the source has ended.
                let data = data && range.end <= end;
                extents.push(if data { Extent::data(range) } else { Extent::zero(range) });
                at += length;
            }
            let bytes = |extents: &[Extent]| -> Vec<(u64, ExtentKind)> {
                extents.iter().flat_map(|e| (e.offset..e.end()).map(|at| (at, e.kind))).collect()
            };
            let step = grains * grain;
            let steps = steps((step, grain, end), &extents);
            let done: Vec<Extent> = steps.iter().flat_map(|step| match step {
                Step::Copy { parts, .. } => parts.clone(),
                Step::Zero(range) => vec![Extent::zero(range.clone())],
            }).collect();
            prop_assert_eq!(bytes(&done), bytes(&extents));
            prop_assert_eq!(steps.iter().map(Step::length).sum::<u64>(), bytes(&extents).len() as u64);
            let mut read = Vec::new();
            for one in &steps {
                match one {
                    Step::Copy { span, parts } => {
                        prop_assert!(span.start < span.end && span.end <= end);
                        prop_assert!(span.start % grain == 0);
                        prop_assert!(span.end % grain == 0 || span.end == end);
                        prop_assert_eq!(span.start / step, (span.end - 1) / step);
                        for part in parts {
                            prop_assert!(part.offset >= span.start);
                            prop_assert!(part.kind == ExtentKind::Zero || part.end() <= span.end);
                        }
                        read.push(span.clone());
                    }
                    Step::Zero(range) => {
                        let zeros = step * ZERO_FACTOR;
                        prop_assert!(range.start < range.end);
                        prop_assert_eq!(range.start / zeros, (range.end - 1) / zeros);
                        prop_assert!(range.start % grain == 0 || range.start >= end);
                        prop_assert!(range.end % grain == 0 || range.end >= end);
                    }
                }
            }
            prop_assert!(read.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
