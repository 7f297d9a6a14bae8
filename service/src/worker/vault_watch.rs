//! Whether the backup pool can be worked with, asked again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::manager::Manager;

/// How soon a vault that cannot be worked with is asked again at first.
const FIRST: Duration = Duration::from_secs(1);

/// How long the cluster may take to answer one look.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps `ready` true to what the vault says, until `stop`. While it cannot be worked with it is
/// asked with growing pauses, at most `interval` apart.
pub async fn run(
    manager: Arc<Manager>,
    ready: watch::Sender<bool>,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut pause = FIRST;
    let mut told = false;
    // A look that gets no answer is waited for again instead of another: each takes up a thread.
    let mut look = Box::pin(manager.vault().check());
    loop {
        let looked = tokio::time::timeout(PATIENCE, &mut look).await;
        if looked.is_ok() {
            look = Box::pin(manager.vault().check());
        }
        let failure = match looked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let works = failure.is_none();
        match failure {
            Some(error) if !told || *ready.borrow() => {
                error!(error, "The backup pool cannot be worked with");
                told = true;
            }
            Some(_) => {}
            None if !*ready.borrow() => info!("The backup pool can be worked with"),
            None => {}
        }
        ready.send_if_modified(|ready| std::mem::replace(ready, works) != works);
        pause = match works {
            true => FIRST,
            false => (pause * 2).min(interval),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if works { interval } else { pause }) => {}
        }
    }
}
