//! The connection to RabbitMQ. Whoever shares queues with Cinder's other services must be given
//! the same queue options as they.

use std::path::PathBuf;

use crate::config::registry::{Default, default, from, options, unset};
use crate::config::transport_url::TransportUrl;
use crate::config::value::{Multi, choices};

choices! {
    /// SASL mechanism of the login.
    pub enum LoginMethod {
        /// User and password as they are.
        Plain = "PLAIN",
        /// User and password in an AMQP table.
        AmqPlain = "AMQPLAIN",
        /// The client certificate.
        External = "EXTERNAL",
        /// RabbitMQ's demonstration of a challenge and response.
        RabbitCrDemo = "RABBIT-CR-DEMO",
    }
}

options! {
    /// Messaging in general (oslo.messaging's `transport.py`, `rpc/client.py`, `server.py`).
    pub struct Messaging in "DEFAULT" {
        /// URL of the brokers: rabbit://user:password@host:5672,user:password@host2:5672/vhost.
        /// Special characters in user and password are percent-encoded, and $ is written $$. The
        /// query may override options of oslo_messaging_rabbit.
        transport_url: TransportUrl = default("rabbit://"),
        /// Exchange of the topics. Must be the same for all services.
        control_exchange: String = default("openstack"),
        /// Seconds to wait for the answer to a call.
        rpc_response_timeout: u64 = default("60").min(1.0),
        /// Whether pings over RPC are answered.
        rpc_ping_enabled: bool = default("false"),
    }
}

options! {
    /// Notifications (oslo.messaging's `notify/notifier.py`).
    pub struct Notifications in "oslo_messaging_notifications" {
        /// Drivers of notifications: messagingv2, messaging, log or noop. May be repeated: each
        /// sends. Others, such as routing, send nothing.
        driver: Multi = unset().formerly(&[("DEFAULT", "notification_driver")]),
        /// URL of the brokers for notifications. Unset takes those of the DEFAULT section.
        transport_url: Option<TransportUrl> =
            unset().formerly(&[("DEFAULT", "notification_transport_url")]),
        /// Topics of notifications.
        topics: Vec<String> = default("notifications").formerly(&[
            ("rpc_notifier2", "topics"),
            ("DEFAULT", "notification_topics"),
        ]),
    }
}

options! {
    /// The RabbitMQ driver (oslo.messaging's `_drivers/impl_rabbit.py`, `_drivers/amqp.py`).
    pub struct Rabbit in "oslo_messaging_rabbit" {
        /// Whether queues survive a restart of the broker. Quorum queues always do.
        amqp_durable_queues: bool = default("false"),
        /// Whether queues and the exchange are deleted when nobody uses them.
        amqp_auto_delete: bool = default("false").formerly(&[("DEFAULT", "amqp_auto_delete")]),
        /// Whether connections use TLS.
        ssl: bool = default("false").formerly(&[("oslo_messaging_rabbit", "rabbit_use_ssl")]),
        /// File with the key of the client certificate. If unset, it is in the file of the
        /// certificate.
        ssl_key_file: Option<PathBuf> =
            unset().formerly(&[("oslo_messaging_rabbit", "kombu_ssl_keyfile")]),
        /// File with the client certificate.
        ssl_cert_file: Option<PathBuf> =
            unset().formerly(&[("oslo_messaging_rabbit", "kombu_ssl_certfile")]),
        /// File with the certificates that the broker's must be signed by. If unset, those that
        /// this system trusts count; Python's services verify nothing then.
        ssl_ca_file: Option<PathBuf> =
            unset().formerly(&[("oslo_messaging_rabbit", "kombu_ssl_ca_certs")]),
        /// Whether the broker's name must stand in its certificate. If false, any certificate that
        /// is signed by one of those is accepted.
        ssl_enforce_hostname_verification: bool = default("true"),
        /// Seconds for which a reply is tried whose queue is missing.
        kombu_missing_consumer_retry_timeout: u64 =
            default("60").formerly(&[("oslo_messaging_rabbit", "kombu_reconnect_timeout")]),
        /// SASL mechanism of the login.
        rabbit_login_method: LoginMethod =
            default("AMQPLAIN").formerly(&[("DEFAULT", "rabbit_login_method")]),
        /// Seconds before the first attempt to connect again.
        rabbit_retry_interval: u64 = default("1").min(1.0),
        /// Seconds by which that time grows with each attempt.
        rabbit_retry_backoff: u64 =
            default("2").formerly(&[("DEFAULT", "rabbit_retry_backoff")]),
        /// Seconds up to which it grows.
        rabbit_interval_max: u64 = default("30").min(1.0),
        /// Whether queues are declared as mirrored (x-ha-policy: all).
        rabbit_ha_queues: bool = default("false").formerly(&[("DEFAULT", "rabbit_ha_queues")]),
        /// Whether the named queues are quorum queues.
        rabbit_quorum_queue: bool = default("false"),
        /// Whether reply and fanout queues are quorum queues.
        rabbit_transient_quorum_queue: bool = default("false"),
        /// Number of deliveries after which a quorum queue drops a message; 0 sets no limit.
        rabbit_quorum_delivery_limit: u32 = default("0"),
        /// Number of messages that a quorum queue keeps in memory; 0 sets no limit.
        rabbit_quorum_max_memory_length: u32 = default("0")
            .formerly(&[("oslo_messaging_rabbit", "rabbit_quroum_max_memory_length")]),
        /// Bytes of messages that a quorum queue keeps in memory; 0 sets no limit.
        rabbit_quorum_max_memory_bytes: u64 = default("0")
            .formerly(&[("oslo_messaging_rabbit", "rabbit_quroum_max_memory_bytes")]),
        /// Seconds after which the broker deletes an unused reply or fanout queue, or the
        /// messages of a stream; 0 never does.
        rabbit_transient_queues_ttl: u64 = default("1800"),
        /// Number of messages that the broker sends ahead of their acknowledgement; 0 sets no
        /// limit.
        rabbit_qos_prefetch_count: u16 = default("0"),
        /// Seconds of silence after which the broker counts as lost; 0 turns heartbeats off.
        heartbeat_timeout_threshold: u16 = default("60"),
        /// Whether a consumer is cancelled when its queue fails over.
        enable_cancel_on_failover: bool = default("false"),
        /// Whether the names of reply and fanout queues begin with machine and program. What
        /// follows is random: unlike Python's, the queues are not used again after a restart.
        use_queue_manager: bool = default("false"),
        /// Machine's name in those names.
        hostname: String = from(Default::Hostname),
        /// Program's name in those names.
        processname: String = from(Default::Program),
        /// Whether fanout messages go through one stream for all workers.
        rabbit_stream_fanout: bool = default("false"),
    }
}
