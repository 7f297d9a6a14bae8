//! oslo.messaging over RabbitMQ: requests come in, answers, calls and casts go out.
//!
//! There are three connections, each with a loop of its own that makes it anew when it ends, and
//! tries the hosts of the transport URL in turn: one consumes requests, one consumes answers to our
//! calls, one publishes. RabbitMQ may block the one that publishes (memory or disk alarm) without
//! holding up the others.

mod absence;
mod calls;
mod connection;
mod consumer;
mod declare;
mod error;
mod link;
mod notifications;
mod options;
mod publisher;
mod server;
mod session;
mod tls;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use api_compat::messaging::CallIds;
use api_compat::messaging::RequestContext;
use api_compat::messaging::request::hex_id;
use api_compat::notification::{self, Notification};
use api_compat::rpc::{Destination, MessageIds, Outgoing};
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

pub use error::{CallError, SetupError};
pub use options::{Broker, Notifications, Options, Retry};
pub use server::{Incoming, Reply, Server};
pub use tls::{Certificates, Tls};

use calls::Calls;
use publisher::{Message, Publisher, Target};

/// How long a cast may wait for a broker that is away.
const CAST_PATIENCE: Duration = Duration::from_secs(300);

/// The way to other services. Clones share its connections.
#[derive(Clone)]
pub struct Amqp {
    inner: Arc<Inner>,
}

struct Inner {
    options: Arc<Options>,
    publisher: Arc<Publisher>,
    notifier: Arc<Publisher>,
    calls: Calls,
}

impl Amqp {
    /// A handle that connects at its first use.
    ///
    /// # Errors
    /// When the queue options exclude each other.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        options.queues.check()?;
        let options = Arc::new(options);
        let publisher = Arc::new(Publisher::new(options.broker.clone()));
        let notifier = match &options.notifications.broker {
            Some(broker) => Arc::new(Publisher::new(broker.clone())),
            None => publisher.clone(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                calls: Calls::new(options.clone()),
                options,
                publisher,
                notifier,
            }),
        })
    }

    /// Starts to consume the requests to `topic` and to this host.
    pub fn serve(&self, topic: &str, host: &str) -> Server {
        let Inner {
            options, publisher, ..
        } = &*self.inner;
        Server::start(options.clone(), publisher.clone(), topic, host)
    }

    /// How many processes consume the requests to `topic` on this host, this one among them.
    ///
    /// # Errors
    /// The broker's reason, when none of them answers.
    pub async fn consumers(&self, topic: &str, host: &str) -> Result<u32, String> {
        let broker = &self.inner.options.broker;
        let queue = format!("{topic}.{host}");
        let mut reason = "no broker is configured".to_owned();
        for turn in 0..broker.url.hosts.len() {
            match consumers(broker, turn, &queue).await {
                Err(error) => reason = error,
                counted => return counted,
            }
        }
        Err(reason)
    }

    /// Calls another service and waits for its answer, for as long as `rpc_response_timeout` says.
    ///
    /// # Errors
    /// [`CallError`]: the other side's exception, or no answer.
    pub async fn call(&self, call: Outgoing, context: &RequestContext) -> Result<Value, CallError> {
        let Inner {
            options,
            publisher,
            calls,
            ..
        } = &*self.inner;
        let method = call.method;
        let limit = options.response_timeout;
        let deadline = Instant::now() + limit;
        let Ok(mut pending) = tokio::time::timeout_at(deadline, calls.register()).await else {
            let reason = "the queue of answers is not there";
            return Err(CallError::Unreachable(reason.to_owned()));
        };
        let answered = async {
            let ids = MessageIds {
                unique_id: hex_id(Uuid::new_v4()),
                call: Some(CallIds {
                    msg_id: pending.id().to_owned(),
                    reply_queue: calls.queue().to_owned(),
                }),
            };
            let target = target(&call.destination, options);
            let body = call.into_request(context.clone(), ids).encode();
            let message = Message::new(target, body).expires(limit);
            publisher.publish(message, deadline).await?;
            pending.answer().await
        };
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout {
                method,
                seconds: limit.as_secs(),
            }),
        }
    }

    /// Sends a request that is not answered. When this returns, the broker has it.
    ///
    /// # Errors
    /// `Unreachable` when the broker is away for longer than five minutes.
    pub async fn cast(&self, cast: Outgoing, context: &RequestContext) -> Result<(), CallError> {
        let deadline = Instant::now() + CAST_PATIENCE;
        self.cast_before(cast, context, deadline).await
    }

    /// Like [`Amqp::cast`], with a deadline of the caller's.
    ///
    /// # Errors
    /// `Unreachable` when the broker does not take it in time.
    pub async fn cast_before(
        &self,
        cast: Outgoing,
        context: &RequestContext,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let Inner {
            options, publisher, ..
        } = &*self.inner;
        let target = target(&cast.destination, options);
        let ids = MessageIds {
            unique_id: hex_id(Uuid::new_v4()),
            call: None,
        };
        let body = cast.into_request(context.clone(), ids).encode();
        publisher
            .publish(Message::new(target, body), deadline)
            .await
    }

    /// Sends a notification to each of the topics, as each of the drivers does. A failure is logged: what
    /// it tells of stands.
    pub async fn notify(&self, notification: Notification) {
        let Inner {
            options, notifier, ..
        } = &*self.inner;
        let own = &options.notifications;
        if own.to_log {
            notifications::log(&notification);
        }
        for format in &own.formats {
            let body = notification.encode(*format, Uuid::new_v4());
            for topic in &own.topics {
                let exchange = &options.control_exchange;
                let queue = own
                    .queues
                    .notification(exchange, topic, notification::PRIORITY);
                let message = Message::new(Target::Queue(Box::new(queue)), body.clone());
                let deadline = Instant::now() + options.response_timeout;
                if let Err(error) = notifier.publish(message, deadline).await {
                    warn!(topic, %error, "Cannot send a notification");
                }
            }
        }
    }

    /// Closes the connections that publish and receive answers.
    pub async fn close(&self) {
        let inner = &self.inner;
        tokio::join!(
            inner.calls.close(),
            inner.publisher.close(),
            inner.notifier.close(),
        );
    }
}

/// On a connection of its own, which an error of the channel cannot harm.
async fn consumers(broker: &Broker, turn: usize, queue: &str) -> Result<u32, String> {
    let connection = connection::open(broker, turn, "count").await?;
    let counting = async {
        let channel = connection.create_channel().await?;
        wire::consumers(&channel, queue).await
    };
    let counted = counting.await.map_err(|error| error.to_string());
    let _ = connection.close(200, "OK".into()).await;
    counted
}

fn target(destination: &Destination, options: &Options) -> Target {
    match destination {
        Destination::Topic(topic) => Target::Exchange {
            exchange: options.queues.control_exchange(&options.control_exchange),
            routing_key: topic.clone(),
        },
        Destination::Fanout(topic) => Target::Exchange {
            exchange: options.queues.fanout_exchange(topic),
            // Its exchange heeds none, and Python names none.
            routing_key: String::new(),
        },
    }
}
