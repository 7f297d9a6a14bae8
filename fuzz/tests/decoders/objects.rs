//! Versioned objects. Each target gets the object's envelope.

use std::fmt::Debug;

use api_compat::objects::{
    self, Backup, BackupDeviceInfo, BackupImport, LogLevel, LogLevelList, ObjectHistory, Snapshot,
    Volume, WireObject,
};
use cinderblock_fuzz::{assert_short, run};
use serde_json::Value;

use crate::assert_same;

#[test]
fn backups() {
    run("backups", |input| {
        read::<Backup>(input);
        read::<BackupImport>(input);
    });
}

#[test]
fn devices() {
    run("devices", |input| {
        read::<BackupDeviceInfo>(input);
        read::<Volume>(input);
        read::<Snapshot>(input);
    });
}

#[test]
fn levels() {
    run("levels", |input| {
        read::<LogLevel>(input);
        read::<LogLevelList>(input);
    });
}

/// What is read is written as it was, and neither driver's credentials nor connections are shown.
fn read<T: WireObject + Debug + PartialEq>(input: &[u8]) {
    const SECRET: &str = "cinderblock-planted-secret";
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let object = match objects::decode::<T>(value) {
        Ok(object) => object,
        Err(error) => return assert_short(&error),
    };
    for history in [ObjectHistory::V1_38, ObjectHistory::V1_39] {
        let sent = objects::encode(&object, history);
        let again: T = objects::decode(sent.clone()).expect("ours");
        // Times lose their fractions on their first way.
        assert_same(&objects::encode(&again, history), &sent);
        assert_dates(&sent);
    }
    let mut value = serde_json::from_slice(input).expect("it was read");
    plant(&mut value, SECRET);
    if let Ok(object) = objects::decode::<T>(value) {
        let shown = format!("{object:?}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// Python's services can read every date that is sent on.
fn assert_dates(value: &Value) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match key.as_str() {
            // Anybody's own keys.
            "metadata" | "admin_metadata" | "extra_specs" | "connection_info" | "connector" => {}
            "created_at" | "updated_at" | "deleted_at" | "data_timestamp" => {
                let date = value.as_str().unwrap_or("2026-11-20T20:43:34Z");
                assert_eq!(date.len(), "2026-11-20T20:43:34Z".len(), "{date}");
                assert!(!date.starts_with("0000") && !date.contains(":60"), "{date}");
            }
            _ => assert_dates(value),
        }),
        Value::Array(values) => values.iter().for_each(assert_dates),
        _ => {}
    }
}

/// Puts a secret wherever there may be one.
fn plant(value: &mut Value, secret: &str) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| match key.as_str() {
            "provider_auth" | "connection_info" if value.is_string() => *value = secret.into(),
            "connection_info" | "connector" if value.is_object() => {
                *value = serde_json::json!({"k": secret})
            }
            _ => plant(value, secret),
        }),
        Value::Array(values) => values.iter_mut().for_each(|value| plant(value, secret)),
        _ => {}
    }
}
