//! Going on with what another worker began that gives no sign of life any more.
//!
//! Whoever does so says it beside the backup first, then in its row, so that a worker that was only stopped
//! sees one or the other before it changes that row. What that one still writes into an image Ceph keeps from
//! it: going on breaks its exclusive lock, and puts it on the blocklist.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_compat::backup_record;
use api_compat::objects::Backup;
use api_compat::rpc::backup::TOPIC;
use api_compat::state::BackupStatus;
use chrono::NaiveDateTime;
use futures_util::{StreamExt, stream};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::owner::{Owner, QUESTIONS};
use super::startup::own_context;
use super::waiting::is_before_its_data;
use super::{Error, Manager, now};
use crate::db::Sign;
use crate::vault::{TakenOver, Vault, Worker};

/// What a host said last.
type Beat = (Option<NaiveDateTime>, i32);

/// Since when which other hosts have been silent, by this worker's own clock: theirs may be wrong.
#[derive(Debug, Default)]
struct Watch {
    seen: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    beat: Beat,
    since: Instant,
    /// After how much silence it is looked what was left behind.
    look: Duration,
}

impl Watch {
    /// Takes in what hosts said last; those that have been silent for so long that it has to be looked what
    /// they left behind.
    fn due(
        &mut self,
        said: impl IntoIterator<Item = (String, Beat)>,
        patience: Duration,
        now: Instant,
    ) -> Vec<String> {
        let mut before = std::mem::take(&mut self.seen);
        let mut due = Vec::new();
        for (host, beat) in said {
            let known = before.remove(&host).filter(|known| known.beat == beat);
            let known = known.unwrap_or(Seen {
                beat,
                since: now,
                look: patience,
            });
            if now.duration_since(known.since) >= known.look {
                due.push(host.clone());
            }
            self.seen.insert(host, known);
        }
        due
    }

    /// Has a host looked at again once it has been silent for twice as long: more may be asked of it for as
    /// long as others take it for alive.
    fn looked(&mut self, host: &str, now: Instant) {
        if let Some(seen) = self.seen.get_mut(host) {
            seen.look = now.duration_since(seen.since) * 2;
        }
    }
}

/// What hosts said last whose work this worker may take over: those of its zone, unless an operator wants
/// nothing done here.
fn others(signs: Vec<Sign>, host: &str, zone: &str) -> Vec<(String, Beat)> {
    if signs.iter().any(|sign| sign.host == host && sign.disabled) {
        return Vec::new();
    }
    signs
        .into_iter()
        .filter(|sign| sign.host != host && sign.zone.as_deref() == Some(zone))
        .map(|sign| (sign.host, sign.beat))
        .collect()
}

impl Manager {
    /// Goes on, for as long as this worker runs, with what others left unfinished that have been silent for
    /// as long as `takeover_after` says: workers of other hosts, and other workers of this one.
    pub async fn watch_over_others(self: Arc<Self>) {
        let Some(patience) = self.settings.takeover_after else {
            return;
        };
        let mut hosts = Watch::default();
        let mut company = HashMap::new();
        while !self.tasks.is_closed() {
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
            if *self.ready.borrow() {
                self.watch_hosts(&mut hosts, patience).await;
                self.watch_company(&mut company, patience).await;
            }
        }
    }

    async fn watch_hosts(self: &Arc<Self>, hosts: &mut Watch, patience: Duration) {
        let signs = match self.db.signs_of_life(TOPIC).await {
            Ok(signs) => signs,
            Err(error) => return debug!(%error, "Cannot see which workers live"),
        };
        let said = others(signs, &self.settings.host, &self.settings.availability_zone);
        for host in hosts.due(said, patience, Instant::now()) {
            if self.look_after_host(&host).await {
                hosts.looked(&host, Instant::now());
            }
        }
    }

    /// `company` has the other workers of this host, and when each was seen last.
    async fn watch_company(
        self: &Arc<Self>,
        company: &mut HashMap<Uuid, Instant>,
        patience: Duration,
    ) {
        let Some(alive) = self.alive().await else {
            return;
        };
        let others = alive.iter().filter(|worker| **worker != self.me);
        company.extend(others.map(|worker| (worker.id, Instant::now())));
        if company.values().all(|seen| seen.elapsed() < patience) {
            return;
        }
        let host = self.settings.host.clone();
        if self.take_over_all(&host).await {
            company.retain(|_, seen| seen.elapsed() < patience);
        }
    }

    /// Takes over what a host left behind if none of its workers lives; whether that could be seen. Workers of
    /// Python's tell nobody what they are at work on.
    async fn look_after_host(self: &Arc<Self>, host: &str) -> bool {
        let name = host.to_owned();
        let asking = self.ask(move |vault| async move {
            match vault.knows(&name).await? {
                true => vault.alive(&name).await.map(Some),
                false => Ok(None),
            }
        });
        match asking.await {
            Some(Some(alive)) if alive.is_empty() => self.take_over_all(host).await,
            Some(None) => true,
            _ => false,
        }
    }

    /// Whether it was seen of everything in whose hands it is.
    async fn take_over_all(self: &Arc<Self>, host: &str) -> bool {
        let rows = async {
            let ended = self.db.last_ended_backups(host, Self::LAST).await?;
            let unfinished = self.db.unfinished_backups(host).await?;
            Ok::<_, Error>((unfinished, ended))
        };
        let (unfinished, ended) = match rows.await {
            Ok(rows) => rows,
            Err(error) => {
                warn!(host, %error, "Cannot see what a worker left unfinished");
                return false;
            }
        };
        let mut seen = true;
        let mut left = Vec::new();
        for (row, owner) in self.owners(unfinished).await {
            match owner {
                Owner::Dead(dead) => left.push((row, Some(dead))),
                // Here it may still wait in the queue.
                Owner::Nobody if host != self.settings.host => left.push((row, None)),
                Owner::Unknown => seen = false,
                Owner::Nobody | Owner::Me | Owner::Living(_) => {}
            }
        }
        if !left.is_empty() {
            let (backups, patience) = (left.len(), self.settings.takeover_after);
            let seconds = patience.unwrap_or_default().as_secs();
            warn!(
                host,
                backups,
                "A worker has given no sign of life for {seconds} s: taking over what it left unfinished"
            );
        }
        for (row, owner) in self.owners(ended).await {
            if let Owner::Dead(dead) = owner {
                left.push((row, Some(dead)));
            }
        }
        stream::iter(left)
            .for_each_concurrent(QUESTIONS, async |(row, dead)| {
                let taken = self.take_over_one(&row, host, dead.as_ref()).await;
                if let Err(error) = taken {
                    error!(backup = %row.id, host, %error, "Cannot take the backup over");
                }
            })
            .await;
        seen
    }

    async fn take_over_one(
        self: &Arc<Self>,
        found: &Backup,
        host: &str,
        dead: Option<&Worker>,
    ) -> Result<(), Error> {
        let status = match found.status {
            Some(status) if BackupStatus::UNDER_WAY.contains(&status) => status,
            // Nothing but its temporary things is left of it.
            _ => return self.clean_up_one(found, dead).await,
        };
        if host == self.settings.host || !self.is_ours(found) {
            return self.clean_up_one(found, dead).await;
        }
        let prepared = self.was_prepared(found.id).await;
        let (id, me, of) = (found.id, self.me.clone(), host.to_owned());
        let target = found.restore_volume_id.as_deref();
        let target = target.and_then(|volume| volume.parse().ok());
        let taking =
            self.ask(move |vault| async move { vault.take_over(id, &of, &me, target).await });
        let target = match taking.await {
            Some(TakenOver::After { target, .. }) => target,
            // Another one was faster, or it is seen at the next look.
            _ => return Ok(()),
        };
        match status {
            BackupStatus::Creating if found.snapshot_id.is_none() => {
                self.end_attachments(found.volume_id, host).await?;
            }
            BackupStatus::Restoring => {
                if let Some(volume) = target {
                    self.end_attachments(volume, host).await?;
                }
            }
            _ => {}
        }
        let (hosts, now) = ((host, self.settings.host.as_str()), now().naive_utc());
        if !self.db.hand_over(id, status, hosts, now).await? {
            info!(backup = %id, "The backup was changed meanwhile, and is not taken over");
            self.disown(id).await;
            return Ok(());
        }
        info!(backup = %id, host, "Took the backup over");
        let row = Backup {
            host: Some(self.settings.host.clone()),
            ..found.clone()
        };
        if status == BackupStatus::Creating && is_before_its_data(&row) && !prepared {
            return self.take_over_unprepared(row).await;
        }
        self.clean_up_one(&row, Some(&self.me)).await
    }

    /// A backup whose request, or cinder-volume's answer, waits where nobody takes it.
    async fn take_over_unprepared(self: &Arc<Self>, row: Backup) -> Result<(), Error> {
        if backup_record::is_awaited(&row) {
            // The request had the record.
            self.end_interrupted(&row).await?;
            self.disown(row.id).await;
            return Ok(());
        }
        let manager = self.clone();
        self.spawn(async move {
            // What becomes of it is in the row and in the log.
            if let Err(error) = manager.begin_again(&row).await {
                debug!(backup = %row.id, %error, "A backup that was taken over was not begun");
            }
        });
        Ok(())
    }

    async fn begin_again(self: &Arc<Self>, found: &Backup) -> Result<(), Error> {
        let row = loop {
            let row = self.backup(found.id).await?;
            if row.status != found.status || row.host != found.host {
                self.disown(row.id).await;
                return Err(Error::CalledOff);
            }
            if !self.is_being_prepared(&row).await? || self.tasks.is_closed() {
                break row;
            }
            tokio::time::sleep(Vault::SIGN_OF_LIFE).await;
        };
        let context = own_context().for_owner(&row.user_id, &row.project_id);
        match row.temp_volume_id.is_some() || row.temp_snapshot_id.is_some() {
            true => self.make_again(context, &row).await,
            false => self.clone().create_backup(context, row).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(host: &str, zone: &str, disabled: bool) -> Sign {
        Sign {
            host: host.to_owned(),
            zone: Some(zone.to_owned()),
            disabled,
            beat: (None, 1),
        }
    }

    #[test]
    fn a_host_is_looked_after_once_it_was_silent_long_enough_and_then_less_and_less_often() {
        let begun = Instant::now();
        let mut watch = Watch::default();
        let mut due = |seconds: u64, beat: i32| {
            let (patience, now) = (
                Duration::from_secs(60),
                begun + Duration::from_secs(seconds),
            );
            let due = watch.due([("a".to_owned(), (None, beat))], patience, now);
            for host in &due {
                watch.looked(host, now);
            }
            !due.is_empty()
        };
        for (seconds, beat, expected) in [
            (0, 1, false),
            (30, 2, false),
            (89, 2, false),
            (90, 2, true),
            (95, 2, false),
            (149, 2, false),
            (150, 2, true),
            (269, 2, false),
            (270, 2, true),
            // It was back.
            (280, 3, false),
            (339, 3, false),
            (340, 3, true),
        ] {
            assert_eq!(due(seconds, beat), expected, "after {seconds} s");
        }
    }

    #[test]
    fn what_could_not_be_looked_after_is_due_again() {
        let mut watch = Watch::default();
        let mut due = |said: &[i32]| {
            let said = said.iter().map(|beat| ("a".to_owned(), (None, *beat)));
            watch.due(said, Duration::ZERO, Instant::now())
        };
        assert_eq!(due(&[1]), ["a"]);
        assert_eq!(due(&[1]), ["a"]);
        // Its row is gone.
        assert!(due(&[]).is_empty());
    }

    #[test]
    fn only_hosts_of_the_same_zone_are_looked_after_and_none_by_a_worker_that_is_disabled() {
        let named = |signs| {
            let others = others(signs, "me", "nova");
            others.into_iter().map(|(host, _)| host).collect::<Vec<_>>()
        };
        let hosts = |disabled| {
            vec![
                sign("me", "nova", disabled),
                sign("a", "nova", true),
                sign("b", "other", false),
            ]
        };
        assert_eq!(named(hosts(false)), ["a"]);
        assert!(named(hosts(true)).is_empty());
    }
}
