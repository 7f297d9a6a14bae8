//! Ends a target that hangs, with the input that it hangs at.

use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::trial;

/// Nothing that is tried takes a second, also in a build for tests on a machine that does other things besides.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks on from a thread of its own, until it is dropped.
pub struct Watch(Sender<Vec<u8>>);

impl Watch {
    pub fn start(target: &str) -> Self {
        let (sender, receiver) = mpsc::channel::<Vec<u8>>();
        let target = target.to_owned();
        thread::spawn(move || {
            let mut last = Vec::new();
            loop {
                match receiver.recv_timeout(PATIENCE) {
                    Ok(input) => last = input,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        let saved = trial::save(&format!("{target}-hangs"), &last);
                        let again = trial::again(&target, &saved);
                        eprintln!("{target} hangs since {PATIENCE:?}. Again: {again}");
                        process::exit(1);
                    }
                }
            }
        });
        Self(sender)
    }

    /// An input is about to be tried.
    pub fn sees(&self, input: &[u8]) {
        // The thread ends after this, or with the process.
        let _ = self.0.send(input.to_vec());
    }
}
