//! Waits until the streams have processed their input, observed from outside by
//! the committed offsets of their groups.
//!
//! A stream commits an offset in the transaction that writes the states; so
//! once no record follows the committed offsets, and no transaction is open,
//! the states are final.

use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::kafka::committed::GroupOffsets;
use crate::kafka::failures::Failures;
use crate::kafka::log_reader::{Isolation, LogReader, ReadError};
use crate::streams::ids;
use crate::topics::{Topic, name};

/// The stages, each before those that consume its output, with the topics that they
/// consume.
const STAGES: [(&str, Topic); 3] = [
    ("command-status", Topic::CommandStatus),
    ("upgrade-result", Topic::UpgradeResult),
    ("upgrade-operation", Topic::UpgradeDelta),
];
const STATE_TOPICS: [Topic; 3] = [
    Topic::CommandState,
    Topic::DeviceSoftware,
    Topic::UpgradeOperation,
];
/// Up to this many offsets, records are counted one by one, since the offsets
/// may all be transaction markers and aborted records.
const MAX_COUNTED_OFFSETS: i64 = 10_000;
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// The consumer groups of all streams.
pub(super) struct StreamGroups<'a> {
    reader: &'a LogReader,
    failures: Failures,
    stages: Vec<Stage>,
    state_topics: Vec<String>,
}

struct Stage {
    group: GroupOffsets,
    group_name: String,
    input: String,
}

impl<'a> StreamGroups<'a> {
    pub(super) fn new(
        reader: &'a LogReader,
        settings: &Settings,
        failures: &Failures,
    ) -> Result<Self, ReadError> {
        let stage = |(stage, input): (&str, Topic)| {
            let group_name = ids::group(settings, stage);
            Ok::<_, ReadError>(Stage {
                group: GroupOffsets::new(settings, &group_name, failures)?,
                group_name,
                input: name(settings, input),
            })
        };
        let stages: Result<_, ReadError> = STAGES.into_iter().map(stage).collect();
        Ok(Self {
            reader,
            failures: failures.clone(),
            stages: stages?,
            state_topics: STATE_TOPICS.map(|topic| name(settings, topic)).to_vec(),
        })
    }

    /// Waits until the streams have caught up. Returns what they still had to
    /// process at the deadline, or `None` if they caught up before.
    pub(super) fn wait_until_caught_up(&self, deadline: Instant) -> Option<String> {
        loop {
            let lag = match self.lag() {
                Ok(lag) => lag?,
                Err(error) => {
                    let why = self.failures.why(&error);
                    format!("the lag of the streams is unknown: {why}")
                }
            };
            if Instant::now() > deadline {
                return Some(lag);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Describes what the streams still have to process. Checks the stages in
    /// order: once a stage has caught up, the next gets no more input.
    fn lag(&self) -> Result<Option<String>, ReadError> {
        // A missing right is found whichever group it is about, and however far
        // those before it are behind.
        for stage in &self.stages {
            let first = std::iter::once(0);
            stage.group.committed(&stage.input, first)?;
        }
        for stage in &self.stages {
            if self.has_open_transaction(&stage.input)? {
                return Ok(Some(open_transaction(&stage.input)));
            }
            let records = self.lag_of(stage)?;
            if records > 0 {
                return Ok(Some(format!(
                    "{} is {records} records behind",
                    stage.group_name
                )));
            }
        }
        for topic in &self.state_topics {
            if self.has_open_transaction(topic)? {
                return Ok(Some(open_transaction(topic)));
            }
        }
        Ok(None)
    }

    fn lag_of(&self, stage: &Stage) -> Result<i64, ReadError> {
        let ends = self
            .reader
            .end_offsets(&stage.input, Isolation::Committed)?;
        let committed = stage.group.committed(&stage.input, ends.keys().copied())?;
        let mut records = 0;
        for partition in ends.into_keys() {
            let next = committed.get(&partition).copied().unwrap_or(0);
            records += self.records_from(&stage.input, partition, next)?;
        }
        Ok(records)
    }

    fn records_from(&self, topic: &str, partition: i32, offset: i64) -> Result<i64, ReadError> {
        let bounds = self
            .reader
            .bounds_of_partition(topic, partition, Isolation::Committed)?;
        let offsets = bounds.end - offset.max(bounds.start);
        if offsets > MAX_COUNTED_OFFSETS {
            return Ok(offsets);
        }
        let mut records = 0;
        self.reader
            .read_committed(topic, partition, offset, |_| records += 1)?;
        Ok(records)
    }

    /// Returns whether the last stable offset of a partition is before its high
    /// watermark. A committed transaction counts as open until its marker has
    /// been written to every partition.
    fn has_open_transaction(&self, topic: &str) -> Result<bool, ReadError> {
        let ends = |isolation| self.reader.end_offsets(topic, isolation);
        Ok(ends(Isolation::Committed)? != ends(Isolation::Uncommitted)?)
    }
}

fn open_transaction(topic: &str) -> String {
    format!("a transaction on {topic} is open")
}
