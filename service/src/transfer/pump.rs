//! Moves the extents of a plan.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::block::{BlockSink, BlockSource};
use super::budget::{Budget, Buffer};
use super::error::TransferError;
use super::extent::{Cut, Extent, ExtentKind, Splitter, Step};
use super::periods::Periods;
use super::plan::Plan;
use super::progress::{Progress, Stats};
use super::runs::{self, Run};

/// How long a transfer that failed or was cancelled waits for what it has under way. A cluster that
/// is gone would keep it forever.
const DRAIN: Duration = Duration::from_secs(10);

/// How many pieces of one step are written at a time.
const PIECES: usize = 8;

/// The shortest run that is told from others where the destination is compared: shorter ones cost more
/// operations than they save bytes.
const COMPARED_GRAIN: usize = 32 << 10;

/// What the destination holds where the transfer does not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Zeros: it is new. Zeros need not be written.
    Fresh,
    /// Anything. What is zero in the source is zeroed in the destination.
    MayHoldData,
    /// Much of what the source holds: both are read, and only what differs is written.
    Similar,
}

/// How to move.
#[derive(Debug, Clone)]
pub struct PumpOptions {
    /// Operations under way at a time.
    pub depth: usize,
    /// Scans for exact extents under way at a time, for plans that scan.
    pub scanners: usize,
    /// Whether an image's object map is believed about what did not change since a snapshot. It must not
    /// be where the image may have been rolled back since then to an older one.
    pub believe_map: bool,
    /// The memory that data may take, shared by all transfers of the process.
    pub budget: Budget,
    /// What the destination holds already.
    pub destination: Destination,
    /// The most that one operation moves, in bytes; best the object size of both sides.
    pub operation_size: u64,
    /// The shortest run of zeros that counts, in bytes.
    pub zero_grain: usize,
    /// Whether a destination that is similar is read before it is zeroed, too. Not worth it where zeroing
    /// costs less than reading.
    pub compare_zeros: bool,
    /// Whether a whole copy zeros what its destination has beyond the source's end.
    pub zero_excess: bool,
}

impl PumpOptions {
    /// The usual: 16 operations of 4 MiB, 8 scanners, zeros from 4 KiB on, as `rbd import-diff` has
    /// it, and longer ones where the destination is compared.
    pub fn new(budget: Budget, destination: Destination) -> Self {
        Self {
            depth: 16,
            scanners: 8,
            believe_map: false,
            budget,
            destination,
            operation_size: 4 << 20,
            zero_grain: match destination {
                Destination::Similar => COMPARED_GRAIN,
                _ => 4096,
            },
            compare_zeros: true,
            zero_excess: true,
        }
    }
}

/// Moves every extent of the plan from the source to the sink, and flushes the sink.
///
/// When this returns an error, nothing more is written, except by operations on a storage that did
/// not answer for ten seconds. The same holds when the future is dropped, apart from operations that
/// are under way just then.
///
/// # Errors
/// The first one that occurs, with its side and offset. Cancelling takes effect within the
/// operations that are under way.
pub async fn pump<S, K>(
    mut plan: Plan,
    source: &S,
    sink: &K,
    options: &PumpOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Stats, TransferError>
where
    S: BlockSource,
    K: BlockSink,
{
    let largest = match options.destination {
        Destination::Similar => options.budget.largest_buffer() / 2,
        _ => options.budget.largest_buffer(),
    };
    if source.grain() > largest as u64 {
        let reason = "the memory for transfers is less than what is read at once";
        return Err(TransferError::Plan(io::Error::other(reason).into()));
    }
    let occupied = match options.destination {
        Destination::Fresh => None,
        _ => Some(sink.occupied().await.map_err(TransferError::Plan)?),
    };
    let mover = Mover {
        source,
        sink,
        options,
        occupied,
    };
    let mut steps = Steps::new(Cut {
        step: options.operation_size.clamp(1, largest as u64),
        grain: source.grain(),
        end: source.size(),
    });
    let mut under_way = FuturesUnordered::new();
    let mut stats = Stats::default();
    let outcome = loop {
        if steps.ended && under_way.is_empty() {
            break Ok(());
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => break Err(TransferError::Cancelled),
            Some(moved) = under_way.next() => match moved {
                Ok((length, moved)) => {
                    progress.advance(length);
                    stats.add(&moved);
                }
                Err(error) => break Err(error),
            },
            next = steps.next(&mut plan),
                if under_way.len() < options.depth.max(1) && !steps.ended => match next {
                Ok(Some(step)) => under_way.push(mover.run(step)),
                Ok(None) => {}
                Err(error) => break Err(error),
            },
        }
    };
    // The planner has no use any more for what it still holds.
    drop(plan);
    if outcome.is_err() {
        let _ = tokio::time::timeout(DRAIN, under_way.for_each(|_| async {})).await;
    }
    outcome?;
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(TransferError::Cancelled),
        flushed = sink.flush() => flushed.map_err(TransferError::Flush)?,
    }
    stats.extents = steps.extents;
    Ok(stats)
}

/// The plan, cut into steps.
struct Steps {
    splitter: Splitter,
    batch: VecDeque<Extent>,
    extents: u64,
    /// No more steps will come.
    ended: bool,
}

impl Steps {
    fn new(cut: Cut) -> Self {
        Self {
            splitter: Splitter::new(cut),
            batch: VecDeque::new(),
            extents: 0,
            ended: false,
        }
    }

    /// The next step; none at the end. May be dropped and called again: it waits for the plan
    /// only, and nothing is lost then.
    async fn next(&mut self, plan: &mut Plan) -> Result<Option<Step>, TransferError> {
        loop {
            if let Some(step) = self.splitter.next() {
                return Ok(Some(step));
            }
            if let Some(extent) = self.batch.pop_front() {
                self.extents += 1;
                self.splitter.push(extent);
                continue;
            }
            match plan.next().await? {
                Some(batch) => self.batch = batch.into(),
                None => {
                    self.ended = true;
                    return Ok(self.splitter.finish());
                }
            }
        }
    }
}

struct Mover<'a, S, K> {
    source: &'a S,
    sink: &'a K,
    options: &'a PumpOptions,
    /// What of the sink may hold anything but zeros; none if nothing of it does.
    occupied: Option<Periods>,
}

impl<S: BlockSource, K: BlockSink> Mover<'_, S, K> {
    /// Does one step; gives how much of the plan that was, and what was done.
    async fn run(&self, step: Step) -> Result<(u64, Stats), TransferError> {
        let length = step.length();
        let mut stats = match step {
            Step::Copy { span, parts } => self.copy(span, &parts).await?,
            Step::Zero(range) => self.zero(range).await?,
        };
        stats.operations = 1;
        Ok((length, stats))
    }

    async fn zero(&self, range: Range<u64>) -> Result<Stats, TransferError> {
        let told = self.source.zeros(range.clone()).await;
        told.map_err(|error| TransferError::Read {
            offset: range.start,
            length: range.end - range.start,
            error,
        })?;
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
        if self.options.destination != Destination::Similar || !self.options.compare_zeros {
            return self.apply(zeros(range)).await;
        }
        let mut stats = Stats::default();
        let mut at = range.start;
        while at < range.end {
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
        let (data, old) = self.read(&span).await?;
        let mut stats = Stats {
            bytes_read: data.len() as u64,
            ..Stats::default()
        };
        let mut pieces = Vec::new();
        for part in parts {
            self.cut(part, &span, &data, old.as_ref(), &mut pieces, &mut stats);
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

    /// What the source holds in a span and, where that is to be compared, the destination.
    ///
    /// The pieces share the buffer, which returns to the budget with the last of them: when the storage
    /// is done with it, whatever becomes of this future.
    async fn read(&self, span: &Range<u64>) -> Result<(Bytes, Option<Buffer>), TransferError> {
        let bytes = span.end - span.start;
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let failed = |error| TransferError::Read {
            offset: span.start,
            length: bytes,
            error,
        };
        let (budget, at) = (&self.options.budget, span.start);
        let compared = self.options.destination == Destination::Similar;
        if !compared || span.end > self.sink.size() {
            let buffer = budget.buffer(length).await;
            let data = self.source.read_at(at, buffer).await.map_err(failed)?;
            return Ok((Bytes::from_owner(data), None));
        }
        let (buffer, other) = budget.pair(length).await;
        let (data, old) = tokio::join!(
            self.source.read_at(at, buffer),
            self.sink.read_at(at, other)
        );
        // What cannot be read of the destination can perhaps be written.
        Ok((Bytes::from_owner(data.map_err(failed)?), old.ok()))
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
