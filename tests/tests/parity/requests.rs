//! What the services ask of each other, as it goes through the broker.

use std::collections::HashMap;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use cinderblock_tests::{Addressed, Broker, Overheard, eventually};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Where requests go: a topic's exchange has all of Cinder's.
const SOURCES: [(&str, &str); 2] = [("openstack", "#"), ("cinder-scheduler_fanout", "")];

const DAY: f64 = 86400.0;

/// Sent from time to time, whatever is done.
const PERIODIC: [&str; 2] = ["update_service_capabilities", "notify_service_capabilities"];

/// Everything that is heard.
pub struct Requests {
    overheard: Overheard,
    heard: Vec<Addressed>,
    /// How many of them have been told.
    told: usize,
}

impl Requests {
    /// Listens from now on, for as long as the connection lasts.
    pub async fn listen(broker: &Broker) -> Result<Self> {
        Ok(Self {
            overheard: broker.listen(&SOURCES).await?,
            heard: Vec::new(),
            told: 0,
        })
    }

    /// Takes what there is to be heard.
    pub fn hear(&mut self) -> Result<()> {
        let asked = |heard: &Addressed| heard.routing_key.starts_with("cinder-");
        let heard = self.overheard.take()?.into_iter();
        let asked = heard.filter(|heard| asked(heard) || is_about_backups(heard));
        self.heard.extend(asked);
        Ok(())
    }

    /// Waits until the scheduler is told that the worker can or cannot work.
    pub async fn wait_told(&mut self, works: bool) -> Result<()> {
        let state = async || {
            self.hear()?;
            let told = self.heard.iter().rfind(|heard| is_about_backups(heard));
            let told = told.map(|told| &told.message["args"]["capabilities"]);
            Ok(told.map(|told| told["backend_state"].clone()))
        };
        let (what, works) = ("what the scheduler is told", json!(works));
        eventually(what, state, |state| state.as_ref() == Some(&works)).await?;
        Ok(())
    }

    /// What was asked since the last time: each request by its method and number, and their order.
    pub fn since(&mut self) -> Result<(Value, Value)> {
        self.hear()?;
        let (mut requests, mut order) = (Map::new(), Vec::new());
        let mut numbers = HashMap::new();
        for heard in &self.heard[self.told..] {
            let method = method(heard);
            if PERIODIC.contains(&method) {
                continue;
            }
            let number = numbers.entry(method).or_insert(0);
            *number += 1;
            let name = format!("{method} {number}");
            requests.insert(name.clone(), told(heard));
            order.push(Value::from(name));
        }
        self.told = self.heard.len();
        Ok((Value::Object(requests), Value::Array(order)))
    }

    /// What the scheduler was told last, and whether it is told as often as the lab's configuration
    /// says: every ten seconds, where the default is a minute.
    pub fn capabilities(&self) -> Result<Value> {
        let of_worker = self.heard.iter().filter(|heard| is_about_backups(heard));
        let of_worker: Vec<&Addressed> = of_worker.collect();
        let last = of_worker.last().context("the scheduler was told nothing")?;
        let times: Vec<f64> = of_worker.iter().filter_map(|heard| second(heard)).collect();
        let gaps = times.windows(2);
        let mut gaps: Vec<f64> = gaps
            .map(|pair| (pair[1] - pair[0]).rem_euclid(DAY))
            .collect();
        // Python's worker tells it twice each time.
        gaps.retain(|gap| *gap > 2.0);
        gaps.sort_by(f64::total_cmp);
        let usual = gaps
            .get(gaps.len() / 2)
            .context("the scheduler was told once")?;
        Ok(json!({"told": told(last), "often": (8.0..30.0).contains(usual)}))
    }

    /// Sends the worker a request about a backup that is in another status than it was when
    /// somebody sent one last.
    pub async fn again(
        &self,
        broker: &Broker,
        method: &str,
        backup: &str,
        status: &str,
        args: Value,
    ) -> Result<()> {
        let (message, object) = self.last_about(backup)?;
        let mut message = message.clone();
        message["method"] = method.into();
        message["version"] = "2.0".into();
        message["_unique_id"] = Uuid::new_v4().simple().to_string().into();
        message["args"] = args;
        message["args"]["backup"] = in_status(object, status);
        for field in ["_msg_id", "_reply_q", "_timeout"] {
            message.as_object_mut().context("no object")?.remove(field);
        }
        broker.hand_to_worker(&message).await
    }

    /// Calls the worker about a backup in a status; the class and the text of what it answers.
    pub async fn call(
        &self,
        broker: &Broker,
        method: &str,
        backup: &str,
        status: &str,
    ) -> Result<Value> {
        let (_, object) = self.last_about(backup)?;
        let args = json!({"backup": in_status(object, status)});
        let failure = broker.call_worker(method, "2.0", args).await?;
        Ok(json!({"class": failure["class"], "message": failure["message"]}))
    }

    /// The last request to a worker or the scheduler that has the backup in it.
    fn last_about(&self, backup: &str) -> Result<(&Value, &Value)> {
        let object = |heard: &&Addressed| {
            let id = &heard.message["args"]["backup"]["versioned_object.data"]["id"];
            id == backup && !heard.routing_key.starts_with("cinder-volume")
        };
        let last = self.heard.iter().rfind(object);
        let message = &last.context("nothing was heard of the backup")?.message;
        Ok((message, &message["args"]["backup"]))
    }
}

/// Whether the scheduler is told of a backup service. Python's also sends it the former message, which
/// it does not heed.
fn is_about_backups(heard: &Addressed) -> bool {
    let updates = method(heard) == "update_service_capabilities";
    updates && heard.message["args"]["service_name"] == "backup"
}

/// The second of the day at which the scheduler was told.
fn second(heard: &Addressed) -> Option<f64> {
    let (_, time) = heard.message["args"]["timestamp"]
        .as_str()?
        .split_once('T')?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some(hours * 3600.0 + minutes * 60.0 + seconds)
}

fn in_status(object: &Value, status: &str) -> Value {
    let mut object = object.clone();
    object["versioned_object.data"]["status"] = status.into();
    object
}

fn method(heard: &Addressed) -> &str {
    heard.message["method"].as_str().unwrap_or_default()
}

/// A request without what the transport adds.
fn told(heard: &Addressed) -> Value {
    let mut message = heard.message.clone();
    // A record has ids in it, and times.
    if let Some(url) = message["args"]["backup_url"].as_str() {
        let record = BASE64_STANDARD.decode(url).unwrap_or_default();
        message["args"]["backup_url"] = serde_json::from_slice(&record).unwrap_or_default();
    }
    if let Some(fields) = message.as_object_mut() {
        let call = fields.remove("_msg_id").is_some();
        fields.remove("_reply_q");
        fields.remove("_unique_id");
        fields.insert("call".to_owned(), call.into());
        fields.insert("expires".to_owned(), heard.expires.into());
        fields.insert("exchange".to_owned(), heard.exchange.clone().into());
        fields.insert("routing key".to_owned(), heard.routing_key.clone().into());
    }
    message
}
