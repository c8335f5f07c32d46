//! The proof that what was answered 200 is stored: byte for byte, under its
//! key, in its topic.
//!
//! Pure: it is given records one by one, in any order. No push is kept; beside
//! the index of their bodies two bits of each.
//!
//! What was not answered 200 may or may not be stored, so that its absence
//! proves nothing. A record whose body is of no push of the run is none of ours.

use std::fmt;

use super::index::Index;
use super::ledger::Numbers;
use super::world::World;
use crate::topics::Topic;

/// So many faults are told one by one.
const TOLD: usize = 20;

/// Compares records with the pushes of a run.
#[derive(Debug)]
pub struct Proof<'a> {
    world: &'a World,
    index: &'a Index,
    pushes: u32,
    answered: &'a Numbers,
    stored: Numbers,
    verdict: Verdict,
}

/// What the comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Pushes answered 200.
    pub answered: u64,
    /// Of these, those that are stored as they must be.
    pub stored: u64,
    /// Of these, those that are not.
    pub missing: u64,
    /// Records of pushes in a topic or under a key that is not theirs.
    pub misplaced: u64,
    /// Records beyond one for each push.
    pub doubled: u64,
    /// Records of pushes that were not answered 200.
    pub unanswered: u64,
    /// Records that are of no push of this run.
    pub others: u64,
    /// The first faults, told one by one.
    pub faults: Vec<Fault>,
}

/// Something that the promise excludes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A push was answered 200 and is not stored.
    Missing {
        /// The push.
        number: u32,
        /// Where it belongs.
        topic: Topic,
        /// Its key.
        key: Option<String>,
    },
    /// A push is stored where it does not belong.
    Misplaced {
        /// The push.
        number: u32,
        /// Where it belongs.
        topic: Topic,
        /// Its key.
        key: Option<String>,
        /// Where it is.
        found_topic: Topic,
        /// Under what.
        found_key: Option<String>,
    },
}

impl<'a> Proof<'a> {
    /// A proof over the first `pushes` of a world, of which some were answered 200.
    pub fn new(world: &'a World, index: &'a Index, pushes: u32, answered: &'a Numbers) -> Self {
        Self {
            world,
            index,
            pushes,
            answered,
            stored: Numbers::default(),
            verdict: Verdict {
                answered: answered.count(),
                ..Verdict::default()
            },
        }
    }

    /// Takes one stored record into account.
    pub fn take(&mut self, topic: Topic, key: Option<&[u8]>, value: &[u8]) {
        let same = self.index.numbers(value);
        let Some(any) = same.clone().next() else {
            self.verdict.others += 1;
            return;
        };
        let push = self.world.push(any.into());
        let right_key = push.key.as_deref().map(str::as_bytes) == key;
        if push.topic != topic || !right_key || push.body != value {
            self.misplaced(any, topic, key);
            return;
        }
        // Pushes with the same body each have a record of their own.
        let mut open = same.filter(|number| !self.stored.contains(*number));
        let spare = open.clone().next();
        let wanted = open.find(|number| self.answered.contains(*number));
        match (wanted, spare) {
            (Some(number), _) => {
                self.verdict.stored += 1;
                self.stored.insert(number);
            }
            (None, Some(number)) => {
                self.verdict.unanswered += 1;
                self.stored.insert(number);
            }
            (None, None) => self.verdict.doubled += 1,
        }
    }

    /// Whether every push answered 200 has been seen.
    pub fn is_complete(&self) -> bool {
        self.verdict.stored == self.verdict.answered
    }

    /// What it came to, with nothing more to be read.
    pub fn finish(mut self) -> Verdict {
        self.verdict.missing = self.verdict.answered - self.verdict.stored;
        if self.verdict.missing > 0 {
            let missing = (0..self.pushes)
                .filter(|number| self.answered.contains(*number) && !self.stored.contains(*number));
            let room = TOLD.saturating_sub(self.verdict.faults.len());
            let told: Vec<Fault> = missing
                .take(room)
                .map(|number| self.missing(number))
                .collect();
            self.verdict.faults.extend(told);
        }
        self.verdict
    }

    fn missing(&self, number: u32) -> Fault {
        let push = self.world.push(number.into());
        Fault::Missing {
            number,
            topic: push.topic,
            key: push.key,
        }
    }

    fn misplaced(&mut self, number: u32, found_topic: Topic, key: Option<&[u8]>) {
        self.verdict.misplaced += 1;
        if self.verdict.faults.len() < TOLD {
            let push = self.world.push(number.into());
            self.verdict.faults.push(Fault::Misplaced {
                number,
                topic: push.topic,
                key: push.key,
                found_topic,
                found_key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            });
        }
    }
}

impl Verdict {
    /// Whether the promise held.
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
                shown(key.as_deref()),
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
                shown(found_key.as_deref()),
                topic.label(),
                shown(key.as_deref()),
            ),
        }
    }
}

fn shown(key: Option<&str>) -> String {
    key.map_or_else(
        || "(none)".to_owned(),
        |key| key.chars().take(64).flat_map(char::escape_debug).collect(),
    )
}

#[cfg(test)]
mod tests;
