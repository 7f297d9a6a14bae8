use super::*;
use crate::messaging::RequestContext;
use chrono::DateTime;
use proptest::prelude::*;
use serde_json::json;

fn request(method: &str, version: Option<&str>, args: Value) -> Request {
    let Value::Object(args) = args else {
        unreachable!()
    };
    Request {
        method: method.into(),
        args,
        version: version.map(Into::into),
        namespace: None,
        unique_id: None,
        call: None,
        context: RequestContext::admin("req-1", DateTime::UNIX_EPOCH),
    }
}

fn refusal(method: &str, version: Option<&str>, args: Value) -> Failure {
    BackupMethod::parse(&request(method, version, args), false)
        .unwrap_err()
        .failure()
}

fn backup(version: &str) -> Value {
    json!({
        "versioned_object.name": "Backup", "versioned_object.namespace": "cinder",
        "versioned_object.version": version,
        "versioned_object.data": {
            "id": "246c011b-8fab-4538-90c2-f0ded6b69811", "user_id": "u", "project_id": "p",
            "volume_id": "06a314a8-3f21-44ef-b19e-2fb9b505d554", "status": "restoring",
        },
    })
}

#[test]
fn versions_from_2_0_to_2_4_are_served() {
    for version in ["2.0", "2.3", "2.4", "2.4.1"] {
        let parsed = BackupMethod::parse(
            &request(
                "export_record",
                Some(version),
                json!({"backup": backup("1.7")}),
            ),
            false,
        );
        assert!(matches!(parsed, Ok(BackupMethod::ExportRecord { .. })));
    }
    for version in [None, Some("1.0"), Some("2.5"), Some("3.0"), Some("x")] {
        let failure = refusal("export_record", version, json!({}));
        assert_eq!(failure.class, "UnsupportedVersion");
        assert_eq!(
            failure.message,
            format!(
                "Endpoint does not support RPC version {}. Attempted method: export_record",
                version.unwrap_or("1.0")
            )
        );
    }
}

#[test]
fn public_attributes_of_pythons_manager_are_no_methods() {
    for method in [
        "is_working",
        "init_host",
        "reset",
        "__class__",
        "",
        "do_cleanup",
    ] {
        let failure = refusal(method, Some("2.0"), json!({}));
        assert_eq!(failure.class, "NoSuchMethod");
        assert_eq!(
            failure.message,
            format!("Endpoint does not support RPC method {method}")
        );
    }
}

#[test]
fn ping_is_answered_only_where_it_is_enabled() {
    let ping = request(PING, None, json!({}));
    assert_eq!(BackupMethod::parse(&ping, true), Ok(BackupMethod::Ping));
    assert!(BackupMethod::parse(&ping, false).is_err());
    let other = request("create_backup", Some("1.0"), json!({}));
    let failure = BackupMethod::parse(&other, true).unwrap_err().failure();
    assert_eq!(failure.class, "NoSuchMethod");
}

#[test]
fn a_restore_without_volume_is_new_assumes_nothing() {
    let args = json!({
        "backup": backup("1.7"), "volume_id": "06a314a8-3f21-44ef-b19e-2fb9b505d554",
    });
    let parsed = BackupMethod::parse(&request("restore_backup", Some("2.0"), args), false);
    assert!(matches!(
        parsed,
        Ok(BackupMethod::RestoreBackup {
            volume_is_new: false,
            ..
        })
    ));
}

#[test]
fn arguments_must_fit() {
    let id = "06a314a8-3f21-44ef-b19e-2fb9b505d554";
    let b = || backup("1.7");
    for (method, args, text) in [
        (
            "create_backup",
            json!({}),
            "missing 1 required positional argument: 'backup'",
        ),
        (
            "create_backup",
            json!({"backup": null}),
            "expected object Backup",
        ),
        (
            "create_backup",
            json!({"backup": b(), "x": 1}),
            "unexpected keyword argument 'x'",
        ),
        (
            "restore_backup",
            json!({"backup": b(), "volume_id": "../x"}),
            "not a UUID",
        ),
        (
            "restore_backup",
            json!({"backup": b(), "volume_id": 7}),
            "not a text",
        ),
        (
            "restore_backup",
            json!({"backup": b(), "volume_id": id, "volume_is_new": "no"}),
            "not true or false",
        ),
        (
            "reset_status",
            json!({"backup": b(), "status": "gone"}),
            "not a status",
        ),
        (
            "import_record",
            json!({"backup": b(), "backup_service": "s", "backup_url": "u", "backup_hosts": [1]}),
            "not a list of texts",
        ),
    ] {
        let failure = refusal(method, Some("2.0"), args);
        assert_eq!(
            (failure.class.as_str(), failure.module.as_str()),
            ("TypeError", "builtins")
        );
        assert!(failure.message.contains(text), "{}", failure.message);
    }
}

#[test]
fn another_major_object_version_is_named_as_such() {
    let failure = refusal(
        "delete_backup",
        Some("2.0"),
        json!({"backup": backup("2.0")}),
    );
    assert_eq!(failure.class, "IncompatibleObjectVersion");
    let newer = request(
        "delete_backup",
        Some("2.0"),
        json!({"backup": backup("1.99")}),
    );
    assert!(BackupMethod::parse(&newer, false).is_ok());
}

#[test]
fn a_refusal_reads_as_a_sentence() {
    let refused = BackupMethod::parse(&request("nonsense", Some("2.0"), json!({})), false);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "request nonsense refused: Endpoint does not support RPC method nonsense"
    );
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        method in "create_backup|restore_backup|import_record|set_log_levels|\\PC*",
        version in "2\\.[0-9]|\\PC*", name in "backup|volume_id|\\PC*", text: String,
    ) {
        let _ = BackupMethod::parse(&request(&method, Some(&version), json!({name: text})), true);
    }
}
