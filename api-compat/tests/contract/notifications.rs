//! What Python's backup service told telemetry, built again.

use api_compat::messaging::{Request, RequestContext, envelope};
use api_compat::notification::{BackupEvent, Format, Notification};
use api_compat::objects::{self, Backup};
use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::fixtures::{notifications, requests};

const EVENTS: [BackupEvent; 7] = [
    BackupEvent::CreateStart,
    BackupEvent::CreateEnd,
    BackupEvent::RestoreStart,
    BackupEvent::RestoreEnd,
    BackupEvent::DeleteStart,
    BackupEvent::DeleteEnd,
    BackupEvent::ResetStatusEnd,
];

/// A backup with the values that a notification tells, and with others where it tells none.
fn backup(payload: &Value) -> Backup {
    let request = requests()
        .into_iter()
        .find(|recorded| recorded.what == "create_backup")
        .map(|recorded| Request::decode(recorded.body()).unwrap())
        .expect("the recordings hold a create");
    let mut value = request.args["backup"].clone();
    let data = value["versioned_object.data"].as_object_mut().unwrap();
    for (name, told) in payload.as_object().unwrap() {
        let name = match name.as_str() {
            "tenant_id" => "project_id",
            "backup_id" => "id",
            name => name,
        };
        data.insert(name.to_owned(), told.clone());
    }
    objects::decode(value).unwrap()
}

/// The context that the service had: what the notification tells, and what it must not.
fn unredacted(message: &Map<String, Value>) -> RequestContext {
    let mut items = message.clone();
    for (name, secret) in [
        ("auth_token", json!("secret")),
        ("service_catalog", json!([{"type": "identity"}])),
        ("remote_address", json!("192.0.2.1")),
        ("message_resource_id", json!("x")),
        ("timestamp", json!("2000-01-01T00:00:00")),
    ] {
        items.insert(format!("_context_{name}"), secret);
    }
    RequestContext::take_from(&mut items)
}

fn now(message: &Map<String, Value>) -> DateTime<Utc> {
    let text = message["timestamp"].as_str().unwrap();
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .unwrap()
        .and_utc()
}

#[test]
fn notifications_are_pythons() {
    let mut seen = Vec::new();
    for recorded in notifications() {
        let mut python = recorded.payload();
        let event = EVENTS
            .into_iter()
            .find(|event| event.as_str() == recorded.what)
            .unwrap_or_else(|| panic!("{recorded}: no such event"));
        seen.push(event);
        let id = |name: &str| python[name].as_str().unwrap().parse::<Uuid>().unwrap();
        let ours = Notification::new(
            event,
            &backup(&python["payload"]),
            "lab1",
            &unredacted(&python),
            id("message_id"),
            now(&python),
        );
        let mut ours = envelope::decode(&ours.encode(Format::V2, id("_unique_id"))).unwrap();
        // Python asks the clock twice.
        for message in [&mut ours, &mut python] {
            let time = message.remove("_context_timestamp").unwrap();
            assert_eq!(time.as_str().unwrap().len(), 26, "{recorded}");
        }
        assert_eq!(ours, python, "{recorded}");
        assert_eq!(recorded.exchange, "openstack");
        assert_eq!(recorded.routing_key, "notifications.info");
    }
    assert!(EVENTS.iter().all(|event| seen.contains(event)), "{seen:?}");
}

/// Our notification of an event of the backup that a recorded one is about.
fn ours(event: BackupEvent, python: &Map<String, Value>) -> Notification {
    Notification::new(
        event,
        &backup(&python["payload"]),
        "lab1",
        &unredacted(python),
        Uuid::nil(),
        now(python),
    )
}

#[test]
fn progress_is_told_in_per_cent() {
    let python = notifications()[0].payload();
    let ours = ours(BackupEvent::CreateProgress(12.5), &python);
    let bare: Value = serde_json::from_slice(&ours.encode(Format::V1, Uuid::nil())).unwrap();
    assert_eq!(bare["event_type"], "backup.createprogress");
    let mut payload = bare["payload"].clone();
    assert_eq!(payload["backup_percent"], 12.5);
    payload.as_object_mut().unwrap().remove("backup_percent");
    assert_eq!(payload, python["payload"]);
}

#[test]
fn the_older_driver_sends_no_envelope() {
    let python = notifications()[0].payload();
    let ours = ours(BackupEvent::CreateStart, &python);
    let bare: Value = serde_json::from_slice(&ours.encode(Format::V1, Uuid::nil())).unwrap();
    assert_eq!(bare["event_type"], "backup.create.start");
    // What the driver `log` writes knows neither the way nor the request.
    let logged: serde_json::Map<String, Value> = serde_json::from_str(&ours.to_json()).unwrap();
    assert!(logged.keys().all(|key| !key.starts_with('_')), "{logged:?}");
    assert_eq!(logged["payload"], bare["payload"]);
}
