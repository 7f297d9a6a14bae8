//! Extents, and how they become operations.

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

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The largest operation that zeroes, in operations that move data: cheap for each object, but it
/// must end soon when it is cancelled.
const ZERO_FACTOR: u64 = 16;

/// Cuts and joins extents into operations: adjacent extents of one kind are joined, and no
/// operation crosses a multiple of the operation size (which is a multiple of the object size, or
/// divides it).
#[derive(Debug)]
pub(super) struct Splitter {
    operation_size: u64,
    /// Ready to be cut.
    ready: Option<Extent>,
    /// Waits for an extent that continues it.
    pending: Option<Extent>,
}

impl Splitter {
    pub(super) fn new(operation_size: u64) -> Self {
        Self {
            operation_size: operation_size.max(1),
            ready: None,
            pending: None,
        }
    }

    /// Takes another extent. Only when [`Splitter::next`] has nothing more to give.
    pub(super) fn push(&mut self, extent: Extent) {
        debug_assert!(self.ready.is_none());
        match &mut self.pending {
            _ if extent.length == 0 => {}
            Some(pending) if pending.kind == extent.kind && pending.end() == extent.offset => {
                pending.length += extent.length;
            }
            pending => self.ready = pending.replace(extent),
        }
    }

    /// No more extents will come: the last operation, when [`Splitter::next`] has nothing more.
    pub(super) fn finish(&mut self) -> Option<Extent> {
        self.pending.take()
    }

    /// The next operation, or nothing until another extent is pushed.
    pub(super) fn next(&mut self) -> Option<Extent> {
        if self.ready.is_none() {
            let pending = self.pending?;
            // Whole operations need not wait for what comes behind them.
            if pending.end() < self.boundary(&pending) {
                return None;
            }
            self.ready = self.pending.take();
        }
        let extent = self.ready.take()?;
        let boundary = self.boundary(&extent);
        if extent.end() <= boundary {
            return Some(extent);
        }
        let rest = Extent::new(boundary..extent.end(), extent.kind);
        // What is left may still be continued.
        if self.pending.is_none() {
            self.pending = Some(rest);
        } else {
            self.ready = Some(rest);
        }
        Some(Extent::new(extent.offset..boundary, extent.kind))
    }

    /// Where an operation that starts with this extent must end at the latest.
    fn boundary(&self, extent: &Extent) -> u64 {
        let step = match extent.kind {
            ExtentKind::Data => self.operation_size,
            ExtentKind::Zero => self.operation_size.saturating_mul(ZERO_FACTOR),
        };
        (extent.offset / step)
            .saturating_add(1)
            .saturating_mul(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn operations(size: u64, extents: &[Extent]) -> Vec<Extent> {
        let mut splitter = Splitter::new(size);
        let mut operations = Vec::new();
        for extent in extents {
            splitter.push(*extent);
            operations.extend(std::iter::from_fn(|| splitter.next()));
        }
        operations.extend(splitter.finish());
        operations
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
            operations(8, &extents),
            [
                Extent::data(2..8),
                Extent::data(8..16),
                Extent::data(16..17),
                Extent::data(18..20)
            ]
        );
    }

    #[test]
    fn data_and_zeros_are_not_joined_and_zeros_go_in_larger_steps() {
        let extents = [Extent::data(0..4), Extent::zero(4..200)];
        assert_eq!(
            operations(8, &extents),
            [
                Extent::data(0..4),
                Extent::zero(4..128),
                Extent::zero(128..200)
            ]
        );
    }

    #[test]
    fn an_endless_extent_is_cut_without_waiting() {
        let mut splitter = Splitter::new(4096);
        splitter.push(Extent::data(0..u64::MAX));
        assert_eq!(splitter.next(), Some(Extent::data(0..4096)));
        assert_eq!(splitter.next(), Some(Extent::data(4096..8192)));
    }

    proptest! {
        #[test]
        fn every_byte_comes_out_once_and_in_bounds(
            size in 1u64..32,
            parts in proptest::collection::vec((0u64..20, 0u64..60, any::<bool>()), 0..20),
        ) {
            let mut at = 0;
            let mut extents = Vec::new();
            for (gap, length, data) in parts {
                at += gap;
                let range = at..at + length;
                extents.push(if data { Extent::data(range) } else { Extent::zero(range) });
                at += length;
            }
            let bytes = |extents: &[Extent]| -> Vec<(u64, ExtentKind)> {
                extents.iter().flat_map(|e| (e.offset..e.end()).map(|at| (at, e.kind))).collect()
            };
            let operations = operations(size, &extents);
            prop_assert_eq!(bytes(&operations), bytes(&extents));
            for operation in &operations {
                let step = if operation.kind == ExtentKind::Data { size } else { size * ZERO_FACTOR };
                prop_assert!(operation.length > 0);
                prop_assert_eq!(operation.offset / step, (operation.end() - 1) / step);
            }
        }
    }
}
