//! Turns: what only one worker, or tool, should do at a time.
//!
//! Nobody is kept from anything for long: a turn lasts for a bounded time, and where it cannot be had by then, or
//! the cluster does not take it, the work is done without. So it has to be safe without: all that a turn
//! prevents is that two who look first and then write do not see each other.

use std::time::{Duration, Instant};

use api_compat::ids::VolumeId;
use api_compat::names;
use tracing::debug;
use uuid::Uuid;

use super::Result;
use crate::rbd::{self, Pool};

/// How long a turn at a volume's manifests lasts: whoever has it for longer has died, or is very slow.
const MANIFESTS: Duration = Duration::from_secs(30);

/// How often it is looked at first whether it is one's turn, and later.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Does something when nobody else has a turn on this object, which lasts for so long at most.
pub(super) async fn in_turn<T>(
    pool: &Pool,
    object: &str,
    lasts: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let turn = Turn::new(pool, object, lasts);
    turn.come().await;
    let done = work.await;
    if let Err(error) = pool.end_turn(object, &turn.holder).await {
        debug!(object, %error, "A turn ends by itself");
    }
    done
}

/// The same for the manifests of a volume's backups, which build on each other. Of the object nothing is
/// left, but for whoever is killed in the middle, until the next turn.
pub(super) async fn in_turn_of<T>(
    pool: &Pool,
    volume: VolumeId,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let object = names::turn_object(volume);
    let turn = Turn::new(pool, &object, MANIFESTS);
    let taken = turn.come().await;
    let begun = Instant::now();
    let done = work.await;
    if taken && let Err(error) = turn.end_for_good(begun).await {
        debug!(object, %error, "A turn ends by itself");
    }
    done
}

struct Turn<'a> {
    pool: &'a Pool,
    object: &'a str,
    lasts: Duration,
    /// Of this turn, not of the worker: that may want several.
    holder: String,
}

impl<'a> Turn<'a> {
    fn new(pool: &'a Pool, object: &'a str, lasts: Duration) -> Self {
        Self {
            pool,
            object,
            lasts,
            holder: Uuid::new_v4().to_string(),
        }
    }

    async fn take(&self) -> rbd::Result<bool> {
        let taking = self.pool.take_turn(self.object, &self.holder, self.lasts);
        taking.await
    }

    /// Waits until it is taken, or that of whoever had it must be over; whether it was taken.
    async fn come(&self) -> bool {
        let begun = Instant::now();
        let mut pause = LOOK;
        while begun.elapsed() < self.lasts + LOOK_AGAIN {
            match self.take().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    debug!(object = self.object, %error, "There are no turns now");
                    return false;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN);
        }
        false
    }

    /// Takes the object away, and with it the turn, unless somebody else may have it by now: who does the
    /// same then.
    async fn end_for_good(&self, begun: Instant) -> rbd::Result<()> {
        if begun.elapsed() * 2 < self.lasts || self.take().await? {
            self.pool.remove_object(self.object).await?;
        }
        Ok(())
    }
}
