//! Requests to this worker.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_compat::messaging::request::hex_id;
use api_compat::messaging::{self, CallIds, Failure, Outcome, Request};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::consumer::Consumer;
use super::publisher::{Message, Publisher, Target};
use super::{CallError, Options, wire};

/// Requests that wait for the worker to look at them.
const BACKLOG: usize = 64;

/// Ids of requests that were accepted, by which a second delivery is noticed. oslo.messaging
/// remembers 16.
const REMEMBERED: usize = 4096;

/// Wait between two tries to answer a caller whose queue is not there.
const ANSWER_AGAIN: Duration = Duration::from_millis(500);

/// Consumes requests until it is stopped.
pub struct Server {
    requests: mpsc::Receiver<Incoming>,
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A request that has arrived. It is delivered again, here or to another worker, unless it is
/// accepted.
pub struct Incoming {
    request: Request,
    delivery: Delivery,
    recent: Arc<Mutex<Recent>>,
    publisher: Arc<Publisher>,
    options: Arc<Options>,
}

/// The way to answer a call.
pub struct Reply {
    ids: CallIds,
    publisher: Arc<Publisher>,
    options: Arc<Options>,
}

impl Server {
    pub(super) fn start(
        options: Arc<Options>,
        publisher: Arc<Publisher>,
        topic: &str,
        host: &str,
    ) -> Self {
        let (sender, requests) = mpsc::channel(BACKLOG);
        let (readiness, ready) = watch::channel(false);
        let stop = CancellationToken::new();
        let queues = &options.queues;
        let exchange = &options.control_exchange;
        let unique = queues.unique_name(Uuid::new_v4());
        let consumer = Consumer {
            queues: vec![
                queues.topic(exchange, topic),
                queues.topic(exchange, &format!("{topic}.{host}")),
                queues.fanout(topic, &unique),
            ],
            options: options.clone(),
            purpose: "listen",
            stop: stop.clone(),
            ready: readiness,
        };
        let recent = Arc::new(Mutex::new(Recent::default()));
        let run = consumer.run(move |delivery| {
            let (sender, recent) = (sender.clone(), recent.clone());
            let (publisher, options) = (publisher.clone(), options.clone());
            async move {
                let Some(request) = understand(&delivery).await else {
                    return;
                };
                let incoming = Incoming {
                    request,
                    delivery,
                    recent,
                    publisher,
                    options,
                };
                // Without a receiver the worker is stopping: the message stays in its queue.
                let _ = sender.send(incoming).await;
            }
        });
        Self {
            requests,
            ready,
            stop,
            task: tokio::spawn(run),
        }
    }

    /// The next request; none when the server was stopped.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.requests.recv().await
    }

    /// Whether requests are being consumed; changes with the broker's coming and going.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Stops to consume. What was not accepted goes back to its queue.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.requests.close();
        while self.requests.recv().await.is_some() {}
        if let Err(error) = self.task.await {
            error!(%error, "The consumer of requests has failed");
        }
    }
}

/// Reads a delivery. What cannot be understood is rejected.
async fn understand(delivery: &Delivery) -> Option<Request> {
    let decoded = wire::body(delivery).and_then(|body| Request::decode(&body));
    match decoded {
        Ok(request) => Some(request),
        Err(error) => {
            let bytes = delivery.data.len();
            warn!(%error, bytes, "A message cannot be understood and is rejected");
            let rejected = delivery.acker.reject(BasicRejectOptions { requeue: false });
            if let Err(error) = rejected.await {
                debug!(%error, "Cannot reject a message");
            }
            None
        }
    }
}

impl Incoming {
    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Takes the request on: it will not be delivered again. The second part is there if the
    /// sender waits for an answer. None if the connection that brought the request was lost: the
    /// broker delivers it again, here or to another worker, and only that delivery counts. None too
    /// if the request was accepted before: the publisher sent it twice, or the acknowledgement was
    /// lost after it had left this process.
    pub async fn accept(self) -> Option<(Request, Option<Reply>)> {
        let repeated = self.recent().knows(self.request.unique_id.as_deref());
        let acknowledged = self.delivery.acker.ack(BasicAckOptions::default()).await;
        if repeated {
            let method = &self.request.method;
            warn!(method, "A message came twice; the second is dropped");
            return None;
        }
        let in_stream = wire::stream_offset(&self.delivery.properties).is_some();
        // A stream keeps its messages and delivers none again.
        if !in_stream && !matches!(acknowledged, Ok(true)) {
            let method = &self.request.method;
            info!(
                method,
                "A request was lost with its connection and comes again"
            );
            return None;
        }
        self.recent().add(self.request.unique_id.as_deref());
        let reply = self.request.call.clone().map(|ids| Reply {
            ids,
            publisher: self.publisher,
            options: self.options,
        });
        Some((self.request, reply))
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // A set and a queue of ids: neither is left half changed by a panic.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reply {
    /// Answers the call. A caller whose queue is not there (its broker node restarts, perhaps) is
    /// tried again for a while; a broker that is away is waited for as long as a caller waits.
    pub async fn send(self, outcome: Result<Value, Failure>) {
        let outcome = match outcome {
            Ok(value) => Outcome::Result(value),
            Err(failure) => Outcome::Failure(failure),
        };
        let reply = messaging::Reply::ending(&self.ids.msg_id, hex_id(Uuid::new_v4()), outcome);
        let body = reply.encode();
        let began = Instant::now();
        let given_up = began + self.options.missing_consumer_timeout;
        let deadline = given_up.max(began + self.options.response_timeout);
        loop {
            let target = Target::Reply(self.ids.reply_queue.clone());
            let message = Message::new(target, body.clone());
            match self.publisher.publish(message, deadline).await {
                Ok(()) => return,
                Err(CallError::Unroutable(_)) if Instant::now() + ANSWER_AGAIN < given_up => {
                    tokio::time::sleep(ANSWER_AGAIN).await;
                }
                Err(error) => {
                    warn!(queue = self.ids.reply_queue, %error, "Cannot answer a call");
                    return;
                }
            }
        }
    }
}

/// The ids of the requests that were accepted last.
#[derive(Default)]
struct Recent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Recent {
    fn knows(&self, id: Option<&str>) -> bool {
        id.is_some_and(|id| self.known.contains(id))
    }

    fn add(&mut self, id: Option<&str>) {
        let Some(id) = id.filter(|id| self.known.insert((*id).to_owned())) else {
            return;
        };
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_a_while() {
        let mut recent = Recent::default();
        assert!(!recent.knows(Some("first")) && !recent.knows(None));
        for _ in 0..2 {
            recent.add(Some("first"));
            recent.add(None);
        }
        for number in 1..REMEMBERED {
            recent.add(Some(&number.to_string()));
        }
        assert!(recent.knows(Some("first")) && !recent.knows(None));
        recent.add(Some("one more"));
        assert!(!recent.knows(Some("first")) && recent.knows(Some("1")));
        assert_eq!(
            (recent.known.len(), recent.order.len()),
            (REMEMBERED, REMEMBERED)
        );
    }
}
