//! Where two workers differ, and whether they may.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::allowed::{ALLOWED, Allowed, Steps};

/// The field that has the order of the requests, which are compared on their own.
const ORDER: &str = "order";

/// What was found.
#[derive(Default)]
pub struct Found {
    /// Differences that nobody expects.
    pub unexpected: Vec<String>,
    /// Differences that were expected and are none.
    pub unseen: Vec<String>,
}

/// Compares what two workers left behind, step by step.
pub fn find(theirs: &[(String, Value)], ours: &[(String, Value)]) -> Found {
    let mut found = Found::default();
    let mut seen = BTreeSet::new();
    let steps: Vec<&str> = theirs.iter().map(|(step, _)| step.as_str()).collect();
    for (number, ((step, theirs), (same, ours))) in theirs.iter().zip(ours).enumerate() {
        if step != same {
            found.unexpected.push(format!("{step}: ours is at {same}"));
            break;
        }
        let (asked, asked_by_us) = orders(theirs, ours);
        if asked != asked_by_us {
            let both = format!("Python {asked:?}, ours {asked_by_us:?}");
            found.unexpected.push(format!("{step}: order: {both}"));
        }
        let mut differing = Vec::new();
        compare(String::new(), Some(theirs), Some(ours), &mut differing);
        for (path, python, rust) in &differing {
            let allowed = ALLOWED
                .iter()
                .position(|allowed| allowed.covers(&steps, number, path, *python, *rust));
            match allowed {
                Some(index) => _ = seen.insert((index, step.as_str())),
                None => found.unexpected.push(format!(
                    "{step}: {path}: Python {}, ours {}",
                    shown(*python),
                    shown(*rust)
                )),
            }
        }
    }
    for (index, allowed) in ALLOWED.iter().enumerate() {
        found.unseen.extend(unseen(index, allowed, &seen));
    }
    found
}

/// The orders of the requests that both have made.
fn orders<'a>(theirs: &'a Value, ours: &'a Value) -> (Vec<&'a str>, Vec<&'a str>) {
    let made = |all: &'a Value| -> Vec<&'a str> {
        let all = all[ORDER].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).collect()
    };
    let (theirs, ours) = (made(theirs), made(ours));
    let both = |mine: &[&'a str], others: &[&str]| -> Vec<&'a str> {
        let mut mine = mine.to_vec();
        mine.retain(|request| others.contains(request));
        mine
    };
    (both(&theirs, &ours), both(&ours, &theirs))
}

/// Where a difference should have been met and was not.
fn unseen(index: usize, allowed: &Allowed, seen: &BTreeSet<(usize, &str)>) -> Vec<String> {
    let told = |step: &str| format!("{step} {:?}: {}", allowed.path, allowed.reason);
    let named = match allowed.steps {
        Steps::In(steps) => steps,
        Steps::From(..) | Steps::All => {
            let met = seen.iter().any(|(number, _)| *number == index);
            return if met { Vec::new() } else { vec![told("any")] };
        }
    };
    let missing = named.iter().filter(|step| !seen.contains(&(index, **step)));
    missing.map(|step| told(step)).collect()
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

/// Collects the smallest parts that differ, with their paths: what only one of them has is one part.
fn compare<'a>(
    path: String,
    theirs: Option<&'a Value>,
    ours: Option<&'a Value>,
    differing: &mut Vec<(String, Option<&'a Value>, Option<&'a Value>)>,
) {
    match (theirs, ours) {
        (Some(Value::Object(theirs)), Some(Value::Object(ours))) => {
            let keys: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
            for key in keys.into_iter().filter(|key| *key != ORDER) {
                let path = format!("{path}/{key}");
                compare(path, theirs.get(key), ours.get(key), differing);
            }
        }
        (Some(Value::Array(theirs)), Some(Value::Array(ours))) => {
            for index in 0..theirs.len().max(ours.len()) {
                let path = format!("{path}/{index}");
                compare(path, theirs.get(index), ours.get(index), differing);
            }
        }
        (theirs, ours) if theirs == ours => {}
        _ => differing.push((path, theirs, ours)),
    }
}
