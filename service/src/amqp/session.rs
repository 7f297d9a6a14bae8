//! One connection that publishes, for as long as it lasts.

use std::collections::HashSet;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::Mutex;
use tracing::{debug, warn};

use super::publisher::{Message, Target};
use super::{declare, wire};

/// How long the broker may take to confirm one message; blocked by an alarm, it takes none.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection with its channels, all of them with confirmations.
pub struct Session {
    connection: Connection,
    channel: Channel,
    /// For messages that come back when their queue is missing. A returned message names no
    /// publish, and confirmations may come for several at once: which one has failed is certain
    /// only where a single one is under way.
    answers: Mutex<Option<Channel>>,
    /// What was declared on this connection.
    declared: Mutex<HashSet<String>>,
}

impl Session {
    /// Prepares a new connection.
    ///
    /// # Errors
    /// The broker's reason.
    pub async fn open(connection: Connection) -> Result<Self, String> {
        let channel = in_time(confirming(&connection)).await?;
        Ok(Self {
            connection,
            channel,
            answers: Mutex::default(),
            declared: Mutex::default(),
        })
    }

    /// Whether it can still publish.
    pub fn is_usable(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Publishes a message, what it needs being declared first.
    ///
    /// # Errors
    /// The reason why the broker did not confirm it. The session is of no further use then.
    pub async fn publish(&self, message: &Message) -> Result<Confirmation, String> {
        in_time(self.declare(message)).await?;
        match message.target {
            Target::Reply(_) => self.publish_answer(message).await,
            _ => in_time(send(&self.channel, message)).await,
        }
    }

    async fn publish_answer(&self, message: &Message) -> Result<Confirmation, String> {
        let mut place = self.answers.lock().await;
        // If this is broken off, the channel with the verdict that is still to come goes with it.
        let channel = match place.take() {
            Some(channel) => channel,
            None => in_time(confirming(&self.connection)).await?,
        };
        let confirmation = in_time(send(&channel, message)).await?;
        *place = Some(channel);
        Ok(confirmation)
    }

    /// Declares what the message needs, once for a connection: publishing to an exchange that does
    /// not exist closes the channel.
    async fn declare(&self, message: &Message) -> Result<(), String> {
        let name = match &message.target {
            Target::Exchange { exchange, .. } => &exchange.name,
            Target::Queue(queue) => &queue.queue.name,
            Target::Reply(_) => return Ok(()),
        };
        let mut known = self.declared.lock().await;
        if known.contains(name) {
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
        known.insert(name.clone());
        Ok(())
    }

    /// Says good-bye to the broker, which has this long to answer.
    pub async fn close(&self, limit: Duration) {
        let closing = self.connection.close(200, "OK".into());
        if !matches!(tokio::time::timeout(limit, closing).await, Ok(Ok(()))) {
            debug!("Closed the connection for sending without a farewell");
        }
    }
}

/// Publishes on a channel and waits for the verdict.
async fn send(channel: &Channel, message: &Message) -> Result<Confirmation, String> {
    let (exchange, routing_key) = message.names().map_err(|error| error.to_string())?;
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
        .basic_publish(exchange, routing_key, options, &message.body, properties)
        .await
        .map_err(text)?
        .await
        .map_err(text)
}

async fn confirming(connection: &Connection) -> Result<Channel, String> {
    let channel = connection.create_channel().await.map_err(text)?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .map_err(text)?;
    Ok(channel)
}

/// Bounds what waits for the broker and is not bounded by itself.
async fn in_time<T>(asking: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answered = tokio::time::timeout(CONFIRM_TIMEOUT, asking).await;
    let silence = "the broker does not confirm; is it blocked by an alarm?";
    answered.unwrap_or_else(|_| Err(silence.to_owned()))
}

fn text(error: lapin::Error) -> String {
    error.to_string()
}
