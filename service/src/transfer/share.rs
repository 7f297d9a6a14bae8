//! What transfers share, and what one of them may take of it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::rate::Rate;
use crate::turns::{Group, Places, Turn, Turns};

/// Which way data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a volume to its backup.
    Backup,
    /// From a backup to a volume.
    Restore,
}

impl fmt::Display for Direction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        })
    }
}

/// What all transfers of a process share, besides memory; changeable while they run.
#[derive(Clone)]
pub struct Limits {
    shared: Arc<Shared>,
}

struct Shared {
    /// Operations on storage.
    operations: Turns,
    backup: Rate,
    restore: Rate,
    paused: watch::Sender<bool>,
}

impl Limits {
    /// As much of everything as there is.
    pub fn none() -> Self {
        Self {
            shared: Arc::new(Shared {
                operations: Turns::new(Places::UNLIMITED),
                backup: Rate::new(),
                restore: Rate::new(),
                paused: watch::Sender::new(false),
            }),
        }
    }

    /// How many reads and writes all transfers keep in flight, shared fairly between groups.
    pub fn set_operations(&self, operations: usize) {
        self.shared.operations.set(Places {
            all: operations,
            ..Places::UNLIMITED
        });
    }

    /// How many bytes a second may go one way; none for as many as there are.
    pub fn set_bandwidth(&self, direction: Direction, ceiling: Option<u64>) {
        self.shared.rate(direction).set(ceiling);
    }

    /// Has transfers begin no more reads and writes, or go on. Whether that is a change.
    pub fn pause(&self, paused: bool) -> bool {
        self.shared.paused.send_if_modified(|now| {
            let changed = *now != paused;
            *now = paused;
            changed
        })
    }

    /// Whether transfers are paused.
    pub fn is_paused(&self) -> bool {
        *self.shared.paused.borrow()
    }

    /// What a transfer of a group may take.
    pub fn share(&self, direction: Direction, group: Group) -> Share {
        Share {
            limits: self.clone(),
            direction,
            group,
        }
    }
}

impl Shared {
    fn rate(&self, direction: Direction) -> &Rate {
        match direction {
            Direction::Backup => &self.backup,
            Direction::Restore => &self.restore,
        }
    }
}

/// What one transfer may take of what all share.
#[derive(Clone)]
pub struct Share {
    limits: Limits,
    direction: Direction,
    group: Group,
}

impl Share {
    /// Waits until an operation that moves so many bytes may begin. It ends when what is returned is
    /// dropped.
    pub(super) async fn admit(self, bytes: u64) -> Turn {
        let shared = &self.limits.shared;
        // First, so that what waits for bandwidth keeps no place from what need not.
        shared.rate(self.direction).pass(&self.group, bytes).await;
        let turn = shared.operations.take(&self.group).await;
        let mut paused = shared.paused.subscribe();
        // Whoever could change it is alive: it is shared.
        let _ = paused.wait_for(|paused| !paused).await;
        turn
    }
}

/// A transfer, as whoever started it sees it.
#[derive(Clone)]
pub struct Job {
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Ends it.
    pub cancel: CancellationToken,
    /// What it may take.
    pub share: Share,
}

impl Job {
    /// One that shares with others.
    pub fn new(share: Share) -> Self {
        Self {
            progress: Arc::default(),
            cancel: CancellationToken::new(),
            share,
        }
    }

    /// A part of it that tells nobody how far it is.
    pub(super) fn aside(&self) -> Self {
        Self {
            progress: Arc::default(),
            ..self.clone()
        }
    }
}

/// One that may take as much as there is.
impl Default for Job {
    fn default() -> Self {
        Self::new(Limits::none().share(Direction::Backup, Group::from("")))
    }
}
