//! Moves the extents of a plan.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::block::{BlockError, BlockSink, BlockSource};
use super::budget::Budget;
use super::error::TransferError;
use super::extent::{Extent, ExtentKind, Splitter};
use super::plan::Plan;
use super::progress::{Progress, Stats};
use super::zero_runs;

/// How long a transfer that failed or was cancelled waits for what it has under way. A cluster that
/// is gone would keep it forever.
const DRAIN: Duration = Duration::from_secs(10);

/// How many pieces of one operation are written at a time, where zeros cut it into pieces.
const PIECES: usize = 8;

/// What the destination holds where the transfer does not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Zeros: it is new. Zeros need not be written.
    Fresh,
    /// Anything. What is zero in the source is zeroed in the destination.
    MayHoldData,
}

/// How to move.
#[derive(Debug, Clone)]
pub struct PumpOptions {
    /// Operations under way at a time.
    pub depth: usize,
    /// Scans for exact extents under way at a time, for plans that scan.
    pub scanners: usize,
    /// The memory that data may take, shared by all transfers of the process.
    pub budget: Budget,
    /// What the destination holds already.
    pub destination: Destination,
    /// The most that one operation moves, in bytes; best the object size of both sides.
    pub operation_size: u64,
    /// The shortest run of zeros that counts, in bytes.
    pub zero_grain: usize,
    /// Whether a whole copy zeros what its destination has beyond the source's end.
    pub zero_excess: bool,
}

impl PumpOptions {
    /// The usual: 16 operations of 4 MiB, 8 scanners, zeros from 4 KiB on, as `rbd import-diff` has
    /// it.
    pub fn new(budget: Budget, destination: Destination) -> Self {
        Self {
            depth: 16,
            scanners: 8,
            budget,
            destination,
            operation_size: 4 << 20,
            zero_grain: 4096,
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
    let largest = options.budget.largest_buffer() as u64;
    let mover = Mover {
        source,
        sink,
        options,
    };
    let mut operations = Operations::new(options.operation_size.clamp(1, largest));
    let mut under_way = FuturesUnordered::new();
    let mut stats = Stats::default();
    let outcome = loop {
        if operations.ended && under_way.is_empty() {
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
            next = operations.next(&mut plan),
                if under_way.len() < options.depth.max(1) && !operations.ended => match next {
                Ok(Some(operation)) => under_way.push(mover.run(operation)),
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
    stats.extents = operations.extents;
    Ok(stats)
}

/// The plan, cut into operations.
struct Operations {
    splitter: Splitter,
    batch: VecDeque<Extent>,
    extents: u64,
    /// No more operations will come.
    ended: bool,
}

impl Operations {
    fn new(operation_size: u64) -> Self {
        Self {
            splitter: Splitter::new(operation_size),
            batch: VecDeque::new(),
            extents: 0,
            ended: false,
        }
    }

    /// The next operation; none at the end. May be dropped and called again: it waits for the plan
    /// only, and nothing is lost then.
    async fn next(&mut self, plan: &mut Plan) -> Result<Option<Extent>, TransferError> {
        loop {
            if let Some(operation) = self.splitter.next() {
                return Ok(Some(operation));
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
}

impl<S: BlockSource, K: BlockSink> Mover<'_, S, K> {
    /// Does one operation; gives its length and what was done.
    async fn run(&self, operation: Extent) -> Result<(u64, Stats), TransferError> {
        let mut stats = match operation.kind {
            ExtentKind::Data => self.copy(operation).await?,
            ExtentKind::Zero => self
                .zero(operation.offset, operation.length)
                .await
                .map_err(|error| write_error(&operation, error))?,
        };
        stats.operations = 1;
        Ok((operation.length, stats))
    }

    async fn copy(&self, operation: Extent) -> Result<Stats, TransferError> {
        let length = usize::try_from(operation.length).unwrap_or(usize::MAX);
        let buffer = self.options.budget.buffer(length).await;
        let buffer = self
            .source
            .read_at(operation.offset, buffer)
            .await
            .map_err(|error| TransferError::Read {
                offset: operation.offset,
                length: operation.length,
                error,
            })?;
        let runs = zero_runs::runs(buffer.as_ref(), operation.offset, self.options.zero_grain);
        // The pieces share the buffer, which returns to the budget with the last of them: when the
        // storage is done with it, whatever becomes of this future.
        let data = Bytes::from_owner(buffer);
        let mut stats = Stats {
            bytes_read: operation.length,
            ..Stats::default()
        };
        let broken = AtomicBool::new(false);
        let wanted = |_: &_| !broken.load(Ordering::Relaxed);
        let runs = runs.into_iter().take_while(wanted);
        let pieces = stream::iter(runs.map(move |(run, has_data)| {
            let piece = Extent::data(
                operation.offset + run.start as u64..operation.offset + run.end as u64,
            );
            let data = has_data.then(|| data.slice(run));
            async move {
                match data {
                    Some(data) => self.write(piece.offset, data).await,
                    None => self.zero(piece.offset, piece.length).await,
                }
                .map_err(|error| write_error(&piece, error))
            }
        }));
        let mut written = pieces.buffer_unordered(PIECES);
        while let Some(piece) = written.next().await {
            match piece {
                Ok(piece) => stats.add(&piece),
                Err(error) => {
                    // The storage goes on with those under way, whoever waits for them.
                    broken.store(true, Ordering::Relaxed);
                    let _ = tokio::time::timeout(DRAIN, written.for_each(|_| async {})).await;
                    return Err(error);
                }
            }
        }
        Ok(stats)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<Stats, BlockError> {
        let bytes_written = data.len() as u64;
        self.sink.write_at(offset, data).await?;
        Ok(Stats {
            bytes_written,
            ..Stats::default()
        })
    }

    async fn zero(&self, offset: u64, length: u64) -> Result<Stats, BlockError> {
        if self.options.destination == Destination::Fresh {
            return Ok(Stats {
                bytes_zero_skipped: length,
                ..Stats::default()
            });
        }
        self.sink.zero_at(offset, length).await?;
        Ok(Stats {
            bytes_discarded: length,
            ..Stats::default()
        })
    }
}

fn write_error(piece: &Extent, error: BlockError) -> TransferError {
    TransferError::Write {
        offset: piece.offset,
        length: piece.length,
        error,
    }
}
