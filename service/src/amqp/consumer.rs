//! A connection that consumes queues, made anew for as long as it is wanted.

use std::sync::Arc;

use api_compat::messaging::queue::{Declaration, Value};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions};
use lapin::{Channel, Connection};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::absence::Absence;
use super::{Options, connection, declare, options, wire};

/// Messages that are delivered before the first of them is acknowledged, where the configuration
/// sets no limit: the rest waits in the broker, not in this process.
const PREFETCH: u16 = 64;

type Deliveries = BoxStream<'static, (usize, Option<lapin::Result<Delivery>>)>;

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
        let mut absence = Absence::new(self.purpose);
        let mut turn = 0;
        while !self.stop.is_cancelled() {
            let ended = self.session(turn, &mut absence, &mut handle).await;
            self.ready.send_replace(false);
            let Err(reason) = ended else { break };
            absence.add(&reason);
            turn += 1;
            let wait = self.options.broker.retry.wait(absence.tries()) + options::jitter();
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
        absence: &mut Absence,
        handle: &mut impl FnMut(Delivery) -> F,
    ) -> Result<(), String>
    where
        F: Future<Output = ()>,
    {
        // A broker that stops to answer in the middle of this holds up neither a stop nor another
        // try, perhaps with another host.
        let limit = self.options.broker.setup_timeout;
        let (connection, channel, streams) = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            opened = tokio::time::timeout(limit, self.open(turn)) => {
                opened.map_err(|_| format!("the broker did not answer within {} s", limit.as_secs()))??
            }
        };
        absence.end();
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
                Some((index, Some(Ok(delivery)))) => {
                    let offset = wire::stream_offset(&delivery.properties);
                    handle(delivery).await;
                    if let (Some(offset), Some(queue)) = (offset, self.queues.get_mut(index)) {
                        // The next connection goes on from here, as oslo.messaging's does.
                        let next = Value::Int(offset.saturating_add(1));
                        queue.consumer_arguments.insert(wire::STREAM_OFFSET, next);
                    }
                }
                Some((_, Some(Err(error)))) => return Err(text(error)),
                Some((index, None)) => {
                    let name = self.queues.get(index).map(|queue| &queue.queue.name);
                    return Err(format!("queue {} is gone", name.map_or("", |n| n)));
                }
                None => return Err("nothing is left to consume".to_owned()),
            }
        }
    }

    /// Connects, declares the queues and begins to consume them. Each delivery comes with the
    /// index of its queue; none is the last, when the queue is gone.
    async fn open(&self, turn: usize) -> Result<(Connection, Channel, Vec<Deliveries>), String> {
        let connection = connection::open(&self.options.broker, turn, self.purpose).await?;
        let channel = connection.create_channel().await.map_err(text)?;
        self.limit(&channel).await?;
        let mut streams = Vec::new();
        for (index, queue) in self.queues.iter().enumerate() {
            declare::queue(&connection, queue).await?;
            let consumer = channel
                .basic_consume(
                    wire::short(&queue.queue.name).map_err(|error| error.to_string())?,
                    (index + 1).to_string().into(),
                    BasicConsumeOptions::default(),
                    wire::table(&queue.consumer_arguments),
                )
                .await
                .map_err(text)?;
            // A consumer that ends, because its queue is gone, is as much an end as an error.
            let ended = futures_util::stream::once(async { None });
            let deliveries = consumer.map(Some).chain(ended);
            streams.push(deliveries.map(move |delivery| (index, delivery)).boxed());
        }
        Ok((connection, channel, streams))
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
                let name = wire::short(&queue.queue.name)?;
                channel
                    .queue_delete(name, QueueDeleteOptions::default())
                    .await?;
            }
            connection.close(200, "OK".into()).await
        };
        match tokio::time::timeout(self.options.broker.farewell_timeout, closed).await {
            Ok(Err(error)) => debug!(purpose = self.purpose, %error, "Closed without a farewell"),
            Err(_) => debug!(purpose = self.purpose, "Closed without a farewell"),
            Ok(Ok(())) => {}
        }
    }
}

fn text(error: lapin::Error) -> String {
    error.to_string()
}
