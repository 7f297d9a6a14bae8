//! The connection that publishes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api_compat::messaging::queue::{Declaration, Exchange};
use lapin::Confirmation;
use lapin::types::ShortString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::link::Link;
use super::{Broker, CallError, Retry, wire};

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

    /// The exchange, and by what it finds the queue.
    ///
    /// # Errors
    /// When one of them is too long.
    pub fn names(&self) -> io::Result<(ShortString, ShortString)> {
        let exchange = match &self.target {
            Target::Exchange { exchange, .. } => &exchange.name,
            Target::Queue(queue) => queue.exchange.as_ref().map_or("", |e| e.name.as_str()),
            Target::Reply(_) => "",
        };
        Ok((wire::short(exchange)?, wire::short(self.routing_key())?))
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
    retry: Retry,
    link: Link,
    closed: CancellationToken,
}

impl Publisher {
    /// A publisher that connects at its first message.
    pub fn new(broker: Arc<Broker>) -> Self {
        let closed = CancellationToken::new();
        Self {
            retry: broker.retry,
            link: Link::new(broker, closed.clone()),
            closed,
        }
    }

    /// Publishes a message. When this returns, the broker has it.
    ///
    /// # Errors
    /// `Unreachable` when the deadline passes first, `Unroutable` when the queue of a reply is gone
    /// or there can be none.
    pub async fn publish(&self, message: Message, deadline: Instant) -> Result<(), CallError> {
        if let Err(error) = message.names() {
            return Err(CallError::Unroutable(error.to_string()));
        }
        let mut refused = None;
        let publishing = tokio::time::timeout_at(deadline, self.insist(&message, &mut refused));
        let reason = match self.closed.run_until_cancelled(publishing).await {
            Some(Ok(outcome)) => return outcome,
            Some(Err(_)) => {
                let reason = self.link.reason().or(refused);
                reason.unwrap_or_else(|| "no confirmation in time".to_owned())
            }
            None => "messaging is closed".to_owned(),
        };
        debug!(reason, "Gave up sending a message");
        Err(CallError::Unreachable(reason))
    }

    /// Publishes until the broker has it, or has no place for it. `refused` tells why it did not
    /// take it.
    async fn insist(
        &self,
        message: &Message,
        refused: &mut Option<String>,
    ) -> Result<(), CallError> {
        let mut tries = 0;
        loop {
            let session = self.link.session().await;
            let reason = match session.publish(message).await {
                Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => return Ok(()),
                Ok(Confirmation::Ack(Some(_))) => {
                    return Err(CallError::Unroutable(message.routing_key().to_owned()));
                }
                Ok(Confirmation::Nack(_)) => "the broker refused the message".to_owned(),
                Err(reason) => {
                    self.link.lost(&session, &reason);
                    reason
                }
            };
            tries += 1;
            let wait = self.retry.wait(tries);
            debug!(reason, tries, "Publishing again in {} s", wait.as_secs());
            *refused = Some(reason);
            tokio::time::sleep(wait).await;
        }
    }

    /// Closes the connection; nothing can be published afterwards.
    pub async fn close(&self) {
        self.closed.cancel();
        self.link.close().await;
    }
}
