//! Compares all states of a scope with the model by their hashes, in memory
//! that is small enough for a run of any length.
//!
//! What differs here is only suspected: the key may have records from before
//! the run. `recheck` decides.

use std::collections::BTreeSet;

use chrono::DateTime;
use rdkafka::Message;
use serde_json::Value;

use super::kind::{StateKind, push, value};
use super::scope::Scope;
use crate::kafka::log_reader::{LogReader, ReadError};
use crate::model::Push;
use crate::simulate::pushes::PushGenerator;
use crate::simulate::verify::index::{BodyIndex, hash};

/// The keys of a scope after the comparison.
#[derive(Debug)]
pub(super) struct Comparison {
    /// Sorted by key.
    keys: Vec<ComparedKey>,
    /// Keys of states written since the run began, without a record since then.
    unexplained: BTreeSet<u128>,
}

/// A key whose state does not follow from the records since the run began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspect {
    /// The hash of the key.
    pub(super) key: u128,
    /// How many records of the run have this key.
    pub(super) records: usize,
}

/// A key of the run, with the hashes of its state.
#[derive(Debug, Clone, Copy)]
struct ComparedKey {
    key: u128,
    records: usize,
    expected: Option<u128>,
    found: Option<u128>,
}

/// The raw records since the run began.
#[derive(Debug, Default)]
struct RawRecords {
    of_run: Vec<RunRecord>,
    /// The hashed keys of records that are no pushes of the run.
    foreign_keys: Vec<u128>,
}

/// A raw record of the run: the hash of the key whose state it contributes to,
/// its push and the time of its receipt.
#[derive(Debug, Clone, Copy)]
struct RunRecord {
    key: u128,
    number: u32,
    received_ms: i64,
}

impl Scope<'_> {
    /// Compares the states written since the run began with the states that
    /// follow from the run's own pushes.
    pub(super) fn compare(
        &self,
        reader: &LogReader,
        generator: &PushGenerator,
        index: &BodyIndex,
    ) -> Result<Comparison, ReadError> {
        let RawRecords {
            mut of_run,
            mut foreign_keys,
        } = self.raw_records(reader, index)?;
        of_run.sort_unstable_by_key(|record| record.key);
        foreign_keys.sort_unstable();
        let keys = of_run
            .chunk_by(|a, b| a.key == b.key)
            .map(|of_key| compared_key(self.pair.kind, generator, of_key))
            .collect();
        let mut comparison = Comparison {
            keys,
            unexplained: BTreeSet::new(),
        };
        self.read_states(reader, &mut comparison, &foreign_keys)?;
        Ok(comparison)
    }

    fn raw_records(&self, reader: &LogReader, index: &BodyIndex) -> Result<RawRecords, ReadError> {
        let (kind, topic) = (self.pair.kind, &self.pair.raw);
        let mut records = RawRecords::default();
        for partition in &self.raw {
            let start = topic.offset(*partition);
            reader.read_committed(&topic.name, *partition, start, |record| {
                let push = push(record);
                let Some(key) = kind.key(&push) else { return };
                let key = hash(key.as_bytes());
                // Repeats have equal bodies, so any push with this body will do.
                match index.pushes_with_body(&push.bytes).next() {
                    Some(number) => records.of_run.push(RunRecord {
                        key,
                        number,
                        received_ms: push.received_at.timestamp_millis(),
                    }),
                    None => records.foreign_keys.push(key),
                }
            })?;
        }
        Ok(records)
    }

    fn read_states(
        &self,
        reader: &LogReader,
        comparison: &mut Comparison,
        foreign_keys: &[u128],
    ) -> Result<(), ReadError> {
        let Comparison { keys, unexplained } = comparison;
        let topic = &self.pair.states;
        for partition in &self.states {
            let start = topic.offset(*partition);
            reader.read_committed(&topic.name, *partition, start, |record| {
                let key = hash(record.key().unwrap_or_default());
                if let Ok(place) = keys.binary_search_by_key(&key, |compared| compared.key) {
                    keys[place].found = value(record).as_ref().map(hash_of_state);
                } else if record.payload().is_some() && foreign_keys.binary_search(&key).is_err() {
                    unexplained.insert(key);
                }
            })?;
        }
        Ok(())
    }
}

impl Comparison {
    /// Returns how many keys must have a state.
    pub(super) fn expected_states(&self) -> u64 {
        let expected = self.keys.iter().filter(|key| key.expected.is_some());
        u64::try_from(expected.count()).unwrap_or(u64::MAX)
    }

    /// Returns the keys whose state is not the expected one, sorted.
    pub(super) fn differing(&self) -> Vec<Suspect> {
        let differing = self.keys.iter().filter(|key| key.found != key.expected);
        differing
            .map(|compared| Suspect {
                key: compared.key,
                records: compared.records,
            })
            .collect()
    }

    /// Returns the keys of states that were written since the run began though
    /// no record with the key was, sorted.
    pub(super) fn unexplained(&self) -> Vec<Suspect> {
        let unexplained = self.unexplained.iter();
        unexplained
            .map(|key| Suspect {
                key: *key,
                records: 0,
            })
            .collect()
    }
}

fn compared_key(kind: StateKind, generator: &PushGenerator, of_key: &[RunRecord]) -> ComparedKey {
    let pushes: Vec<Push> = of_key
        .iter()
        .map(|record| Push {
            bytes: generator.push(record.number.into()).body.to_vec(),
            received_at: DateTime::from_timestamp_millis(record.received_ms).unwrap_or_default(),
        })
        .collect();
    let key = pushes.first().and_then(|push| kind.key(push));
    let expected = key.and_then(|key| kind.expected(&key, &pushes));
    ComparedKey {
        key: of_key.first().map_or(0, |record| record.key),
        records: of_key.len(),
        expected: expected.as_ref().map(hash_of_state),
        found: None,
    }
}

/// Equal for equal states, whatever the order of their fields.
fn hash_of_state(state: &Value) -> u128 {
    hash(state.to_string().as_bytes())
}
