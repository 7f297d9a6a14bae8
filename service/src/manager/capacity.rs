//! How much is done at once.

use crate::transfer::{Direction, Limits};
use crate::turns::{Places, Turns};

/// How much the worker does at once. Zeros do not limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// Backups and restores (`backup_max_operations`).
    pub operations: usize,
    /// Those of one project (`max_operations_per_project`); 0 leaves an eighth to others.
    pub of_a_project: usize,
    /// Reads and writes of all of them (`transfer_operations`).
    pub transfers: usize,
    /// Bytes a second that backups read (`backup_bandwidth`).
    pub backup_bandwidth: u64,
    /// Bytes a second that restores read (`restore_bandwidth`).
    pub restore_bandwidth: u64,
}

impl Ceilings {
    /// How many operations there may be. One that waits is a parked task: it holds no place that another
    /// request, such as a quick call, would need.
    fn places(&self) -> Places {
        let all = unless_zero(self.operations);
        let of_a_group = match (self.of_a_project, self.operations) {
            (0, 0) => usize::MAX,
            (0, all) => all - all / 8,
            (most, _) => most,
        };
        Places { all, of_a_group }
    }
}

fn unless_zero(most: usize) -> usize {
    match most {
        0 => usize::MAX,
        most => most,
    }
}

/// What the operations of a worker share.
pub struct Capacity {
    /// Backups and restores that run.
    pub operations: Turns,
    /// Of what they move.
    pub limits: Limits,
}

impl Capacity {
    /// So much.
    pub fn new(ceilings: &Ceilings) -> Self {
        let capacity = Self {
            operations: Turns::new(Places::UNLIMITED),
            limits: Limits::none(),
        };
        capacity.set(ceilings);
        capacity
    }

    /// So much from now on, also for what is under way.
    pub fn set(&self, ceilings: &Ceilings) {
        self.operations.set(ceilings.places());
        self.limits.set_operations(unless_zero(ceilings.transfers));
        let bandwidth = |ceiling| Some(ceiling).filter(|ceiling| *ceiling > 0);
        let Ceilings {
            backup_bandwidth,
            restore_bandwidth,
            ..
        } = *ceilings;
        self.limits
            .set_bandwidth(Direction::Backup, bandwidth(backup_bandwidth));
        self.limits
            .set_bandwidth(Direction::Restore, bandwidth(restore_bandwidth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_leaves_room_for_others_where_there_is_some() {
        for (operations, of_a_project, all, of_a_group) in [
            (0, 0, usize::MAX, usize::MAX),
            (0, 3, usize::MAX, 3),
            (1, 0, 1, 1),
            (7, 0, 7, 7),
            (15, 0, 15, 14),
            (64, 0, 64, 56),
            (15, 15, 15, 15),
            (15, 2, 15, 2),
        ] {
            let ceilings = Ceilings {
                operations,
                of_a_project,
                transfers: 0,
                backup_bandwidth: 0,
                restore_bandwidth: 0,
            };
            assert_eq!(ceilings.places(), Places { all, of_a_group });
        }
    }
}
