//! Messages that nobody should have sent, and messages that come twice.

use api_compat::rpc::Kind;
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use crate::lab::{
    HOST_QUEUE, Lab, Raw, TOPIC, accept, context, eventually, request, serve, within,
};
use crate::logs;

fn message(method: &str, unique_id: &str) -> Vec<u8> {
    json!({"method": method, "args": {}, "_unique_id": unique_id})
        .to_string()
        .into_bytes()
}

/// What waits in a queue and is in nobody's hands. To be asked when no server is left.
async fn left_in(raw: &Raw, queue: &str) -> u32 {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = raw
        .channel
        .queue_declare(queue.into(), passive, Default::default())
        .await;
    queue.expect("the queue is there").message_count()
}

#[tokio::test]
async fn what_cannot_be_understood_is_rejected_and_the_next_request_served() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    let enveloped = |version: &str, payload: &str| {
        json!({"oslo.version": version, "oslo.message": payload}).to_string()
    };
    let deep = "[".repeat(100_000);
    let bodies = [
        String::new(),
        "no JSON".to_owned(),
        "\u{0}".to_owned(),
        "[1, 2]".to_owned(),
        "null".to_owned(),
        deep,
        "{}".to_owned(),
        json!({"args": {}}).to_string(),
        json!({"method": 1}).to_string(),
        json!({"method": "m", "args": [1]}).to_string(),
        json!({"method": "m", "_msg_id": "x"}).to_string(),
        enveloped("3.0", r#"{"method": "m"}"#),
        enveloped("2.7", r#"{"method": "m"}"#),
        enveloped("2.0", "no JSON"),
        enveloped("2.0", "[]"),
        json!({"oslo.version": "2.0", "oslo.message": {"method": "m"}}).to_string(),
        json!({"method": "m", "_msg_id": "x", "_reply_q": "q".repeat(256)}).to_string(),
        "x".repeat(100 << 20),
    ];
    for body in bodies {
        raw.put(HOST_QUEUE, body.as_bytes()).await;
    }
    raw.put(HOST_QUEUE, b"\xff\xfe").await;
    raw.put(HOST_QUEUE, &message("sound", "1")).await;
    assert_eq!(accept(&mut server).await.0.method, "sound");
    within("a stop", server.stop()).await;
    assert_eq!(left_in(&raw, HOST_QUEUE).await, 0);
}

#[tokio::test]
async fn an_unknown_compression_is_named_and_rejected() {
    logs::record();
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    for method in [
        AMQPValue::LongString(lab.vhost.as_str().into()),
        AMQPValue::Boolean(true),
        AMQPValue::LongString("application/x-gzip".into()),
    ] {
        let mut headers = FieldTable::default();
        headers.insert("compression".into(), method);
        let properties = BasicProperties::default().with_headers(headers);
        raw.put_with(HOST_QUEUE, &message("packed", "1"), properties)
            .await;
    }
    raw.put(HOST_QUEUE, &message("sound", "2")).await;
    assert_eq!(accept(&mut server).await.0.method, "sound");
    let said = logs::shown(&format!("compressed as {:?}", lab.vhost));
    assert_eq!(said.len(), 1, "{said:?}");
    within("a stop", server.stop()).await;
    assert_eq!(left_in(&raw, HOST_QUEUE).await, 0);
}

#[tokio::test]
async fn an_answer_that_cannot_be_understood_is_dropped() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    let context = context();
    let call = theirs.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let serving = async {
        let (request, reply) = accept(&mut server).await;
        let queue = request.call.expect("a call").reply_queue;
        raw.put(&queue, b"no JSON").await;
        raw.put(&queue, br#"{"result": 1, "ending": true}"#).await;
        let stranger = json!({"_msg_id": "stranger", "result": 1, "ending": true});
        raw.put(&queue, stranger.to_string().as_bytes()).await;
        reply.expect("a call").send(Ok(json!("sound"))).await;
    };
    let (outcome, ()) = tokio::join!(call, serving);
    assert_eq!(outcome.expect("answered"), "sound");
}

#[tokio::test]
async fn a_message_that_comes_twice_is_served_once() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    raw.put(HOST_QUEUE, &message("first", "1")).await;
    raw.put(HOST_QUEUE, &message("again", "1")).await;
    raw.put(TOPIC, &message("elsewhere", "2")).await;
    assert_eq!(accept(&mut server).await.0.method, "first");
    let again = within("the second", server.next()).await.expect("running");
    assert!(again.accept().await.is_none());
    assert_eq!(accept(&mut server).await.0.method, "elsewhere");
    raw.put(HOST_QUEUE, &message("last", "3")).await;
    assert_eq!(accept(&mut server).await.0.method, "last");
    within("a stop", server.stop()).await;
    assert_eq!(left_in(&raw, HOST_QUEUE).await, 0);
}

#[tokio::test]
async fn what_was_not_accepted_is_delivered_again() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    for (method, id) in [("taken", "1"), ("seen", "2"), ("waiting", "3")] {
        raw.put(HOST_QUEUE, &message(method, id)).await;
    }
    assert_eq!(accept(&mut server).await.0.method, "taken");
    let seen = within("a request", server.next()).await.expect("running");
    assert_eq!(seen.request().method, "seen");
    within("a stop", server.stop()).await;
    // Too late: the broker has it again.
    assert!(seen.accept().await.is_none());
    eventually("the rest in its queue", async || {
        (left_in(&raw, HOST_QUEUE).await == 2).then_some(())
    })
    .await;
    let mut server = serve(&ours).await;
    assert_eq!(accept(&mut server).await.0.method, "seen");
    assert_eq!(accept(&mut server).await.0.method, "waiting");
}
