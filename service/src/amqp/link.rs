//! The connection that publishes: made when it is first needed, and anew when it was lost.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::absence::Absence;
use super::session::Session;
use super::{Broker, connection, options};

/// What the connection is for, in its name and in the log.
const PURPOSE: &str = "send";

/// At most one session, and at most one task that tries to get one. Whoever needs a session waits
/// for that task: giving up early does not set it back to the first host. Clones share both.
#[derive(Clone)]
pub struct Link {
    broker: Arc<Broker>,
    state: Arc<watch::Sender<State>>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    connecting: Option<JoinHandle<()>>,
    /// How many attempts there were; each takes the next host.
    turn: usize,
    /// Why there was no session the last time that there was none.
    reason: Option<String>,
}

impl Link {
    /// Nothing is connected yet.
    pub fn new(broker: Arc<Broker>, closed: CancellationToken) -> Self {
        Self {
            broker,
            state: Arc::default(),
            closed,
        }
    }

    /// The session, once there is one.
    pub async fn session(&self) -> Arc<Session> {
        let mut states = self.state.subscribe();
        loop {
            self.connect();
            let connected = states.wait_for(|state| state.session.is_some()).await;
            // The sender is `self`'s.
            if let Some(session) = connected.ok().and_then(|state| state.session.clone()) {
                return session;
            }
        }
    }

    /// Tells that a session is of no further use.
    pub fn lost(&self, session: &Arc<Session>, reason: &str) {
        self.state.send_modify(|state| {
            if state
                .session
                .as_ref()
                .is_some_and(|s| Arc::ptr_eq(s, session))
            {
                state.session = None;
                state.reason = Some(reason.to_owned());
            }
        });
    }

    /// Why there is no session.
    pub fn reason(&self) -> Option<String> {
        self.state.borrow().reason.clone()
    }

    /// Starts to connect, unless there is a session or a task that gets one.
    fn connect(&self) {
        self.state.send_if_modified(|state| {
            if let Some(session) = &state.session {
                if session.is_usable() {
                    return false;
                }
                state.session = None;
                state.reason = Some("the connection was lost".to_owned());
            }
            let at_work = state
                .connecting
                .as_ref()
                .is_some_and(|task| !task.is_finished());
            if !at_work {
                let lost = state.reason.take();
                state.connecting = Some(tokio::spawn(self.clone().run(lost)));
            }
            true
        });
    }

    /// Tries one host after the other until one takes us.
    async fn run(self, lost: Option<String>) {
        let closed = self.closed.clone();
        let Some(session) = closed.run_until_cancelled(self.reach(lost)).await else {
            return;
        };
        self.state.send_modify(|state| {
            state.connecting = None;
            // Closing may have come between: whoever closes has looked already.
            if !closed.is_cancelled() {
                state.reason = None;
                state.session = Some(Arc::new(session));
            }
        });
    }

    async fn reach(&self, lost: Option<String>) -> Session {
        let mut absence = match lost {
            Some(reason) => Absence::of_lost(PURPOSE, &reason),
            None => Absence::new(PURPOSE),
        };
        let mut rounds = 0;
        loop {
            rounds += 1;
            for _ in &self.broker.url.hosts {
                match self.attempt().await {
                    Ok(session) => {
                        absence.end();
                        return session;
                    }
                    Err(reason) => {
                        self.state
                            .send_modify(|state| state.reason = Some(reason.clone()));
                        absence.add(&reason);
                    }
                }
            }
            let wait = self.broker.retry.wait(rounds) + options::jitter();
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self) -> Result<Session, String> {
        let mut turn = 0;
        self.state.send_modify(|state| {
            turn = state.turn;
            state.turn = turn.wrapping_add(1);
        });
        let connection = connection::open(&self.broker, turn, PURPOSE).await?;
        Session::open(connection).await
    }

    /// Says good-bye to the broker.
    pub async fn close(&self) {
        let mut session = None;
        self.state
            .send_modify(|state| session = state.session.take());
        if let Some(session) = session {
            session.close(self.broker.farewell_timeout).await;
        }
    }
}
