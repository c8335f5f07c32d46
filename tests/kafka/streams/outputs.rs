//! Compares the output topics with the model of the input topics, and validates
//! the states against the published schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use jsonschema::Validator;
use northbridge::model::{self, Push};
use serde_json::Value;

use super::deltas::upgrade_deltas;
use super::input::POISON;
use super::topics::Topics;
use crate::support::records::Record;

/// Waits until the streams have caught up, then compares every output topic.
pub(super) fn assert_equal_to_model(topics: &Topics) {
    assert_states_equal_to_model(topics);
    let commands = topics.read("command-status");
    let upgrades = topics.read("upgrade-result");
    assert_deltas(topics, &upgrades);
    assert_dead_letters(
        topics,
        [("command-status", &commands), ("upgrade-result", &upgrades)],
    );
}

/// Waits until the streams have caught up, then compares the state topics.
pub(super) fn assert_states_equal_to_model(topics: &Topics) {
    topics.wait_until_caught_up();
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
}

/// Checks that the newest value of every key is valid and equals the model's.
pub(super) fn assert_states(topics: &Topics, topic: &str, expected: &BTreeMap<String, Value>) {
    let schema = schema(topic);
    let found = states(topics, topic);
    for state in found.values() {
        let errors: Vec<_> = schema
            .iter_errors(state)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{topic}: {errors:?} in {state}");
    }
    assert_same(topic, &set(expected), &set(&found));
}

/// The newest value of every key whose newest record is not a tombstone.
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

/// The records of an input topic as input of the model.
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
                let position = (record.partition.to_string(), record.offset.to_string());
                let reason = reason.to_owned();
                expected.push((reason, topics.name(topic), position, record.value.clone()));
            }
        }
    }
    let header = |record: &Record, name: &str| record.header(name).unwrap().to_owned();
    let found = topics.read("dead-letter");
    let found = found.iter().map(|record| {
        let partition = header(record, "northbridge-partition");
        let position = (partition, header(record, "northbridge-offset"));
        let reason = header(record, "northbridge-reason");
        (
            reason,
            header(record, "northbridge-topic"),
            position,
            record.value.clone(),
        )
    });
    assert_same(
        "dead-letter",
        &counted(&expected),
        &counted(&found.collect::<Vec<_>>()),
    );
}

/// Values with their counts, so that duplicates count as differences.
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
        "{topic}: of {} expected, {} are missing and {} are unexpected, such as\n{:#?}\n{:#?}",
        expected.len(),
        missing.len(),
        excess.len(),
        missing.first(),
        excess.first(),
    );
    assert!(
        !expected.is_empty() || topic == "dead-letter",
        "{topic}: there was nothing to compare"
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
