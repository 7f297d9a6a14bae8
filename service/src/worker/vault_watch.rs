//! Whether the backup pool can be worked with, asked again and again.

use std::sync::Arc;
use std::time::Duration;

use api_compat::config::Ceph;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::manager::Manager;
use crate::outage::Outage;
use crate::rbd::{self, ErrorKind};
use crate::settings::CONNECT_TIMEOUT;
use crate::vault;

/// How soon a vault that cannot be worked with is asked again at first.
const FIRST: Duration = Duration::from_secs(1);

/// How often a vault that works is asked at least: one small read, which an operator who is woken
/// would want to have been made.
const OFTEN: Duration = Duration::from_secs(10);

/// How long the cluster may take to answer one look: connecting has a limit of its own, with a better
/// reason.
const PATIENCE: Duration = CONNECT_TIMEOUT.saturating_add(Duration::from_secs(5));

/// How long it may take before an operator is told: whatever runs waits as well.
const SLOW: Duration = Duration::from_secs(10);

/// Keeps `ready` true to what the vault says, until `stop`. While it cannot be worked with it is
/// asked with growing pauses, at most `interval` apart.
pub async fn run(
    manager: Arc<Manager>,
    ceph: Ceph,
    ready: watch::Sender<bool>,
    interval: Duration,
    stop: CancellationToken,
) {
    info!(
        backup_ceph_conf = %ceph.backup_ceph_conf.display(),
        backup_ceph_user = ceph.backup_ceph_user,
        "Connecting to the backup cluster"
    );
    let mut pause = FIRST;
    let mut outage = Outage::default();
    // A look that gets no answer is waited for again instead of another: each takes up a thread.
    let mut look = Box::pin(manager.vault().check());
    loop {
        let mut looked = tokio::time::timeout(SLOW, &mut look).await;
        if looked.is_err() {
            let (error, advice) = no_answer(&ceph, SLOW);
            if outage.failed(&error) {
                warn!(
                    error,
                    advice,
                    backup_ceph_conf = %ceph.backup_ceph_conf.display(),
                    "The backup cluster does not answer; operations wait for it"
                );
            }
            looked = tokio::time::timeout(PATIENCE - SLOW, &mut look).await;
        }
        if looked.is_ok() {
            look = Box::pin(manager.vault().check());
        }
        let failure = match looked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((error.to_string(), advice(&error, &ceph))),
            Err(_) => Some(no_answer(&ceph, PATIENCE)),
        };
        let works = failure.is_none();
        match failure {
            Some((error, advice)) if outage.failed(&error) => error!(
                error,
                advice,
                backup_ceph_conf = %ceph.backup_ceph_conf.display(),
                backup_ceph_user = ceph.backup_ceph_user,
                backup_ceph_pool = ceph.backup_ceph_pool,
                "The backup pool cannot be worked with; trying again, at least every {} s",
                interval.as_secs()
            ),
            Some(_) => {}
            None => {
                let away = outage.ended();
                if away.is_some() || !*ready.borrow() {
                    info!(
                        away_seconds = away.map(|away| away.as_secs()),
                        backup_ceph_conf = %ceph.backup_ceph_conf.display(),
                        backup_ceph_user = ceph.backup_ceph_user,
                        backup_ceph_pool = ceph.backup_ceph_pool,
                        "The backup pool can be worked with"
                    );
                }
            }
        }
        ready.send_if_modified(|ready| std::mem::replace(ready, works) != works);
        pause = match works {
            true => FIRST,
            false => (pause * 2).min(interval),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if works { interval.min(OFTEN) } else { pause }) => {}
        }
    }
}

/// That the cluster does not answer, and what to look at.
fn no_answer(ceph: &Ceph, waited: Duration) -> (String, Option<String>) {
    let (cluster, pool) = (ceph.cluster_name(), &ceph.backup_ceph_pool);
    let seconds = waited.as_secs();
    (
        format!("no answer from cluster {cluster} for {seconds} s"),
        Some(format!(
            "see whether its monitors and the OSDs of pool {pool} are up"
        )),
    )
}

/// What an operator may do about an error, where that is plain.
fn advice(error: &vault::Error, ceph: &Ceph) -> Option<String> {
    let vault::Error::Rbd(error) = error else {
        return None;
    };
    let (user, pool) = (&ceph.backup_ceph_user, &ceph.backup_ceph_pool);
    match (error.operation(), error.kind()) {
        (rbd::CONNECT, ErrorKind::Unreachable) => {
            Some("see whether the monitors in backup_ceph_conf can be reached".to_owned())
        }
        (rbd::CONNECT, _) => {
            let hint = error.hint()?;
            Some(format!(
                "{hint}; compare it with `ceph auth get client.{user}`"
            ))
        }
        (rbd::READ_CONF, _) => Some("see backup_ceph_conf".to_owned()),
        (rbd::OPEN_POOL, ErrorKind::NotFound) => Some("see backup_ceph_pool".to_owned()),
        (_, ErrorKind::Permission) => Some(format!(
            "client.{user} needs the capabilities mon 'profile rbd', osd 'profile rbd pool={pool}'"
        )),
        _ => None,
    }
}
