//! The second look at keys that differ: with all records that they ever had,
//! and with words for what is wrong.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::error::KafkaError;
use serde_json::{Map, Value};

use super::super::index::hash;
use super::super::model::{Push, visible};
use super::first_look::Suspect;
use super::kind::push;
use super::{Scope, State};
use crate::kafka::scan::Scan;

/// Keys are looked at again until they have so many records together: as many
/// pushes are in memory at a time.
const RECORDS_AT_A_TIME: usize = 20_000;
/// So much of a value is told.
const TOLD_CHARACTERS: usize = 100;

/// A state that is not the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of what.
    pub state: State,
    /// Its key.
    pub key: String,
    /// What it must be.
    pub wanted: Option<Value>,
    /// What it is.
    pub found: Option<Value>,
}

/// What the second look came to.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// How many states differ still, or were not looked at again since others do.
    pub(super) differing: u64,
    /// Some of them.
    pub(super) differences: Vec<Difference>,
}

impl Scope<'_> {
    /// Looks at the suspects, which are sorted, until some of them differ
    /// indeed: then nothing can excuse the rest.
    pub(super) fn compare_again(
        &self,
        scan: &Scan,
        suspects: &[Suspect],
    ) -> Result<Again, KafkaError> {
        let mut rest = suspects;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(at_a_time(rest));
            rest = later;
            let differences = self.differences(scan, now)?;
            if !differences.is_empty() {
                let differing = u64::try_from(differences.len() + rest.len());
                return Ok(Again {
                    differing: differing.unwrap_or(u64::MAX),
                    differences,
                });
            }
        }
        Ok(Again::default())
    }

    /// Looks at the strangers, which are sorted: those that no record at all is
    /// about must have no state. A stream that was behind at the start writes
    /// states that follow from earlier records.
    pub(super) fn unfounded(
        &self,
        scan: &Scan,
        strangers: &[Suspect],
    ) -> Result<Vec<Difference>, KafkaError> {
        if strangers.is_empty() {
            return Ok(Vec::new());
        }
        let unfounded = self.without_records(scan, strangers)?;
        let found = self.states_of(scan, &unfounded)?;
        let difference = |(key, found)| Difference {
            state: self.pair.state,
            key,
            wanted: None,
            found: Some(found),
        };
        Ok(found.into_iter().map(difference).collect())
    }

    fn without_records(
        &self,
        scan: &Scan,
        strangers: &[Suspect],
    ) -> Result<Vec<Suspect>, KafkaError> {
        let mut without: BTreeMap<u128, Suspect> = strangers
            .iter()
            .map(|stranger| (stranger.key, *stranger))
            .collect();
        for partition in &self.raw {
            scan.read_partition(&self.pair.raw.name, *partition, 0, |record| {
                if let Some(key) = self.pair.state.key(&push(*record)) {
                    without.remove(&hash(key.as_bytes()));
                }
            })?;
        }
        Ok(without.into_values().collect())
    }

    fn differences(
        &self,
        scan: &Scan,
        suspects: &[Suspect],
    ) -> Result<Vec<Difference>, KafkaError> {
        let state = self.pair.state;
        let pushes = self.pushes_about(scan, suspects)?;
        let mut found = self.states_of(scan, suspects)?;
        let differences = pushes.into_iter().filter_map(|(key, pushes)| {
            let wanted = state.after(&key, &pushes);
            let found = found.remove(&key);
            (wanted != found).then_some(Difference {
                state,
                key,
                wanted,
                found,
            })
        });
        Ok(differences.collect())
    }

    fn pushes_about(
        &self,
        scan: &Scan,
        suspects: &[Suspect],
    ) -> Result<BTreeMap<String, Vec<Push>>, KafkaError> {
        let mut pushes: BTreeMap<String, Vec<Push>> = BTreeMap::new();
        for partition in &self.raw {
            scan.read_partition(&self.pair.raw.name, *partition, 0, |record| {
                let push = push(*record);
                let key = self.pair.state.key(&push);
                if let Some(key) = key.filter(|key| are_about(suspects, key.as_bytes())) {
                    pushes.entry(key).or_default().push(push);
                }
            })?;
        }
        Ok(pushes)
    }

    /// The last state of each suspect; what is no JSON stands as text.
    fn states_of(
        &self,
        scan: &Scan,
        suspects: &[Suspect],
    ) -> Result<BTreeMap<String, Value>, KafkaError> {
        let mut last: BTreeMap<String, Value> = BTreeMap::new();
        for partition in &self.states {
            scan.read_partition(&self.pair.states.name, *partition, 0, |record| {
                let key = record.key().unwrap_or_default();
                if !are_about(suspects, key) {
                    return;
                }
                let key = String::from_utf8_lossy(key).into_owned();
                match record.value() {
                    Some(value) => drop(last.insert(key, read(value))),
                    None => drop(last.remove(&key)),
                }
            })?;
        }
        Ok(last)
    }
}

fn at_a_time(suspects: &[Suspect]) -> usize {
    let mut records = 0;
    let fits = suspects.iter().take_while(|suspect| {
        records += suspect.records;
        records <= RECORDS_AT_A_TIME
    });
    fits.count().max(1)
}

fn are_about(suspects: &[Suspect], key: &[u8]) -> bool {
    let key = hash(key);
    suspects
        .binary_search_by_key(&key, |suspect| suspect.key)
        .is_ok()
}

fn read(value: &[u8]) -> Value {
    let state = serde_json::from_slice(value).map(visible);
    state.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(value).into_owned()))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, key) = (self.state.topic().label(), shown(&self.key.as_str().into()));
        write!(f, "{topic} {key}: ")?;
        match (&self.wanted, &self.found) {
            (Some(Value::Object(wanted)), Some(Value::Object(found))) => fields(f, wanted, found),
            (Some(wanted), Some(found)) => differs(f, "the state", Some(wanted), Some(found)),
            (Some(_), None) => f.write_str("there is no state"),
            (None, _) => f.write_str("there must be no state"),
        }
    }
}

fn fields(
    f: &mut fmt::Formatter<'_>,
    wanted: &Map<String, Value>,
    found: &Map<String, Value>,
) -> fmt::Result {
    let names = wanted.keys().chain(found.keys());
    let mut names: Vec<&String> = names
        .filter(|name| wanted.get(*name) != found.get(*name))
        .collect();
    names.sort_unstable();
    names.dedup();
    for (place, name) in names.iter().enumerate() {
        if place > 0 {
            f.write_str("; ")?;
        }
        differs(f, name, wanted.get(*name), found.get(*name))?;
    }
    Ok(())
}

fn differs(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    wanted: Option<&Value>,
    found: Option<&Value>,
) -> fmt::Result {
    let told = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), shown);
    write!(f, "{what} must be {} and is {}", told(wanted), told(found))
}

/// As JSON, which escapes what a terminal would take for a command.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let mut told: String = text.chars().take(TOLD_CHARACTERS).collect();
    if told.len() < text.len() {
        told.push('…');
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(wanted: Option<Value>, found: Option<Value>) -> String {
        let difference = Difference {
            state: State::Command,
            key: "r\n1".to_owned(),
            wanted,
            found,
        };
        difference.to_string()
    }

    #[test]
    fn a_difference_is_told_field_by_field_and_fit_for_a_terminal() {
        let wanted = json!({"status": "executed", "to": "na", "sentAt": "2026-01-01T00:00:00Z"});
        let found = json!({"status": "sent", "to": "na", "body": {}});
        assert_eq!(
            told(Some(wanted), Some(found)),
            "command-state \"r\\n1\": body must be absent and is {}; \
             sentAt must be \"2026-01-01T00:00:00Z\" and is absent; \
             status must be \"executed\" and is \"sent\""
        );
    }

    #[test]
    fn a_state_that_is_not_there_or_must_not_be_is_told_as_that() {
        let there = || Some(json!({"status": "sent"}));
        assert!(told(there(), None).ends_with(": there is no state"));
        assert!(told(None, there()).ends_with(": there must be no state"));
    }

    #[test]
    fn so_many_suspects_are_looked_at_as_have_no_more_records_than_fit() {
        let with = |records| Suspect { key: 0, records };
        assert_eq!(at_a_time(&[with(9_000), with(9_000), with(9_000)]), 2);
        assert_eq!(at_a_time(&[with(90_000), with(1)]), 1);
    }
}
