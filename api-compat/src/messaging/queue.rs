//! Exchanges, queues, bindings and consumers, as oslo.messaging declares them.
//!
//! RabbitMQ refuses a declaration that differs from what exists (406), so a worker of ours can
//! share a broker with Python's only if it declares the very same. Source: oslo_messaging
//! `_drivers/impl_rabbit.py` (`_get_queue_arguments`, `declare_*_consumer`, `*_send`) and
//! `_drivers/amqpdriver.py` (`QManager`).

use std::collections::BTreeMap;

use uuid::Uuid;

/// The options of `[oslo_messaging_rabbit]` that shape exchanges and queues. Defaults are those
/// of oslo.messaging 18.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// `amqp_durable_queues`.
    pub amqp_durable_queues: bool,
    /// `amqp_auto_delete`.
    pub amqp_auto_delete: bool,
    /// `rabbit_ha_queues`: mirrored queues of RabbitMQ before 4.
    pub rabbit_ha_queues: bool,
    /// `rabbit_quorum_queue`: topic and notification queues are quorum queues.
    pub rabbit_quorum_queue: bool,
    /// `rabbit_transient_quorum_queue`: reply and fanout queues are quorum queues.
    pub rabbit_transient_quorum_queue: bool,
    /// `rabbit_quorum_delivery_limit`; 0 sets none.
    pub rabbit_quorum_delivery_limit: u32,
    /// `rabbit_quorum_max_memory_length` in messages; 0 sets none.
    pub rabbit_quorum_max_memory_length: u32,
    /// `rabbit_quorum_max_memory_bytes`; 0 sets none.
    pub rabbit_quorum_max_memory_bytes: u32,
    /// `rabbit_transient_queues_ttl` in seconds; 0 sets none.
    pub rabbit_transient_queues_ttl: u32,
    /// `rabbit_stream_fanout`: one shared stream instead of a fanout queue for each worker.
    pub rabbit_stream_fanout: bool,
    /// `rabbit_qos_prefetch_count`; 0 is unlimited.
    pub rabbit_qos_prefetch_count: u16,
    /// `enable_cancel_on_failover`.
    pub enable_cancel_on_failover: bool,
    /// `use_queue_manager`: names that begin with host and process.
    pub use_queue_manager: bool,
    /// `hostname`, used by the queue manager.
    pub hostname: String,
    /// `processname`, used by the queue manager.
    pub processname: String,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            amqp_durable_queues: false,
            amqp_auto_delete: false,
            rabbit_ha_queues: false,
            rabbit_quorum_queue: false,
            rabbit_transient_quorum_queue: false,
            rabbit_quorum_delivery_limit: 0,
            rabbit_quorum_max_memory_length: 0,
            rabbit_quorum_max_memory_bytes: 0,
            rabbit_transient_queues_ttl: 1800,
            rabbit_stream_fanout: false,
            rabbit_qos_prefetch_count: 0,
            enable_cancel_on_failover: false,
            use_queue_manager: false,
            hostname: String::new(),
            processname: String::new(),
        }
    }
}

/// Options that exclude each other; Python's services do not start with them either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A queue is either mirrored or a quorum queue.
    #[error(
        "rabbit_ha_queues cannot be combined with rabbit_quorum_queue or \
         rabbit_transient_quorum_queue"
    )]
    MirroredAndQuorum,
    /// A stream delivers nothing to a consumer without a prefetch.
    #[error("rabbit_stream_fanout needs rabbit_qos_prefetch_count above 0")]
    StreamWithoutPrefetch,
    /// The stream's exchange must be durable.
    #[error("rabbit_stream_fanout needs rabbit_transient_quorum_queue")]
    StreamWithoutQuorum,
}

/// The value of a queue's or consumer's argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Int(i64),
    /// A text.
    Str(String),
    /// A truth value.
    Bool(bool),
}

/// Arguments of a declaration.
pub type Arguments = BTreeMap<&'static str, Value>;

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By routing key.
    Topic,
    /// To every bound queue.
    Fanout,
}

impl ExchangeKind {
    /// The name of the type in AMQP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

/// An exchange to declare. None has arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ExchangeKind,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes when the last queue is unbound.
    pub auto_delete: bool,
}

/// A queue to declare. None is exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Type, limits and time to live.
    pub arguments: Arguments,
}

/// A queue with its exchange, and how to consume from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The exchange to declare and bind to; none for reply queues, which the default exchange
    /// reaches by their name.
    pub exchange: Option<Exchange>,
    /// The queue.
    pub queue: Queue,
    /// The binding's routing key; empty without an exchange.
    pub routing_key: String,
    /// Arguments for `basic.consume`.
    pub consumer_arguments: Arguments,
    /// Whether nobody else will ever use this queue, so that it is deleted at a clean stop.
    pub delete_on_close: bool,
}

impl QueueOptions {
    /// Checks that the options can be used together.
    ///
    /// # Errors
    /// [`OptionsError`] names the two that cannot.
    pub fn check(&self) -> Result<(), OptionsError> {
        let quorum = self.rabbit_quorum_queue || self.rabbit_transient_quorum_queue;
        if self.rabbit_ha_queues && quorum {
            return Err(OptionsError::MirroredAndQuorum);
        }
        if self.rabbit_stream_fanout && self.rabbit_qos_prefetch_count == 0 {
            return Err(OptionsError::StreamWithoutPrefetch);
        }
        if self.rabbit_stream_fanout && !self.rabbit_transient_quorum_queue {
            return Err(OptionsError::StreamWithoutQuorum);
        }
        Ok(())
    }

    /// What makes the name of a reply or fanout queue unique: `id`, or with the queue manager
    /// `<hostname>:<processname>:<id>`. Python counts there, in a file of its own that processes in
    /// different containers do not share; two with one name get each other's answers.
    pub fn unique_name(&self, id: Uuid) -> String {
        let id = super::request::hex_id(id);
        if self.use_queue_manager {
            format!("{}:{}:{id}", self.hostname, self.processname)
        } else {
            id
        }
    }

    /// The exchange that requests and notifications are published to (`control_exchange`).
    pub fn control_exchange(&self, name: &str) -> Exchange {
        Exchange {
            name: name.to_owned(),
            kind: ExchangeKind::Topic,
            durable: self.amqp_durable_queues || self.rabbit_quorum_queue,
            auto_delete: self.amqp_auto_delete,
        }
    }

    /// The exchange that reaches every server of a topic.
    pub fn fanout_exchange(&self, topic: &str) -> Exchange {
        Exchange {
            name: format!("{topic}_fanout"),
            kind: ExchangeKind::Fanout,
            durable: self.rabbit_transient_quorum_queue || self.rabbit_stream_fanout,
            auto_delete: true,
        }
    }

    /// The queue of a topic. `topic` is `cinder-backup`, shared by all workers, or
    /// `cinder-backup.<host>`, shared by all processes of a host.
    pub fn topic(&self, control_exchange: &str, topic: &str) -> Declaration {
        let exchange = self.control_exchange(control_exchange);
        Declaration {
            queue: Queue {
                name: topic.to_owned(),
                durable: exchange.durable,
                auto_delete: self.amqp_auto_delete,
                arguments: self.queue_arguments(self.rabbit_quorum_queue),
            },
            exchange: Some(exchange),
            routing_key: topic.to_owned(),
            consumer_arguments: self.consumer_arguments(),
            delete_on_close: false,
        }
    }

    /// The queue through which one process hears what is said to all servers of a topic; with
    /// streams it is shared. `unique` comes from [`QueueOptions::unique_name`].
    pub fn fanout(&self, topic: &str, unique: &str) -> Declaration {
        let exchange = self.fanout_exchange(topic);
        let durable = exchange.durable;
        let (name, arguments, consumer_arguments) = if self.rabbit_stream_fanout {
            (
                format!("{topic}_fanout"),
                self.stream_arguments(),
                Arguments::from([("x-stream-offset", Value::Str("last".into()))]),
            )
        } else {
            (
                format!("{topic}_fanout_{unique}"),
                self.transient_arguments(),
                self.consumer_arguments(),
            )
        };
        Declaration {
            exchange: Some(exchange),
            queue: Queue {
                name,
                durable,
                auto_delete: false,
                arguments,
            },
            routing_key: topic.to_owned(),
            consumer_arguments,
            delete_on_close: !self.rabbit_stream_fanout,
        }
    }

    /// The queue on which one process hears the answers to its calls. `unique` comes from
    /// [`QueueOptions::unique_name`]: nobody uses the queue again. Python leaves it to its time to
    /// live.
    pub fn reply(&self, unique: &str) -> Declaration {
        Declaration {
            exchange: None,
            queue: Queue {
                name: format!("reply_{unique}"),
                durable: self.rabbit_transient_quorum_queue,
                auto_delete: false,
                arguments: self.transient_arguments(),
            },
            routing_key: String::new(),
            consumer_arguments: self.consumer_arguments(),
            delete_on_close: true,
        }
    }

    /// The queue `<topic>.<priority>` that a notifier declares before it publishes, so that
    /// nothing is lost while nobody listens.
    pub fn notification(&self, control_exchange: &str, topic: &str, priority: &str) -> Declaration {
        self.topic(control_exchange, &format!("{topic}.{priority}"))
    }

    fn queue_arguments(&self, quorum: bool) -> Arguments {
        let mut arguments = Arguments::new();
        if self.rabbit_ha_queues {
            arguments.insert("x-ha-policy", Value::Str("all".into()));
        }
        if quorum {
            arguments.insert("x-queue-type", Value::Str("quorum".into()));
            let limits = [
                ("x-delivery-limit", self.rabbit_quorum_delivery_limit),
                (
                    "x-max-in-memory-length",
                    self.rabbit_quorum_max_memory_length,
                ),
                ("x-max-in-memory-bytes", self.rabbit_quorum_max_memory_bytes),
            ];
            for (name, limit) in limits {
                if limit > 0 {
                    arguments.insert(name, Value::Int(limit.into()));
                }
            }
        }
        arguments
    }

    fn transient_arguments(&self) -> Arguments {
        let mut arguments = self.queue_arguments(self.rabbit_transient_quorum_queue);
        if self.rabbit_transient_queues_ttl > 0 {
            let milliseconds = i64::from(self.rabbit_transient_queues_ttl) * 1000;
            arguments.insert("x-expires", Value::Int(milliseconds));
        }
        arguments
    }

    fn stream_arguments(&self) -> Arguments {
        let mut arguments = Arguments::from([("x-queue-type", Value::Str("stream".into()))]);
        if self.rabbit_transient_queues_ttl > 0 {
            let age = format!("{}s", self.rabbit_transient_queues_ttl);
            arguments.insert("x-max-age", Value::Str(age));
        }
        arguments
    }

    fn consumer_arguments(&self) -> Arguments {
        match self.enable_cancel_on_failover {
            true => Arguments::from([("x-cancel-on-ha-failover", Value::Bool(true))]),
            false => Arguments::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradicting_options_are_refused() {
        let mirrored = QueueOptions {
            rabbit_ha_queues: true,
            rabbit_transient_quorum_queue: true,
            ..QueueOptions::default()
        };
        assert_eq!(mirrored.check(), Err(OptionsError::MirroredAndQuorum));
        let stream = QueueOptions {
            rabbit_stream_fanout: true,
            ..QueueOptions::default()
        };
        assert_eq!(stream.check(), Err(OptionsError::StreamWithoutPrefetch));
        let stream = QueueOptions {
            rabbit_qos_prefetch_count: 1,
            ..stream
        };
        assert_eq!(stream.check(), Err(OptionsError::StreamWithoutQuorum));
        assert_eq!(QueueOptions::default().check(), Ok(()));
    }

    #[test]
    fn quorum_limits_and_mirroring_become_arguments() {
        let options = QueueOptions {
            rabbit_quorum_queue: true,
            rabbit_quorum_delivery_limit: 3,
            rabbit_quorum_max_memory_bytes: 7,
            ..QueueOptions::default()
        };
        let queue = options.topic("openstack", "cinder-backup").queue;
        assert!(queue.durable);
        assert_eq!(
            queue.arguments,
            Arguments::from([
                ("x-queue-type", Value::Str("quorum".into())),
                ("x-delivery-limit", Value::Int(3)),
                ("x-max-in-memory-bytes", Value::Int(7)),
            ])
        );
        let options = QueueOptions {
            rabbit_ha_queues: true,
            rabbit_transient_queues_ttl: 0,
            ..QueueOptions::default()
        };
        let all = Arguments::from([("x-ha-policy", Value::Str("all".into()))]);
        assert_eq!(options.reply("x").queue.arguments, all);
        assert_eq!(options.topic("openstack", "t").queue.arguments, all);
    }

    #[test]
    fn failover_cancel_is_asked_for_except_of_streams() {
        let options = QueueOptions {
            enable_cancel_on_failover: true,
            ..QueueOptions::default()
        };
        let asked = Arguments::from([("x-cancel-on-ha-failover", Value::Bool(true))]);
        assert_eq!(options.reply("x").consumer_arguments, asked);
        let options = QueueOptions {
            rabbit_stream_fanout: true,
            ..options
        };
        assert!(
            !options
                .fanout("t", "x")
                .consumer_arguments
                .contains_key("x-cancel-on-ha-failover")
        );
    }
}
