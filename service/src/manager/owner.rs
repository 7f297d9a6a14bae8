//! Telling other workers what this one is at work on, and leaving alone what they are.
//!
//! None of it is needed for the data to be right: whoever writes an image owns its exclusive lock, and
//! rows change only from the status that was read. It keeps a start from ending what runs elsewhere and a
//! reset from removing what is read elsewhere, and has restores of one backup wait for each other. An
//! operation does not fail because its owner cannot be recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::rpc::backup::TOPIC;
use api_compat::state::BackupStatus;
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::claim::{Claim, Phase};
use super::{Error, Manager, lock};
use crate::vault::{self, Owned, Stage, Vault, Worker};

/// How long the cluster is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is asked who restores a backup before its end is written without an answer.
const ATTEMPTS: usize = 3;

/// How long a stop looks for other workers of its host.
const LOOK: Duration = Duration::from_secs(1);

/// How many questions about owners may be open. One that is not answered holds a thread for as long as
/// its placement group is away, whoever waits for the answer, and there are not many threads.
pub(super) const QUESTIONS: usize = 16;

/// For how long it is known who takes the requests to this host.
const STRANGERS_KNOWN: Duration = Duration::from_secs(5);

/// Who is at work on a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody is recorded: it was not begun, or has ended in order.
    Nobody,
    /// This process.
    Me,
    /// Another process that lives.
    Living(Worker),
    /// Another process, which has ended in the middle.
    Dead(Worker),
    /// The cluster does not tell.
    Unknown,
}

/// The operation has to end without a word: another worker carries it out.
pub(super) fn taken_over(backup: BackupId) -> Error {
    Error::Elsewhere(format!("Another worker has taken backup {backup} over."))
}

impl Manager {
    /// Shows that this worker lives, again and again, and what it is no longer at work on.
    pub async fn live(self: Arc<Self>) {
        let mut shown = false;
        loop {
            // A worker that was stopped need not have seen how long that took.
            let lapsed = shown
                && self
                    .alive()
                    .await
                    .is_some_and(|alive| !alive.contains(&self.me));
            match self.vault.show_life(&self.me).await {
                Ok(()) => shown = true,
                Err(error) => {
                    debug!(%error, "Cannot show other workers of this host that this one lives");
                }
            }
            // Others need not hear later that it lives because this takes its time.
            let manager = self.clone();
            tokio::spawn(async move {
                if lapsed {
                    manager.leave_what_was_taken_over().await;
                }
                manager.disown_what_is_left().await;
            });
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
        }
    }

    /// Tells the others that this worker has ended.
    pub async fn end_life(&self) {
        let me = self.me.clone();
        let _ = self
            .ask(move |vault| async move { vault.end_life(&me).await })
            .await;
    }

    /// Records that this worker is at work on a backup, and how far it has come.
    pub(super) async fn own(&self, backup: BackupId, stage: Stage) {
        let me = self.me.clone();
        let owned = self.ask(move |vault| async move { vault.own(backup, &me, stage).await });
        if owned.await.is_none() {
            self.cannot_be_seen(backup);
        }
    }

    /// Waits until no other worker of this host is at work on a backup, and records that this one is:
    /// several volumes may be created from one backup at a time. Returns as well when the restore is called
    /// off, or the backup is no longer one to restore.
    pub(super) async fn own_in_turn(&self, claim: &Claim<'_>, target: VolumeId) {
        let backup = claim.backup;
        let waiting = async {
            let mut told = false;
            while let Some(owner) = self.own_unless_owned(backup, target).await {
                if !told {
                    info!(%backup, worker = %owner.id, "Waiting for another worker of this host");
                }
                told = true;
                tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
                let row = self.db.backup(backup).await.ok().flatten();
                let status = row.and_then(|row| row.status);
                if !matches!(
                    status,
                    Some(BackupStatus::Available | BackupStatus::Restoring)
                ) {
                    return;
                }
            }
        };
        claim.enter(Phase::WaitingForAnotherWorker);
        if let Some(running) = lock(&self.running).get_mut(&backup) {
            running.target = Some(target);
        }
        tokio::select! {
            () = claim.cancel().cancelled() => {}
            () = waiting => {}
        }
        claim.enter(Phase::Preparing);
    }

    /// Whether the worker that was at work on a backup had all that it needed from others.
    pub(super) async fn was_prepared(&self, backup: BackupId) -> bool {
        let asking = self.ask(move |vault| async move { vault.stage(backup).await });
        asking.await.flatten() == Some(Stage::Prepared)
    }

    async fn own_unless_owned(&self, backup: BackupId, target: VolumeId) -> Option<Worker> {
        let me = self.me.clone();
        let owned =
            self.ask(move |vault| async move { vault.own_unless_owned(backup, &me, target).await });
        match owned.await {
            Some(Owned::By(other)) => Some(other),
            Some(Owned::Yes { left: Some(left) }) => {
                if let Err(error) = self.give_up_what_is_left(left).await {
                    warn!(%backup, volume = %left, %error, "A volume waits for a restore in vain");
                }
                None
            }
            Some(Owned::Yes { left: None }) => None,
            None => {
                self.cannot_be_seen(backup);
                None
            }
        }
    }

    /// Ends the restore to a volume at which another worker has died, and with which nobody goes on.
    async fn give_up_what_is_left(&self, volume: VolumeId) -> Result<(), Error> {
        let Some(status) = self.awaiting(volume).await? else {
            return Ok(());
        };
        info!(%volume, "A worker died while it restored to the volume");
        self.give_target_up(volume, &status).await
    }

    /// Records that it no longer is. Where the cluster does not take that now it is tried again later:
    /// others would wait for this worker.
    pub(super) async fn disown(&self, backup: BackupId) {
        if !self.forget(backup, &self.me).await {
            lock(&self.left_owned).insert(backup);
        }
    }

    /// Ends what others go on with, for whom this worker was dead for a while: it was stopped, or cut off.
    async fn leave_what_was_taken_over(&self) {
        let running: Vec<(BackupId, Option<VolumeId>)> = lock(&self.running)
            .iter()
            .map(|(backup, running)| (*backup, running.target))
            .collect();
        for (backup, target) in running {
            let asking = self.ask(move |vault| async move { vault.owner_and_target(backup).await });
            let taken_over = match asking.await.flatten() {
                Some((owner, of)) => owner != self.me && (target.is_none() || of == target),
                None => false,
            };
            if taken_over && let Some(running) = lock(&self.running).get(&backup) {
                warn!(%backup, "Another worker has taken the backup over");
                running.cancel.cancel();
            }
        }
    }

    /// Whether another worker has taken over the restore to a volume. It is not so where the backup is
    /// restored to another volume, too, by another worker.
    pub(super) async fn is_taken_over(&self, backup: BackupId, target: VolumeId) -> bool {
        for _ in 0..ATTEMPTS {
            let asking = self.ask(move |vault| async move { vault.owner_and_target(backup).await });
            match asking.await {
                Some(Some((owner, of))) => return owner != self.me && of == Some(target),
                Some(None) => return false,
                None => {}
            }
        }
        false
    }

    async fn disown_what_is_left(&self) {
        let left: Vec<BackupId> = lock(&self.left_owned).iter().copied().collect();
        for backup in left {
            let at_work = lock(&self.running).contains_key(&backup);
            if !at_work && self.forget(backup, &self.me).await {
                lock(&self.left_owned).remove(&backup);
            }
        }
    }

    /// What was to be written may be so yet, and after the operation has ended.
    fn cannot_be_seen(&self, backup: BackupId) {
        warn!(%backup, "Other workers of this host cannot see that this one is at work on the backup");
        lock(&self.left_owned).insert(backup);
    }

    /// Forgets that a worker was at work on a backup, once that is dealt with; whether that was written.
    pub(super) async fn forget(&self, backup: BackupId, worker: &Worker) -> bool {
        let worker = worker.clone();
        let forgotten = self.ask(move |vault| async move { vault.disown(backup, &worker).await });
        let forgotten = forgotten.await.is_some();
        if !forgotten {
            debug!(%backup, "What tells that a worker is at work on the backup stays");
        }
        forgotten
    }

    /// Whether another worker of this host lives, or did a moment ago where the cluster does not tell
    /// soon.
    pub async fn has_company(&self) -> bool {
        let _ = tokio::time::timeout(LOOK, self.alive()).await;
        self.company.load(Ordering::Relaxed)
    }

    /// The workers of this host that live.
    pub(super) async fn alive(&self) -> Option<Vec<Worker>> {
        let host = self.me.host.clone();
        let asking = self.ask(move |vault| async move { vault.alive(&host).await });
        let alive = asking.await?;
        let others = alive.iter().any(|worker| worker != &self.me);
        self.company.store(others, Ordering::Relaxed);
        Some(alive)
    }

    /// Who is at work on a backup.
    pub(super) async fn owner(&self, backup: BackupId) -> Owner {
        let me = self.me.clone();
        let asking = self.ask(move |vault| async move {
            let Some(owner) = vault.owner(backup).await? else {
                return Ok(Owner::Nobody);
            };
            if owner == me {
                return Ok(Owner::Me);
            }
            let alive = vault.alive(&owner.host).await?;
            Ok(match alive.contains(&owner) {
                true => Owner::Living(owner),
                false => Owner::Dead(owner),
            })
        });
        asking.await.unwrap_or(Owner::Unknown)
    }

    /// Whether a worker takes requests to this host that is none of ours: Python's tells nobody what it
    /// is at work on. Where that cannot be seen there may be one.
    pub(super) async fn has_strangers(&self) -> bool {
        // One connection for all who ask.
        let mut known = self.strangers.lock().await;
        if let Some((asked, are_there)) = *known
            && asked.elapsed() < STRANGERS_KNOWN
        {
            return are_there;
        }
        let are_there = self.look_for_strangers().await;
        *known = Some((Instant::now(), are_there));
        are_there
    }

    async fn look_for_strangers(&self) -> bool {
        let host = &self.settings.host;
        let asking = self.amqp.consumers(TOPIC, host);
        let consumers = match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(consumers)) => usize::try_from(consumers).unwrap_or(usize::MAX),
            Ok(Err(reason)) => {
                debug!(reason, "Cannot see who takes the requests to this host");
                return true;
            }
            Err(_) => return true,
        };
        let ours = self.alive().await.map_or(1, |alive| alive.len().max(1));
        // Without any, not even this worker's, what waits in the queue is carried out later.
        consumers == 0 || consumers > ours
    }

    /// Who is at work on each of some backups. All are asked for at once, so that the answer takes no
    /// longer than that about one.
    pub(super) async fn owners(&self, backups: Vec<Backup>) -> Vec<(Backup, Owner)> {
        if self.alive().await.is_none() {
            let unknown = |backup| (backup, Owner::Unknown);
            return backups.into_iter().map(unknown).collect();
        }
        let mut asked = stream::iter(backups)
            .map(async |backup| {
                let owner = self.owner(backup.id).await;
                (backup, owner)
            })
            .buffered(QUESTIONS);
        let mut found = Vec::new();
        while let Some(owned) = asked.next().await {
            found.push(owned);
        }
        found
    }

    /// What the cluster answers in good time. The question stays open until it does, and counts as one for
    /// as long.
    pub(super) async fn ask<T, F>(&self, question: impl FnOnce(Arc<Vault>) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = vault::Result<T>> + Send + 'static,
    {
        Self::ask_among(&self.questions, question(self.vault.clone())).await
    }

    /// The same for one of other questions than those about owners.
    pub(super) async fn ask_among<T, F>(questions: &Arc<Semaphore>, asking: F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = vault::Result<T>> + Send + 'static,
    {
        let questions = questions.clone();
        let answer = async {
            let open = questions.acquire_owned().await.ok()?;
            let asking = tokio::spawn(async move {
                let _open = open;
                asking.await
            });
            match asking.await.ok()? {
                Ok(answer) => Some(answer),
                Err(error) => {
                    debug!(%error, "The backup cluster does not tell, or cannot be told");
                    None
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    }
}
