//! Compares stored records with the pushes of a run: every push answered 200
//! must have a record with the same bytes, under its key, in its topic.
//!
//! Pure: it is given records one by one, in any order. It keeps two bits for
//! each push besides the index, and no body.
//!
//! A push not answered 200 may or may not be stored, so its absence proves
//! nothing. A record whose body is not that of any push of the run is foreign.

use std::fmt;

use crate::simulate::pushes::{PushGenerator, PushSet};
use crate::simulate::verify::index::BodyIndex;
use crate::topics::Topic;

/// The number of faults that are listed individually.
const MAX_LISTED_FAULTS: usize = 20;

/// Matches stored records with the pushes of a run.
#[derive(Debug)]
pub struct StoredComparison<'a> {
    generator: &'a PushGenerator,
    index: &'a BodyIndex,
    pushes: u32,
    acknowledged: &'a PushSet,
    matched: PushSet,
    result: StoredVerification,
}

/// The comparison of stored records with acknowledged pushes, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredVerification {
    /// Pushes of the run that were answered 200.
    pub(crate) acknowledged: u64,
    /// Acknowledged pushes that have a correct record of their own.
    pub stored: u64,
    /// Acknowledged pushes that have none.
    pub(crate) missing: u64,
    /// Records of the run in a wrong topic or under a wrong key.
    pub(crate) misplaced: u64,
    /// Records in excess of one for each push.
    pub(crate) duplicates: u64,
    /// Correct records of pushes that were not answered 200.
    pub(crate) unacknowledged: u64,
    /// Records of other senders or other runs.
    pub(crate) foreign: u64,
    /// The first faults, at most 20.
    pub(crate) faults: Vec<Fault>,
}

/// A violation of the promise that a 200 makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A push was answered 200 and is not stored.
    Missing {
        /// The number of the push.
        number: u32,
        /// The topic that must hold its record.
        topic: Topic,
        /// The key that its record must have.
        key: Option<String>,
    },
    /// A push is stored in a wrong topic or under a wrong key.
    Misplaced {
        /// The number of the push.
        number: u32,
        /// The topic that must hold its record.
        topic: Topic,
        /// The key that its record must have.
        key: Option<String>,
        /// The topic that holds the record.
        found_topic: Topic,
        /// The key that the record has.
        found_key: Option<String>,
    },
}

impl<'a> StoredComparison<'a> {
    /// Starts a comparison over the first `pushes` pushes of `generator`;
    /// `index` must cover the same ones.
    pub fn new(
        generator: &'a PushGenerator,
        index: &'a BodyIndex,
        pushes: u32,
        acknowledged: &'a PushSet,
    ) -> Self {
        Self {
            generator,
            index,
            pushes,
            acknowledged,
            matched: PushSet::default(),
            result: StoredVerification {
                acknowledged: acknowledged.len(),
                ..StoredVerification::default()
            },
        }
    }

    /// Matches one stored record with a push.
    pub fn add(&mut self, topic: Topic, key: Option<&[u8]>, value: &[u8]) {
        let candidates = self.index.pushes_with_body(value);
        let Some(first) = candidates.clone().next() else {
            self.result.foreign += 1;
            return;
        };
        // Pushes with equal bodies have equal topics and keys, so any of them
        // says where the record belongs.
        let push = self.generator.push(first.into());
        let key_matches = push.key.as_deref().map(str::as_bytes) == key;
        if push.topic != topic || !key_matches || push.body != value {
            self.add_misplaced(first, topic, key);
            return;
        }
        // A repeat needs a record of its own. An acknowledged push takes the
        // record first, since only its absence is a fault.
        let mut unmatched = candidates.filter(|number| !self.matched.contains(*number));
        let any = unmatched.clone().next();
        let acknowledged = unmatched.find(|number| self.acknowledged.contains(*number));
        match (acknowledged, any) {
            (Some(number), _) => {
                self.result.stored += 1;
                self.matched.insert(number);
            }
            (None, Some(number)) => {
                self.result.unacknowledged += 1;
                self.matched.insert(number);
            }
            (None, None) => self.result.duplicates += 1,
        }
    }

    /// Returns whether every acknowledged push has a record.
    pub(crate) fn is_complete(&self) -> bool {
        self.result.stored == self.result.acknowledged
    }

    /// Counts every acknowledged push that has not been matched as missing.
    pub fn finish(mut self) -> StoredVerification {
        self.result.missing = self.result.acknowledged - self.result.stored;
        if self.result.missing > 0 {
            let missing = (0..self.pushes).filter(|number| {
                self.acknowledged.contains(*number) && !self.matched.contains(*number)
            });
            let room = MAX_LISTED_FAULTS.saturating_sub(self.result.faults.len());
            let listed: Vec<Fault> = missing
                .take(room)
                .map(|number| self.missing(number))
                .collect();
            self.result.faults.extend(listed);
        }
        self.result
    }

    fn missing(&self, number: u32) -> Fault {
        let push = self.generator.push(number.into());
        Fault::Missing {
            number,
            topic: push.topic,
            key: push.key,
        }
    }

    fn add_misplaced(&mut self, number: u32, found_topic: Topic, key: Option<&[u8]>) {
        self.result.misplaced += 1;
        if self.result.faults.len() < MAX_LISTED_FAULTS {
            let push = self.generator.push(number.into());
            self.result.faults.push(Fault::Misplaced {
                number,
                topic: push.topic,
                key: push.key,
                found_topic,
                found_key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            });
        }
    }
}

impl StoredVerification {
    /// Returns whether every acknowledged push is stored, and no record of the
    /// run is misplaced.
    pub fn holds(&self) -> bool {
        self.missing == 0 && self.misplaced == 0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { number, topic, key } => write!(
                f,
                "push {number} was answered 200 and is not in {}, key {}",
                topic.label(),
                printable(key.as_deref()),
            ),
            Self::Misplaced {
                number,
                topic,
                key,
                found_topic,
                found_key,
            } => write!(
                f,
                "push {number} is in {}, key {}, and belongs in {}, key {}",
                found_topic.label(),
                printable(found_key.as_deref()),
                topic.label(),
                printable(key.as_deref()),
            ),
        }
    }
}

/// At most 64 characters of a key, with control characters escaped.
fn printable(key: Option<&str>) -> String {
    key.map_or_else(
        || "(none)".to_owned(),
        |key| key.chars().take(64).flat_map(char::escape_debug).collect(),
    )
}

#[cfg(test)]
mod tests;
