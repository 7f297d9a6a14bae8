//! What there is to move, as a bounded stream of extents.

use tokio::sync::mpsc;

use super::block::BlockError;
use super::error::TransferError;
use super::extent::Extent;
use super::progress::Progress;

/// Batches that wait for the pump at most.
const BATCHES: usize = 4;

/// A stream of extents, in no particular order, none overlapping another.
pub struct Plan {
    messages: mpsc::Receiver<Message>,
}

/// What a planner tells. A stream that ends without `Complete` is a planner that died, and must not
/// pass for a short plan.
pub(super) enum Message {
    Extents(Vec<Extent>),
    Failed(BlockError),
    Complete,
}

impl Plan {
    /// A plan and the end at which a planner fills it.
    pub(super) fn channel() -> (mpsc::Sender<Message>, Self) {
        let (sender, messages) = mpsc::channel(BATCHES);
        (sender, Self { messages })
    }

    /// A plan of these extents, which must not overlap.
    pub fn of(extents: Vec<Extent>, progress: &Progress) -> Self {
        progress.plan(extents.iter().map(|extent| extent.length).sum());
        let (sender, plan) = Self::channel();
        // The channel is new and has room for both.
        let _ = sender.try_send(Message::Extents(extents));
        let _ = sender.try_send(Message::Complete);
        plan
    }

    /// The next extents; none at the end. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Extent>>, TransferError> {
        match self.messages.recv().await {
            Some(Message::Extents(extents)) => Ok(Some(extents)),
            Some(Message::Complete) => Ok(None),
            Some(Message::Failed(error)) => Err(TransferError::Plan(error)),
            None => Err(TransferError::PlanBrokeOff),
        }
    }
}
