//! Turns: what only one worker, or tool, may do at a time.

use std::time::Duration;

use api_compat::ids::VolumeId;
use api_compat::names;
use tracing::debug;
use uuid::Uuid;

use super::{Error, Result};
use crate::rbd::{self, ErrorKind, Pool};

/// How long a turn lasts of which nothing more is heard: whoever had it has died.
const LASTS: Duration = Duration::from_secs(15);

/// How often it is said that a turn lasts.
const RENEWED: Duration = Duration::from_secs(5);

/// How often it is looked whether it is one's turn, and for how long.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(300);

/// Does something when nobody else has a turn on this object.
///
/// # Errors
/// Those of the work; `Busy` if it was not one's turn for minutes. If the turn cannot be kept the work is
/// broken off.
pub(super) async fn in_turn<T>(
    pool: &Pool,
    object: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let turn = Turn::take(pool, object).await?;
    let done = turn.work(work).await;
    // Where this fails the turn is over by itself in a moment.
    let _ = pool.end_turn(object, &turn.holder).await;
    done
}

/// The same for the manifests of a volume's backups, which build on each other. Nothing is left of the
/// object.
pub(super) async fn in_turn_of<T>(
    pool: &Pool,
    volume: VolumeId,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let object = names::turn_object(volume);
    let turn = match Turn::take(pool, &object).await {
        // Where there is no room for the object, either, backups can be deleted for all that.
        Err(error) if error.kind() == Some(ErrorKind::NoSpace) => return work.await,
        turn => turn?,
    };
    let done = turn.work(work).await;
    if let Err(error) = turn.end_for_good().await {
        debug!(object, %error, "A turn ends by itself");
    }
    done
}

struct Turn<'a> {
    pool: &'a Pool,
    object: &'a str,
    /// Of this turn, not of the worker: that may want several.
    holder: String,
}

impl<'a> Turn<'a> {
    async fn take(pool: &'a Pool, object: &'a str) -> Result<Self> {
        let holder = Uuid::new_v4().to_string();
        let taking = async {
            while !pool.take_turn(object, &holder, LASTS).await? {
                tokio::time::sleep(LOOK).await;
            }
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(PATIENCE, taking).await {
            Ok(taken) => taken?,
            Err(_) => {
                let reason = "others work on it for minutes";
                return Err(
                    rbd::Error::new(ErrorKind::Busy, "take the turn on", object, reason).into(),
                );
            }
        }
        Ok(Self {
            pool,
            object,
            holder,
        })
    }

    async fn work<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let keeping = async {
            loop {
                tokio::time::sleep(RENEWED).await;
                let kept = self.pool.keep_turn(self.object, &self.holder, LASTS);
                if let Err(error) = kept.await {
                    return error;
                }
            }
        };
        tokio::select! {
            done = work => done,
            error = keeping => Err(error.into()),
        }
    }

    /// Takes the object away, which ends the turn, too, if it has not passed to somebody else.
    async fn end_for_good(&self) -> rbd::Result<()> {
        let kept = self.pool.keep_turn(self.object, &self.holder, LASTS);
        kept.await?;
        self.pool.remove_object(self.object).await.map(drop)
    }
}
