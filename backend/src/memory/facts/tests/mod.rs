//! The probe on recorded hosts, on broken ones, and on this machine.

mod broken;
mod hosts;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Facts, Host, RecordedCalls};

/// Every recorded host.
const HOSTS: [&str; 10] = [
    "amd",
    "amd-v1-iommu",
    "arm64-fwb",
    "arm64-no-fwb",
    "intel-llc",
    "intel-no-llc",
    "intel-no-selfsnoop",
    "intel-selfsnoop",
    "nested-guest",
    "this-machine",
];

/// The folder of a recorded host.
fn folder(host: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/hosts")
        .join(host)
}

/// What the recorded host `host` answers to system calls.
fn calls(host: &str) -> RecordedCalls {
    RecordedCalls::parse(&fs::read_to_string(folder(host).join("calls.json")).unwrap()).unwrap()
}

/// The facts of the files below `root` and the calls of the recorded host `host`.
fn probe(root: &Path, host: &str) -> Facts {
    Facts::probe(&Host::at(root).unwrap(), &calls(host))
}

/// Every fact by name, as text; those that are not known are "unknown".
fn answers(facts: &Facts) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(
        &serde_json::to_value(facts).unwrap(),
        "",
        &mut found,
        &mut |fact| fact["value"].clone(),
    );
    found
}

/// Where every fact comes from, by name.
fn sources(facts: &Facts) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(
        &serde_json::to_value(facts).unwrap(),
        "",
        &mut found,
        &mut |fact| fact["source"].clone(),
    );
    found
}

fn collect(
    value: &Value,
    name: &str,
    found: &mut BTreeMap<String, String>,
    pick: &mut dyn FnMut(&Value) -> Value,
) {
    let within = |part: &str| {
        if name.is_empty() {
            part.to_owned()
        } else {
            format!("{name}.{part}")
        }
    };
    match value {
        Value::Object(fields) if fields.contains_key("source") => match &fields["value"] {
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    collect(item, &within(&at.to_string()), found, pick);
                }
            }
            _ => collect(&pick(value), name, found, pick),
        },
        Value::Object(fields) => {
            for (part, field) in fields {
                collect(field, &within(part), found, pick);
            }
        }
        leaf => {
            let text = match leaf {
                Value::Null => "unknown".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            found.insert(name.to_owned(), text);
        }
    }
}
