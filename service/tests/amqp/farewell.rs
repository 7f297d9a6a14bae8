//! What is left in the broker after a clean stop.

use api_compat::messaging::queue::QueueOptions;
use api_compat::rpc::Kind;
use cinderblock::amqp::CallError;
use serde_json::json;

use crate::lab::{
    HOST_QUEUE, Lab, TOPIC, accept, amqp, answer, context, eventually, request, serve, within,
};
use crate::topology::kolla;

async fn left_after_a_stop(queues: QueueOptions) -> Vec<String> {
    let lab = Lab::new().await;
    let ours = amqp(lab.options(queues));
    let mut server = serve(&ours).await;
    let context = context();
    let call = ours.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let (outcome, _) = tokio::join!(call, answer(&mut server, json!(1)));
    outcome.expect("answered");
    assert_eq!(lab.queues("").await.len(), 4);
    within("a stop", server.stop()).await;
    within("a close", ours.close()).await;
    for purpose in ["listen", "reply", "send"] {
        eventually("no connection", async || {
            lab.connections(purpose).await.is_empty().then_some(())
        })
        .await;
    }
    let mut left = lab.queues("").await;
    left.sort();
    left
}

#[tokio::test]
async fn queues_with_random_names_go() {
    let left = left_after_a_stop(QueueOptions::default()).await;
    assert_eq!(left, [TOPIC, HOST_QUEUE]);
}

#[tokio::test]
async fn queues_that_others_may_use_stay() {
    let left = left_after_a_stop(kolla("leaving")).await;
    assert_eq!(left, [TOPIC, HOST_QUEUE, "cinder-backup_fanout"]);
}

#[tokio::test]
async fn a_call_that_waits_ends_with_the_close() {
    let lab = Lab::new().await;
    let (ours, theirs) = (lab.amqp(), lab.amqp());
    let mut server = serve(&ours).await;
    let context = context();
    let call = theirs.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let closing = async {
        accept(&mut server).await;
        theirs.close().await;
    };
    let (outcome, ()) = tokio::join!(call, closing);
    assert!(matches!(outcome, Err(CallError::Unreachable(_))));
    let cast = theirs.cast(request(Kind::Cast, HOST_QUEUE, "m"), &context);
    let outcome = within("a cast", cast).await;
    assert!(matches!(outcome, Err(CallError::Unreachable(_))));
}
