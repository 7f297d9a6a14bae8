//! The bound on memory for data in flight, shared by all transfers of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of account.
const PAGE: usize = 4096;

/// A number of bytes that buffers may take together; clones share it.
///
/// Buffers that are given back are kept for the next one of their size, within the same bound, until
/// the last one in use is given back: an idle budget holds no memory. Waiting for room is first
/// come, first served.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    pages: Arc<Semaphore>,
    total: usize,
    memory: Mutex<Memory>,
}

/// All memory, in pages.
#[derive(Default)]
struct Memory {
    /// Buffers to be used again, by their number of pages.
    spare: BTreeMap<usize, Vec<Vec<u8>>>,
    spare_pages: usize,
    allocated: usize,
    peak: usize,
}

impl Budget {
    /// A budget of so many bytes; at least two pages of 4 KiB.
    pub fn new(bytes: usize) -> Self {
        // A semaphore counts no further than that, far beyond any machine's memory.
        let total = (bytes / PAGE).clamp(2, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            shared: Arc::new(Shared {
                pages: Arc::new(Semaphore::new(total)),
                total,
                memory: Mutex::default(),
            }),
        }
    }

    /// The bound in bytes.
    pub fn capacity(&self) -> usize {
        self.shared.total * PAGE
    }

    /// The longest buffer that can be had.
    pub fn largest_buffer(&self) -> usize {
        (1 << self.shared.total.ilog2()) * PAGE
    }

    /// Bytes that are allocated now, in use or spare.
    pub fn allocated(&self) -> usize {
        self.shared.memory().allocated * PAGE
    }

    /// The most bytes that were ever allocated at once.
    pub fn peak(&self) -> usize {
        self.shared.memory().peak * PAGE
    }

    /// A buffer of `length` bytes, at most [`Budget::largest_buffer`]; longer ones are cut to that.
    /// Waits until there is room. What is in it is not defined.
    pub async fn buffer(&self, length: usize) -> Buffer {
        let length = length.min(self.largest_buffer());
        let permit = self.reserve(pages_of(length)).await;
        self.take(length, permit)
    }

    /// Two buffers of `length` bytes, at most half of [`Budget::largest_buffer`] each. Both are waited
    /// for at once: two that held one each could wait for each other.
    pub async fn pair(&self, length: usize) -> (Buffer, Buffer) {
        let length = length.min(self.largest_buffer() / 2);
        let pages = pages_of(length);
        let mut both = self.reserve(pages * 2).await;
        let one = both.as_mut().and_then(|both| both.split(pages));
        (self.take(length, one), self.take(length, both))
    }

    async fn reserve(&self, pages: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(pages).unwrap_or(u32::MAX);
        let pages = Arc::clone(&self.shared.pages);
        // Nobody closes the semaphore.
        pages.acquire_many_owned(wanted).await.ok()
    }

    fn take(&self, length: usize, permit: Option<OwnedSemaphorePermit>) -> Buffer {
        Buffer {
            memory: self.shared.take(pages_of(length)),
            length,
            shared: Arc::clone(&self.shared),
            _permit: permit,
        }
    }
}

/// How many pages a buffer takes: a power of two, so that it can be used again.
fn pages_of(length: usize) -> usize {
    length.div_ceil(PAGE).max(1).next_power_of_two()
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("capacity", &self.capacity())
            .field("allocated", &self.allocated())
            .finish()
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages that are spoken for.
    fn in_use(&self) -> usize {
        self.total - self.pages.available_permits().min(self.total)
    }

    /// Memory for a buffer whose pages are spoken for already.
    fn take(&self, pages: usize) -> Vec<u8> {
        let mut memory = self.memory();
        if let Some(spare) = memory.pop(pages) {
            return spare;
        }
        while self.in_use() + memory.spare_pages > self.total && memory.drop_largest() {}
        memory.allocated += pages;
        memory.peak = memory.peak.max(memory.allocated);
        drop(memory);
        vec![0; pages * PAGE]
    }

    /// Keeps the memory of a buffer whose pages are still spoken for.
    fn give_back(&self, buffer: Vec<u8>) {
        let pages = buffer.len() / PAGE;
        let mut memory = self.memory();
        memory.spare_pages += pages;
        memory.spare.entry(pages).or_default().push(buffer);
        if self.in_use() <= pages {
            while memory.drop_largest() {}
        }
    }
}

impl Memory {
    fn pop(&mut self, pages: usize) -> Option<Vec<u8>> {
        let buffer = self.spare.get_mut(&pages)?.pop()?;
        self.spare_pages -= pages;
        Some(buffer)
    }

    fn drop_largest(&mut self) -> bool {
        while let Some(mut entry) = self.spare.last_entry() {
            let pages = *entry.key();
            if entry.get_mut().pop().is_some() {
                self.spare_pages -= pages;
                self.allocated -= pages;
                return true;
            }
            entry.remove();
        }
        false
    }
}

/// Memory from a [`Budget`], which gets it back when this is dropped.
pub struct Buffer {
    /// Whole pages, always initialised.
    memory: Vec<u8>,
    length: usize,
    shared: Arc<Shared>,
    /// Released after `drop` has given the memory back.
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.shared.give_back(std::mem::take(&mut self.memory));
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer")
            .field("length", &self.length)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn buffers_are_used_again_and_an_idle_budget_is_empty() {
        let budget = Budget::new(8 * MIB);
        let other = budget.buffer(PAGE).await;
        let first = budget.buffer(MIB).await;
        let place = first.as_ref().as_ptr();
        drop(first);
        let second = budget.buffer(MIB).await;
        assert_eq!(second.as_ref().as_ptr(), place);
        drop(other);
        drop(second);
        assert_eq!(budget.allocated(), 0);
        assert_eq!(budget.peak(), MIB + PAGE);
    }

    #[tokio::test]
    async fn spare_buffers_make_room_for_other_sizes() {
        let budget = Budget::new(4 * MIB);
        let held = budget.buffer(MIB).await;
        drop(budget.buffer(2 * MIB).await);
        let small: Vec<Buffer> = [budget.buffer(MIB).await, budget.buffer(MIB).await].into();
        assert!(budget.peak() <= budget.capacity());
        drop((held, small));
        assert_eq!(budget.allocated(), 0);
    }

    #[tokio::test]
    async fn a_full_budget_makes_wait() {
        let budget = Budget::new(MIB);
        let held = budget.buffer(MIB).await;
        let mut waiting = std::pin::pin!(budget.buffer(PAGE));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(held);
        assert_eq!(waiting.await.as_ref().len(), PAGE);
        assert!(budget.peak() <= budget.capacity());
    }

    #[tokio::test]
    async fn a_pair_is_waited_for_as_a_whole() {
        let budget = Budget::new(4 * PAGE);
        let held = budget.buffer(PAGE).await;
        let (one, other) = budget.pair(PAGE).await;
        assert_eq!((one.as_ref().len(), other.as_ref().len()), (PAGE, PAGE));
        let mut waiting = std::pin::pin!(budget.pair(MIB));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop((held, one));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(other);
        assert_eq!(waiting.await.0.as_ref().len(), 2 * PAGE);
        assert!(budget.peak() <= budget.capacity());
        assert_eq!(budget.allocated(), 0);
    }

    #[tokio::test]
    async fn nothing_longer_than_the_budget_is_given() {
        let budget = Budget::new(3 * PAGE);
        assert_eq!(budget.largest_buffer(), 2 * PAGE);
        assert_eq!(budget.buffer(MIB).await.as_ref().len(), 2 * PAGE);
        assert_eq!(Budget::new(0).capacity(), 2 * PAGE);
    }
}
