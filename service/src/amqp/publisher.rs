//! The connection that publishes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api_compat::messaging::queue::{Declaration, Exchange};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Broker, CallError, connection, declare, wire};

/// How long the broker may take to confirm one message; blocked by an alarm, it takes none.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

const NO_ANSWER: &str = "the broker does not confirm; is it blocked by an alarm?";

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
    target: Target,
    body: Vec<u8>,
    expiration: Option<Duration>,
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

    fn exchange(&self) -> &str {
        match &self.target {
            Target::Exchange { exchange, .. } => &exchange.name,
            Target::Queue(queue) => queue.exchange.as_ref().map_or("", |e| e.name.as_str()),
            Target::Reply(_) => "",
        }
    }

    fn routing_key(&self) -> &str {
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
    session: Option<Session>,
    /// How many sessions there were: tells whether a broken one was replaced meanwhile.
    generation: usize,
}

struct Session {
    connection: Connection,
    channel: Channel,
    /// What was declared on this connection.
    declared: HashSet<String>,
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
        let (channel, generation) = self.channel(message).await?;
        let confirmed = async {
            let options = BasicPublishOptions {
                mandatory: matches!(message.target, Target::Reply(_)),
                ..BasicPublishOptions::default()
            };
            let mut properties = wire::properties();
            if let Some(expiration) = message.expiration {
                let milliseconds = expiration.as_millis().to_string();
                properties = properties.with_expiration(milliseconds.into());
            }
            channel
                .basic_publish(
                    message.exchange().into(),
                    message.routing_key().into(),
                    options,
                    &message.body,
                    properties,
                )
                .await?
                .await
        };
        let outcome = match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(confirmation)) => return Ok(confirmation),
            Ok(Err(error)) => error.to_string(),
            Err(_) => NO_ANSWER.to_owned(),
        };
        self.discard(generation).await;
        Err(outcome)
    }

    /// The channel, connected and with the message's exchange declared.
    async fn channel(&self, message: &Message) -> Result<(Channel, usize), String> {
        let mut state = self.session.lock().await;
        let usable = |session: &Session| {
            session.connection.status().connected() && session.channel.status().connected()
        };
        if !state.session.as_ref().is_some_and(usable) {
            if state.generation > 0 {
                warn!("Lost the message broker for sending");
            }
            state.session = Some(self.connect(state.generation).await?);
            if state.generation > 0 {
                info!("Reached the message broker again for sending");
            }
            state.generation += 1;
        }
        let generation = state.generation;
        let Some(session) = &mut state.session else {
            return Err("no connection".to_owned());
        };
        if let Err(error) = in_time(session.declare(message)).await {
            state.session = None;
            return Err(error);
        }
        Ok((session.channel.clone(), generation))
    }

    async fn connect(&self, turn: usize) -> Result<Session, String> {
        let mut reason = String::new();
        for host in 0..self.broker.url.hosts.len() {
            match connection::open(&self.broker, turn + host, "send").await {
                Ok(connection) => return in_time(Session::open(connection)).await,
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
            let closing = session.connection.close(200, "OK".into());
            if !matches!(
                tokio::time::timeout(Duration::from_secs(5), closing).await,
                Ok(Ok(()))
            ) {
                debug!("Closed the connection for sending without a farewell");
            }
        }
    }
}

impl Session {
    async fn open(connection: Connection) -> Result<Self, String> {
        let channel = connection.create_channel().await.map_err(text)?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(text)?;
        Ok(Self {
            connection,
            channel,
            declared: HashSet::new(),
        })
    }

    /// Declares what the message needs, once for a connection: publishing to an exchange that does
    /// not exist closes the channel.
    async fn declare(&mut self, message: &Message) -> Result<(), String> {
        let name = match &message.target {
            Target::Exchange { exchange, .. } => &exchange.name,
            Target::Queue(queue) => &queue.queue.name,
            Target::Reply(_) => return Ok(()),
        };
        if self.declared.contains(name) {
            return Ok(());
        }
        let declared = match &message.target {
            Target::Exchange { exchange, .. } => {
                declare::exchange(&self.connection, exchange).await
            }
            Target::Queue(queue) => declare::queue(&self.connection, queue).await,
            Target::Reply(_) => Ok(()),
        };
        if let Err(reason) = declared {
            if !self.connection.status().connected() {
                return Err(reason);
            }
            // What is there may do; if not, the message comes back or its channel is closed.
            warn!(name, reason, "Cannot declare; sending to what is there");
        }
        self.declared.insert(name.clone());
        Ok(())
    }
}

/// Bounds what waits for the broker and is not bounded by itself.
async fn in_time<T>(asking: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answered = tokio::time::timeout(CONFIRM_TIMEOUT, asking).await;
    answered.unwrap_or_else(|_| Err(NO_ANSWER.to_owned()))
}

fn text(error: lapin::Error) -> String {
    error.to_string()
}
