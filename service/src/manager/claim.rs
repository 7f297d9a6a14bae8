//! One operation at a time on a backup, for as long as its result is wanted.

use std::collections::hash_map::Entry;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_compat::ids::{BackupId, VolumeId};
use api_compat::notification::BackupEvent;
use api_compat::state::{BackupStatus, is_wanted};
use futures_util::future::{Either, select};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::pace::{Pace, Told};
use super::stall::{LONG, Motion, Stall};
use super::{Context, Error, Manager, lock, now};
use crate::transfer::{Direction, Job, Progress};
use crate::turns::{Group, Turn};
use crate::vault;

/// How often the status of a backup is looked at while its data is moved.
const LOOK: Duration = Duration::from_secs(5);

/// The same while it waits for room, as thousands may.
const LOOK_WAITING: Duration = Duration::from_secs(60);

/// How long an operation that is called off may take to end in order. More than a transfer takes to
/// drain.
const LEAVE: Duration = Duration::from_secs(20);

/// Bytes of an object of an RBD image, as they are counted in `object_count`.
const OBJECT: u64 = 4 << 20;

/// An operation that works on a backup.
#[derive(Clone)]
pub(super) struct Running {
    /// Since when.
    pub begun: Instant,
    /// Tells it to end.
    pub cancel: CancellationToken,
    /// Tells others that it has ended.
    ended: CancellationToken,
    /// Whether it is a deletion, which nobody ends but a reset.
    deletes: bool,
    /// The volume to which it restores.
    pub target: Option<VolumeId>,
    /// What it is at.
    pub phase: Phase,
    /// The data that it moves.
    pub moving: Option<(Direction, Arc<Progress>)>,
}

/// What an operation is at, for an operator who asks why nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// cinder-volume is asked for what is to be read.
    WaitingForCinderVolume,
    /// Reads rows, looks at images, tells others.
    Preparing,
    /// Other operations of this worker take all the room.
    WaitingForRoom,
    /// Another worker of this host is at work on the same backup.
    WaitingForAnotherWorker,
    /// cinder-volume, or os-brick, connects the volume.
    Attaching,
    /// Bytes flow.
    MovingData,
    /// An operator has paused it.
    Paused,
    /// No more bytes flow: what was written is recorded, or removed.
    Ending,
    /// What a backup consists of is removed.
    Deleting,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::WaitingForCinderVolume,
        Self::Preparing,
        Self::WaitingForRoom,
        Self::WaitingForAnotherWorker,
        Self::Attaching,
        Self::MovingData,
        Self::Paused,
        Self::Ending,
        Self::Deleting,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::WaitingForCinderVolume => "waiting_for_cinder_volume",
            Self::Preparing => "preparing",
            Self::WaitingForRoom => "waiting_for_room",
            Self::WaitingForAnotherWorker => "waiting_for_another_worker",
            Self::Attaching => "attaching",
            Self::MovingData => "moving_data",
            Self::Paused => "paused",
            Self::Ending => "ending",
            Self::Deleting => "deleting",
        })
    }
}

impl Running {
    fn new(deletes: bool) -> Self {
        Self {
            begun: Instant::now(),
            cancel: CancellationToken::new(),
            ended: CancellationToken::new(),
            deletes,
            target: None,
            phase: match deletes {
                true => Phase::Deleting,
                false => Phase::Preparing,
            },
            moving: None,
        }
    }
}

/// One operation's claim on a backup, given back when dropped.
pub(super) struct Claim<'a> {
    manager: &'a Manager,
    /// The backup.
    pub backup: BackupId,
    running: Running,
}

impl Claim<'_> {
    /// Ends the operation when it is cancelled.
    pub fn cancel(&self) -> &CancellationToken {
        &self.running.cancel
    }

    /// What the operation is at from now.
    pub fn enter(&self, phase: Phase) {
        if let Some(running) = lock(&self.manager.running).get_mut(&self.backup) {
            running.phase = phase;
        }
    }

    /// The transfer that the operation begins, for the project that asks for it.
    pub fn job(&self, direction: Direction, context: &Context) -> Job {
        let limits = &self.manager.capacity.limits;
        let job = Job {
            cancel: self.running.cancel.clone(),
            ..Job::new(limits.share(direction, project(context)))
        };
        self.enter(Phase::MovingData);
        if let Some(running) = lock(&self.manager.running).get_mut(&self.backup) {
            running.moving = Some((direction, job.progress.clone()));
        }
        job
    }

    /// Waits for room among the operations, for as long as the backup has `status` and nobody calls
    /// the operation off.
    pub async fn admit(&self, context: &Context, status: BackupStatus) -> Option<Turn> {
        let (operations, project) = (&self.manager.capacity.operations, project(context));
        if operations.is_full(&project) {
            info!(backup = %self.backup, "Waiting until another operation has ended");
        }
        self.enter(Phase::WaitingForRoom);
        let room = tokio::select! {
            biased;
            () = self.running.cancel.cancelled() => None,
            room = operations.take(&project) => Some(room),
            () = self.manager.look_after(status, self, None) => None,
        };
        self.enter(Phase::Preparing);
        room
    }

    /// Does a part of the operation that is short, unless a cluster does not answer. Once the
    /// operation is called off the part is given a moment to end in order, and is then dropped: it
    /// might never end.
    pub async fn carry<T, E>(
        &self,
        mut part: Pin<Box<impl Future<Output = Result<T, E>>>>,
    ) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let part = async {
            if let Ok(done) = tokio::time::timeout(LONG, &mut part).await {
                return done;
            }
            let (backup, seconds) = (self.backup, LONG.as_secs());
            warn!(%backup, "No answer from a cluster for {seconds} s; the operation waits for it");
            part.await
        };
        self.until_called_off(Box::pin(part)).await
    }

    async fn until_called_off<T, E>(
        &self,
        mut part: Pin<Box<impl Future<Output = Result<T, E>>>>,
    ) -> Result<T, Error>
    where
        Error: From<E>,
    {
        tokio::select! {
            biased;
            done = &mut part => return Ok(done?),
            () = self.running.cancel.cancelled() => {}
        }
        match tokio::time::timeout(LEAVE, part).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Error::CalledOff),
        }
    }
}

/// Who shares with others what the worker can do.
fn project(context: &Context) -> Group {
    context.project_id().unwrap_or_default().into()
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.manager.running).remove(&self.backup);
        self.running.ended.cancel();
    }
}

impl Manager {
    /// Claims a backup for one operation; `None` when another one of this process has it.
    pub(super) fn claim(&self, backup: BackupId) -> Option<Claim<'_>> {
        let claimed = self.try_claim(backup, false);
        if claimed.is_err() {
            warn!(%backup, "Already at work on this backup: the message is ignored");
        }
        claimed.ok()
    }

    /// Claims a backup when the operation that works on it has ended. Its result may stand in the
    /// rows already, and the next request be here, while it still tells others of it.
    pub(super) async fn claim_next(&self, backup: BackupId) -> Claim<'_> {
        self.claim_in_turn(backup, false).await
    }

    async fn claim_in_turn(&self, backup: BackupId, deletes: bool) -> Claim<'_> {
        loop {
            match self.try_claim(backup, deletes) {
                Ok(claim) => return claim,
                Err(running) => running.ended.cancelled().await,
            }
        }
    }

    /// Claims a backup for its deletion: an operation that still runs is told to end, save another
    /// deletion.
    pub(super) async fn take_over(&self, backup: BackupId) -> Claim<'_> {
        if let Some(running) = lock(&self.running).get(&backup)
            && !running.deletes
        {
            info!(%backup, "Ending what still runs on this backup");
            running.cancel.cancel();
        }
        self.claim_in_turn(backup, true).await
    }

    fn try_claim(&self, backup: BackupId, deletes: bool) -> Result<Claim<'_>, Running> {
        match lock(&self.running).entry(backup) {
            Entry::Occupied(other) => Err(other.get().clone()),
            Entry::Vacant(free) => Ok(Claim {
                manager: self,
                backup,
                running: free.insert(Running::new(deletes)).clone(),
            }),
        }
    }

    /// Moves the data of a backup that has `status`, for as long as the result is wanted: a reset or
    /// a forced delete may have reached another worker.
    pub(super) async fn while_it_is<T>(
        &self,
        status: BackupStatus,
        claim: &Claim<'_>,
        context: &Context,
        progress: &Progress,
        moving: Pin<Box<impl Future<Output = vault::Result<T>>>>,
    ) -> Result<T, Error> {
        let moved = {
            let moving = claim.until_called_off(moving);
            let looking = self.look_after(status, claim, Some((context, progress)));
            tokio::pin!(moving, looking);
            match select(moving, looking).await {
                Either::Left((moved, _)) => moved,
                Either::Right(((), moving)) => moving.await,
            }
        };
        claim.enter(Phase::Ending);
        match self.is_wanted(status, claim).await {
            Ok(false) => Err(Error::CalledOff),
            // Data that is complete is not given up because the row cannot be understood.
            Ok(true) | Err(_) => moved,
        }
    }

    /// Returns when the result of an operation is not wanted any more, and cancels it. Tells how far
    /// its data is, and when it stands still.
    async fn look_after(
        &self,
        status: BackupStatus,
        claim: &Claim<'_>,
        moving: Option<(&Context, &Progress)>,
    ) {
        let mut stall = Stall::default();
        let mut pace = Pace::new(self.settings.progress_interval, 0);
        let interval = match moving {
            Some(_) => LOOK,
            None => LOOK_WAITING,
        };
        loop {
            tokio::time::sleep(interval).await;
            let progress = moving.map(|(_, progress)| progress);
            if let Some(progress) = progress
                && status == BackupStatus::Creating
            {
                self.count_objects(claim.backup, progress).await;
            }
            if let Some((context, progress)) = moving
                && let Some(told) = pace.look(progress.planned(), progress.done())
            {
                self.tell_progress(context, status, claim.backup, &told)
                    .await;
            }
            // What is planned changes, too, while nothing is found that has to be moved.
            let moves = progress.filter(|_| !self.capacity.limits.is_paused());
            let seen = moves.map(|progress| (progress.planned(), progress.done()));
            match seen.and_then(|seen| stall.look(seen)) {
                None => {}
                Some(Motion::Stopped) => warn!(
                    backup = %claim.backup,
                    "No data has been moved for {} s; a cluster may not answer, or limits hold it up",
                    LONG.as_secs()
                ),
                Some(Motion::Resumed) => info!(backup = %claim.backup, "The data is moved again"),
            }
            match self.is_wanted(status, claim).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => debug!(backup = %claim.backup, %error, "Cannot look at the backup"),
            }
        }
        info!(
            backup = %claim.backup,
            "The backup is no longer {status} here, or its volume no longer waits: ending the operation"
        );
        claim.cancel().cancel();
    }

    /// Tells the log how far an operation is, and of a backup whoever gets notifications.
    async fn tell_progress(
        &self,
        context: &Context,
        status: BackupStatus,
        backup: BackupId,
        told: &Told,
    ) {
        info!(
            %backup,
            "{:.1} % of the data is dealt with, at {:.1} MiB/s{}",
            told.percent,
            told.rate as f64 / (1 << 20) as f64,
            match told.left {
                Some(left) => format!("; about {} s are left", left.as_secs()),
                None => String::new(),
            }
        );
        if status == BackupStatus::Creating
            && let Ok(row) = self.backup(backup).await
        {
            let event = BackupEvent::CreateProgress(told.percent);
            // What is not wanted any more is to be noticed while the broker is away, too.
            let _ = tokio::time::timeout(LOOK, self.notify(context, &row, event)).await;
        }
    }

    /// Lets Cinder's API tell how far a backup is.
    pub(super) async fn count_objects(&self, backup: BackupId, progress: &Progress) {
        let objects = progress.done().div_ceil(OBJECT);
        let objects = i32::try_from(objects).unwrap_or(i32::MAX);
        let now = now().naive_utc();
        if let Err(error) = self.db.count_objects(backup, objects, now).await {
            debug!(%backup, %error, "Cannot note how far the backup is");
        }
    }

    async fn is_wanted(&self, status: BackupStatus, claim: &Claim<'_>) -> Result<bool, Error> {
        let Some(row) = self.db.backup(claim.backup).await? else {
            return Ok(false);
        };
        if !row.status.is_some_and(|now| is_wanted(status, now)) {
            return Ok(false);
        }
        // Another worker may have taken over, and have ended already what this one is still at.
        let target = lock(&self.running)
            .get(&claim.backup)
            .and_then(|it| it.target);
        match target {
            None => Ok(status != BackupStatus::Creating || self.expect_here(&row).is_ok()),
            Some(volume) => Ok(self.awaiting(volume).await?.is_some()),
        }
    }
}
