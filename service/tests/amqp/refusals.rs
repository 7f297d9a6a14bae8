//! Brokers that are not there or do not let us in, and things in them that do not fit.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use api_compat::config::TransportUrl;
use api_compat::messaging::queue::QueueOptions;
use api_compat::rpc::Kind;
use cinderblock::amqp::{Amqp, CallError, Options};
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::lab::{
    HOST, HOST_QUEUE, Lab, TOPIC, amqp, answer, broker, consuming, context, eventually, request,
    serve, within,
};
use crate::logs;
use crate::silence::{QUEUE_DECLARE, falling_silent};

const DURABLE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

/// The lab's URL with another user or other hosts.
pub fn elsewhere(lab: &Lab, credentials: Option<&str>, address: &str) -> TransportUrl {
    let (login, rest) = lab.url[9..].split_once('@').expect("the URL has a user");
    let (own, vhost) = rest.split_once('/').expect("the URL has a path");
    let login = credentials.unwrap_or(login.trim_start_matches('/'));
    let address = if address.is_empty() { own } else { address };
    let url = format!("rabbit://{login}@{address}/{vhost}");
    TransportUrl::parse(&url).expect("a URL")
}

/// A port at which nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

fn reaching(lab: &Lab, url: TransportUrl) -> Amqp {
    amqp(Options {
        broker: broker(url),
        response_timeout: Duration::from_secs(2),
        ..lab.options(QueueOptions::default())
    })
}

/// Nothing was sent, which is not the silence of the other side. Tenants read no address.
fn assert_unsent(error: &CallError, password: &str) {
    assert!(matches!(error, CallError::Unreachable(_)), "{error}");
    assert_eq!(error.to_string(), "The message broker cannot be reached");
    assert!(!format!("{error:?}").contains(password));
}

/// Neither serving nor casting, calling or closing hangs; what is said names no password.
async fn assert_unreachable(ours: &Amqp, name: &str, password: &str) {
    logs::record();
    let server = ours.serve(TOPIC, HOST);
    let context = context();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let cast = request(Kind::Cast, HOST_QUEUE, "m");
    let cast = ours.cast_before(cast, &context, deadline);
    let error = within("a cast", cast).await.expect_err("nobody is there");
    assert_unsent(&error, password);
    let call = ours.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let error = within("a call", call).await.expect_err("nobody is there");
    assert_unsent(&error, password);
    let said = eventually("a line", async || {
        let lines = logs::shown(name);
        (!lines.is_empty()).then_some(lines)
    })
    .await;
    assert!(!*server.ready().borrow());
    within("a stop", server.stop()).await;
    within("a close", ours.close()).await;
    assert!(said.iter().any(|line| line.contains("purpose=\"listen\"")));
    assert_eq!(logs::lines(password), Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_does_not_show_it() {
    let lab = Lab::new().await;
    let url = elsewhere(&lab, Some("stranger:jR7secret"), "");
    let ours = reaching(&lab, url);
    assert_unreachable(&ours, "ACCESS_REFUSED", "jR7secret").await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error() {
    let lab = Lab::new().await;
    let address = format!("127.0.0.1:{}", closed_port());
    let url = elsewhere(&lab, Some("stranger:qK4secret"), &address);
    assert_unreachable(&reaching(&lab, url), &address, "qK4secret").await;
}

#[tokio::test]
async fn the_second_host_is_used_when_the_first_is_dead() {
    let lab = Lab::new().await;
    let dead = format!("127.0.0.1:{}", closed_port());
    let ours = amqp(Options {
        broker: broker(second(&lab, &dead)),
        ..lab.options(QueueOptions::default())
    });
    let mut server = serve(&ours).await;
    let context = context();
    let call = ours.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let (outcome, _) = tokio::join!(call, answer(&mut server, json!(1)));
    assert_eq!(outcome.expect("answered"), 1);
}

/// The lab's broker behind another host.
fn second(lab: &Lab, first: &str) -> TransportUrl {
    let own = lab.url[9..].trim_start_matches('/');
    let (own, _) = own.rsplit_once('/').expect("the URL has a path");
    let url = format!("rabbit://x:y@{first},{own}/{}", lab.vhost);
    TransportUrl::parse(&url).expect("a URL")
}

/// Accepts connections and says nothing, like a host that is frozen.
fn silent_host() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    (listener, address)
}

/// Whoever publishes may have less patience than it takes to give up the first host.
#[tokio::test]
async fn the_second_host_is_used_when_the_first_is_silent() {
    let lab = Lab::new().await;
    let (_silent, address) = silent_host();
    let mut impatient = Arc::into_inner(broker(second(&lab, &address))).expect("ours alone");
    impatient.connect_timeout = Duration::from_secs(3);
    let ours = amqp(Options {
        broker: Arc::new(impatient),
        ..lab.options(QueueOptions::default())
    });
    let context = context();
    eventually("a cast that is sent", async || {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        let cast = request(Kind::Cast, HOST_QUEUE, "m");
        ours.cast_before(cast, &context, deadline).await.ok()
    })
    .await;
}

#[tokio::test]
async fn names_that_are_too_long_are_errors_at_once() {
    logs::record();
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let context = context();
    let topic = format!("cinder-volume.{}", "h".repeat(255));
    let cast = ours.cast(request(Kind::Cast, &topic, "m"), &context);
    let error = within("a cast", cast).await.expect_err("no such name");
    assert!(matches!(error, CallError::Unroutable(_)), "{error}");
    let call = ours.call(request(Kind::Call, &topic, "m"), &context);
    let error = within("a call", call).await.expect_err("no such name");
    assert!(matches!(error, CallError::Unroutable(_)), "{error}");
    let host = format!("{}{}", lab.vhost, "h".repeat(255));
    let server = ours.serve(TOPIC, &host);
    let name = format!("{TOPIC}.{}", lab.vhost);
    eventually("a line about it", async || {
        let lines = logs::shown(&name).into_iter();
        lines.into_iter().find(|line| line.contains("too long"))
    })
    .await;
    within("a stop", server.stop()).await;
    let cast = ours.cast(request(Kind::Cast, HOST_QUEUE, "m"), &context);
    within("a cast", cast).await.expect("the link is unharmed");
}

/// Nothing is left of an attempt that was given up: no thread, no socket.
#[tokio::test]
async fn a_connection_that_is_given_up_is_closed() {
    let lab = Lab::new().await;
    let (silent, address) = silent_host();
    let url = elsewhere(&lab, None, &address);
    let mut impatient = Arc::into_inner(broker(url)).expect("ours alone");
    impatient.connect_timeout = Duration::from_secs(3);
    let ours = amqp(Options {
        broker: Arc::new(impatient),
        ..lab.options(QueueOptions::default())
    });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    let cast = request(Kind::Cast, HOST_QUEUE, "m");
    let cast = ours.cast_before(cast, &context(), deadline).await;
    cast.expect_err("nobody answers");
    silent.set_nonblocking(true).expect("it is a socket");
    let silent = tokio::net::TcpListener::from_std(silent).expect("a listener");
    let (mut attempt, _) = within("an attempt", silent.accept()).await.expect("made");
    let mut said = Vec::new();
    let heard = within("its end", attempt.read_to_end(&mut said)).await;
    heard.expect("it ends in order");
    assert!(said.starts_with(b"AMQP"), "{said:?}");
}

/// A broker that accepts connections and says nothing must not hold up a stop.
#[tokio::test]
async fn a_silent_broker_does_not_hold_up_a_stop() {
    let lab = Lab::new().await;
    let (_silent, address) = silent_host();
    let ours = reaching(&lab, elsewhere(&lab, None, &address));
    let server = ours.serve(TOPIC, HOST);
    let context = context();
    let call = ours.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    within("a call", call).await.expect_err("nobody answers");
    within("a stop", server.stop()).await;
    within("a close", ours.close()).await;
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_asked_on_another_connection() {
    logs::record();
    let lab = Lab::new().await;
    let url = elsewhere(&lab, None, &falling_silent(&lab, QUEUE_DECLARE).await);
    let mut patient = Arc::into_inner(broker(url)).expect("nobody else has it");
    patient.setup_timeout = Duration::from_secs(10);
    let ours = amqp(Options {
        broker: Arc::new(patient),
        ..lab.options(QueueOptions::default())
    });
    let server = serve(&ours).await;
    let said = logs::shown("the broker did not answer within 10 s");
    assert_eq!(said.len(), 1, "{said:?}");
    within("a stop", server.stop()).await;
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_named_and_waited_for() {
    logs::record();
    let lab = Lab::new().await;
    let raw = lab.raw().await;
    let host = format!("misfit-{}", lab.vhost);
    let name = format!("{TOPIC}.{host}");
    let mut other = FieldTable::default();
    other.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let existing = raw
        .channel
        .queue_declare(name.as_str().into(), DURABLE, other);
    existing.await.expect("declared");
    let ours = lab.amqp();
    let mut server = ours.serve(TOPIC, &host);
    let said = eventually("a line about it", async || {
        let lines = logs::shown(&name).into_iter();
        lines.into_iter().find(|line| line.contains("delete it"))
    })
    .await;
    assert!(said.contains("exists with other arguments"), "{said}");
    assert!(said.contains("PRECONDITION_FAILED"), "{said}");
    assert!(!*server.ready().borrow());
    lab.delete_queue(&name).await;
    consuming(&server).await;
    let context = context();
    let call = ours.call(request(Kind::Call, &name, "m"), &context);
    let (outcome, _) = tokio::join!(call, answer(&mut server, json!(1)));
    assert_eq!(outcome.expect("answered"), 1);
}

/// Whoever was first has decided about durability, of exchanges and of queues.
async fn assert_used_as_it_is(durable: bool, queues: QueueOptions) {
    let lab = Lab::new().await;
    let raw = lab.raw().await;
    let options = ExchangeDeclareOptions {
        durable,
        ..ExchangeDeclareOptions::default()
    };
    let exchange = raw.channel.exchange_declare(
        "openstack".into(),
        ExchangeKind::Topic,
        options,
        FieldTable::default(),
    );
    exchange.await.expect("declared");
    if !queues.rabbit_quorum_queue {
        let options = QueueDeclareOptions { durable, ..DURABLE };
        let queue = raw
            .channel
            .queue_declare(HOST_QUEUE.into(), options, FieldTable::default());
        queue.await.expect("declared");
    }
    let ours = amqp(lab.options(queues));
    let mut server = serve(&ours).await;
    let context = context();
    let call = ours.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let (outcome, _) = tokio::join!(call, answer(&mut server, json!(1)));
    assert_eq!(outcome.expect("answered"), 1);
    let exchange = lab.find("exchanges", "name", "openstack").await;
    assert_eq!(exchange.expect("still there")["durable"], durable);
}

#[tokio::test]
async fn an_exchange_and_a_queue_of_another_durability_are_used_as_they_are() {
    assert_used_as_it_is(true, QueueOptions::default()).await;
    let durable = QueueOptions {
        amqp_durable_queues: true,
        ..QueueOptions::default()
    };
    assert_used_as_it_is(false, durable).await;
}

#[tokio::test]
async fn a_quorum_queue_is_bound_to_an_exchange_that_is_not_durable() {
    let quorum = QueueOptions {
        rabbit_quorum_queue: true,
        ..QueueOptions::default()
    };
    assert_used_as_it_is(false, quorum).await;
}
