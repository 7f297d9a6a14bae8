//! Answers to our calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api_compat::messaging::request::hex_id;
use api_compat::messaging::{Answer, Failure, Reply};
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::consumer::Consumer;
use super::{CallError, Options, wire};

type Outcome = Result<Value, Failure>;

#[derive(Default)]
struct Waiting(Mutex<HashMap<String, (Answer, oneshot::Sender<Outcome>)>>);

impl Waiting {
    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, (Answer, oneshot::Sender<Outcome>)>> {
        // A map stays whole when its holder panics: inserting and removing are single steps.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reply queue of this process, and who waits for what arrives there. The queue is declared
/// with the first call, as in oslo.messaging.
pub struct Calls {
    options: Arc<Options>,
    queue: String,
    waiting: Arc<Waiting>,
    stop: CancellationToken,
    consumer: tokio::sync::Mutex<Option<(watch::Receiver<bool>, JoinHandle<()>)>>,
}

/// One call that waits for its answer.
pub struct Pending<'a> {
    calls: &'a Calls,
    id: String,
    outcome: oneshot::Receiver<Outcome>,
}

impl Calls {
    /// No queue yet.
    pub fn new(options: Arc<Options>) -> Self {
        let unique = options.queues.unique_name(Uuid::new_v4());
        let queue = options.queues.reply(&unique).queue.name;
        Self {
            options,
            queue,
            waiting: Arc::default(),
            stop: CancellationToken::new(),
            consumer: tokio::sync::Mutex::default(),
        }
    }

    /// The queue that answers are to be sent to.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// A place for the answer to a new call; returns when answers can be received.
    pub async fn register(&self) -> Pending<'_> {
        // A watch that is closed belongs to a consumer that has failed.
        while self.ready().await.wait_for(|ready| *ready).await.is_err() {
            if self.stop.is_cancelled() {
                break;
            }
        }
        let (sender, outcome) = oneshot::channel();
        let id = hex_id(Uuid::new_v4());
        self.waiting
            .lock()
            .insert(id.clone(), (Answer::default(), sender));
        Pending {
            calls: self,
            id,
            outcome,
        }
    }

    async fn ready(&self) -> watch::Receiver<bool> {
        let mut consumer = self.consumer.lock().await;
        match consumer.take() {
            Some((ready, task)) if ready.has_changed().is_ok() => {
                *consumer = Some((ready.clone(), task));
                return ready;
            }
            Some((_, task)) => ended(task).await,
            None => {}
        }
        let (sender, receiver) = watch::channel(false);
        let waiting = self.waiting.clone();
        let mut queue = self.options.queues.reply("");
        queue.queue.name.clone_from(&self.queue);
        queue.routing_key.clone_from(&self.queue);
        let run = Consumer {
            options: self.options.clone(),
            purpose: "reply",
            queues: vec![queue],
            stop: self.stop.clone(),
            ready: sender,
        }
        .run(move |delivery| receive(waiting.clone(), delivery));
        *consumer = Some((receiver.clone(), tokio::spawn(run)));
        receiver
    }

    /// Ends the calls that wait, deletes a queue with a random name and closes the connection.
    pub async fn close(&self) {
        self.stop.cancel();
        self.waiting.lock().clear();
        if let Some((_, task)) = self.consumer.lock().await.take() {
            ended(task).await;
        }
    }
}

async fn ended(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        error!(%error, "The consumer of answers has failed");
    }
}

async fn receive(waiting: Arc<Waiting>, delivery: Delivery) {
    match wire::body(&delivery).and_then(|body| Reply::decode(&body)) {
        Ok(reply) => {
            let mut waiting = waiting.lock();
            let id = reply.msg_id.clone();
            let known = waiting
                .get_mut(&id)
                .map(|(answer, _)| answer.receive(reply));
            match known {
                Some(Some(outcome)) => {
                    if let Some((_, sender)) = waiting.remove(&id) {
                        // The caller may have stopped waiting just now.
                        let _ = sender.send(outcome);
                    }
                }
                Some(None) => {}
                None => debug!(id, "An answer came that nobody waits for"),
            }
        }
        Err(error) => warn!(%error, "An answer cannot be understood and is dropped"),
    }
    if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
        debug!(%error, "Cannot acknowledge an answer");
    }
}

impl Pending<'_> {
    /// The call's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Waits for the answer.
    pub async fn answer(&mut self) -> Result<Value, CallError> {
        match (&mut self.outcome).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) => Err(CallError::Remote(failure)),
            Err(_) => Err(CallError::Unreachable("messaging is closed".to_owned())),
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.calls.waiting.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::options::tests::unreachable;

    #[tokio::test]
    async fn a_consumer_that_has_failed_is_replaced() {
        let calls = Calls::new(Arc::new(unreachable()));
        let (sender, mut ready) = watch::channel(false);
        let task = tokio::spawn(async move {
            let _kept = sender;
            panic!("on purpose");
        });
        *calls.consumer.lock().await = Some((ready.clone(), task));
        ready.changed().await.unwrap_err();
        let mut replaced = calls.ready().await;
        assert!(replaced.has_changed().is_ok());
        calls.close().await;
        replaced.changed().await.unwrap_err();
    }
}
