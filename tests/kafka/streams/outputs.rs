//! Holds the output topics against the model of the input topics, and what
//! stands in them against the published schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use jsonschema::Validator;
use northbridge::simulate::model::{self, Push};
use serde_json::Value;

use super::deltas::upgrade_deltas;
use super::input::POISON;
use super::topics::Topics;
use crate::support::records::Record;

/// Waits until the streams are through, then compares every output topic.
pub(super) fn assert_equal_to_model(topics: &Topics) {
    topics.await_caught_up();
    let commands = topics.read("command-status");
    let upgrades = topics.read("upgrade-result");
    assert_states(
        topics,
        "command-state",
        &model::command_states(&pushes(&commands)),
    );
    assert_states(
        topics,
        "device-software",
        &model::device_software(&pushes(&upgrades)),
    );
    assert_states(
        topics,
        "upgrade-operation",
        &model::upgrade_operations(&pushes(&upgrades)),
    );
    assert_deltas(topics, &upgrades);
    assert_dead_letters(
        topics,
        [("command-status", &commands), ("upgrade-result", &upgrades)],
    );
}

/// The last value of every key equals the model's; all of them are valid.
pub(super) fn assert_states(topics: &Topics, topic: &str, expected: &BTreeMap<String, Value>) {
    let schema = schema(topic);
    let found = states(topics, topic);
    for state in found.values() {
        let broken: Vec<_> = schema
            .iter_errors(state)
            .map(|error| error.to_string())
            .collect();
        assert!(broken.is_empty(), "{topic}: {broken:?} in {state}");
    }
    let found = found.into_iter();
    let found: BTreeMap<_, _> = found
        .map(|(key, state)| (key, model::visible(state)))
        .collect();
    assert_same(topic, &set(expected), &set(&found));
}

/// The last value of every key that was not deleted.
pub(super) fn states(topics: &Topics, topic: &str) -> BTreeMap<String, Value> {
    let mut states = BTreeMap::new();
    for record in topics.read(topic) {
        match &record.value {
            Some(value) => states.insert(record.key_text(), serde_json::from_slice(value).unwrap()),
            None => states.remove(&record.key_text()),
        };
    }
    states
}

/// As the model reads the records of an input topic.
pub(super) fn pushes(records: &[Record]) -> Vec<Push> {
    let push = |record: &Record| {
        let value = record.value.as_deref().unwrap_or_default();
        Push::from_record(value, record.header("ce_time"), record.timestamp_ms)
    };
    records.iter().map(push).collect()
}

fn assert_deltas(topics: &Topics, upgrades: &[Record]) {
    let found = topics.read("upgrade-delta");
    let values = found
        .iter()
        .map(|record| serde_json::from_str(&record.value_text()).unwrap());
    let found: Vec<Value> = values.collect();
    let expected = upgrade_deltas(&pushes(upgrades));
    assert_same("upgrade-delta", &counted(&expected), &counted(&found));
}

fn assert_dead_letters(topics: &Topics, inputs: [(&str, &Vec<Record>); 2]) {
    let mut expected = Vec::new();
    for (topic, records) in inputs {
        for record in records {
            if let Some(reason) = record.header(POISON) {
                let place = (record.partition.to_string(), record.offset.to_string());
                let reason = reason.to_owned();
                expected.push((reason, topics.name(topic), place, record.value.clone()));
            }
        }
    }
    let header = |record: &Record, name: &str| record.header(name).unwrap().to_owned();
    let found = topics.read("dead-letter");
    let found = found.iter().map(|record| {
        let partition = header(record, "northbridge-partition");
        let place = (partition, header(record, "northbridge-offset"));
        let reason = header(record, "northbridge-reason");
        (
            reason,
            header(record, "northbridge-topic"),
            place,
            record.value.clone(),
        )
    });
    assert_same(
        "dead-letter",
        &counted(&expected),
        &counted(&found.collect::<Vec<_>>()),
    );
}

/// How often each is there, so that a doubled one shows.
fn counted(values: &[impl Debug]) -> BTreeSet<(String, usize)> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(format!("{value:?}")).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn set(states: &BTreeMap<String, Value>) -> BTreeSet<(String, String)> {
    let entries = states.iter();
    entries
        .map(|(key, state)| (key.clone(), state.to_string()))
        .collect()
}

fn assert_same<T: Ord + Debug>(topic: &str, expected: &BTreeSet<T>, found: &BTreeSet<T>) {
    let missing: Vec<_> = expected.difference(found).collect();
    let excess: Vec<_> = found.difference(expected).collect();
    assert!(
        missing.is_empty() && excess.is_empty(),
        "{topic}: of {} {} are missing and {} are not the model's, among them\n{:#?}\n{:#?}",
        expected.len(),
        missing.len(),
        excess.len(),
        missing.first(),
        excess.first(),
    );
    assert!(
        !expected.is_empty() || topic == "dead-letter",
        "{topic}: nothing was compared"
    );
}

fn schema(topic: &str) -> Validator {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas");
    let text = std::fs::read_to_string(directory.join(format!("{topic}.schema.json"))).unwrap();
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options
        .build(&serde_json::from_str(&text).unwrap())
        .unwrap()
}
