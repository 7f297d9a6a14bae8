//! oslo.messaging on the other side.

use api_compat::messaging::Failure;
use api_compat::messaging::queue::QueueOptions;
use api_compat::rpc::Kind;
use cinderblock::amqp::CallError;
use serde_json::json;

use crate::lab::{HOST_QUEUE, Lab, accept, amqp, context, fanout, request, serve, within};
use crate::peer::{self, PythonServer};
use crate::topology::{kolla, settings};

#[tokio::test]
async fn python_calls_us() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let result = json!({"answer": "Grüße"});
    let (outcome, request) = peer::call_answered(&lab, &mut server, result.clone(), &[]).await;
    assert_eq!(outcome["result"], result);
    assert_eq!(request.method, "anything");
    assert_eq!(request.version.as_deref(), Some("2.4"));
    assert_eq!(request.args["text"], "Grüße");
    assert!(request.context.is_admin());
}

#[tokio::test]
async fn python_gets_our_exception() {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let mut failing = async |allowed: Option<&'static str>| {
        let serving = async {
            let (_, reply) = accept(&mut server).await;
            let failure = Failure::invalid_backup("it is late");
            reply.expect("a call").send(Err(failure)).await;
        };
        tokio::join!(peer::call(&lab, "fail", allowed, &[]), serving).0
    };
    let foreign = failing(None).await;
    assert_eq!(foreign["class"], "RemoteError", "{foreign}");
    assert_eq!(foreign["exc_type"], "InvalidBackup");
    let rebuilt = failing(Some("cinder.exception")).await;
    let parents = rebuilt["parents"].as_array().expect("a list");
    assert!(parents.contains(&json!("InvalidBackup")), "{rebuilt}");
    assert_eq!(rebuilt["code"], 400);
    let message = rebuilt["message"].as_str().expect("a text");
    assert!(
        message.starts_with("Invalid backup: it is late"),
        "{message}"
    );
}

#[tokio::test]
async fn we_call_python() {
    let lab = Lab::new().await;
    let _python = PythonServer::start(&lab, "tester", &[]).await;
    let ours = lab.amqp();
    let context = context();
    let call = request(Kind::Call, HOST_QUEUE, "double");
    let result = ours.call(call, &context).await.expect("answered");
    let request_id = context.request_id();
    assert_eq!(
        result,
        json!({"double": 14, "text": "Grüße", "request": request_id})
    );
    let call = request(Kind::Call, HOST_QUEUE, "fail");
    match ours.call(call, &context).await {
        Err(CallError::Remote(failure)) => {
            assert!(failure.is_cinder("InvalidBackup"), "{failure}");
            assert_eq!(failure.message, "Invalid backup: Grüße");
            assert!(!failure.traceback.is_empty());
        }
        other => panic!("{other:?}"),
    }
    let call = request(Kind::Call, HOST_QUEUE, "unheard_of");
    match ours.call(call, &context).await {
        Err(CallError::Remote(failure)) => assert_eq!(failure.class, "NoSuchMethod"),
        other => panic!("{other:?}"),
    }
}

/// Two declarations of the same things: whoever comes second is refused if they differ.
async fn side_by_side(ours_first: bool, queues: impl Fn(&str) -> QueueOptions) {
    let lab = Lab::new().await;
    let (mine, yours) = (queues("cinder-backup"), queues("peer"));
    let ours = amqp(lab.options(mine));
    let early = if ours_first {
        Some(serve(&ours).await)
    } else {
        None
    };
    let _python = PythonServer::start(&lab, "other", &settings(&yours, &lab)).await;
    let mut server = match early {
        Some(server) => server,
        None => serve(&ours).await,
    };
    let context = context();
    let call = request(Kind::Call, "cinder-backup.other", "double");
    let result = ours.call(call, &context).await.expect("answered");
    assert_eq!(result["double"], 14);
    let caller = settings(&queues("caller"), &lab);
    let (outcome, _) = peer::call_answered(&lab, &mut server, json!("ours"), &caller).await;
    assert_eq!(outcome["result"], "ours");
    let cast = ours.cast(fanout("cinder-backup", "double"), &context);
    within("a fanout", cast).await.expect("sent");
    assert_eq!(accept(&mut server).await.0.method, "double");
}

/// What oslo.messaging has kombu compress is understood, as a request and as an answer.
async fn assert_inflated(method: &str) {
    let lab = Lab::new().await;
    let ours = lab.amqp();
    let mut server = serve(&ours).await;
    let options = [format!("kombu_compression={method}")];
    let (outcome, got) = peer::call_answered(&lab, &mut server, json!("read"), &options).await;
    assert_eq!(outcome["result"], "read");
    assert_eq!(got.args["text"], "Grüße");
    let _python = PythonServer::start(&lab, "packer", &options).await;
    let call = request(Kind::Call, "cinder-backup.packer", "double");
    let result = ours.call(call, &context()).await.expect("answered");
    assert_eq!(result["text"], "Grüße");
}

#[tokio::test]
async fn python_compresses_with_gzip() {
    assert_inflated("gzip").await;
}

#[tokio::test]
async fn python_compresses_with_bzip2() {
    assert_inflated("bzip2").await;
}

#[tokio::test]
async fn both_live_on_one_broker_with_the_defaults() {
    side_by_side(true, |_| QueueOptions::default()).await;
    side_by_side(false, |_| QueueOptions::default()).await;
}

#[tokio::test]
async fn both_live_on_one_broker_with_quorum_queues_and_streams() {
    side_by_side(true, kolla).await;
    side_by_side(false, kolla).await;
}
