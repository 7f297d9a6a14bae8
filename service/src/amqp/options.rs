//! What the configuration says about messaging.

use std::sync::Arc;
use std::time::Duration;

use api_compat::config::{Config, LoginMethod, Rabbit, TransportUrl, seconds};
use api_compat::messaging::queue::QueueOptions;
use api_compat::notification::Format;
use uuid::Uuid;

use super::SetupError;
use super::tls::{Certificates, Tls};

/// As long as RabbitMQ itself waits for a handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Long enough for a quorum queue to elect its leader, short enough to be waited for.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// A broker that lives answers at once.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that messaging needs to know.
pub struct Options {
    /// Where requests come from and go to.
    pub broker: Arc<Broker>,
    /// `control_exchange`.
    pub control_exchange: String,
    /// What shapes queues and exchanges.
    pub queues: QueueOptions,
    /// `rpc_response_timeout`.
    pub response_timeout: Duration,
    /// How long the answer to a caller whose queue is gone is tried again.
    pub missing_consumer_timeout: Duration,
    /// Notifications.
    pub notifications: Notifications,
}

/// How to reach a broker.
pub struct Broker {
    /// Its hosts.
    pub url: TransportUrl,
    /// How to log in.
    pub login: LoginMethod,
    /// Set when it is reached through TLS.
    pub tls: Option<Tls>,
    /// `heartbeat_timeout_threshold`, in seconds; 0 turns heartbeats off.
    pub heartbeat: u16,
    /// Waits between tries.
    pub retry: Retry,
    /// How long one host may take to answer.
    pub connect_timeout: Duration,
    /// How long it may take until the queues of a new connection are being consumed.
    pub setup_timeout: Duration,
    /// How long it may take to remove our own queues and to say good-bye.
    pub farewell_timeout: Duration,
}

/// Waits between tries to reach a broker (`rabbit_retry_interval` and its companions).
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Before the second try.
    pub first: Duration,
    /// Added with each further one.
    pub step: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Retry {
    /// The wait after `tries` tries that failed.
    pub fn wait(&self, tries: u32) -> Duration {
        let grown = self.step.saturating_mul(tries.saturating_sub(1));
        self.first.saturating_add(grown).min(self.longest)
    }
}

/// Up to half a second, so that a fleet does not come back in one moment.
pub(super) fn jitter() -> Duration {
    Duration::from_millis(u64::from(Uuid::new_v4().as_bytes()[0]) * 2)
}

/// Where notifications go.
pub struct Notifications {
    /// With an envelope, without, or both, one after the other.
    pub formats: Vec<Format>,
    /// Whether they are written to the log, too.
    pub to_log: bool,
    /// What shapes their queues and exchange: the URL of their broker may have options of its own.
    pub queues: QueueOptions,
    /// `topics`.
    pub topics: Vec<String>,
    /// A broker of their own; none shares that of requests.
    pub broker: Option<Arc<Broker>>,
}

impl Options {
    /// Reads the configuration, and the certificates that it names.
    ///
    /// # Errors
    /// [`SetupError`] for files that cannot be read and options that cannot be honoured.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let rabbit = &config.rabbit;
        let drivers = config.notifications.driver.0.as_slice();
        let named = |name: &str| drivers.iter().any(|driver| driver.trim() == name);
        let formats = [("messagingv2", Format::V2), ("messaging", Format::V1)];
        let formats = formats.into_iter().filter(|(name, _)| named(name));
        let own = config.notifications.transport_url.as_ref();
        let own = own.map(|url| Broker::new(url, &config.notification_rabbit));
        Ok(Self {
            broker: Broker::new(&config.messaging.transport_url, rabbit)?,
            control_exchange: config.messaging.control_exchange.clone(),
            queues: queues(rabbit),
            response_timeout: seconds(config.messaging.rpc_response_timeout),
            missing_consumer_timeout: seconds(rabbit.kombu_missing_consumer_retry_timeout),
            notifications: Notifications {
                formats: formats.map(|(_, format)| format).collect(),
                to_log: named("log"),
                queues: queues(&config.notification_rabbit),
                topics: config.notifications.topics.clone(),
                broker: own.transpose()?,
            },
        })
    }
}

impl Broker {
    fn new(url: &TransportUrl, rabbit: &Rabbit) -> Result<Arc<Self>, SetupError> {
        let mut url = url.clone();
        // Each process begins elsewhere, like Python's: the brokers share the load.
        url.hosts.sort_by_cached_key(|_| Uuid::new_v4());
        Ok(Arc::new(Self {
            url,
            login: rabbit.rabbit_login_method,
            tls: rabbit.ssl.then(|| tls(rabbit)).transpose()?,
            heartbeat: rabbit.heartbeat_timeout_threshold,
            retry: Retry {
                first: seconds(rabbit.rabbit_retry_interval),
                step: seconds(rabbit.rabbit_retry_backoff),
                longest: seconds(rabbit.rabbit_interval_max),
            },
            connect_timeout: CONNECT_TIMEOUT,
            setup_timeout: SETUP_TIMEOUT,
            farewell_timeout: FAREWELL_TIMEOUT,
        }))
    }
}

fn queues(rabbit: &Rabbit) -> QueueOptions {
    QueueOptions {
        amqp_durable_queues: rabbit.amqp_durable_queues,
        amqp_auto_delete: rabbit.amqp_auto_delete,
        rabbit_ha_queues: rabbit.rabbit_ha_queues,
        rabbit_quorum_queue: rabbit.rabbit_quorum_queue,
        rabbit_transient_quorum_queue: rabbit.rabbit_transient_quorum_queue,
        rabbit_quorum_delivery_limit: rabbit.rabbit_quorum_delivery_limit,
        rabbit_quorum_max_memory_length: rabbit.rabbit_quorum_max_memory_length,
        rabbit_quorum_max_memory_bytes: saturated(rabbit.rabbit_quorum_max_memory_bytes),
        rabbit_transient_queues_ttl: saturated(rabbit.rabbit_transient_queues_ttl),
        rabbit_stream_fanout: rabbit.rabbit_stream_fanout,
        rabbit_qos_prefetch_count: rabbit.rabbit_qos_prefetch_count,
        enable_cancel_on_failover: rabbit.enable_cancel_on_failover,
        use_queue_manager: rabbit.use_queue_manager,
        hostname: rabbit.hostname.clone(),
        processname: rabbit.processname.clone(),
    }
}

/// AMQP's signed numbers end where these would matter.
fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn tls(rabbit: &Rabbit) -> Result<Tls, SetupError> {
    Tls::new(&Certificates {
        authorities: rabbit.ssl_ca_file.clone(),
        own: rabbit.ssl_cert_file.clone(),
        key: rabbit.ssl_key_file.clone(),
        any_name: !rabbit.ssl_enforce_hostname_verification,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use api_compat::config::{ConfigPath, Machine, Sources};

    /// Options for a broker at which nobody listens.
    pub fn unreachable() -> Options {
        let second = Duration::from_secs(1);
        Options {
            broker: Arc::new(Broker {
                url: TransportUrl::parse("rabbit://u:p@127.0.0.1:1/").unwrap(),
                login: LoginMethod::AmqPlain,
                tls: None,
                heartbeat: 60,
                retry: Retry {
                    first: second,
                    step: second,
                    longest: second,
                },
                connect_timeout: second,
                setup_timeout: second,
                farewell_timeout: second,
            }),
            control_exchange: "openstack".to_owned(),
            queues: QueueOptions::default(),
            response_timeout: second,
            missing_consumer_timeout: second,
            notifications: Notifications {
                formats: Vec::new(),
                to_log: false,
                queues: QueueOptions::default(),
                topics: Vec::new(),
                broker: None,
            },
        }
    }

    /// The options with one more in the environment.
    fn with(name: &str, value: &str) -> Options {
        let config = Config::load(&Sources {
            project: "cinder".to_owned(),
            paths: vec![ConfigPath::File("/dev/null".into())],
            overrides: Vec::new(),
            environment: [(name.to_owned(), value.to_owned())].into(),
            machine: Machine {
                hostname: "node1".to_owned(),
                address: "10.0.0.1".to_owned(),
                program: "cinder-backup".to_owned(),
            },
        });
        Options::from_config(&config.unwrap()).unwrap()
    }

    #[test]
    fn every_driver_of_notifications_that_is_named_sends() {
        let drivers = |drivers| {
            let options = with("OS_OSLO_MESSAGING_NOTIFICATIONS__DRIVER", drivers).notifications;
            (options.formats, options.to_log)
        };
        assert_eq!(drivers("noop"), (vec![], false));
        assert_eq!(drivers("messaging"), (vec![Format::V1], false));
        assert_eq!(drivers(" messagingv2"), (vec![Format::V2], false));
        assert_eq!(drivers("log"), (vec![], true));
    }

    #[test]
    fn the_url_of_notifications_shapes_their_queues() {
        let url = "rabbit://u:p@n/?rabbit_quorum_queue=true";
        let options = with("OS_OSLO_MESSAGING_NOTIFICATIONS__TRANSPORT_URL", url);
        assert!(options.notifications.queues.rabbit_quorum_queue);
        assert!(!options.queues.rabbit_quorum_queue);
        let broker = options.notifications.broker.unwrap();
        assert_eq!(broker.url.hosts[0].host, "n");
    }

    #[test]
    fn waits_grow_by_steps_up_to_the_longest() {
        let second = Duration::from_secs(1);
        let retry = Retry {
            first: second,
            step: second * 2,
            longest: second * 6,
        };
        let waits: Vec<u64> = (1..6).map(|tries| retry.wait(tries).as_secs()).collect();
        assert_eq!(waits, [1, 3, 5, 6, 6]);
    }

    #[test]
    fn no_number_is_too_large_for_a_wait() {
        let forever = u64::MAX.to_string();
        let retry = with("OS_OSLO_MESSAGING_RABBIT__RABBIT_RETRY_BACKOFF", &forever).broker;
        assert_eq!(retry.retry.wait(u32::MAX), retry.retry.longest);
        let options = with("OS_DEFAULT__RPC_RESPONSE_TIMEOUT", &forever);
        let now = std::time::Instant::now();
        assert!(now.checked_add(options.response_timeout).is_some());
    }
}
