//! Takes the steps of a plan: reads, compares, writes, zeros.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::block::{BlockError, BlockSink, BlockSource, Unlike};
use super::budget::Buffer;
use super::digest::GRAIN;
use super::error::TransferError;
use super::extent::{Extent, ExtentKind, Step};
use super::periods::Periods;
use super::progress::Stats;
use super::pump::{DRAIN, Destination, PumpOptions};
use super::runs::{self, Run};
use crate::turns::Turn;

/// How many pieces of one step are written at a time.
const PIECES: usize = 8;

/// Takes steps, any number at a time.
pub(super) struct Mover<'a, S, K> {
    pub source: &'a S,
    pub sink: &'a K,
    pub options: &'a PumpOptions,
    /// Ends what takes several reads or writes.
    pub cancel: &'a CancellationToken,
    /// What of the sink may hold anything but zeros; none if nothing of it does.
    pub occupied: Option<Periods>,
}

impl<S: BlockSource, K: BlockSink> Mover<'_, S, K> {
    /// Does one step, whose turn it is until then; gives how much of the plan that was, and what was done.
    pub async fn run(&self, step: Step, _turn: Turn) -> Result<(u64, Stats), TransferError> {
        let length = step.length();
        let mut stats = match step {
            Step::Copy { span, parts } => self.copy(span, &parts).await?,
            Step::Zero(range) => self.zero(range).await?,
        };
        stats.operations = 1;
        Ok((length, stats))
    }

    /// Bytes that a step reads: of the source, or of a destination that may hold zeros there already.
    pub fn bytes(&self, step: &Step) -> u64 {
        match step {
            Step::Copy { span, .. } => span.end - span.start,
            Step::Zero(range) if self.compares_zeros() => {
                let occupied = self.occupied.iter();
                let parts = occupied.flat_map(|occupied| occupied.within(range));
                parts.map(|part| part.end - part.start).sum()
            }
            Step::Zero(_) => 0,
        }
    }

    fn compares_zeros(&self) -> bool {
        self.options.destination == Destination::Similar && self.options.compare_zeros
    }

    fn go_on(&self) -> Result<(), TransferError> {
        match self.cancel.is_cancelled() {
            true => Err(TransferError::Cancelled),
            false => Ok(()),
        }
    }

    async fn zero(&self, range: Range<u64>) -> Result<Stats, TransferError> {
        let told = self.source.zeros(range.clone()).await;
        let missing = told.map_err(|error| failed(&range, error))?;
        let mut stats = Stats::default();
        let mut at = range.start;
        for missing in missing {
            let missing = missing.start.max(at)..missing.end.min(range.end);
            stats.add(&self.give_back(at..missing.start).await?);
            stats.add(&self.give_back_what_is_wrong(&missing).await?);
            at = missing.end;
        }
        stats.add(&self.give_back(at..range.end).await?);
        Ok(stats)
    }

    /// Zeros a range of which the source has nothing, but should: what the destination has of that stays.
    async fn give_back_what_is_wrong(&self, range: &Range<u64>) -> Result<Stats, TransferError> {
        let similar = self.options.destination == Destination::Similar;
        if !similar || range.end > self.sink.size() {
            return self.give_back(range.clone()).await;
        }
        let mut stats = Stats::default();
        let mut at = range.start;
        while at < range.end {
            self.go_on()?;
            let end = (at + self.options.operation_size.max(GRAIN) / GRAIN * GRAIN).min(range.end);
            stats.bytes_unchanged += end - at;
            for Unlike { range, .. } in self.unlike(&(at..end)).await? {
                stats.bytes_unchanged -= range.end - range.start;
                stats.add(&self.give_back(range).await?);
            }
            at = end;
        }
        Ok(stats)
    }

    /// Zeros what may be anything else of a range.
    async fn give_back(&self, range: Range<u64>) -> Result<Stats, TransferError> {
        let mut stats = Stats::default();
        let mut at = range.start;
        let occupied = self
            .occupied
            .iter()
            .flat_map(|occupied| occupied.within(&range));
        for occupied in occupied {
            stats.bytes_zero_skipped += occupied.start - at;
            at = occupied.end;
            stats.add(&self.zero_occupied(occupied).await?);
        }
        stats.bytes_zero_skipped += range.end - at;
        Ok(stats)
    }

    async fn zero_occupied(&self, range: Range<u64>) -> Result<Stats, TransferError> {
        let zeros = |range| Piece {
            extent: Extent::zero(range),
            data: None,
        };
        if !self.compares_zeros() {
            return self.apply(zeros(range)).await;
        }
        let mut stats = Stats::default();
        let mut at = range.start;
        while at < range.end {
            self.go_on()?;
            let length = (range.end - at).min(self.options.operation_size.max(1));
            let buffer = self.options.budget.buffer(length as usize).await;
            // Shorter where the budget has no more.
            let piece = at..at + buffer.as_ref().len() as u64;
            at = piece.end;
            match self.sink.read_at(piece.start, buffer).await {
                Ok(old) if runs::is_zero(old.as_ref()) => {
                    stats.bytes_unchanged += piece.end - piece.start;
                }
                _ => stats.add(&self.apply(zeros(piece)).await?),
            }
        }
        Ok(stats)
    }

    async fn copy(&self, span: Range<u64>, parts: &[Extent]) -> Result<Stats, TransferError> {
        let similar = self.options.destination == Destination::Similar;
        if !similar || span.end > self.sink.size() {
            let buffer = self.options.budget.buffer(length(&span)).await;
            return self
                .write(&span, parts, self.read(&span, buffer).await?, None)
                .await;
        }
        if !self.source.is_known() {
            return self.compare(&span, parts).await;
        }
        let mut stats = self.write_what_differs(&span, parts).await?;
        let end = parts.last().map_or(span.end, Extent::end);
        if end > span.end {
            stats.add(&self.zero(span.end..end).await?);
        }
        Ok(stats)
    }

    /// Takes parts of a span to a destination that holds much of them, from a source that can tell.
    async fn write_what_differs(
        &self,
        span: &Range<u64>,
        parts: &[Extent],
    ) -> Result<Stats, TransferError> {
        let within = |range: &Range<u64>| -> Vec<Extent> {
            parts.iter().filter_map(|part| part.within(range)).collect()
        };
        let bytes = |parts: &[Extent]| parts.iter().map(|part| part.length).sum::<u64>();
        let mut stats = Stats {
            bytes_unchanged: bytes(&within(span)),
            ..Stats::default()
        };
        for Unlike { range, certain } in self.unlike(span).await? {
            let parts = within(&range);
            if parts.is_empty() {
                continue;
            }
            self.go_on()?;
            stats.bytes_unchanged -= bytes(&parts);
            let written = match certain {
                true => {
                    let buffer = self.options.budget.buffer(length(&range)).await;
                    let data = self.read(&range, buffer).await?;
                    self.write(&range, &parts, data, None).await
                }
                false => self.compare(&range, &parts).await,
            };
            stats.add(&written?);
        }
        Ok(stats)
    }

    /// Reads a span of both sides, and takes what differs to the destination.
    async fn compare(&self, span: &Range<u64>, parts: &[Extent]) -> Result<Stats, TransferError> {
        let (buffer, other) = self.options.budget.pair(length(span)).await;
        let (data, old) = tokio::join!(
            self.read(span, buffer),
            self.sink.read_at(span.start, other)
        );
        // What cannot be read of the destination can perhaps be written.
        self.write(span, parts, data?, old.ok()).await
    }

    /// The parts of a span that the destination is not known to hold as the source does.
    async fn unlike(&self, span: &Range<u64>) -> Result<Vec<Unlike>, TransferError> {
        let buffer = self.options.budget.buffer(length(span)).await;
        let Ok(held) = self.sink.read_at(span.start, buffer).await else {
            let range = span.clone();
            return Ok(vec![Unlike {
                range,
                certain: true,
            }]);
        };
        let unlike = self.source.unlike(span.start, held.as_ref()).await;
        unlike.map_err(|error| failed(span, error))
    }

    /// Reads a span. The pieces that are cut of it share the buffer, which returns to the budget with the
    /// last of them: when the storage is done with it, whatever becomes of this future.
    async fn read(&self, span: &Range<u64>, buffer: Buffer) -> Result<Bytes, TransferError> {
        let data = self.source.read_at(span.start, buffer).await;
        data.map(Bytes::from_owner)
            .map_err(|error| failed(span, error))
    }

    /// Writes parts of a span, of which the destination holds `old`, if that is known.
    async fn write(
        &self,
        span: &Range<u64>,
        parts: &[Extent],
        data: Bytes,
        old: Option<Buffer>,
    ) -> Result<Stats, TransferError> {
        let mut stats = Stats {
            bytes_read: data.len() as u64,
            ..Stats::default()
        };
        let mut pieces = Vec::new();
        for part in parts {
            self.cut(part, span, &data, old.as_ref(), &mut pieces, &mut stats);
        }
        drop((data, old));
        let broken = AtomicBool::new(false);
        let wanted = |_: &_| !broken.load(Ordering::Relaxed);
        let pieces = pieces.into_iter().take_while(wanted);
        let applied = pieces.map(|piece| self.apply(piece));
        let mut applied = stream::iter(applied).buffer_unordered(PIECES);
        while let Some(piece) = applied.next().await {
            match piece {
                Ok(piece) => stats.add(&piece),
                Err(error) => {
                    // The storage goes on with those under way, whoever waits for them.
                    broken.store(true, Ordering::Relaxed);
                    let _ = tokio::time::timeout(DRAIN, applied.for_each(|_| async {})).await;
                    return Err(error);
                }
            }
        }
        Ok(stats)
    }

    /// Cuts a part of a span into pieces.
    fn cut(
        &self,
        part: &Extent,
        span: &Range<u64>,
        data: &Bytes,
        old: Option<&Buffer>,
        pieces: &mut Vec<Piece>,
        stats: &mut Stats,
    ) {
        let start = (part.offset - span.start) as usize;
        let end = (part.end().min(span.end) - span.start) as usize;
        let old = old.map(|old| &old.as_ref()[start..end]);
        if part.kind == ExtentKind::Zero {
            match old {
                Some(old) if part.end() <= span.end && runs::is_zero(old) => {
                    stats.bytes_unchanged += part.length;
                }
                _ => pieces.push(Piece {
                    extent: *part,
                    data: None,
                }),
            }
            return;
        }
        let data = data.slice(start..end);
        for (run, kind) in runs::runs(&data, old, part.offset, self.options.zero_grain) {
            let range = part.offset + run.start as u64..part.offset + run.end as u64;
            match kind {
                Run::Same => stats.bytes_unchanged += range.end - range.start,
                Run::Data => pieces.push(Piece {
                    extent: Extent::data(range),
                    data: Some(data.slice(run)),
                }),
                Run::Zero => pieces.push(Piece {
                    extent: Extent::zero(range),
                    data: None,
                }),
            }
        }
    }

    async fn apply(&self, piece: Piece) -> Result<Stats, TransferError> {
        let Extent { offset, length, .. } = piece.extent;
        let mut stats = Stats::default();
        let done = match piece.data {
            Some(data) => {
                stats.bytes_written = length;
                self.sink.write_at(offset, data).await
            }
            None if self.options.destination == Destination::Fresh => {
                stats.bytes_zero_skipped = length;
                Ok(())
            }
            None => {
                stats.bytes_discarded = length;
                self.sink.zero_at(offset, length).await
            }
        };
        done.map(|()| stats).map_err(|error| TransferError::Write {
            offset,
            length,
            error,
        })
    }
}

/// What is written to the sink at once: data, or zeros.
struct Piece {
    extent: Extent,
    data: Option<Bytes>,
}

/// For a buffer; what is larger than memory is cut to the budget.
fn length(span: &Range<u64>) -> usize {
    usize::try_from(span.end - span.start).unwrap_or(usize::MAX)
}

/// That a span of the source could not be read.
pub(super) fn failed(span: &Range<u64>, error: BlockError) -> TransferError {
    TransferError::Read {
        offset: span.start,
        length: span.end - span.start,
        error,
    }
}
