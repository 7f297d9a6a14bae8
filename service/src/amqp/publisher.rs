//! The connection that publishes.

use std::sync::Arc;
use std::time::Duration;

use api_compat::messaging::queue::{Declaration, Exchange};
use lapin::Confirmation;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::session::Session;
use super::{Broker, CallError, connection};

/// Where a message goes.
pub enum Target {
    /// An exchange that is declared first.
    Exchange {
        /// The exchange.
        exchange: Exchange,
        /// The routing key.
        routing_key: String,
    },
    /// A queue that is declared first, with its exchange.
    Queue(Box<Declaration>),
    /// A queue that must exist.
    Reply(String),
}

/// A message on its way out.
pub struct Message {
    /// Where it goes.
    pub target: Target,
    /// Its bytes.
    pub body: Vec<u8>,
    /// When the broker drops it.
    pub expiration: Option<Duration>,
}

impl Message {
    /// A message that waits for its consumer for ever.
    pub fn new(target: Target, body: Vec<u8>) -> Self {
        Self {
            target,
            body,
            expiration: None,
        }
    }

    /// The broker drops the message when nobody has consumed it by then.
    pub fn expires(mut self, after: Duration) -> Self {
        self.expiration = Some(after);
        self
    }

    /// The exchange's name.
    pub fn exchange(&self) -> &str {
        match &self.target {
            Target::Exchange { exchange, .. } => &exchange.name,
            Target::Queue(queue) => queue.exchange.as_ref().map_or("", |e| e.name.as_str()),
            Target::Reply(_) => "",
        }
    }

    /// By which the exchange finds the queue.
    pub fn routing_key(&self) -> &str {
        match &self.target {
            Target::Exchange { routing_key, .. } => routing_key,
            Target::Queue(queue) => &queue.routing_key,
            Target::Reply(queue) => queue,
        }
    }
}

/// Publishes with confirmation, on one connection that is made when it is needed.
pub struct Publisher {
    broker: Arc<Broker>,
    session: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// How many sessions there were: tells whether a broken one was replaced meanwhile.
    generation: usize,
}

impl Publisher {
    /// A publisher that connects at its first message.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self {
            broker,
            session: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    /// Publishes a message. When this returns, the broker has it.
    ///
    /// # Errors
    /// `Unreachable` when the deadline passes first, `Unroutable` when the queue of a reply is gone.
    pub async fn publish(
        &self,
        message: Message,
        deadline: Option<Instant>,
    ) -> Result<(), CallError> {
        let mut tries = 0;
        loop {
            let attempt = async {
                tokio::select! {
                    () = self.closed.cancelled() => Err("messaging is closed".to_owned()),
                    outcome = self.attempt(&message) => outcome,
                }
            };
            let outcome = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, attempt).await,
                None => Ok(attempt.await),
            };
            let reason = match outcome {
                Ok(Ok(Confirmation::Ack(None) | Confirmation::NotRequested)) => return Ok(()),
                Ok(Ok(Confirmation::Ack(Some(_)))) => {
                    return Err(CallError::Unroutable(message.routing_key().to_owned()));
                }
                Ok(Ok(Confirmation::Nack(_))) => "the broker refused the message".to_owned(),
                Ok(Err(reason)) => reason,
                Err(_) => return Err(CallError::Unreachable("no confirmation in time".to_owned())),
            };
            tries += 1;
            let wait = self.broker.retry.wait(tries);
            if self.closed.is_cancelled()
                || deadline.is_some_and(|deadline| Instant::now() + wait > deadline)
            {
                return Err(CallError::Unreachable(reason));
            }
            debug!(reason, tries, "Publishing again in {} s", wait.as_secs());
            tokio::select! {
                () = self.closed.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn attempt(&self, message: &Message) -> Result<Confirmation, String> {
        let (session, generation) = self.session().await?;
        let outcome = session.publish(message).await;
        if outcome.is_err() {
            self.discard(generation).await;
        }
        outcome
    }

    /// The session, connected.
    async fn session(&self) -> Result<(Arc<Session>, usize), String> {
        let mut state = self.session.lock().await;
        if let Some(session) = state.session.as_ref().filter(|session| session.is_usable()) {
            return Ok((session.clone(), state.generation));
        }
        if state.generation > 0 {
            warn!("Lost the message broker for sending");
        }
        let session = Arc::new(self.connect(state.generation).await?);
        if state.generation > 0 {
            info!("Reached the message broker again for sending");
        }
        state.generation += 1;
        state.session = Some(session.clone());
        Ok((session, state.generation))
    }

    async fn connect(&self, turn: usize) -> Result<Session, String> {
        let mut reason = String::new();
        for host in 0..self.broker.url.hosts.len() {
            match connection::open(&self.broker, turn + host, "send").await {
                Ok(connection) => return Session::open(connection).await,
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    async fn discard(&self, generation: usize) {
        let mut state = self.session.lock().await;
        if state.generation == generation {
            state.session = None;
        }
    }

    /// Closes the connection; nothing can be published afterwards.
    pub async fn close(&self) {
        // Whoever holds the lock now lets it go.
        self.closed.cancel();
        if let Some(session) = self.session.lock().await.session.take() {
            session.close().await;
        }
    }
}
