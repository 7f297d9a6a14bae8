//! What is observed, told without ids and times.

use std::collections::HashMap;

use serde_json::{Map, Value};

const TIMES: [&str; 12] = [
    "created_at",
    "updated_at",
    "deleted_at",
    "data_timestamp",
    "scheduled_at",
    "launched_at",
    "terminated_at",
    "expires_at",
    "timestamp",
    "_context_timestamp",
    "attach_time",
    "detach_time",
];

/// What is another one in each session, and no more than that.
const SECRETS: [&str; 1] = ["_context_auth_token"];

/// Ids, and what they are called in what is observed.
#[derive(Default)]
pub struct Names(Vec<(String, String)>);

impl Names {
    /// Gives an id a name.
    pub fn add(&mut self, id: &str, name: &str) {
        self.0.push((id.to_owned(), format!("<{name}>")));
    }

    /// The ids that have names, as a list in SQL.
    pub fn in_sql(&self) -> String {
        let ids: Vec<String> = self.0.iter().map(|(id, _)| format!("'{id}'")).collect();
        ids.join(",")
    }

    /// Whether a text names one of the ids.
    pub fn are_in(&self, text: &str) -> bool {
        self.0.iter().any(|(id, _)| text.contains(id))
    }

    /// The same without ids and times. Requests are numbered in the order in which they are met.
    pub fn anonymous(&self, value: Value) -> Value {
        self.without(value, &mut HashMap::new())
    }

    fn without(&self, value: Value, requests: &mut HashMap<String, usize>) -> Value {
        match value {
            Value::String(text) => self.rename(&text, requests).into(),
            Value::Array(items) => items
                .into_iter()
                .map(|item| self.without(item, requests))
                .collect(),
            Value::Object(fields) => {
                let mut kept = Map::new();
                for (key, value) in fields {
                    let value = match key.as_str() {
                        _ if value.is_null() => value,
                        key if TIMES.contains(&key) => Value::from("<time>"),
                        key if SECRETS.contains(&key) => Value::from("<secret>"),
                        _ => self.without(value, requests),
                    };
                    kept.insert(self.rename(&key, requests), value);
                }
                Value::Object(kept)
            }
            other => other,
        }
    }

    fn rename(&self, text: &str, requests: &mut HashMap<String, usize>) -> String {
        let named = self
            .0
            .iter()
            .fold(text.to_owned(), |text, (id, name)| text.replace(id, name));
        let mut rest = named.as_str();
        let mut renamed = String::new();
        while let Some(first) = rest.chars().next() {
            let id = rest.get(..36).filter(|id| is_uuid(id));
            let (taken, put) = match id {
                Some(id) if renamed.ends_with("req-") => {
                    let next = requests.len() + 1;
                    let number = *requests.entry(id.to_owned()).or_insert(next);
                    (36, format!("<{number}>"))
                }
                Some(_) => (36, "<id>".to_owned()),
                None => (first.len_utf8(), first.to_string()),
            };
            renamed.push_str(&put);
            rest = &rest[taken..];
        }
        renamed
    }
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}
