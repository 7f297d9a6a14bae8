//! Requests, answers, casts and notifications between two processes of ours, as the broker sees
//! them.

use api_compat::messaging::Failure;
use api_compat::messaging::queue::QueueOptions;
use api_compat::notification::{BackupEvent, Format, Notification};
use api_compat::objects::Backup;
use api_compat::rpc::Kind;
use chrono::Utc;
use cinderblock::amqp::CallError;
use lapin::BasicProperties;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::lab::{
    HOST_QUEUE, Lab, TOPIC, accept, amqp, answer, context, eventually, fanout, request, serve,
    within,
};
use crate::logs;

#[tokio::test]
async fn a_call_gets_its_result() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let result = json!({"answer": [1, null, "Grüße"]});
    let context = context();
    let call = theirs.call(request(Kind::Call, HOST_QUEUE, "double"), &context);
    let (outcome, request) = tokio::join!(call, answer(&mut server, result.clone()));
    assert_eq!(outcome.expect("answered"), result);
    assert_eq!(request.method, "double");
    assert_eq!(request.version.as_deref(), Some("2.4"));
    assert_eq!(request.args["text"], "Grüße");
    assert!(request.context == context);
    theirs.close().await;
    server.stop().await;
    ours.close().await;
}

#[tokio::test]
async fn calls_that_overtake_each_other_get_their_own_results() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let context = context();
    let serving = async {
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(accept(&mut server).await);
        }
        for (request, reply) in waiting.into_iter().rev() {
            let reply = reply.expect("a call");
            reply.send(Ok(request.method.into())).await;
        }
    };
    let (first, second, third, ()) = tokio::join!(
        theirs.call(request(Kind::Call, HOST_QUEUE, "first"), &context),
        theirs.call(request(Kind::Call, TOPIC, "second"), &context),
        theirs.call(request(Kind::Call, HOST_QUEUE, "third"), &context),
        serving,
    );
    assert_eq!(first.expect("answered"), "first");
    assert_eq!(second.expect("answered"), "second");
    assert_eq!(third.expect("answered"), "third");
}

#[tokio::test]
async fn a_call_gets_the_exception() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let context = context();
    let call = theirs.call(request(Kind::Call, HOST_QUEUE, "fail"), &context);
    let serving = async {
        let (_, reply) = accept(&mut server).await;
        let failure = Failure::invalid_backup("it is late");
        reply.expect("a call").send(Err(failure)).await;
    };
    let (outcome, ()) = tokio::join!(call, serving);
    match outcome {
        Err(CallError::Remote(failure)) => {
            assert_eq!(failure, Failure::invalid_backup("it is late"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cast_arrives_at_one_and_a_fanout_at_all() {
    let lab = Lab::new().await;
    let (one, two, theirs) = (lab.amqp(), lab.amqp(), lab.amqp());
    let (mut first, mut second) = (serve(&one).await, serve(&two).await);
    let context = context();
    let cast = request(Kind::Cast, TOPIC, "once");
    within("a cast", theirs.cast(cast, &context))
        .await
        .expect("sent");
    let got = tokio::select! {
        got = accept(&mut first) => got,
        got = accept(&mut second) => got,
    };
    assert_eq!(got.0.method, "once");
    assert!(got.1.is_none(), "a cast is not answered");
    within("a fanout", theirs.cast(fanout(TOPIC, "all"), &context))
        .await
        .expect("sent");
    // Had the cast reached both, one of them would find it here.
    assert_eq!(accept(&mut first).await.0.method, "all");
    assert_eq!(accept(&mut second).await.0.method, "all");
}

/// The properties that Python's messages have, as they were recorded.
fn assert_recorded(properties: &BasicProperties, expiration: Option<&str>) {
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(|t| t.to_string());
    assert_eq!(
        text(properties.content_type()).as_deref(),
        Some("application/json")
    );
    assert_eq!(
        text(properties.content_encoding()).as_deref(),
        Some("utf-8")
    );
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(*properties.priority(), Some(0));
    assert_eq!(text(properties.expiration()).as_deref(), expiration);
    let headers = properties.headers().as_ref().expect("headers, if empty");
    assert!(headers.inner().is_empty());
    for unused in [
        properties.correlation_id(),
        properties.reply_to(),
        properties.message_id(),
        properties.kind(),
        properties.app_id(),
    ] {
        assert_eq!(text(unused), None);
    }
}

fn payload(body: &[u8]) -> Value {
    let envelope: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(envelope["oslo.version"], "2.0");
    serde_json::from_str(envelope["oslo.message"].as_str().expect("a text")).expect("JSON")
}

#[tokio::test]
async fn messages_have_the_properties_that_python_gives_them() {
    let lab = Lab::new().await;
    let theirs = lab.amqp();
    let raw = lab.raw().await;
    let exchange = ExchangeDeclareOptions::default();
    raw.channel
        .exchange_declare(
            "openstack".into(),
            lapin::ExchangeKind::Topic,
            exchange,
            Default::default(),
        )
        .await
        .expect("declared");
    raw.channel
        .queue_declare(
            HOST_QUEUE.into(),
            QueueDeclareOptions::default(),
            Default::default(),
        )
        .await
        .expect("declared");
    raw.channel
        .queue_bind(
            HOST_QUEUE.into(),
            "openstack".into(),
            HOST_QUEUE.into(),
            QueueBindOptions::default(),
            Default::default(),
        )
        .await
        .expect("bound");
    let context = context();
    let taken = async || eventually("a message", async || raw.take(HOST_QUEUE).await).await;

    theirs
        .cast(request(Kind::Cast, HOST_QUEUE, "cast"), &context)
        .await
        .expect("sent");
    let cast = taken().await;
    assert_eq!(cast.exchange.as_str(), "openstack");
    assert_recorded(&cast.properties, None);
    let body = payload(&cast.data);
    assert_eq!(body["method"], "cast");
    assert!(body.get("_msg_id").is_none());

    let call = theirs.call(request(Kind::Call, HOST_QUEUE, "call"), &context);
    let serving = async {
        let call = taken().await;
        assert_recorded(&call.properties, Some("30000"));
        let body = payload(&call.data);
        assert_eq!(body["_timeout"], Value::Null);
        let reply = json!({
            "result": 4, "failure": null, "ending": true, "_msg_id": body["_msg_id"],
        });
        let queue = body["_reply_q"].as_str().expect("a queue");
        raw.put(queue, reply.to_string().as_bytes()).await;
    };
    let (outcome, ()) = tokio::join!(call, serving);
    assert_eq!(outcome.expect("answered"), 4);
}

#[tokio::test]
async fn an_answer_has_the_properties_that_python_gives_it() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    raw.channel
        .queue_declare(
            "reply_raw".into(),
            QueueDeclareOptions::default(),
            Default::default(),
        )
        .await
        .expect("declared");
    let id = "0123456789abcdef0123456789abcdef";
    let call = json!({"method": "m", "args": {}, "_msg_id": id, "_reply_q": "reply_raw"});
    raw.put(HOST_QUEUE, call.to_string().as_bytes()).await;
    answer(&mut server, json!("done")).await;
    let reply = raw.take("reply_raw").await.expect("confirmed, so there");
    assert_eq!(reply.exchange.as_str(), "");
    assert_recorded(&reply.properties, None);
    let body = payload(&reply.data);
    assert_eq!(body["result"], "done");
    assert_eq!(body["failure"], Value::Null);
    assert_eq!(body["ending"], true);
    assert_eq!(body["_msg_id"], id);
    assert_eq!(body["_unique_id"].as_str().map(str::len), Some(32));
    assert_eq!(body.as_object().map(|body| body.len()), Some(5));
}

fn notification() -> Notification {
    let backup: Backup = serde_json::from_value(json!({
        "id": Uuid::new_v4(), "volume_id": Uuid::new_v4(), "user_id": "u", "project_id": "p",
    }))
    .expect("a backup");
    let (event, id) = (BackupEvent::CreateStart, Uuid::new_v4());
    Notification::new(event, &backup, "tester", &context(), id, Utc::now())
}

#[tokio::test]
async fn a_notification_waits_in_its_queue() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    within("a notification", ours.notify(notification())).await;
    let message = lab.raw().await.take("notifications.info").await;
    let message = message.expect("it was sent");
    assert_eq!(message.exchange.as_str(), "openstack");
    assert_recorded(&message.properties, None);
    assert_eq!(payload(&message.data)["event_type"], "backup.create.start");
}

#[tokio::test]
async fn a_notification_is_sent_by_each_driver() {
    let lab = Lab::new().await;
    let mut options = lab.options(QueueOptions::default());
    options.notifications.formats = vec![Format::V2, Format::V1];
    within("a notification", amqp(options).notify(notification())).await;
    let raw = lab.raw().await;
    let with_envelope = raw.take("notifications.info").await.expect("it was sent");
    let enveloped = payload(&with_envelope.data);
    let bare = raw.take("notifications.info").await.expect("so was this");
    let bare: Value = serde_json::from_slice(&bare.data).expect("JSON");
    assert_eq!(bare["event_type"], "backup.create.start");
    assert_eq!(bare["message_id"], enveloped["message_id"]);
    // Whoever consumes both shall not take one for a copy of the other.
    assert_ne!(bare["_unique_id"], enveloped["_unique_id"]);
    assert!(raw.take("notifications.info").await.is_none());
}

/// The driver `log`.
#[tokio::test]
async fn a_notification_is_a_line_of_the_log() {
    logs::record();
    let lab = Lab::new().await;
    let mut options = lab.options(QueueOptions::default());
    options.notifications.formats = Vec::new();
    options.notifications.to_log = true;
    let notification = notification();
    let id = serde_json::from_str::<Value>(&notification.to_json()).expect("JSON");
    let id = id["message_id"].as_str().expect("an id").to_owned();
    within("a notification", amqp(options).notify(notification)).await;
    let lines = logs::shown(&id);
    let logger = "oslo.messaging.notification.backup.create.start ";
    assert!(
        lines.len() == 1 && lines[0].starts_with(logger),
        "{lines:?}"
    );
}

/// As the URL of their broker may say.
#[tokio::test]
async fn notifications_have_queue_options_of_their_own() {
    let lab = Lab::new().await;
    let mut options = lab.options(QueueOptions::default());
    options.notifications.queues.rabbit_quorum_queue = true;
    within("a notification", amqp(options).notify(notification())).await;
    let queue = lab.find("queues", "name", "notifications.info").await;
    assert_eq!(queue.expect("declared")["type"], "quorum");
}
