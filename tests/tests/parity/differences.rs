//! What may differ between Python's worker and ours, and why.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

/// A field that may differ.
struct Allowed {
    /// A part of the step's name.
    step: &'static str,
    /// Parts of the field's path.
    path: [&'static str; 2],
    /// Whether it is only what ours does not leave behind.
    ours_has_none: bool,
    reason: &'static str,
}

const ALLOWED: &[Allowed] = &[
    Allowed {
        step: "",
        path: ["", "object_count"],
        ours_has_none: false,
        reason: "the objects that were copied are counted",
    },
    Allowed {
        step: "restored",
        path: ["/images/volumes/", "/snapshots/backup."],
        ours_has_none: true,
        reason: "no snapshot is left on a restored volume",
    },
    Allowed {
        step: "",
        path: ["/images/volumes/", "/snapshots/backup."],
        ours_has_none: true,
        reason: "a backup's snapshot on its volume goes with the backup",
    },
    Allowed {
        step: "of-snapshot",
        path: ["/images/backups/", ""],
        ours_has_none: false,
        reason: "a backup of a snapshot has an image of its own",
    },
    Allowed {
        step: "of-snapshot",
        path: ["<of-snapshot>", "service_metadata"],
        ours_has_none: false,
        reason: "its row names that image",
    },
    Allowed {
        step: "of-snapshot",
        path: ["/notifications/", "service_metadata"],
        ours_has_none: false,
        reason: "its row names that image",
    },
    Allowed {
        step: "a volume whose image is gone",
        path: ["/rows/backups/<failed>", "container"],
        ours_has_none: false,
        reason: "the pool is recorded when the backup is taken on",
    },
    Allowed {
        step: "",
        path: ["", "fail_reason"],
        ours_has_none: false,
        reason: "reasons are in words of our own",
    },
];

impl Allowed {
    fn covers(&self, step: &str, path: &str, ours: Option<&Value>) -> bool {
        step.contains(self.step)
            && self.path.iter().all(|part| path.contains(part))
            && !(self.ours_has_none && ours.is_some())
    }
}

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
    let mut seen = vec![false; ALLOWED.len()];
    // What differed before and stands unchanged.
    let mut known = HashSet::new();
    for ((step, theirs), (_, ours)) in theirs.iter().zip(ours) {
        let (theirs, ours) = (fields(theirs), fields(ours));
        let mut paths: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            let (python, rust) = (theirs.get(path), ours.get(path));
            let values = format!("{path}: Python {}, ours {}", shown(python), shown(rust));
            if python == rust || !known.insert(values.clone()) {
                continue;
            }
            let allowed = ALLOWED
                .iter()
                .position(|allowed| allowed.covers(step, path, rust));
            match allowed {
                Some(index) => seen[index] = true,
                None => found.unexpected.push(format!("{step}: {values}")),
            }
        }
    }
    let unseen = ALLOWED.iter().zip(seen).filter(|(_, seen)| !seen);
    found.unseen = unseen
        .map(|(allowed, _)| format!("{} {:?}: {}", allowed.step, allowed.path, allowed.reason))
        .collect();
    found
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

/// The leaves of a value by their paths.
fn fields(value: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect(value, String::new(), &mut found);
    found
}

fn collect(value: &Value, path: String, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(children) => {
            for (key, child) in children {
                collect(child, format!("{path}/{key}"), found);
            }
        }
        Value::Array(children) => {
            for (index, child) in children.iter().enumerate() {
                collect(child, format!("{path}/{index}"), found);
            }
        }
        leaf => {
            found.insert(path, leaf.clone());
        }
    }
}
