//! Signals: TERM and INT end the worker in order, HUP has it look at its configuration again, TSTP and CONT
//! have its transfers rest and go on, USR2 has it tell what it does.

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To end.
    Terminate,
    /// To take up what can change while it runs.
    Reload,
    /// To have transfers rest.
    Pause,
    /// To have them go on.
    Resume,
    /// To tell what it does.
    Report,
}

/// The signals that the worker listens to.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    stop: unix::Signal,
    resume: unix::Signal,
    user2: unix::Signal,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            stop: unix::signal(SignalKind::from_raw(libc::SIGTSTP))?,
            resume: unix::signal(SignalKind::from_raw(libc::SIGCONT))?,
            user2: unix::signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Terminate,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.stop.recv() => Signal::Pause,
            _ = self.resume.recv() => Signal::Resume,
            _ = self.user2.recv() => Signal::Report,
        }
    }

    /// Waits until the worker is asked to end.
    pub async fn terminated(&mut self) {
        while self.next().await != Signal::Terminate {}
    }
}
