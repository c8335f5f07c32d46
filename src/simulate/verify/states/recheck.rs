//! Checks suspect keys again with all records that they ever had, and describes
//! those whose state still differs from the model.

use std::collections::BTreeMap;

use rdkafka::Message;
use serde_json::Value;

use super::comparison::Suspect;
use super::kind::{push, value};
use super::mismatch::StateMismatch;
use super::scope::Scope;
use crate::kafka::log_reader::{LogReader, ReadError};
use crate::model::Push;
use crate::simulate::verify::index::hash;

/// Suspects are checked in batches of up to this many records, which bounds the
/// pushes in memory.
const MAX_BATCH_RECORDS: usize = 20_000;

/// The suspects that differ indeed.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    /// Includes the suspects that were not checked because others differ.
    pub(super) differing: u64,
    /// Those of the first batch in which any differs.
    pub(super) mismatches: Vec<StateMismatch>,
}

impl Scope<'_> {
    /// Checks the suspects, which must be sorted, batch by batch. Stops after a
    /// batch in which one differs: verification has failed then, so the rest
    /// counts as differing without the cost of another pass over the topics.
    pub(super) fn recheck(
        &self,
        reader: &LogReader,
        suspects: &[Suspect],
    ) -> Result<Recheck, ReadError> {
        let mut rest = suspects;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_len(rest));
            rest = later;
            let mismatches = self.mismatches(reader, batch)?;
            if !mismatches.is_empty() {
                let differing = u64::try_from(mismatches.len() + rest.len());
                return Ok(Recheck {
                    differing: differing.unwrap_or(u64::MAX),
                    mismatches,
                });
            }
        }
        Ok(Recheck::default())
    }

    /// Returns those of the unexplained states, whose keys must be sorted, that
    /// no record since the beginning of the raw topic explains. A stream that
    /// lagged when the run began writes states that follow from earlier records.
    pub(super) fn orphans(
        &self,
        reader: &LogReader,
        unexplained: &[Suspect],
    ) -> Result<Vec<StateMismatch>, ReadError> {
        if unexplained.is_empty() {
            return Ok(Vec::new());
        }
        let orphans = self.without_records(reader, unexplained)?;
        let found = self.latest_states(reader, &orphans)?;
        let mismatch = |(key, found)| StateMismatch {
            kind: self.pair.kind,
            key,
            expected: None,
            found: Some(found),
        };
        Ok(found.into_iter().map(mismatch).collect())
    }

    fn without_records(
        &self,
        reader: &LogReader,
        suspects: &[Suspect],
    ) -> Result<Vec<Suspect>, ReadError> {
        let mut without: BTreeMap<u128, Suspect> = suspects
            .iter()
            .map(|suspect| (suspect.key, *suspect))
            .collect();
        for partition in &self.raw {
            reader.read_committed(&self.pair.raw.name, *partition, 0, |record| {
                if let Some(key) = self.pair.kind.key(&push(record)) {
                    without.remove(&hash(key.as_bytes()));
                }
            })?;
        }
        Ok(without.into_values().collect())
    }

    fn mismatches(
        &self,
        reader: &LogReader,
        suspects: &[Suspect],
    ) -> Result<Vec<StateMismatch>, ReadError> {
        let kind = self.pair.kind;
        let pushes = self.pushes_of(reader, suspects)?;
        let mut states = self.latest_states(reader, suspects)?;
        let mismatches = pushes.into_iter().filter_map(|(key, pushes)| {
            let expected = kind.expected(&key, &pushes);
            let found = states.remove(&key);
            (expected != found).then_some(StateMismatch {
                kind,
                key,
                expected,
                found,
            })
        });
        Ok(mismatches.collect())
    }

    fn pushes_of(
        &self,
        reader: &LogReader,
        suspects: &[Suspect],
    ) -> Result<BTreeMap<String, Vec<Push>>, ReadError> {
        let mut pushes: BTreeMap<String, Vec<Push>> = BTreeMap::new();
        for partition in &self.raw {
            reader.read_committed(&self.pair.raw.name, *partition, 0, |record| {
                let push = push(record);
                let key = self.pair.kind.key(&push);
                if let Some(key) = key.filter(|key| contains(suspects, key.as_bytes())) {
                    pushes.entry(key).or_default().push(push);
                }
            })?;
        }
        Ok(pushes)
    }

    /// The latest state of each suspect that has one.
    fn latest_states(
        &self,
        reader: &LogReader,
        suspects: &[Suspect],
    ) -> Result<BTreeMap<String, Value>, ReadError> {
        let mut latest: BTreeMap<String, Value> = BTreeMap::new();
        for partition in &self.states {
            reader.read_committed(&self.pair.states.name, *partition, 0, |record| {
                let key = record.key().unwrap_or_default();
                if !contains(suspects, key) {
                    return;
                }
                let key = String::from_utf8_lossy(key).into_owned();
                match value(record) {
                    Some(value) => drop(latest.insert(key, value)),
                    None => drop(latest.remove(&key)),
                }
            })?;
        }
        Ok(latest)
    }
}

/// Returns how many suspects fit into a batch; at least one, whatever its size.
fn batch_len(suspects: &[Suspect]) -> usize {
    let mut records = 0;
    let fitting = suspects.iter().take_while(|suspect| {
        records += suspect.records;
        records <= MAX_BATCH_RECORDS
    });
    fitting.count().max(1)
}

fn contains(suspects: &[Suspect], key: &[u8]) -> bool {
    let key = hash(key);
    suspects
        .binary_search_by_key(&key, |suspect| suspect.key)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_at_most_its_number_of_records_unless_a_single_key_has_more() {
        let with = |records| Suspect { key: 0, records };
        assert_eq!(batch_len(&[with(9_000), with(9_000), with(9_000)]), 2);
        assert_eq!(batch_len(&[with(90_000), with(1)]), 1);
    }
}
