//! The comparison of all states, by their hashes: small, so that it holds for
//! runs of any length.

use std::collections::BTreeSet;

use chrono::DateTime;
use rdkafka::error::KafkaError;
use serde_json::Value;

use super::super::index::{Index, hash};
use super::super::model::{Push, visible};
use super::super::world::World;
use super::kind::push;
use super::{Scope, State};
use crate::kafka::scan::Scan;

/// A record of the run: whose state it is about, which push it is, and when it
/// was received.
#[derive(Debug, Clone, Copy)]
struct Own {
    key: u128,
    number: u32,
    received_ms: i64,
}

/// A key of the run.
#[derive(Debug, Clone, Copy)]
struct Row {
    key: u128,
    records: usize,
    wanted: Option<u128>,
    found: Option<u128>,
}

/// All keys of the run in one scope, and those of states that no record since
/// the start accounts for.
#[derive(Debug)]
pub(super) struct Compared {
    rows: Vec<Row>,
    strangers: BTreeSet<u128>,
}

/// The records since the start: those of the run, and the keys of all others.
#[derive(Debug, Default)]
struct Records {
    own: Vec<Own>,
    others: Vec<u128>,
}

/// A key whose state is not what the run's own pushes make of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspect {
    pub(super) key: u128,
    pub(super) records: usize,
}

impl Scope<'_> {
    /// Compares the states since the start with what the run's own pushes make.
    pub(super) fn compare(
        &self,
        scan: &Scan,
        world: &World,
        index: &Index,
    ) -> Result<Compared, KafkaError> {
        let Records {
            mut own,
            mut others,
        } = self.records(scan, index)?;
        own.sort_unstable_by_key(|record| record.key);
        others.sort_unstable();
        let rows = own
            .chunk_by(|a, b| a.key == b.key)
            .map(|of_key| row(self.pair.state, world, of_key))
            .collect();
        let mut compared = Compared {
            rows,
            strangers: BTreeSet::new(),
        };
        self.find(scan, &mut compared, &others)?;
        Ok(compared)
    }

    fn records(&self, scan: &Scan, index: &Index) -> Result<Records, KafkaError> {
        let (state, log) = (self.pair.state, &self.pair.raw);
        let mut records = Records::default();
        for partition in &self.raw {
            let start = log.start.get(partition).copied().unwrap_or(0);
            scan.read_partition(&log.name, *partition, start, |record| {
                let push = push(*record);
                let Some(key) = state.key(&push) else { return };
                let key = hash(key.as_bytes());
                match index.numbers(&push.bytes).next() {
                    Some(number) => records.own.push(Own {
                        key,
                        number,
                        received_ms: push.received_at.timestamp_millis(),
                    }),
                    None => records.others.push(key),
                }
            })?;
        }
        Ok(records)
    }

    fn find(
        &self,
        scan: &Scan,
        compared: &mut Compared,
        others: &[u128],
    ) -> Result<(), KafkaError> {
        let Compared { rows, strangers } = compared;
        let log = &self.pair.states;
        for partition in &self.states {
            let start = log.start.get(partition).copied().unwrap_or(0);
            scan.read_partition(&log.name, *partition, start, |record| {
                let key = hash(record.key().unwrap_or_default());
                if let Ok(place) = rows.binary_search_by_key(&key, |row| row.key) {
                    rows[place].found = record.value().map(hash_of_written);
                } else if record.value().is_some() && others.binary_search(&key).is_err() {
                    strangers.insert(key);
                }
            })?;
        }
        Ok(())
    }
}

impl Compared {
    /// How many keys must have a state.
    pub(super) fn wanted(&self) -> u64 {
        let wanted = self.rows.iter().filter(|row| row.wanted.is_some());
        u64::try_from(wanted.count()).unwrap_or(u64::MAX)
    }

    /// The keys that need another look, sorted.
    pub(super) fn differing(&self) -> Vec<Suspect> {
        let differing = self.rows.iter().filter(|row| row.found != row.wanted);
        differing
            .map(|row| Suspect {
                key: row.key,
                records: row.records,
            })
            .collect()
    }

    /// The keys of states that were written since the start, and that no record
    /// since then is about, sorted.
    pub(super) fn strangers(&self) -> Vec<Suspect> {
        let strangers = self.strangers.iter();
        strangers
            .map(|key| Suspect {
                key: *key,
                records: 0,
            })
            .collect()
    }
}

fn row(state: State, world: &World, of_key: &[Own]) -> Row {
    let pushes: Vec<Push> = of_key
        .iter()
        .map(|record| Push {
            bytes: world.push(record.number.into()).body.to_vec(),
            received_at: DateTime::from_timestamp_millis(record.received_ms).unwrap_or_default(),
        })
        .collect();
    let key = pushes.first().and_then(|push| state.key(push));
    let wanted = key.and_then(|key| state.after(&key, &pushes));
    Row {
        key: of_key.first().map_or(0, |record| record.key),
        records: of_key.len(),
        wanted: wanted.as_ref().map(hash_of),
        found: None,
    }
}

/// Equal for equal states, whatever the order of their fields.
fn hash_of(state: &Value) -> u128 {
    hash(state.to_string().as_bytes())
}

fn hash_of_written(value: &[u8]) -> u128 {
    serde_json::from_slice(value).map_or_else(|_| hash(value), |state| hash_of(&visible(state)))
}
