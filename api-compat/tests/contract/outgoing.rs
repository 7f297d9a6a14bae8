//! What Python's backup service sent, built again by our constructors.

use api_compat::ids::VolumeId;
use api_compat::messaging::{Request, RequestContext};
use api_compat::objects::{self, ObjectHistory, WireObject};
use api_compat::rpc::scheduler::{Capabilities, update_service_capabilities};
use api_compat::rpc::volume::VolumeApi;
use api_compat::rpc::{BackupMethod, Destination, Kind, MessageIds, Outgoing, peer};
use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Map, Value};

use crate::fixtures::{Recorded, outgoing, requests, without_changes};

/// `volumes.host` of all recorded volumes.
const SERVICE: &str = "rbd:volumes@rbd-1#rbd-1";

fn object<T: WireObject>(request: &Request, name: &str) -> T {
    objects::decode(request.args[name].clone()).unwrap()
}

fn rebuilt(request: &Request) -> Outgoing {
    let api = VolumeApi::new(SERVICE, ObjectHistory::V1_39);
    let args = &request.args;
    let id = || -> VolumeId { args["volume_id"].as_str().unwrap().parse().unwrap() };
    let connector = || args["connector"].clone();
    match request.method.as_str() {
        "get_backup_device" => api.get_backup_device(&object(request, "backup")),
        "initialize_connection" => {
            api.initialize_connection(&object(request, "volume"), connector())
        }
        "terminate_connection" => {
            api.terminate_connection(id(), connector(), args["force"].as_bool().unwrap())
        }
        "remove_export" => api.remove_export(id()),
        "secure_file_operations_enabled" => {
            api.secure_file_operations_enabled(&object(request, "volume"))
        }
        "delete_volume" => api.delete_volume(&object(request, "volume")),
        "update_service_capabilities" => {
            let capabilities = &args["capabilities"];
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            update_service_capabilities(
                &text(&args["host"]),
                &Capabilities {
                    backend_state: capabilities["backend_state"].as_bool().unwrap(),
                    driver_name: &text(&capabilities["driver_name"]),
                    availability_zone: &text(&capabilities["availability_zone"]),
                },
                time(&args["timestamp"]),
            )
        }
        other => panic!("no constructor for {other}"),
    }
}

fn time(value: &Value) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(value.as_str().unwrap(), "%Y-%m-%dT%H:%M:%S%.f")
        .unwrap()
        .and_utc()
}

fn payload(request: &Request) -> Map<String, Value> {
    api_compat::messaging::envelope::decode(&request.encode()).unwrap()
}

#[test]
fn requests_are_pythons_but_for_their_ids() {
    for recorded in outgoing() {
        let python = Request::decode(recorded.body()).unwrap();
        let ours = rebuilt(&python);
        assert_route(&recorded, &ours);
        let ids = MessageIds {
            unique_id: python.unique_id.clone().unwrap(),
            call: python.call.clone(),
        };
        let request = ours.into_request(python.context.clone(), ids);
        assert_eq!(
            Value::Object(payload(&request)),
            without_changes(Value::Object(recorded.payload())),
            "{recorded}"
        );
    }
}

#[test]
fn an_import_is_handed_on_as_it_came() {
    let recorded = requests()
        .into_iter()
        .find(|recorded| recorded.what == "import_record")
        .expect("the recordings hold an import");
    let python = Request::decode(recorded.body()).unwrap();
    let Ok(BackupMethod::ImportRecord {
        backup,
        backup_service,
        backup_url,
        backup_hosts,
    }) = BackupMethod::parse(&python, false)
    else {
        panic!("{recorded} is refused");
    };
    let ours = peer::import_record(
        "lab1",
        &backup,
        &backup_service,
        &backup_url,
        &backup_hosts,
        ObjectHistory::V1_39,
    );
    assert_route(&recorded, &ours);
    assert_eq!(ours.version, python.version.unwrap());
    assert_eq!(
        Value::Object(ours.args),
        without_changes(Value::Object(python.args))
    );
}

fn assert_route(recorded: &Recorded, ours: &Outgoing) {
    match &ours.destination {
        Destination::Topic(key) => {
            assert_eq!(recorded.exchange, "openstack", "{recorded}");
            assert_eq!(recorded.routing_key, *key, "{recorded}");
        }
        Destination::Fanout(topic) => {
            assert_eq!(recorded.exchange, format!("{topic}_fanout"), "{recorded}");
            assert_eq!(recorded.routing_key, "", "{recorded}");
        }
    }
    let expires = recorded.expiration.is_some();
    assert_eq!(ours.kind == Kind::Call, expires, "{recorded}");
}

#[test]
fn our_own_context_is_that_of_pythons_periodic_tasks() {
    let recorded = outgoing()
        .into_iter()
        .find(|recorded| recorded.what == "update_service_capabilities")
        .expect("the recordings hold an update");
    let python = Request::decode(recorded.body()).unwrap();
    let now = time(&recorded.payload()["_context_timestamp"]);
    let ours = RequestContext::admin(python.context.request_id().unwrap(), now);
    let items = |context: &RequestContext| {
        let mut items = Map::new();
        context.put_into(&mut items);
        items
    };
    assert_eq!(items(&ours), items(&python.context));
}

#[test]
fn an_older_fleet_gets_older_objects() {
    let recorded = outgoing()
        .into_iter()
        .find(|recorded| recorded.what == "initialize_connection")
        .expect("the recordings hold an attach");
    let python = Request::decode(recorded.body()).unwrap();
    let api = VolumeApi::new(SERVICE, ObjectHistory::V1_38);
    let ours = api.initialize_connection(&object(&python, "volume"), Value::Null);
    assert_eq!(ours.args["volume"]["versioned_object.version"], "1.8");
}
