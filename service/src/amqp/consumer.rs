//! A connection that consumes queues, made anew for as long as it is wanted.

use std::sync::Arc;
use std::time::Duration;

use api_compat::messaging::queue::Declaration;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions};
use lapin::{Channel, Connection, ErrorKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Options, connection, wire};

/// Messages that are delivered before the first of them is acknowledged, where the configuration
/// sets no limit: the rest waits in the broker, not in this process.
const PREFETCH: u16 = 64;

/// AMQP's reply code for a declaration that does not fit what is there.
const PRECONDITION_FAILED: u16 = 406;

/// What to consume, and where deliveries go.
pub struct Consumer {
    /// The configuration.
    pub options: Arc<Options>,
    /// What the connection is for, in its name and in the log.
    pub purpose: &'static str,
    /// The queues.
    pub queues: Vec<Declaration>,
    /// Ends the loop.
    pub stop: CancellationToken,
    /// Whether the queues are being consumed.
    pub ready: watch::Sender<bool>,
}

impl Consumer {
    /// Consumes until [`Consumer::stop`] is cancelled. `handle` gets each delivery, one after
    /// another, and acknowledges it or hands it on.
    pub async fn run<F>(mut self, mut handle: impl FnMut(Delivery) -> F)
    where
        F: Future<Output = ()>,
    {
        let mut tries: u32 = 0;
        let mut turn = 0;
        while !self.stop.is_cancelled() {
            let ended = self.session(turn, &mut tries, &mut handle).await;
            self.ready.send_replace(false);
            let Err(reason) = ended else { break };
            if tries == 0 {
                warn!(purpose = self.purpose, reason, "Lost the message broker");
            } else {
                debug!(
                    purpose = self.purpose,
                    reason, tries, "No message broker yet"
                );
            }
            tries += 1;
            turn += 1;
            let wait = self.options.broker.retry.wait(tries) + jitter();
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection's life. Returns normally when it was told to stop.
    async fn session<F>(
        &mut self,
        turn: usize,
        tries: &mut u32,
        handle: &mut impl FnMut(Delivery) -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = ()>,
    {
        let connection = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            connection = connection::open(&self.options.broker, turn, self.purpose) => connection?,
        };
        let channel = connection.create_channel().await.map_err(text)?;
        self.limit(&channel).await?;
        let mut streams = Vec::new();
        for (tag, queue) in (1..).zip(&mut self.queues) {
            declare(&connection, queue).await?;
            let consumer = channel
                .basic_consume(
                    queue.queue.name.as_str().into(),
                    tag.to_string().into(),
                    BasicConsumeOptions::default(),
                    wire::table(&queue.consumer_arguments),
                )
                .await
                .map_err(text)?;
            let name = queue.queue.name.clone();
            // A consumer that ends, because its queue is gone, is as much an end as an error.
            let ended = futures_util::stream::once(async { None });
            streams.push(
                consumer
                    .map(Some)
                    .chain(ended)
                    .map(move |delivery| (name.clone(), delivery))
                    .boxed(),
            );
        }
        if *tries > 0 {
            info!(purpose = self.purpose, "Reached the message broker again");
        }
        *tries = 0;
        self.ready.send_replace(true);
        let mut deliveries = select_all(streams);
        loop {
            let delivery = tokio::select! {
                () = self.stop.cancelled() => {
                    self.close(&connection, &channel).await;
                    return Ok(());
                }
                delivery = deliveries.next() => delivery,
            };
            match delivery {
                Some((_, Some(Ok(delivery)))) => handle(delivery).await,
                Some((_, Some(Err(error)))) => return Err(text(error)),
                Some((queue, None)) => return Err(format!("queue {queue} is gone")),
                None => return Err("nothing is left to consume".to_owned()),
            }
        }
    }

    async fn limit(&self, channel: &Channel) -> Result<(), String> {
        let configured = self.options.queues.rabbit_qos_prefetch_count;
        let prefetch = if configured > 0 { configured } else { PREFETCH };
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .map_err(text)
    }

    /// Takes the queues that are this process's own with it. What fails is the broker's to clean:
    /// those queues expire.
    async fn close(&self, connection: &Connection, channel: &Channel) {
        let closed = async {
            for queue in self.queues.iter().filter(|queue| queue.delete_on_close) {
                let name = queue.queue.name.as_str().into();
                channel
                    .queue_delete(name, QueueDeleteOptions::default())
                    .await?;
            }
            connection.close(200, "OK".into()).await
        };
        match tokio::time::timeout(Duration::from_secs(5), closed).await {
            Ok(Err(error)) => debug!(purpose = self.purpose, %error, "Closed without a farewell"),
            Err(_) => debug!(purpose = self.purpose, "Closed without a farewell"),
            Ok(Ok(())) => {}
        }
    }
}

/// Declares a queue on a channel of its own, since a refusal closes the channel. An exchange or
/// queue that exists with another durability is taken as it is, as oslo.messaging does.
async fn declare(connection: &Connection, queue: &mut Declaration) -> Result<(), String> {
    let channel = connection.create_channel().await.map_err(text)?;
    let refused = match wire::declare(&channel, queue).await {
        Ok(()) => return channel.close(200, "OK".into()).await.map_err(text),
        Err(error) if is_precondition(&error) => error,
        Err(error) => return Err(text(error)),
    };
    let name = &queue.queue.name;
    let plain = queue.clone().non_durable();
    let channel = connection.create_channel().await.map_err(text)?;
    if wire::declare(&channel, &plain).await.is_err() {
        return Err(format!(
            "queue {name} exists with other arguments than [oslo_messaging_rabbit] asks for: \
             {refused}"
        ));
    }
    warn!(
        queue = name,
        "The queue exists and is not durable; it is used as it is"
    );
    *queue = plain;
    channel.close(200, "OK".into()).await.map_err(text)
}

fn is_precondition(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == PRECONDITION_FAILED)
}

fn text(error: lapin::Error) -> String {
    error.to_string()
}

/// Up to half a second, so that a fleet does not come back in one moment.
fn jitter() -> Duration {
    Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * 2)
}
