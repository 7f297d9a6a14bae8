//! Exchanges, queues, bindings and consumers as the broker sees them, ours beside Python's.

use api_compat::messaging::queue::QueueOptions;
use api_compat::rpc::Kind;
use serde_json::{Value, json};

use crate::lab::{HOST, HOST_QUEUE, Lab, amqp, answer, context, eventually, request, serve};
use crate::peer::PythonServer;

/// The options of Kolla-Ansible's templates.
pub fn kolla(processname: &str) -> QueueOptions {
    QueueOptions {
        amqp_durable_queues: true,
        rabbit_quorum_queue: true,
        rabbit_transient_quorum_queue: true,
        rabbit_stream_fanout: true,
        rabbit_qos_prefetch_count: 1,
        use_queue_manager: true,
        hostname: "lab1".into(),
        processname: processname.into(),
        ..QueueOptions::default()
    }
}

/// The same options for oslo.messaging. Its queue manager keeps a file for each host name, so that
/// tests must not share one.
pub fn settings(options: &QueueOptions, lab: &Lab) -> Vec<String> {
    let mut settings = vec![
        format!("amqp_durable_queues={}", options.amqp_durable_queues),
        format!("rabbit_quorum_queue={}", options.rabbit_quorum_queue),
        format!(
            "rabbit_transient_quorum_queue={}",
            options.rabbit_transient_quorum_queue
        ),
        format!("rabbit_stream_fanout={}", options.rabbit_stream_fanout),
        format!(
            "rabbit_qos_prefetch_count={}",
            options.rabbit_qos_prefetch_count
        ),
        format!(
            "rabbit_transient_queues_ttl={}",
            options.rabbit_transient_queues_ttl
        ),
        format!("use_queue_manager={}", options.use_queue_manager),
    ];
    if options.use_queue_manager {
        settings.push(format!("hostname={}", lab.vhost));
        settings.push(format!("processname={}", options.processname));
    }
    settings
}

/// Names without what is random in them.
fn plain(name: &Value) -> Value {
    let name = name.as_str().unwrap_or_default();
    match name.rsplit_once('_') {
        Some((stem, id)) if id.len() == 32 => json!(format!("{stem}_<id>")),
        _ => json!(name),
    }
}

async fn picture(lab: &Lab, list: &str, keys: &[&str]) -> Vec<Value> {
    let pick = |entry: &serde_json::Map<String, Value>| {
        let values = keys.iter().map(|key| match *key {
            "name" | "destination" => plain(&entry[*key]),
            // Each queue is bound to the default exchange by its whole name.
            "routing_key" => plain(&entry[*key]),
            "queue" => plain(&entry["queue"]["name"]),
            key => entry[key].clone(),
        });
        Value::Array(values.collect())
    };
    let entries = lab.list(list).await;
    let named = entries
        .iter()
        .filter(|entry| !entry.get("name").is_some_and(builtin));
    let mut picture: Vec<Value> = named.map(pick).collect();
    picture.sort_by_key(Value::to_string);
    picture
}

fn builtin(exchange: &Value) -> bool {
    let name = exchange.as_str().unwrap_or_default();
    name.is_empty() || name.starts_with("amq.")
}

const QUEUE: [&str; 5] = ["name", "durable", "auto_delete", "exclusive", "arguments"];
const EXCHANGE: [&str; 5] = ["name", "type", "durable", "auto_delete", "arguments"];
const BINDING: [&str; 4] = ["source", "destination", "routing_key", "arguments"];
const CONSUMER: [&str; 5] = [
    "queue",
    "consumer_tag",
    "ack_required",
    "exclusive",
    "arguments",
];

/// Everything, once there are `consumers`.
async fn pictures(lab: &Lab, consumers: usize) -> [Vec<Value>; 4] {
    let consumed = eventually("consumers", async || {
        let consumed = picture(lab, "consumers", &CONSUMER).await;
        (consumed.len() == consumers).then_some(consumed)
    })
    .await;
    [
        picture(lab, "queues", &QUEUE).await,
        picture(lab, "exchanges", &EXCHANGE).await,
        picture(lab, "bindings", &BINDING).await,
        consumed,
    ]
}

async fn assert_same_as_python(queues: QueueOptions) {
    let (mine, yours) = (Lab::new().await, Lab::new().await);
    let ours = amqp(mine.options(queues.clone()));
    let _server = serve(&ours).await;
    let _python = PythonServer::start(&yours, HOST, &settings(&queues, &yours)).await;
    let (mine, yours) = (pictures(&mine, 3).await, pictures(&yours, 3).await);
    assert_eq!(mine, yours);
}

#[tokio::test]
async fn a_server_declares_what_python_declares() {
    assert_same_as_python(QueueOptions::default()).await;
}

#[tokio::test]
async fn a_server_with_quorum_queues_and_streams_declares_what_python_declares() {
    assert_same_as_python(kolla("cinder-backup")).await;
}

#[tokio::test]
async fn a_server_with_durable_queues_that_never_expire_declares_what_python_declares() {
    assert_same_as_python(QueueOptions {
        amqp_durable_queues: true,
        rabbit_transient_queues_ttl: 0,
        ..QueueOptions::default()
    })
    .await;
}

/// What a server and a caller leave in the broker, against what was recorded from Python.
async fn assert_recorded(queues: QueueOptions, named: Value, reply: Value, fanout: Value) {
    let lab = Lab::new().await;
    let ours = amqp(lab.options(queues));
    let mut server = serve(&ours).await;
    let context = context();
    let call = ours.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let (outcome, _) = tokio::join!(call, answer(&mut server, json!(1)));
    outcome.expect("answered");
    let durable = named["durable"].clone();
    for name in ["cinder-backup", HOST_QUEUE] {
        let queue = lab.find("queues", "name", name).await.expect("declared");
        assert_eq!(queue["arguments"], named["arguments"], "{name}");
        assert_eq!(queue["durable"], durable, "{name}");
        let bindings = lab.list("bindings").await;
        assert!(bindings.iter().any(|binding| {
            binding["source"] == "openstack"
                && binding["destination"] == name
                && binding["routing_key"] == name
        }));
    }
    for (prefix, expected) in [("reply_", reply), ("cinder-backup_fanout", fanout)] {
        let names = lab.queues(prefix).await;
        let [name] = names.as_slice() else {
            panic!("{names:?}")
        };
        let beginning = expected["name"].as_str().unwrap_or(prefix);
        assert!(name.starts_with(beginning), "{name}");
        let queue = lab.find("queues", "name", name).await.expect("declared");
        assert_eq!(queue["arguments"], expected["arguments"], "{name}");
        assert_eq!(queue["durable"], expected["durable"], "{name}");
    }
    let control = lab.find("exchanges", "name", "openstack").await;
    assert_eq!(control.expect("declared")["durable"], durable);
}

#[tokio::test]
async fn the_classic_topology_is_as_recorded() {
    let transient = json!({"durable": false, "arguments": {"x-expires": 1_800_000}});
    let named = json!({"durable": false, "arguments": {}});
    assert_recorded(QueueOptions::default(), named, transient.clone(), transient).await;
}

/// Two workers of one machine, as they are while one drains and the next has started.
#[tokio::test]
async fn two_workers_of_a_machine_share_no_answers() {
    let lab = Lab::new().await;
    let workers = [(); 2].map(|()| amqp(lab.options(kolla("twin"))));
    let mut server = serve(&workers[0]).await;
    let context = context();
    for _ in 0..2 {
        for worker in &workers {
            let call = worker.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
            let (outcome, _) = tokio::join!(call, answer(&mut server, json!(1)));
            outcome.expect("answered");
        }
    }
    assert_eq!(lab.queues("reply_lab1:twin:").await.len(), 2);
}

#[tokio::test]
async fn the_topology_of_kolla_is_as_recorded() {
    let quorum = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
    let reply = json!({
        // Python goes on with a counter.
        "name": "reply_lab1:cinder-backup:",
        "durable": true,
        "arguments": {"x-queue-type": "quorum", "x-expires": 1_800_000},
    });
    let stream = json!({
        "name": "cinder-backup_fanout",
        "durable": true,
        "arguments": {"x-queue-type": "stream", "x-max-age": "1800s"},
    });
    assert_recorded(kolla("cinder-backup"), quorum, reply, stream).await;
}
