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
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::owner::Owner;
use super::startup::own_context;
use super::waiting::is_before_its_data;
use super::{Error, Manager, now};
use crate::db::Sign;
use crate::vault::{Stage, TakenOver, Vault, Worker};

/// How soon it is looked again at what could not be seen.
const SOON: Duration = Duration::from_secs(15);

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
    /// long as others take it for alive. Where not everything could be seen, somewhat later.
    fn looked(&mut self, host: &str, everything: bool, now: Instant) {
        if let Some(seen) = self.seen.get_mut(host) {
            let silent = now.duration_since(seen.since);
            seen.look = match everything {
                true => silent * 2,
                false => silent + SOON,
            };
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

/// Who is left of a host.
enum Lives {
    Nobody {
        /// Whether workers of ours have ever shown there that they live.
        knows_us: bool,
    },
    Somebody,
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
            if !*self.ready.borrow() || self.watch_hosts(&mut hosts, patience).await.is_none() {
                // Whoever cannot hear takes nobody for silent.
                hosts = Watch::default();
                company.clear();
                continue;
            }
            self.watch_company(&mut company, patience).await;
        }
    }

    /// None where it cannot be seen who lives.
    async fn watch_hosts(self: &Arc<Self>, hosts: &mut Watch, patience: Duration) -> Option<()> {
        let signs = match self.db.signs_of_life(TOPIC).await {
            Ok(signs) => signs,
            Err(error) => {
                debug!(%error, "Cannot see which workers live");
                return None;
            }
        };
        let said = others(signs, &self.settings.host, &self.settings.availability_zone);
        for host in hosts.due(said, patience, Instant::now()) {
            let everything = match self.lives(&host).await? {
                Lives::Nobody { knows_us } => self.take_over_all(&host, knows_us).await,
                Lives::Somebody => false,
            };
            hosts.looked(&host, everything, Instant::now());
        }
        Some(())
    }

    /// `company` has the other workers of this host, and when each was seen last.
    async fn watch_company(
        self: &Arc<Self>,
        company: &mut HashMap<Uuid, Instant>,
        patience: Duration,
    ) {
        let Some(alive) = self.alive().await else {
            return company.clear();
        };
        let others = alive.iter().filter(|worker| **worker != self.me);
        company.extend(others.map(|worker| (worker.id, Instant::now())));
        if company.values().all(|seen| seen.elapsed() < patience) {
            return;
        }
        let left = match self.db.unfinished_backups(&self.settings.host).await {
            Ok(left) => left,
            Err(error) => return warn!(%error, "Cannot see what a worker left unfinished"),
        };
        company.retain(|_, seen| seen.elapsed() < patience);
        for (row, owner) in self.owners(left).await {
            if matches!(owner, Owner::Dead(_) | Owner::Unknown) {
                self.look_again(row, owner);
            }
        }
    }

    /// Whether any worker of a host lives, as the backup cluster tells; none where it does not.
    async fn lives(&self, host: &str) -> Option<Lives> {
        let host = host.to_owned();
        let asking = self.ask(move |vault| async move {
            let knows_us = vault.knows(&host).await?;
            Ok(match vault.alive(&host).await?.is_empty() {
                true => Lives::Nobody { knows_us },
                false => Lives::Somebody,
            })
        });
        asking.await
    }

    /// Takes over what the workers of another host left, none of which lives. Whether everything could be
    /// seen. Python's tell nobody what they are at work on: what nobody seems to be at work on is only taken
    /// where the host `knows_us`, and nobody takes its requests.
    async fn take_over_all(self: &Arc<Self>, host: &str, knows_us: bool) -> bool {
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
        let unfinished = self.owners(unfinished).await;
        let unowned = unfinished.iter().any(|(_, owner)| *owner == Owner::Nobody);
        let (mut seen, unattended) = match knows_us && unowned {
            true => match self.amqp.consumers(TOPIC, host).await {
                Ok(consumers) => (consumers == 0, consumers == 0),
                Err(reason) => {
                    debug!(host, reason, "Cannot see who takes the requests to a host");
                    (false, false)
                }
            },
            false => (true, false),
        };
        let at_work = self.busy();
        let mut left = Vec::new();
        for (row, owner) in unfinished {
            let id = row.id;
            match owner {
                _ if !self.is_ours(&row) => {}
                Owner::Dead(dead) => left.push((row, Some(dead))),
                // An earlier look has begun to take it over.
                Owner::Me if !at_work.contains(&id) => left.push((row, None)),
                Owner::Nobody if unattended && !self.needs_token(&row) => left.push((row, None)),
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
        // One after another: all who do so wait for each other.
        for (row, dead) in left {
            match self.take_over_one(&row, host, dead.as_ref()).await {
                Ok(taken) => seen &= taken,
                Err(error) => {
                    error!(backup = %row.id, host, %error, "Cannot take the backup over");
                    seen = false;
                }
            }
        }
        seen
    }

    /// Whether only the request can be carried out, with the token of whoever asked: it waits for its host.
    fn needs_token(&self, row: &Backup) -> bool {
        let has_key = row.encryption_key_id.is_some();
        match row.status {
            Some(BackupStatus::Restoring) => has_key,
            Some(BackupStatus::Deleting) => has_key && !self.keys.acts_alone(),
            _ => false,
        }
    }

    /// Whether that was seen to its end, here or by another one.
    async fn take_over_one(
        self: &Arc<Self>,
        found: &Backup,
        host: &str,
        dead: Option<&Worker>,
    ) -> Result<bool, Error> {
        let status = match found.status {
            Some(status) if BackupStatus::UNDER_WAY.contains(&status) => status,
            // Nothing but its temporary things is left of it.
            _ => {
                self.clean_up_one(found, dead).await?;
                return Ok(true);
            }
        };
        let (id, me, of) = (found.id, self.me.clone(), host.to_owned());
        let target = found.restore_volume_id.as_deref();
        let target = target.and_then(|volume| volume.parse().ok());
        let taking =
            self.ask(move |vault| async move { vault.take_over(id, &of, &me, target).await });
        let (target, stage) = match taking.await {
            Some(TakenOver::After { target, stage, .. }) => (target, stage),
            Some(TakenOver::By(_)) => return Ok(true),
            // It may be so yet.
            None => return Ok(false),
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
            return Ok(true);
        }
        info!(backup = %id, host, "Took the backup over");
        // As it is now, and not as it was when it was looked for.
        let row = self.backup(id).await?;
        match row.status == Some(BackupStatus::Creating) && is_before_its_data(&row) {
            true if stage == Stage::Prepared => self.resume(&row),
            true => self.take_over_unprepared(row).await?,
            false => self.clean_up_one(&row, Some(&self.me)).await?,
        }
        Ok(true)
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
            if let Err(error) = manager.begin_again(&row).await {
                // What became of it is in the row.
                debug!(backup = %row.id, %error, "A backup that was taken over was not begun");
                manager.disown(row.id).await;
            }
        });
        Ok(())
    }

    async fn begin_again(self: &Arc<Self>, found: &Backup) -> Result<(), Error> {
        let mut ready = self.ready.clone();
        let is_ready = ready.wait_for(|ready| *ready);
        is_ready.await.map_err(|_| Error::CalledOff)?;
        let row = loop {
            let prepared = !self.is_being_prepared(found).await?;
            let row = self.backup(found.id).await?;
            if row.status != found.status || self.tasks.is_closed() {
                return Err(Error::CalledOff);
            }
            self.expect_here(&row)?;
            if prepared {
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
                watch.looked(host, true, now);
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
        watch.due(
            [("a".to_owned(), (None, 1))],
            Duration::ZERO,
            Instant::now(),
        );
        let now = Instant::now();
        watch.looked("a", false, now);
        for (later, expected) in [(SOON / 2, 0), (SOON, 1)] {
            let said = [("a".to_owned(), (None, 1))];
            let due = watch.due(said, Duration::ZERO, now + later);
            assert_eq!(due.len(), expected);
        }
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
