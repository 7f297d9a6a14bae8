//! Messages straight to the worker, as no well-behaved service would send them.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::lab::Lab;
use crate::patience::eventually;

/// A connection to the lab's broker.
pub struct Broker {
    connection: Connection,
    channel: Channel,
    queue: String,
}

/// A message, and where it was sent to.
pub struct Addressed {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Whether it is of no use after a while.
    pub expires: bool,
    /// What it says.
    pub message: Value,
}

impl Addressed {
    fn read(delivery: &Delivery) -> Result<Self> {
        let envelope: Value = serde_json::from_slice(&delivery.data)?;
        let text = envelope["oslo.message"].as_str().context("no envelope")?;
        Ok(Self {
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            expires: delivery.properties.expiration().is_some(),
            message: serde_json::from_str(text)?,
        })
    }
}

/// What is heard of what others send.
pub struct Overheard(mpsc::UnboundedReceiver<Result<Addressed>>);

impl Overheard {
    /// What was heard since the last time.
    pub fn take(&mut self) -> Result<Vec<Addressed>> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

impl Broker {
    /// Connects; messages go to the lab's worker.
    pub async fn connect(lab: &Lab) -> Result<Self> {
        let url = lab.variable("LAB_AMQP_URL")?;
        let (address, _) = url
            .rsplit_once('/')
            .context("LAB_AMQP_URL has no virtual host")?;
        let address = address
            .trim_end_matches('/')
            .replacen("rabbit://", "amqp://", 1);
        let connection =
            Connection::connect(&format!("{address}/%2f"), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            connection,
            channel,
            queue: format!("cinder-backup.{}", lab.variable("LAB_WORKER_HOST")?),
        })
    }

    async fn consumers(&self, queue: &str) -> Result<u32> {
        // On a channel of its own, which the broker closes if there is no such queue.
        let channel = self.connection.create_channel().await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        Ok(declared.map_or(0, |queue| queue.consumer_count()))
    }

    /// Waits until somebody consumes a queue.
    pub async fn wait_consumed(&self, queue: &str) -> Result<()> {
        self.wait_consumers(queue, 1).await
    }

    /// Waits until at least so many workers take what is sent to the lab's worker.
    pub async fn wait_workers(&self, least: u32) -> Result<()> {
        self.wait_consumers(&self.queue, least).await
    }

    /// Waits until at least so many consume a queue.
    pub async fn wait_consumers(&self, queue: &str, least: u32) -> Result<()> {
        let what = format!("{least} consume {queue}");
        let consumers = async || self.consumers(queue).await;
        eventually(&what, consumers, |found| *found >= least).await?;
        Ok(())
    }

    /// The methods that the messages in a queue ask for, which stay there.
    pub async fn waiting(&self, queue: &str) -> Result<Vec<String>> {
        // On a channel of its own: what was got comes back when that is closed.
        let channel = self.connection.create_channel().await?;
        let mut methods = Vec::new();
        let options = BasicGetOptions::default();
        while let Some(message) = channel.basic_get(queue.into(), options).await? {
            let envelope: Value = serde_json::from_slice(&message.delivery.data)?;
            let text = envelope["oslo.message"].as_str().context("no envelope")?;
            let request: Value = serde_json::from_str(text)?;
            methods.push(request["method"].as_str().context("no method")?.to_owned());
        }
        channel.close(200, "seen".into()).await?;
        Ok(methods)
    }

    /// A queue that gets whatever is sent to an exchange, for as long as this connection lasts.
    pub async fn overhear(&self, exchange: &str) -> Result<String> {
        self.bound(&[(exchange, "")]).await
    }

    /// The same for what is sent to the worker.
    pub async fn overhear_worker(&self) -> Result<String> {
        self.bound(&[("openstack", &self.queue)]).await
    }

    /// Listens to several exchanges, each with a pattern of routing keys, for as long as this
    /// connection lasts.
    pub async fn listen(&self, sources: &[(&str, &str)]) -> Result<Overheard> {
        let queue = self.bound(sources).await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let (queue, tag) = (queue.as_str().into(), "".into());
        let mut messages = self
            .channel
            .basic_consume(queue, tag, options, FieldTable::default())
            .await?;
        let (put, heard) = mpsc::unbounded_channel();
        // At once: a call that waits in a queue for a minute is gone.
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if put.send(Addressed::read(&message)).is_err() {
                    return;
                }
            }
        });
        Ok(Overheard(heard))
    }

    async fn bound(&self, sources: &[(&str, &str)]) -> Result<String> {
        let queue = format!("overheard_{}", Uuid::new_v4().simple());
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.as_str().into(), options, FieldTable::default())
            .await?;
        for (exchange, key) in sources {
            self.channel
                .queue_bind(
                    queue.as_str().into(),
                    (*exchange).into(),
                    (*key).into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
        }
        Ok(queue)
    }

    /// Takes the messages out of a queue; none if there is no such queue.
    pub async fn take(&self, queue: &str) -> Result<Vec<Value>> {
        // On a channel of its own, which the broker closes if there is no such queue.
        let channel = self.connection.create_channel().await?;
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Ok(Some(message)) = channel.basic_get(queue.into(), options).await {
            taken.push(Addressed::read(&message.delivery)?.message);
        }
        Ok(taken)
    }

    /// Puts a body into the worker's queue.
    pub async fn publish_to_worker(&self, body: &[u8]) -> Result<()> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let confirmed = self
            .channel
            .basic_publish(
                "".into(),
                self.queue.as_str().into(),
                options,
                body,
                properties,
            )
            .await?
            .await?;
        match confirmed.take_message() {
            None => Ok(()),
            Some(_) => anyhow::bail!("there is no queue {}", self.queue),
        }
    }

    /// Sends the worker once more what it was sent, as another message.
    pub async fn repeat_to_worker(&self, message: &Value) -> Result<()> {
        let mut message = message.clone();
        message["_unique_id"] = json!(Uuid::new_v4().simple().to_string());
        let envelope = json!({"oslo.version": "2.0", "oslo.message": message.to_string()});
        self.publish_to_worker(envelope.to_string().as_bytes())
            .await
    }

    /// Casts to the worker.
    pub async fn cast_to_worker(&self, method: &str, version: &str, args: Value) -> Result<()> {
        self.send(method, version, args, json!({})).await
    }

    async fn send(&self, method: &str, version: &str, args: Value, extra: Value) -> Result<()> {
        let mut message = json!({
            "method": method, "version": version, "args": args,
            "_unique_id": Uuid::new_v4().simple().to_string(),
            "_context_request_id": format!("req-{}", Uuid::new_v4()), "_context_is_admin": true,
            "_context_project_id": "p", "_context_user_id": "u",
        });
        if let (Some(message), Some(extra)) = (message.as_object_mut(), extra.as_object()) {
            message.extend(extra.clone());
        }
        self.hand_to_worker(&message).await
    }

    /// Sends the worker a message as it is.
    pub async fn hand_to_worker(&self, message: &Value) -> Result<()> {
        let envelope = json!({"oslo.version": "2.0", "oslo.message": message.to_string()});
        self.publish_to_worker(envelope.to_string().as_bytes())
            .await
    }

    /// Calls the worker; the failure that it answers with, or null.
    pub async fn call_worker(&self, method: &str, version: &str, args: Value) -> Result<Value> {
        let answer = self.call(method, version, args).await?;
        match answer["failure"].as_str() {
            Some(failure) => Ok(serde_json::from_str(failure)?),
            None => Ok(Value::Null),
        }
    }

    /// Calls the worker; what it answers.
    pub async fn ask_worker(&self, method: &str, version: &str, args: Value) -> Result<Value> {
        let answer = self.call(method, version, args).await?;
        anyhow::ensure!(answer["failure"].is_null(), "{answer}");
        Ok(answer["result"].clone())
    }

    async fn call(&self, method: &str, version: &str, args: Value) -> Result<Value> {
        let queue = format!("reply_{}", Uuid::new_v4().simple());
        let options = QueueDeclareOptions {
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.as_str().into(), options, FieldTable::default())
            .await?;
        let mut answers = self
            .channel
            .basic_consume(
                queue.as_str().into(),
                "".into(),
                BasicConsumeOptions {
                    no_ack: true,
                    ..BasicConsumeOptions::default()
                },
                FieldTable::default(),
            )
            .await?;
        let id = Uuid::new_v4().simple().to_string();
        let extra = json!({"_msg_id": id, "_reply_q": queue, "_timeout": null});
        self.send(method, version, args, extra).await?;
        let delivery = tokio::time::timeout(Duration::from_secs(30), answers.next())
            .await
            .with_context(|| format!("no answer to {method}"))?
            .context("the reply queue is gone")??;
        let envelope: Value = serde_json::from_slice(&delivery.data)?;
        Ok(serde_json::from_str(
            envelope["oslo.message"].as_str().context("no envelope")?,
        )?)
    }
}

/// A backup as it travels in a message; all that a worker believes of it is the id.
pub fn backup_object(id: &str) -> Value {
    json!({
        "versioned_object.name": "Backup", "versioned_object.namespace": "cinder",
        "versioned_object.version": "1.7",
        "versioned_object.data": {
            "id": id, "user_id": "u", "project_id": "p", "volume_id": Uuid::nil(), "host": "h",
            "availability_zone": null, "container": null, "parent_id": null, "status": "available",
            "fail_reason": null, "size": 1, "display_name": null, "display_description": null,
            "service_metadata": null, "service": null, "object_count": 0, "temp_volume_id": null,
            "temp_snapshot_id": null, "num_dependent_backups": 0, "snapshot_id": null,
            "data_timestamp": null, "restore_volume_id": null, "encryption_key_id": null,
        },
    })
}
