//! Connections and queues that go away, and answers that nobody waits for.

use std::time::Duration;

use api_compat::messaging::queue::QueueOptions;
use api_compat::rpc::Kind;
use cinderblock::amqp::{Amqp, Options, Server};
use futures_util::future::join_all;
use lapin::options::QueueDeclareOptions;
use serde_json::json;

use crate::lab::{
    HOST_QUEUE, Lab, TOPIC, accept, amqp, answer, broker, consuming, context, eventually, fanout,
    patient_broker, request, serve, within,
};
use crate::logs;
use crate::refusals::elsewhere;
use crate::silence::{BASIC_ACK, falling_silent};
use crate::topology::kolla;

/// A call that is served.
async fn assert_served(theirs: &Amqp, server: &mut Server) {
    let context = context();
    let call = theirs.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let (outcome, _) = tokio::join!(call, answer(server, json!("served")));
    assert_eq!(outcome.expect("answered"), "served");
}

/// Waits until a server has noticed that something is gone, and consumes again.
async fn recovered(server: &Server, breaking: impl Future<Output = ()>) {
    let mut ready = server.ready();
    ready.mark_unchanged();
    breaking.await;
    within("a loss", ready.changed()).await.expect("it lives");
    consuming(server).await;
}

#[tokio::test]
async fn a_server_comes_back_after_its_connection_was_closed() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    assert_served(&theirs, &mut server).await;
    let fanouts = lab.queues("cinder-backup_fanout_").await;
    recovered(&server, lab.cut("listen")).await;
    assert_served(&theirs, &mut server).await;
    assert_eq!(lab.queues("cinder-backup_fanout_").await, fanouts);
    eventually("only the new connection", async || {
        (lab.connections("listen").await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_that_lost_its_connection_is_served_once() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let cast = request(Kind::Cast, HOST_QUEUE, "once");
    theirs.cast(cast, &context()).await.expect("sent");
    let lost = within("a request", server.next()).await.expect("running");
    recovered(&server, lab.cut("listen")).await;
    assert!(lost.accept().await.is_none());
    assert_eq!(accept(&mut server).await.0.method, "once");
    assert_served(&theirs, &mut server).await;
}

/// The acknowledgement has left this process and did not arrive: the broker delivers again what is
/// being done already.
#[tokio::test]
async fn a_request_that_was_accepted_is_not_served_again() {
    let lab = Lab::new().await;
    let address = falling_silent(&lab, BASIC_ACK).await;
    let ours = amqp(Options {
        broker: broker(elsewhere(&lab, None, &address)),
        ..lab.options(QueueOptions::default())
    });
    let theirs = lab.amqp();
    let mut server = serve(&ours).await;
    let context = context();
    for method in ["accepted", "waiting"] {
        let cast = request(Kind::Cast, HOST_QUEUE, method);
        theirs.cast(cast, &context).await.expect("sent");
    }
    assert_eq!(accept(&mut server).await.0.method, "accepted");
    recovered(&server, lab.cut("listen")).await;
    for served in [None, None, Some("waiting")] {
        let incoming = within("a request", server.next()).await.expect("running");
        let accepted = incoming.accept().await;
        let method = accepted.map(|(request, _)| request.method);
        assert_eq!(method.as_deref(), served);
    }
    assert_served(&theirs, &mut server).await;
}

#[tokio::test]
async fn a_call_is_answered_although_all_connections_were_closed_meanwhile() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let context = context();
    let call = theirs.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let serving = async {
        let (_, reply) = accept(&mut server).await;
        for purpose in ["listen", "reply", "send"] {
            lab.cut(purpose).await;
        }
        reply.expect("a call").send(Ok(json!("still"))).await;
    };
    let (outcome, ()) = tokio::join!(call, serving);
    assert_eq!(outcome.expect("answered"), "still");
    consuming(&server).await;
    assert_served(&theirs, &mut server).await;
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let fanouts = lab.queues("cinder-backup_fanout_").await;
    for name in [HOST_QUEUE, TOPIC, fanouts[0].as_str()] {
        recovered(&server, lab.delete_queue(name)).await;
        assert!(lab.find("queues", "name", name).await.is_some(), "{name}");
        assert_served(&theirs, &mut server).await;
    }
    eventually("only the last connection", async || {
        (lab.connections("listen").await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_reply_queue_is_declared_again() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    assert_served(&theirs, &mut server).await;
    let replies = lab.queues("reply_").await;
    lab.delete_queue(&replies[0]).await;
    eventually("the queue again", async || {
        (lab.queues("reply_").await == replies).then_some(())
    })
    .await;
    assert_served(&theirs, &mut server).await;
}

/// The fanout exchange goes with its last queue; whoever sends to it has declared it before.
#[tokio::test]
async fn a_fanout_finds_its_exchange_again() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let server = serve(&ours).await;
    let context = context();
    let cast = || theirs.cast(fanout(TOPIC, "all"), &context);
    within("a fanout", cast()).await.expect("sent");
    within("a stop", server.stop()).await;
    let exchange = lab.find("exchanges", "name", "cinder-backup_fanout").await;
    assert!(exchange.is_none());
    within("a fanout to nobody", cast()).await.expect("sent");
    let mut server = serve(&ours).await;
    within("a fanout", cast()).await.expect("sent");
    assert_eq!(accept(&mut server).await.0.method, "all");
}

/// What is said while a server is away is in the stream, and waits there.
#[tokio::test]
async fn a_stream_goes_on_where_it_was_left() {
    let lab = Lab::new().await;
    let mut slow = lab.options(kolla("listener"));
    let pause = Duration::from_secs(3);
    slow.broker = patient_broker(lab.transport_url(), pause);
    let ours = amqp(slow);
    let theirs = amqp(lab.options(kolla("speaker")));
    let mut server = serve(&ours).await;
    let context = context();
    let say = async |method| {
        let cast = theirs.cast(fanout(TOPIC, method), &context);
        within("a fanout", cast).await.expect("sent");
    };
    say("first").await;
    assert_eq!(accept(&mut server).await.0.method, "first");
    let breaking = async {
        lab.cut("listen").await;
        for method in ["second", "third", "fourth"] {
            say(method).await;
        }
    };
    recovered(&server, breaking).await;
    for method in ["second", "third", "fourth"] {
        assert_eq!(accept(&mut server).await.0.method, method);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_given_up_and_blocks_nothing() {
    let lab = Lab::new().await;
    let theirs = lab.amqp();
    let ours = amqp(Options {
        missing_consumer_timeout: Duration::from_secs(2),
        ..lab.options(QueueOptions::default())
    });
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    let call = json!({"method": "m", "args": {}, "_msg_id": "x", "_reply_q": "reply_gone"});
    raw.put(HOST_QUEUE, call.to_string().as_bytes()).await;
    let (_, reply) = accept(&mut server).await;
    let hopeless = tokio::spawn(reply.expect("a call").send(Ok(json!(1))));
    assert_served(&theirs, &mut server).await;
    within("an end of it", hopeless).await.expect("no panic");
    assert_served(&theirs, &mut server).await;
    assert!(lab.queues("reply_gone").await.is_empty());
}

/// `kombu_missing_consumer_retry_timeout` = 0.
#[tokio::test]
async fn an_answer_is_sent_once_if_missing_queues_are_not_waited_for() {
    let lab = Lab::new().await;
    let theirs = lab.amqp();
    let ours = amqp(Options {
        missing_consumer_timeout: Duration::ZERO,
        ..lab.options(QueueOptions::default())
    });
    let mut server = serve(&ours).await;
    assert_served(&theirs, &mut server).await;
    lab.cut("send").await;
    assert_served(&theirs, &mut server).await;
    let raw = lab.raw().await;
    let call = json!({"method": "m", "args": {}, "_msg_id": "x", "_reply_q": "reply_gone"});
    raw.put(HOST_QUEUE, call.to_string().as_bytes()).await;
    let (_, reply) = accept(&mut server).await;
    within("an end of it", reply.expect("a call").send(Ok(json!(1)))).await;
}

#[tokio::test]
async fn an_answer_waits_for_a_queue_that_is_declared_again() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    let call = json!({"method": "m", "args": {}, "_msg_id": "x", "_reply_q": "reply_late"});
    raw.put(HOST_QUEUE, call.to_string().as_bytes()).await;
    let (_, reply) = accept(&mut server).await;
    let sending = tokio::spawn(reply.expect("a call").send(Ok(json!(1))));
    tokio::task::yield_now().await;
    let late =
        raw.channel
            .queue_declare("reply_late".into(), Default::default(), Default::default());
    late.await.expect("declared");
    within("an answer sent", sending).await.expect("no panic");
    assert!(raw.take("reply_late").await.is_some());
}

/// Which message came back is told apart from those that the broker has, however many are under way.
#[tokio::test]
async fn only_an_answer_to_a_missing_queue_is_undeliverable() {
    const EACH: usize = 60;
    const ELSEWHERE: &str = "elsewhere";
    logs::record();
    let lab = Lab::new().await;
    let ours = amqp(Options {
        missing_consumer_timeout: Duration::from_secs(2),
        ..lab.options(QueueOptions::default())
    });
    let mut server = serve(&ours).await;
    let raw = lab.raw().await;
    // What is durable is confirmed late, and for several messages at once.
    let durable = QueueDeclareOptions::durable();
    let declared = raw
        .channel
        .queue_declare(ELSEWHERE.into(), durable, Default::default());
    declared.await.expect("declared");
    let bound = raw.channel.queue_bind(
        ELSEWHERE.into(),
        "openstack".into(),
        ELSEWHERE.into(),
        Default::default(),
        Default::default(),
    );
    bound.await.expect("bound");
    let gone = format!("reply_{}", lab.vhost);
    let mut answers = Vec::new();
    for id in 0..EACH {
        let id = id.to_string();
        let call = json!({"method": "m", "_msg_id": id, "_reply_q": gone});
        raw.put(HOST_QUEUE, call.to_string().as_bytes()).await;
        let (_, reply) = accept(&mut server).await;
        answers.push(reply.expect("a call"));
    }
    let sending: Vec<_> = answers
        .into_iter()
        .map(|reply| tokio::spawn(reply.send(Ok(json!(1)))))
        .collect();
    let context = context();
    while sending.iter().any(|answer| !answer.is_finished()) {
        let casts = (0..EACH).map(|_| ours.cast(request(Kind::Cast, ELSEWHERE, "m"), &context));
        for outcome in within("casts", join_all(casts)).await {
            outcome.expect("the broker has it");
        }
    }
    let lines = logs::shown(&gone);
    let given_up = lines.iter().filter(|line| line.contains("Cannot answer"));
    assert_eq!(given_up.count(), EACH);
}
