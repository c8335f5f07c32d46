//! The pushes of one simulated application: push number `n` of a seed, derived
//! by itself.
//!
//! Owns what is pushed, and where the platform's documents say that it belongs;
//! so the proof of a run needs no pushes in memory. It must not use the reader
//! of pushes that it judges, nor know how a push is sent.
//!
//! ```text
//! n ─┬─ a repeat of an earlier push
//!    └─ fresh ─┬─ another type
//!              └─ of the mission ─┬─ the result of an upgrade in a campaign
//!                                 └─ a step in the life of a command
//! ```

mod commands;
mod json;
mod oddities;
mod others;
mod random;
mod upgrades;

use bytes::Bytes;

use crate::notification::{CommandKey, Rules, Validation};
use crate::topics::Topic;

use random::{Salt, Seed};

/// How far back a repeat reaches, in pushes.
const REPEATED_WITHIN: u64 = 2_000;

/// One push, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// What the platform sends.
    pub body: Bytes,
    /// The topic that must hold it.
    pub topic: Topic,
    /// The key that must stand beside it.
    pub key: Option<String>,
}

/// What the pushes are made of, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Of all pushes: repeats of an earlier one.
    pub repeats: u32,
    /// Of the rest: types other than the two of the mission.
    pub others: u32,
    /// Of the rest: upgrade results; what remains are confirmations of commands.
    pub upgrades: u32,
    /// Of the commands: those whose confirmations come out of order.
    pub disorder: u32,
    /// Of all fresh pushes: those that are not as published.
    pub oddities: u32,
}

/// All pushes of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    seed: Seed,
    devices: u64,
    shares: Shares,
    rules: Rules,
}

/// Where a push belongs, before an operator's stricter rules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Draft {
    body: String,
    topic: Topic,
    key: Option<String>,
    as_published: bool,
}

impl World {
    /// The pushes of this seed over so many devices, for a listener with these
    /// rules.
    pub fn new(seed: u64, devices: u64, shares: Shares, rules: Rules) -> Self {
        Self {
            seed: Seed::new(seed),
            devices: devices.max(1),
            shares,
            rules,
        }
    }

    /// Push number `number`, counted from 0: the same whenever it is asked for.
    pub fn push(&self, number: u64) -> Push {
        self.draft(number).settle(self.rules.validation)
    }

    fn draft(&self, number: u64) -> Draft {
        let mut number = number;
        loop {
            match split(number, self.shares.repeats) {
                Split::In(_) if number > 0 => number -= self.back(number),
                Split::In(rank) | Split::Out(rank) => return self.fresh(rank, number),
            }
        }
    }

    fn back(&self, number: u64) -> u64 {
        1 + self
            .seed
            .below(Salt::Repeat, number, REPEATED_WITHIN.min(number))
    }

    fn fresh(&self, rank: u64, number: u64) -> Draft {
        if let Some(draft) = oddities::not_a_notification(self, number) {
            return draft;
        }
        match split(rank, self.shares.others) {
            Split::In(rank) => others::draft(self, rank, number),
            Split::Out(rank) => match split(rank, self.shares.upgrades) {
                Split::In(rank) => upgrades::draft(self, rank, number),
                Split::Out(rank) => commands::draft(self, rank, number),
            },
        }
    }

    fn device(&self, device: u64) -> String {
        self.seed.uuid(Salt::Device, device % self.devices)
    }

    fn keyed_by_device(&self) -> bool {
        self.rules.command_key == CommandKey::DeviceId
    }
}

impl Draft {
    /// Under [`Validation::Strict`] what breaks the table of its type is a dead letter.
    fn settle(self, validation: Validation) -> Push {
        let own_table = matches!(self.topic, Topic::CommandStatus | Topic::UpgradeResult);
        let refused = validation == Validation::Strict && own_table && !self.as_published;
        Push {
            body: Bytes::from(self.body),
            topic: if refused {
                Topic::DeadLetter
            } else {
                self.topic
            },
            key: self.key,
        }
    }
}

/// Which part of a sequence an item falls into, and its rank there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    In(u64),
    Out(u64),
}

/// Spreads `percent` of a sequence evenly over it; ranks rise with `number`, so
/// that order in time is order in rank, and any item can be asked for alone.
fn split(number: u64, percent: u32) -> Split {
    let before = |number: u64| {
        let (hundreds, rest) = (number / 100, number % 100);
        hundreds * u64::from(percent) + rest * u64::from(percent) / 100
    };
    if before(number + 1) > before(number) {
        Split::In(before(number))
    } else {
        Split::Out(number - before(number))
    }
}

#[cfg(test)]
mod tests;
