//! The request context: who asked, with which token, under which request id.
//!
//! In a message it is spread over keys `_context_<name>`. Cinder's services send all the items of
//! `RequestContext.to_dict` (cinder/context.py) and ignore those that they do not know. All items
//! are kept as they came, so that a context can be handed on unchanged; what we use ourselves is
//! read through methods.

use std::fmt;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use crate::user_message::{Action, ResourceType};

const PREFIX: &str = "_context_";

/// The context of one request.
///
/// `Debug` shows ids only: the items hold the user's token.
#[derive(Clone, PartialEq)]
pub struct RequestContext {
    items: Map<String, Value>,
}

impl RequestContext {
    /// The context of work that the service does of its own accord (start-up, periodic tasks),
    /// as Cinder's `get_admin_context` makes it. `request_id` is `req-<uuid>`.
    pub fn admin(request_id: &str, now: DateTime<Utc>) -> Self {
        const UNKNOWN: [&str; 17] = [
            "user",
            "user_id",
            "project",
            "project_id",
            "project_name",
            "domain",
            "domain_id",
            "user_domain",
            "project_domain",
            "system_scope",
            "auth_token",
            "global_request_id",
            "resource_uuid",
            "remote_address",
            "quota_class",
            "message_resource_id",
            "message_resource_type",
        ];
        let known = [
            ("is_admin", json!(true)),
            ("is_admin_project", json!(true)),
            ("read_only", json!(false)),
            ("show_deleted", json!(false)),
            ("read_deleted", json!("no")),
            ("request_id", json!(request_id)),
            ("roles", json!(["admin"])),
            ("user_identity", json!("- - - - -")),
            ("timestamp", json!(naive(now))),
            ("service_catalog", json!([])),
            ("message_action", Value::Null),
        ];
        let unknown = UNKNOWN.into_iter().map(|name| (name, Value::Null));
        let items = unknown
            .chain(known)
            .map(|(name, value)| (name.to_owned(), value));
        Self {
            items: items.collect(),
        }
    }

    /// The same for work on what belongs to a user and a project.
    pub fn for_owner(mut self, user: &str, project: &str) -> Self {
        for (item, id) in [
            ("user", user),
            ("user_id", user),
            ("project", project),
            ("project_id", project),
        ] {
            self.items.insert(item.to_owned(), json!(id));
        }
        self
    }

    /// Takes all `_context_*` items out of a message's payload.
    pub fn take_from(payload: &mut Map<String, Value>) -> Self {
        let keys: Vec<String> = payload
            .keys()
            .filter(|key| key.starts_with(PREFIX))
            .cloned()
            .collect();
        let mut items = Map::new();
        for key in keys {
            if let Some(value) = payload.remove(&key) {
                items.insert(key[PREFIX.len()..].to_owned(), value);
            }
        }
        Self { items }
    }

    /// Puts all items into a message's payload.
    pub fn put_into(&self, payload: &mut Map<String, Value>) {
        for (key, value) in &self.items {
            payload.insert(format!("{PREFIX}{key}"), value.clone());
        }
    }

    /// `req-<uuid>`: the id that ties together all log lines of one user's request.
    pub fn request_id(&self) -> Option<&str> {
        self.text("request_id")
    }

    /// The request id that the user's own service (Nova, for instance) gave along.
    pub fn global_request_id(&self) -> Option<&str> {
        self.text("global_request_id")
    }

    /// The user's id; none in a context of the service's own.
    pub fn user_id(&self) -> Option<&str> {
        self.text("user_id")
    }

    /// The project's id; none in a context of the service's own.
    pub fn project_id(&self) -> Option<&str> {
        self.text("project_id")
    }

    /// The project's name.
    pub fn project_name(&self) -> Option<&str> {
        self.text("project_name")
    }

    /// Whether the sender found the user to be an administrator.
    pub fn is_admin(&self) -> bool {
        self.items.get("is_admin") == Some(&Value::Bool(true))
    }

    /// The user's roles.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.items
            .get("roles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// The user's Keystone token.
    pub fn auth_token(&self) -> Option<SecretString> {
        self.text("auth_token").map(SecretString::from)
    }

    /// The services that the user's token can be used with, as `service_catalog::endpoint` reads
    /// them.
    pub fn service_catalog(&self) -> &[Value] {
        let catalog = self.items.get("service_catalog").and_then(Value::as_array);
        catalog.map_or(&[], Vec::as_slice)
    }

    /// Any item by its name, for instance `user_domain`. Not for tokens.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.items.get(name).and_then(Value::as_str)
    }

    /// Says what user messages of this request are about.
    ///
    /// A Python worker that receives the request later (`continue_backup`) needs this: its
    /// message API fails on a context without an action (cinder/message/api.py).
    pub fn set_message(&mut self, resource_type: ResourceType, resource_id: &str, action: Action) {
        let mut set = |name: &str, value: Value| self.items.insert(name.to_owned(), value);
        set("message_resource_id", resource_id.into());
        set("message_resource_type", resource_type.as_str().into());
        set("message_action", json!([action.id(), action.text()]));
    }

    /// The context without what must not reach the notification topic: token, catalogue, address
    /// and the user message. As oslo.context's `redacted_copy` through Cinder's constructor, which
    /// sets the timestamp anew.
    pub fn redacted(&self, now: DateTime<Utc>) -> Self {
        const KEPT: [&str; 13] = [
            "user",
            "user_id",
            "project",
            "project_id",
            "project_name",
            "domain",
            "domain_id",
            "user_domain",
            "project_domain",
            "system_scope",
            "is_admin",
            "request_id",
            "global_request_id",
        ];
        let mut redacted = Self::admin("", now);
        for name in KEPT.into_iter().chain(["roles", "user_identity"]) {
            let value = self.items.get(name).cloned().unwrap_or_default();
            redacted.items.insert(name.to_owned(), value);
        }
        redacted
    }
}

/// `datetime.isoformat()` of a time without a zone: no fraction if there is none.
fn naive(time: DateTime<Utc>) -> String {
    let format = match time.timestamp_subsec_micros() {
        0 => "%Y-%m-%dT%H:%M:%S",
        _ => "%Y-%m-%dT%H:%M:%S%.6f",
    };
    time.format(format).to_string()
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("request_id", &self.request_id())
            .field("global_request_id", &self.global_request_id())
            .field("user_id", &self.user_id())
            .field("project_id", &self.project_id())
            .field("is_admin", &self.is_admin())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;
    use secrecy::ExposeSecret;

    fn received() -> RequestContext {
        let Value::Object(mut payload) = json!({
            "method": "x",
            "_context_request_id": "req-1", "_context_user_id": "u", "_context_project_id": "p",
            "_context_auth_token": "gAAAA", "_context_is_admin": false,
            "_context_roles": ["member", 7], "_context_service_catalog": [{"type": "image"}],
            "_context_from_the_future": {"a": 1}, "_context_remote_address": "192.0.2.1",
        }) else {
            unreachable!()
        };
        RequestContext::take_from(&mut payload)
    }

    #[test]
    fn everything_is_handed_on() {
        let context = received();
        let mut payload = Map::new();
        context.put_into(&mut payload);
        assert_eq!(payload.len(), 9);
        assert_eq!(payload["_context_from_the_future"], json!({"a": 1}));
        assert_eq!(RequestContext::take_from(&mut payload), context);
        assert!(payload.is_empty());
    }

    #[test]
    fn odd_types_are_not_believed() {
        let context = received();
        assert_eq!(context.roles().collect::<Vec<_>>(), ["member"]);
        assert!(!context.is_admin());
    }

    #[test]
    fn debug_hides_the_token() {
        let context = received();
        assert_eq!(context.auth_token().unwrap().expose_secret(), "gAAAA");
        let shown = format!("{context:?}");
        assert!(
            shown.contains("req-1") && !shown.contains("gAAAA"),
            "{shown}"
        );
    }

    #[test]
    fn a_redacted_context_has_no_token_and_no_catalogue() {
        let now = Utc.with_ymd_and_hms(2026, 11, 20, 21, 2, 47).unwrap();
        let redacted = received().redacted(now);
        assert!(redacted.auth_token().is_none());
        assert!(redacted.items["service_catalog"] == json!([]));
        assert_eq!(redacted.text("remote_address"), None);
        assert_eq!(redacted.text("from_the_future"), None);
        assert_eq!(redacted.request_id(), Some("req-1"));
        assert!(!redacted.is_admin());
        assert_eq!(redacted.text("timestamp"), Some("2026-11-20T21:02:47"));
    }

    #[test]
    fn the_message_is_a_pair() {
        let mut context = received();
        context.set_message(ResourceType::Backup, "b", Action::Create);
        let mut payload = Map::new();
        context.put_into(&mut payload);
        assert_eq!(
            payload["_context_message_action"],
            json!(["013", "create backup"])
        );
        assert_eq!(payload["_context_message_resource_type"], "VOLUME_BACKUP");
        assert_eq!(context.text("message_resource_id"), Some("b"));
    }
}
