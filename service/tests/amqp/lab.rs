//! A virtual host that goes with its test, how we connect to it, and what the broker says of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api_compat::config::{LoginMethod, TransportUrl};
use api_compat::messaging::queue::QueueOptions;
use api_compat::messaging::{Request, RequestContext};
use api_compat::notification::Format;
use api_compat::rpc::{Destination, Kind, Outgoing};
use chrono::Utc;
use cinderblock::amqp::{Amqp, Broker, Notifications, Options, Reply, Retry, Server};
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{BasicProperties, Channel, Connection};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

/// The topic and the host of the workers in these tests.
pub const TOPIC: &str = "cinder-backup";
pub const HOST: &str = "tester";
/// Both: the queue of one host.
pub const HOST_QUEUE: &str = "cinder-backup.tester";

/// After this nothing is going to happen any more.
const PATIENCE: Duration = Duration::from_secs(180);

/// A variable that tells where a part of the lab is.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

/// What a future comes to; one that hangs is a failure.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("nothing came of: {what}"))
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(what, asking).await
}

/// A virtual host of the lab's RabbitMQ.
pub struct Lab {
    /// Its name.
    pub vhost: String,
    /// The lab's transport URL, for this virtual host.
    pub url: String,
    management: Management,
}

struct Management {
    client: reqwest::Client,
    address: String,
    user: String,
    password: String,
}

impl Management {
    fn new() -> Self {
        let url = variable("LAB_RABBIT_MGMT_URL");
        let url = reqwest::Url::parse(&url).expect("LAB_RABBIT_MGMT_URL is a URL");
        Self {
            client: reqwest::Client::new(),
            address: format!(
                "http://{}:{}/api",
                url.host_str().expect("the URL has a host"),
                url.port_or_known_default().expect("the URL has a port"),
            ),
            user: url.username().to_owned(),
            password: url.password().unwrap_or_default().to_owned(),
        }
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: Value) -> reqwest::Response {
        self.client
            .request(method.clone(), format!("{}/{path}", self.address))
            .basic_auth(&self.user, Some(&self.password))
            .json(&body)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

impl Lab {
    /// Makes a virtual host.
    pub async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let vhost = format!("test-amqp-{}-{count}", std::process::id());
        let url = variable("LAB_AMQP_URL");
        let (address, _) = url[10..].split_once('/').expect("LAB_AMQP_URL has a path");
        let lab = Self {
            url: format!("{}{address}/{vhost}", &url[..10]),
            vhost,
            management: Management::new(),
        };
        lab.put(&format!("vhosts/{}", lab.vhost), json!({})).await;
        let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let user = &lab.transport_url().hosts[0].user;
        lab.put(&format!("permissions/{}/{user}", lab.vhost), everything)
            .await;
        lab
    }

    pub fn transport_url(&self) -> TransportUrl {
        TransportUrl::parse(&self.url).expect("LAB_AMQP_URL is a transport URL")
    }

    /// Options for one process, all else being oslo.messaging's defaults.
    pub fn options(&self, queues: QueueOptions) -> Options {
        Options {
            broker: broker(self.transport_url()),
            control_exchange: "openstack".to_owned(),
            queues: queues.clone(),
            response_timeout: Duration::from_secs(30),
            missing_consumer_timeout: Duration::from_secs(5),
            notifications: Notifications {
                formats: vec![Format::V2],
                to_log: false,
                queues,
                topics: vec!["notifications".to_owned()],
                broker: None,
            },
        }
    }

    /// A process with the default options.
    pub fn amqp(&self) -> Amqp {
        amqp(self.options(QueueOptions::default()))
    }

    /// Asks the management API, `path` being below `/api/<kind>/<vhost>`.
    pub async fn list(&self, kind: &str) -> Vec<Map<String, Value>> {
        let path = format!("{kind}/{}", self.vhost);
        self.read(&path).await
    }

    async fn read(&self, path: &str) -> Vec<Map<String, Value>> {
        let response = self
            .management
            .send(reqwest::Method::GET, path, Value::Null)
            .await;
        assert!(response.status().is_success(), "GET {path}");
        response.json().await.expect("the answer is a list")
    }

    /// The one of a list that a key tells.
    pub async fn find(&self, kind: &str, key: &str, value: &str) -> Option<Map<String, Value>> {
        let list = self.list(kind).await;
        list.into_iter().find(|entry| entry[key] == value)
    }

    /// The names of the queues that begin like this.
    pub async fn queues(&self, prefix: &str) -> Vec<String> {
        let queues = self.list("queues").await;
        let names = queues.iter().filter_map(|queue| queue["name"].as_str());
        let names = names.filter(|name| name.starts_with(prefix));
        names.map(str::to_owned).collect()
    }

    /// The names of our connections for this purpose (`listen`, `reply`, `send`).
    pub async fn connections(&self, purpose: &str) -> Vec<String> {
        let path = format!("vhosts/{}/connections", self.vhost);
        let connections = self.read(&path).await;
        let ours = connections.iter().filter(|connection| {
            let given = connection["client_properties"]["connection_name"].as_str();
            given.is_some_and(|name| name.contains(&format!(":{purpose}:")))
        });
        let names = ours.filter_map(|connection| connection["name"].as_str());
        names.map(str::to_owned).collect()
    }

    /// Closes our connections for this purpose, as an operator would; there must be some.
    pub async fn cut(&self, purpose: &str) {
        let names = eventually("a connection to cut", async || {
            let names = self.connections(purpose).await;
            (!names.is_empty()).then_some(names)
        })
        .await;
        for name in names {
            self.delete(&format!("connections/{}", name.replace(' ', "%20")))
                .await;
        }
    }

    pub async fn put(&self, path: &str, body: Value) {
        let response = self.management.send(reqwest::Method::PUT, path, body).await;
        assert!(response.status().is_success(), "PUT {path}");
    }

    pub async fn delete(&self, path: &str) {
        let response = self
            .management
            .send(reqwest::Method::DELETE, path, Value::Null)
            .await;
        assert!(response.status().is_success(), "DELETE {path}");
    }

    /// Deletes a queue.
    pub async fn delete_queue(&self, name: &str) {
        self.delete(&format!("queues/{}/{name}", self.vhost)).await;
    }

    /// A plain connection to put messages into queues and to take them out.
    pub async fn raw(&self) -> Raw {
        let url = self.transport_url();
        let host = &url.hosts[0];
        let uri = AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: host.user.clone(),
                    password: host.password.expose_secret().to_owned(),
                },
                host: host.host.clone(),
                port: host.port,
            },
            vhost: url.virtual_host.clone(),
            ..AMQPUri::default()
        };
        let connection = Connection::connect_uri(uri, Default::default())
            .await
            .expect("the lab's broker answers");
        let channel = connection.create_channel().await.expect("a channel");
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms");
        Raw {
            _connection: connection,
            channel,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The client's connections belong to the test's runtime, which waits here.
        let management = Management::new();
        let path = format!("vhosts/{}", self.vhost);
        let deleting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(management.send(reqwest::Method::DELETE, &path, Value::Null));
        });
        // A failure here has been printed by that thread; the test's own outcome stands.
        let _ = deleting.join();
    }
}

/// Messages without any of the code under test.
pub struct Raw {
    _connection: Connection,
    pub channel: Channel,
}

impl Raw {
    /// Puts a body into a queue.
    pub async fn put(&self, queue: &str, body: &[u8]) {
        self.put_with(queue, body, BasicProperties::default()).await;
    }

    /// Puts a body with these properties into a queue.
    pub async fn put_with(&self, queue: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirmed = self
            .channel
            .basic_publish("".into(), queue.into(), options, body, properties)
            .await
            .expect("published");
        let confirmation = within("a confirmation", confirmed)
            .await
            .expect("confirmed");
        assert!(
            confirmation.take_message().is_none(),
            "there is no queue {queue}"
        );
    }

    /// Takes the next message out of a queue.
    pub async fn take(&self, queue: &str) -> Option<lapin::message::BasicGetMessage> {
        self.channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true })
            .await
            .expect("the queue is there")
    }
}

/// A broker at a URL, with short waits.
pub fn broker(url: TransportUrl) -> Arc<Broker> {
    patient_broker(url, Duration::from_millis(100))
}

/// A broker at a URL, with this wait between two tries.
pub fn patient_broker(url: TransportUrl, pause: Duration) -> Arc<Broker> {
    Arc::new(Broker {
        url,
        login: LoginMethod::AmqPlain,
        tls: None,
        heartbeat: 60,
        retry: Retry {
            first: pause,
            step: Duration::ZERO,
            longest: pause,
        },
        connect_timeout: Duration::from_secs(10),
        setup_timeout: Duration::from_secs(60),
        // What is left behind must not depend on how busy the machine is.
        farewell_timeout: Duration::from_secs(30),
    })
}

/// A process with these options.
pub fn amqp(options: Options) -> Amqp {
    Amqp::new(options).expect("the options fit together")
}

/// Starts a server and waits until it consumes.
pub async fn serve(amqp: &Amqp) -> Server {
    let server = amqp.serve(TOPIC, HOST);
    consuming(&server).await;
    server
}

/// Waits until a server consumes.
pub async fn consuming(server: &Server) {
    let mut ready = server.ready();
    let ready = ready.wait_for(|ready| *ready);
    within("a server that consumes", ready)
        .await
        .expect("the server lives");
}

/// Takes the next request on.
pub async fn accept(server: &mut Server) -> (Request, Option<Reply>) {
    let incoming = within("a request", server.next()).await;
    let accepted = incoming.expect("the server runs").accept().await;
    accepted.expect("the connection is there")
}

/// Takes the next request on, which must be a call, and answers it.
pub async fn answer(server: &mut Server, value: Value) -> Request {
    let (request, reply) = accept(server).await;
    let reply = reply.expect("the request is a call");
    within("an answer sent", reply.send(Ok(value))).await;
    request
}

/// A request to a topic.
pub fn request(kind: Kind, topic: &str, method: &'static str) -> Outgoing {
    outgoing(Destination::Topic(topic.to_owned()), kind, method)
}

/// A cast to all servers of a topic.
pub fn fanout(topic: &'static str, method: &'static str) -> Outgoing {
    outgoing(Destination::Fanout(topic), Kind::Cast, method)
}

fn outgoing(destination: Destination, kind: Kind, method: &'static str) -> Outgoing {
    let args = json!({"number": 7, "text": "Grüße"});
    Outgoing {
        destination,
        kind,
        method,
        version: "2.4",
        args: args.as_object().expect("an object").clone(),
    }
}

/// Who asks.
pub fn context() -> RequestContext {
    RequestContext::admin("req-5e0f8e5c-0000-4000-8000-000000000001", Utc::now())
}
