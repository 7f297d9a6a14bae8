//! What is sent to a backup service, and the answers that come and go.

use api_compat::messaging::{Outcome, Reply, Request};
use api_compat::objects::{
    self, Backup, BackupDeviceInfo, BackupImport, LogLevel, LogLevelList, ObjectHistory, WireObject,
};
use api_compat::rpc::{BackupMethod, ConnectionInfo};
use serde_json::Value;

use crate::fixtures::{Recorded, replies, requests, without_changes};

#[test]
fn requests_are_understood() {
    for recorded in requests() {
        let request = Request::decode(recorded.body()).unwrap();
        BackupMethod::parse(&request, false).unwrap_or_else(|error| panic!("{recorded}: {error}"));
        assert_eq!(request.method, recorded.what);
        assert_eq!(
            request.call.is_some(),
            recorded.expiration.is_some(),
            "{recorded}"
        );
    }
}

#[test]
fn every_method_is_among_the_recorded_requests() {
    for method in [
        "create_backup",
        "continue_backup",
        "restore_backup",
        "delete_backup",
        "export_record",
        "import_record",
        "reset_status",
        "check_support_to_force_delete",
        "set_log_levels",
        "get_log_levels",
        "publish_service_capabilities",
    ] {
        assert!(
            requests().iter().any(|recorded| recorded.what == method),
            "{method}"
        );
    }
}

#[test]
fn requests_survive_decoding_and_encoding() {
    for recorded in requests() {
        let request = Request::decode(recorded.body()).unwrap();
        let again = api_compat::messaging::envelope::decode(&request.encode()).unwrap();
        assert_eq!(again, recorded.payload(), "{recorded}");
    }
}

#[test]
fn objects_survive_decoding_and_encoding() {
    let mut kinds = std::collections::BTreeSet::new();
    for recorded in requests() {
        let request = Request::decode(recorded.body()).unwrap();
        for value in request.args.values().filter(|value| value.is_object()) {
            let name = value["versioned_object.name"].as_str().unwrap();
            kinds.insert(name.to_owned());
            let again = match name {
                "Backup" => again::<Backup>(value, &recorded),
                "BackupImport" => again::<BackupImport>(value, &recorded),
                "BackupDeviceInfo" => again::<BackupDeviceInfo>(value, &recorded),
                "LogLevel" => again::<LogLevel>(value, &recorded),
                other => panic!("{recorded}: unexpected object {other}"),
            };
            assert_eq!(again, without_changes(value.clone()), "{recorded}");
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

fn again<T: WireObject>(value: &Value, recorded: &Recorded) -> Value {
    let object: T =
        objects::decode(value.clone()).unwrap_or_else(|error| panic!("{recorded}: {error}"));
    objects::encode(&object, ObjectHistory::V1_39)
}

#[test]
fn replies_survive_decoding_and_encoding() {
    for recorded in replies() {
        let reply = Reply::decode(recorded.body()).unwrap();
        assert!(reply.ending, "{recorded}");
        assert_eq!(recorded.exchange, "");
        let again = api_compat::messaging::envelope::decode(&reply.encode()).unwrap();
        assert_eq!(again, recorded.payload(), "{recorded}");
    }
}

fn result_of(what: &str) -> Value {
    let recorded = replies()
        .into_iter()
        .find(|recorded| recorded.what == what)
        .unwrap_or_else(|| panic!("no {what}"));
    match Reply::decode(recorded.body()).unwrap().outcome {
        Outcome::Result(result) => result,
        Outcome::Failure(failure) => panic!("{recorded}: {failure}"),
    }
}

#[test]
fn the_answer_to_initialize_connection_is_an_rbd_connection() {
    let answer = result_of("reply to initialize_connection");
    let name = answer["data"]["name"].as_str().unwrap().to_owned();
    let rbd = ConnectionInfo::parse(answer).unwrap().rbd().unwrap();
    assert_eq!(format!("{}/{}", rbd.pool, rbd.image), name);
    assert_eq!(rbd.monitors, ["127.0.0.1:6789"]);
    assert_eq!(rbd.cluster_name, "ceph");
    assert_eq!(rbd.auth_username.as_deref(), Some("cinder"));
    assert!(rbd.keyring.is_none());
}

#[test]
fn the_answer_to_get_log_levels_is_what_we_would_send() {
    let answer = result_of("reply to get_log_levels");
    let levels: LogLevelList = objects::decode(answer.clone()).unwrap();
    assert!(!levels.objects.is_empty());
    assert_eq!(
        objects::encode(&levels, ObjectHistory::V1_39),
        without_changes(answer)
    );
}
