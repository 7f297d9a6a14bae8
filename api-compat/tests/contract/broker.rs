//! What stood in the broker beside Python's services, declared again.

use api_compat::messaging::queue::{
    Arguments, Declaration, Exchange, Queue, QueueOptions, Value as Argument,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::fixtures::broker;

const TOPIC: &str = "cinder-backup";

fn classic() -> QueueOptions {
    QueueOptions::default()
}

/// The options of Kolla-Ansible's templates.
fn kolla() -> QueueOptions {
    QueueOptions {
        amqp_durable_queues: true,
        rabbit_quorum_queue: true,
        rabbit_transient_quorum_queue: true,
        rabbit_stream_fanout: true,
        rabbit_qos_prefetch_count: 1,
        use_queue_manager: true,
        hostname: "lab1".into(),
        processname: "cinder-backup".into(),
        ..QueueOptions::default()
    }
}

fn entry<'a>(broker: &'a Value, list: &str, key: &str, name: &str) -> &'a Map<String, Value> {
    broker[list]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_object)
        .find(|entry| entry[key] == name)
        .unwrap_or_else(|| panic!("{name} is not among the recorded {list}"))
}

fn plain(arguments: &Arguments) -> Value {
    let value = |argument: &Argument| match argument {
        Argument::Int(number) => Value::from(*number),
        Argument::Str(text) => Value::from(text.as_str()),
        Argument::Bool(flag) => Value::from(*flag),
    };
    let pairs = arguments.iter();
    Value::Object(
        pairs
            .map(|(name, a)| ((*name).to_owned(), value(a)))
            .collect(),
    )
}

fn assert_exchange(broker: &Value, ours: &Exchange) {
    let python = entry(broker, "exchanges", "name", &ours.name);
    assert_eq!(python["type"], ours.kind.as_str(), "{ours:?}");
    assert_eq!(python["durable"], ours.durable, "{ours:?}");
    assert_eq!(python["auto_delete"], ours.auto_delete, "{ours:?}");
}

fn assert_queue(broker: &Value, ours: &Queue) {
    let python = entry(broker, "queues", "name", &ours.name);
    assert_eq!(python["durable"], ours.durable, "{ours:?}");
    assert_eq!(python["auto_delete"], ours.auto_delete, "{ours:?}");
    assert_eq!(python["exclusive"], false);
    assert_eq!(python["arguments"], plain(&ours.arguments), "{ours:?}");
}

fn assert_declared(broker: &Value, ours: &Declaration) {
    assert_queue(broker, &ours.queue);
    if let Some(exchange) = &ours.exchange {
        assert_exchange(broker, exchange);
        let binding = entry(broker, "bindings", "destination", &ours.queue.name);
        assert_eq!(binding["source"], exchange.name);
        assert_eq!(binding["routing_key"], ours.routing_key);
    }
}

fn assert_consumed(broker: &Value, ours: &Declaration) {
    let python = entry(broker, "consumers", "queue", &ours.queue.name);
    assert_eq!(
        python["arguments"],
        plain(&ours.consumer_arguments),
        "{ours:?}"
    );
}

fn check(flavour: &str, options: &QueueOptions, fanout: &str, reply: &str) {
    let broker = broker(flavour);
    options.check().unwrap();
    let fanout = options.fanout(TOPIC, fanout);
    for declaration in [
        options.topic("openstack", TOPIC),
        options.topic("openstack", "cinder-backup.lab1"),
        fanout,
    ] {
        assert_declared(&broker, &declaration);
        assert_consumed(&broker, &declaration);
    }
    assert_declared(&broker, &options.reply(reply));
    assert_declared(
        &broker,
        &options.notification("openstack", "notifications", "info"),
    );
    assert_exchange(&broker, &options.fanout_exchange("cinder-scheduler"));
}

#[test]
fn with_the_defaults() {
    let fanout = "370d0e7f-082e-44a4-92be-20b2bf67bf24".parse().unwrap();
    let reply = "5cd17617-2481-40f2-a0d7-a26574ed57ee".parse().unwrap();
    let options = classic();
    let name = |id: Uuid| options.unique_name(id);
    check("classic", &options, &name(fanout), &name(reply));
}

#[test]
fn with_quorum_queues_streams_and_the_queue_manager() {
    let options = kolla();
    check("kolla", &options, "of no use", "lab1:cinder-backup:1");
    let ours = options.unique_name(Uuid::nil());
    let (machine_and_program, id) = ours.rsplit_once(':').unwrap();
    assert_eq!(machine_and_program, "lab1:cinder-backup");
    assert_eq!(id, "0".repeat(32));
}

#[test]
fn only_queues_of_a_single_process_are_deleted_at_a_stop() {
    let deleted = |options: &QueueOptions| options.fanout(TOPIC, "x").delete_on_close;
    assert!(deleted(&classic()));
    assert!(!deleted(&kolla()));
    assert!(!classic().topic("openstack", TOPIC).delete_on_close);
}
