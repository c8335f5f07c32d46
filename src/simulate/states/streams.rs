//! Whether the streams have done all there was to do, seen from outside: by
//! the committed offsets of their groups.
//!
//! An offset is committed in the transaction that writes the states; so once
//! no record is behind it, and no transaction is open, the states are final.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;

use crate::config::Settings;
use crate::kafka::committed::Group;
use crate::kafka::scan::{Isolation, Scan};
use crate::topics::{Topic, name};

/// The stages, a later one fed by an earlier one: the name of the group behind
/// `streams.group_prefix`, and what it consumes.
const STAGES: [(&str, Topic); 3] = [
    ("command-status", Topic::CommandStatus),
    ("upgrade-result", Topic::UpgradeResult),
    ("upgrade-operation", Topic::UpgradeDelta),
];
/// What they write at last.
const OUTPUTS: [Topic; 3] = [
    Topic::CommandState,
    Topic::DeviceSoftware,
    Topic::UpgradeOperation,
];
/// Fewer offsets than that may be markers of transactions and what was aborted,
/// so they are looked at one by one.
const LOOKED_AT: i64 = 10_000;
/// How long to wait before asking again.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// The streams, seen from outside.
pub(super) struct Streams {
    stages: Vec<Stage>,
    outputs: Vec<String>,
    committed: Scan,
    uncommitted: Scan,
}

struct Stage {
    group: Group,
    name: String,
    input: String,
}

impl Streams {
    pub(super) fn new(settings: &Settings) -> Result<Self, KafkaError> {
        let stage = |(stage, input): (&str, Topic)| {
            let group = format!("{}{stage}", settings.streams.group_prefix);
            Ok::<_, KafkaError>(Stage {
                group: Group::new(settings, &group)?,
                name: group,
                input: name(settings, input),
            })
        };
        let stages: Result<_, KafkaError> = STAGES.into_iter().map(stage).collect();
        Ok(Self {
            stages: stages?,
            outputs: OUTPUTS.map(|topic| name(settings, topic)).to_vec(),
            committed: Scan::new(settings, Isolation::Committed)?,
            uncommitted: Scan::new(settings, Isolation::Uncommitted)?,
        })
    }

    /// Waits until the streams have caught up; what they had still to do where
    /// the time was over before.
    pub(super) fn await_caught_up(&self, give_up: Instant) -> Option<String> {
        loop {
            let behind = match self.behind() {
                Ok(behind) => behind?,
                Err(error) => format!("how far the streams are cannot be told: {error}"),
            };
            if Instant::now() > give_up {
                return Some(behind);
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// What they have still to do. Asked in the order of the stages: once one
    /// is through, the next gets no more.
    fn behind(&self) -> Result<Option<String>, KafkaError> {
        for stage in &self.stages {
            if self.is_open(&stage.input)? {
                return Ok(Some(open(&stage.input)));
            }
            let records = self.records_behind(stage)?;
            if records > 0 {
                return Ok(Some(format!("{} is {records} records behind", stage.name)));
            }
        }
        for output in &self.outputs {
            if self.is_open(output)? {
                return Ok(Some(open(output)));
            }
        }
        Ok(None)
    }

    fn records_behind(&self, stage: &Stage) -> Result<i64, KafkaError> {
        let ends = self.committed.ends(&stage.input)?;
        let committed = stage.group.committed(&stage.input, ends.keys().copied())?;
        let mut behind = 0;
        for partition in ends.into_keys() {
            let next = committed.get(&partition).copied().unwrap_or(0);
            behind += self.records_from(&stage.input, partition, next)?;
        }
        Ok(behind)
    }

    fn records_from(&self, topic: &str, partition: i32, from: i64) -> Result<i64, KafkaError> {
        let (beginning, end) = self.committed.bounds(topic, partition)?;
        let from = from.max(beginning);
        if end - from > LOOKED_AT {
            return Ok(end - from);
        }
        let mut records = 0;
        self.committed
            .read_partition(topic, partition, from, |_| records += 1)?;
        Ok(records)
    }

    /// A transaction is committed before its markers are in every partition.
    fn is_open(&self, topic: &str) -> Result<bool, KafkaError> {
        Ok(self.committed.ends(topic)? != self.uncommitted.ends(topic)?)
    }
}

fn open(topic: &str) -> String {
    format!("a transaction on {topic} is open")
}
