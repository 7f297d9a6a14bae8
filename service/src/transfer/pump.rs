//! Moves the extents of a plan.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::block::{BlockSink, BlockSource};
use super::budget::Budget;
use super::checkpoints::Checkpoints;
use super::error::TransferError;
use super::extent::{Cut, Extent, Splitter, Step};
use super::mover::{self, Mover};
use super::plan::Plan;
use super::progress::Stats;
use super::share::Job;
use crate::turns::Turn;

/// How long a transfer that failed or was cancelled waits for what it has under way. A cluster that
/// is gone would keep it forever.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

/// How many small operations are under way in the place of a large one: what they wait for is not their data.
const SMALL: usize = 4;

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
    /// Operations under way at a time: of small ones up to four times as many.
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
    /// The most that one operation moves, in bytes; a part or a multiple of the object size of both sides.
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
    /// The usual: 16 operations of half an object of 4 MiB, which keeps OSDs busier than whole ones; 8
    /// scanners, zeros from 4 KiB on, as `rbd import-diff` has it, and longer ones where the destination is compared.
    pub fn new(budget: Budget, destination: Destination) -> Self {
        Self {
            depth: 16,
            scanners: 8,
            believe_map: false,
            budget,
            destination,
            operation_size: 2 << 20,
            zero_grain: match destination {
                Destination::Similar => COMPARED_GRAIN,
                _ => 4096,
            },
            compare_zeros: true,
            zero_excess: true,
        }
    }

    /// Whether another operation may be begun beside so many, which read so many bytes.
    fn has_room(&self, operations: usize, bytes: u64) -> bool {
        let depth = self.depth.max(1);
        let full = (depth as u64).saturating_mul(self.operation_size);
        operations == 0 || (operations < depth.saturating_mul(SMALL) && bytes < full)
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
    job: &Job,
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
        cancel: &job.cancel,
        occupied,
    };
    let mut steps = Steps::new(Cut {
        step: options.operation_size.clamp(1, largest as u64),
        grain: source.grain(),
        end: source.size(),
    });
    // The step that waits for its turn, which it must not lose while others end.
    let mut next: OptionFuture<BoxFuture<'_, Admitted>> = None.into();
    let mut waits = false;
    let mut under_way = FuturesUnordered::new();
    let mut bytes_under_way: u64 = 0;
    let mut checkpoints = Checkpoints::default();
    let mut noting: OptionFuture<_> = None.into();
    let mut notes = false;
    let mut stats = Stats::default();
    let outcome = loop {
        if steps.ended && !waits && !notes && under_way.is_empty() {
            break Ok(());
        }
        let goes_on = follow(source, &mut checkpoints);
        if checkpoints.is_due() && !notes {
            noting = Some(Box::pin(note(source, sink))).into();
            notes = true;
        }
        tokio::select! {
            biased;
            () = job.cancel.cancelled() => break Err(TransferError::Cancelled),
            Some((step, bytes, moved)) = under_way.next() => {
                checkpoints.end(step);
                bytes_under_way -= bytes;
                match moved {
                    Ok((length, moved)) => {
                        job.progress.advance(length);
                        stats.add(&moved);
                    }
                    Err(error) => break Err(error),
                }
            }
            Some(noted) = &mut noting, if notes => {
                notes = false;
                checkpoints.noted();
                if let Err(error) = noted {
                    break Err(error);
                }
            }
            Some(admitted) = &mut next, if waits => {
                waits = false;
                match admitted {
                    Ok((step, Some((turn, bytes)))) => {
                        let number = checkpoints.begin();
                        // A longer one reads it piece by piece.
                        let bytes = bytes.min(options.operation_size);
                        bytes_under_way += bytes;
                        let moving = mover.run(step, turn);
                        under_way.push(moving.map(move |moved| (number, bytes, moved)));
                    }
                    Ok((step, None)) => {
                        job.progress.advance(step.length());
                        stats.bytes_unchanged += step.length();
                    }
                    Err(error) => break Err(error),
                }
            }
            found = steps.next(&mut plan),
                if !waits && goes_on && !steps.ended
                    && options.has_room(under_way.len(), bytes_under_way) => match found {
                Ok(Some(step)) => {
                    next = Some(admit(step, &mover, job).boxed()).into();
                    waits = true;
                }
                Ok(None) => {}
                Err(error) => break Err(error),
            },
        }
    };
    // The planner has no use any more for what it still holds, nor has anybody for a turn.
    drop((plan, next));
    if outcome.is_err() {
        let drained = async {
            under_way.for_each(|_| async {}).await;
            if notes {
                noting.await;
            }
        };
        let _ = tokio::time::timeout(DRAIN, drained).await;
    }
    outcome?;
    tokio::select! {
        biased;
        () = job.cancel.cancelled() => return Err(TransferError::Cancelled),
        flushed = sink.flush() => flushed.map_err(TransferError::Flush)?,
    }
    stats.extents = steps.extents;
    Ok(stats)
}

/// A step with its turn and the bytes that it reads, unless the sink holds already what it would move.
type Admitted = Result<(Step, Option<(Turn, u64)>), TransferError>;

/// Waits for a step's turn; there is none for what the sink holds already.
async fn admit<S: BlockSource, K: BlockSink>(
    step: Step,
    mover: &Mover<'_, S, K>,
    job: &Job,
) -> Admitted {
    if let Step::Copy { span, .. } = &step {
        let stored = mover.source.is_stored(span.clone()).await;
        if stored.map_err(|error| mover::failed(span, error))? {
            return Ok((step, None));
        }
    }
    let bytes = mover.bytes(&step);
    let turn = job.share.clone().admit(bytes).await;
    Ok((step, Some((turn, bytes))))
}

/// Sets a mark where the source wants a checkpoint; whether more steps may be begun: data may pass faster than
/// is noted what it was, which takes memory.
fn follow<S: BlockSource>(source: &S, checkpoints: &mut Checkpoints) -> bool {
    if !source.wants_checkpoint() {
        return true;
    }
    let goes_on = !checkpoints.is_marked();
    if goes_on {
        source.mark();
        checkpoints.mark();
    }
    goes_on
}

/// Makes safe what has been written, and has the source note it.
async fn note<S: BlockSource, K: BlockSink>(source: &S, sink: &K) -> Result<(), TransferError> {
    sink.flush().await.map_err(TransferError::Flush)?;
    let noted = source.checkpoint().await;
    noted.map_err(TransferError::Checkpoint)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_small_operations_there_is_room_for_more() {
        let options = PumpOptions {
            depth: 4,
            operation_size: 100,
            ..PumpOptions::new(Budget::new(1 << 20), Destination::Fresh)
        };
        for (operations, bytes, room) in [
            (0, u64::MAX, true),
            (3, 300, true),
            (4, 400, false),
            (4, 399, true),
            (15, 15, true),
            (16, 16, false),
            // Of those that read nothing.
            (16, 0, false),
        ] {
            assert_eq!(
                options.has_room(operations, bytes),
                room,
                "{operations}, {bytes}"
            );
        }
    }
}
