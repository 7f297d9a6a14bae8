//! When what has been moved can be noted, so that it need not be moved again.
//!
//! Steps end in any order, and new ones are begun without waiting for a checkpoint. So a mark is set among
//! the steps: when all that were begun before it have ended, the sink is flushed, and what the source had
//! heard of by the mark is safe.

use std::collections::BTreeSet;

/// Which steps are under way, in the order in which they were begun, and the mark among them.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    begun: u64,
    under_way: BTreeSet<u64>,
    mark: Option<u64>,
}

impl Checkpoints {
    /// A step is begun; its number.
    pub fn begin(&mut self) -> u64 {
        let step = self.begun;
        self.begun += 1;
        self.under_way.insert(step);
        step
    }

    /// A step has ended.
    pub fn end(&mut self, step: u64) {
        self.under_way.remove(&step);
    }

    /// Sets the mark behind the steps that have been begun.
    pub fn mark(&mut self) {
        self.mark = Some(self.begun);
    }

    /// Whether there is a mark.
    pub fn is_marked(&self) -> bool {
        self.mark.is_some()
    }

    /// Whether every step before the mark has ended.
    pub fn is_due(&self) -> bool {
        let oldest = self.under_way.first();
        self.mark
            .is_some_and(|mark| oldest.is_none_or(|step| *step >= mark))
    }

    /// What is before the mark has been noted.
    pub fn noted(&mut self) {
        self.mark = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_waits_for_the_steps_before_it_and_for_no_others() {
        let mut checkpoints = Checkpoints::default();
        let [first, second] = [checkpoints.begin(), checkpoints.begin()];
        assert!(!checkpoints.is_due());
        checkpoints.mark();
        let later = checkpoints.begin();
        checkpoints.end(later);
        checkpoints.end(second);
        assert!(checkpoints.is_marked() && !checkpoints.is_due());
        let _latest = checkpoints.begin();
        checkpoints.end(first);
        assert!(checkpoints.is_due());
        checkpoints.noted();
        assert!(!checkpoints.is_marked() && !checkpoints.is_due());
    }
}
