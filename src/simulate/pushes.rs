//! The pushes of one simulated application: push number `n` of a seed, derived
//! from the seed and `n` alone.
//!
//! Owns the bodies, and the topic and key that the platform's documents imply
//! for each; so verification needs no push in memory. It must not use
//! `notification`, which it checks, nor know how a push is sent.
//!
//! ```text
//! n ─┬─ repeat of an earlier push
//!    └─ new push ─┬─ not a notification at all
//!                 ├─ another notify type
//!                 └─ stateful type ─┬─ upgrade result of a campaign
//!                                   └─ confirmation of a command
//! ```

mod commands;
mod json;
mod oddities;
mod other_types;
mod push_set;
mod random;
mod scenario;
mod upgrades;

use bytes::Bytes;

use crate::notification::{Rules, Validation};
use crate::topics::Topic;

pub use push_set::PushSet;
use random::Salt;
pub use scenario::TrafficMix;
use scenario::{PushDraft, Scenario};

/// A repeat copies one of this many preceding pushes.
const REPEAT_WINDOW: u64 = 2_000;

/// One push, and the record that must result from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedPush {
    /// The request body, and the record's value byte for byte.
    pub body: Bytes,
    /// The topic that must hold the record.
    pub topic: Topic,
    /// The record's key, `None` for a record without one.
    pub key: Option<String>,
}

/// Derives the pushes of a seed, each independently of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushGenerator {
    scenario: Scenario,
}

impl PushGenerator {
    /// Creates the pushes of `seed` for `devices` devices (at least one),
    /// placed as a listener with these `rules` must place them.
    pub fn new(seed: u64, devices: u64, mix: TrafficMix, rules: Rules) -> Self {
        Self {
            scenario: Scenario::new(seed, devices, mix, rules),
        }
    }

    /// Derives push `number`, counted from 0. The same number always yields the
    /// same push.
    pub fn push(&self, number: u64) -> GeneratedPush {
        place(self.draft(number), self.scenario.rules.validation)
    }

    fn draft(&self, number: u64) -> PushDraft {
        let mut number = number;
        loop {
            match split(number, self.scenario.mix.repeats) {
                // The original may itself be a repeat, so follow the chain.
                Split::Selected(_) if number > 0 => number -= self.repeat_distance(number),
                Split::Selected(rank) | Split::Rest(rank) => return self.original(rank, number),
            }
        }
    }

    fn repeat_distance(&self, number: u64) -> u64 {
        let window = REPEAT_WINDOW.min(number);
        1 + self.scenario.seed.below(Salt::Repeat, number, window)
    }

    fn original(&self, rank: u64, number: u64) -> PushDraft {
        let scenario = &self.scenario;
        if let Some(draft) = oddities::not_a_notification(scenario, number) {
            return draft;
        }
        match split(rank, scenario.mix.others) {
            Split::Selected(rank) => other_types::draft(scenario, rank, number),
            Split::Rest(rank) => match split(rank, scenario.mix.upgrades) {
                Split::Selected(rank) => upgrades::draft(scenario, rank, number),
                Split::Rest(rank) => commands::draft(scenario, rank, number),
            },
        }
    }
}

/// Under [`Validation::Strict`], a push of a stateful type that deviates from
/// its published table is a dead letter.
fn place(draft: PushDraft, validation: Validation) -> GeneratedPush {
    let is_stateful = matches!(draft.topic, Topic::CommandStatus | Topic::UpgradeResult);
    let is_rejected = validation == Validation::Strict && is_stateful && !draft.conforms;
    GeneratedPush {
        body: Bytes::from(draft.body),
        topic: if is_rejected {
            Topic::DeadLetter
        } else {
            draft.topic
        },
        key: draft.key,
    }
}

/// The part of a sequence that an item belongs to, and its rank within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Selected(u64),
    Rest(u64),
}

/// Selects `percent` of a sequence, spread evenly over it. Ranks rise with
/// `number`, so each part keeps the order of the whole, and the rank of any
/// item is computed without its predecessors.
fn split(number: u64, percent: u32) -> Split {
    let selected_before = |number: u64| {
        let (hundreds, rest) = (number / 100, number % 100);
        hundreds * u64::from(percent) + rest * u64::from(percent) / 100
    };
    if selected_before(number + 1) > selected_before(number) {
        Split::Selected(selected_before(number))
    } else {
        Split::Rest(number - selected_before(number))
    }
}

#[cfg(test)]
mod tests;
