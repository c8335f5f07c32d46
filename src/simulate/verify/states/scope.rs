//! The partitions that are compared together: those of a state topic beside
//! those of the raw topic that its states follow from.

use super::kind::StateKind;
use crate::config::Settings;
use crate::kafka::log_reader::{Isolation, LogReader, Offsets, ReadError};
use crate::topics::name;

/// A state topic and the raw topic that it follows from.
#[derive(Debug)]
pub(super) struct TopicPair {
    pub(super) kind: StateKind,
    pub(super) raw: TopicStart,
    pub(super) states: TopicStart,
}

/// A topic, and where its partitions ended before the run.
#[derive(Debug)]
pub(super) struct TopicStart {
    pub(super) name: String,
    offsets: Offsets,
}

/// Partitions of a pair such that the states in `states` follow from the
/// records in `raw` alone.
pub(super) struct Scope<'a> {
    pub(super) pair: &'a TopicPair,
    pub(super) raw: Vec<i32>,
    pub(super) states: Vec<i32>,
}

impl TopicPair {
    pub(super) fn at_current_ends(
        reader: &LogReader,
        settings: &Settings,
        kind: StateKind,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            kind,
            raw: TopicStart::at_current_ends(reader, name(settings, kind.raw_topic()))?,
            states: TopicStart::at_current_ends(reader, name(settings, kind.state_topic()))?,
        })
    }

    /// All records of a command or device are in one partition, and its state
    /// is in the partition of the same number. The devices of an operation are
    /// spread over all partitions.
    pub(super) fn scopes(&self) -> Vec<Scope<'_>> {
        let scope = |raw, states| Scope {
            pair: self,
            raw,
            states,
        };
        let (raw, states) = (self.raw.partitions(), self.states.partitions());
        match self.kind {
            StateKind::Operation => vec![scope(raw, states)],
            StateKind::Command | StateKind::Device => raw
                .into_iter()
                .map(|partition| {
                    let states = states.contains(&partition).then_some(partition);
                    scope(vec![partition], states.into_iter().collect())
                })
                .collect(),
        }
    }
}

impl TopicStart {
    fn at_current_ends(reader: &LogReader, name: String) -> Result<Self, ReadError> {
        let offsets = reader.end_offsets(&name, Isolation::Committed)?;
        Ok(Self { name, offsets })
    }

    /// The first offset of a partition that was written since; 0 in a partition
    /// that is newer.
    pub(super) fn offset(&self, partition: i32) -> i64 {
        self.offsets.get(&partition).copied().unwrap_or(0)
    }

    fn partitions(&self) -> Vec<i32> {
        self.offsets.keys().copied().collect()
    }
}
