//! `northbridge show`: the current state of one command, device or operation.
//!
//! A state is the newest record of its key in a partition of its topic, which is
//! read from its end. The partition is known from the key, as long as partitions were
//! never added: then the states of earlier records are where they were, and the other
//! partitions are read as well if the first one has no record of the key.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context;
use serde_json::value::RawValue;

use super::printable::{printable, printable_json};
use crate::config::Settings;
use crate::kafka::admin::TopicAdmin;
use crate::kafka::failures::{Failures, RequestError};
use crate::kafka::log_reader::{LatestRecord, LogReader, LogReaderConfig, ReadError};
use crate::kafka::{CANNOT_CREATE_CLIENT, partition_of_key};
use crate::notification::CommandKey;
use crate::process::{Exit, output};
use crate::topics::{Topic, TopicSpec, specs};

/// How long to wait for a record. A leader election is over within half a minute.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What has states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its key is the request id.
    Command,
    /// Its key is the device id.
    Device,
    /// Its key is the operation id.
    Operation,
}

/// The partitions that may have the state of a key.
struct Candidates {
    /// The one that the key belongs to, if the key says so.
    own: Option<i32>,
    others: Vec<i32>,
}

/// Prints the state of a key as JSON on one line.
///
/// # Errors
///
/// Returns an error if librdkafka rejects a setting, or if the topic does not exist.
pub async fn run(settings: &Settings, kind: Kind, id: &str) -> anyhow::Result<Exit> {
    let failures = Failures::of_command(settings);
    let topics = [Some(kind.topic()), kind.topic().input()];
    let is_asked = |spec: &TopicSpec| topics.contains(&Some(spec.topic));
    let specs: Vec<TopicSpec> = specs(settings).into_iter().filter(is_asked).collect();
    let admin = TopicAdmin::new(settings, &failures).context(CANNOT_CREATE_CLIENT)?;
    let partitions = match admin.partitions(&specs).await {
        Ok(partitions) => partitions,
        Err(error) => return Ok(super::unavailable(settings, &failures, &error)),
    };
    let topic = crate::topics::name(settings, kind.topic());
    let Some(candidates) = Candidates::of(settings, kind, id, &partitions) else {
        return Err(super::missing_topic(settings, kind.topic()));
    };
    let reader = LogReaderConfig::new(settings, &failures)
        .stall_timeout(STALL_TIMEOUT)
        .create()
        .context(CANNOT_CREATE_CLIENT)?;
    let (own, key) = (candidates.own, id.to_owned());
    let read = {
        let topic = topic.clone();
        move || candidates.latest(&reader, &topic, key.as_bytes())
    };
    let found = tokio::select! {
        found = tokio::task::spawn_blocking(read) => found.context("the reading panicked")?,
        failure = failures.certain() => {
            let error = RequestError::Failure(failure);
            return Ok(super::unavailable(settings, &failures, &error));
        }
    };
    match found {
        Ok(record) => print(kind, id, &topic, own, record),
        Err(error) => Ok(super::unavailable(settings, &failures, &error)),
    }
}

fn print(
    kind: Kind,
    id: &str,
    topic: &str,
    own: Option<i32>,
    record: Option<LatestRecord>,
) -> anyhow::Result<Exit> {
    let id = printable(id.as_bytes());
    let none = |why: fmt::Arguments<'_>| {
        output::note(format_args!("no state of {kind} {id}: {why}"));
        Ok(Exit::Findings)
    };
    let Some(record) = record else {
        return none(format_args!("{topic} has no record of it"));
    };
    let LatestRecord {
        partition,
        offset,
        value,
    } = record;
    let place = format_args!("partition {partition} offset {offset} of {topic}");
    let Some(value) = value else {
        return none(format_args!("it has expired ({place} is a tombstone)"));
    };
    let Ok(json) = serde_json::from_slice::<&RawValue>(&value) else {
        return none(format_args!("{place} is not JSON, so no stream wrote it"));
    };
    if let Some(own) = own.filter(|own| *own != partition) {
        output::note(format_args!(
            "note: found in partition {partition}, although its key belongs to {own}: partitions were added to the topics, or pushes have other keys than these settings say"
        ));
    }
    output::print_line(printable_json(json.get()))?;
    Ok(Exit::Done)
}

impl Candidates {
    /// Returns the partitions of the state topic, or `None` if it does not exist.
    /// A state is in the partition with the number of its records', which may be
    /// fewer.
    fn of(
        settings: &Settings,
        kind: Kind,
        id: &str,
        partitions: &HashMap<Topic, i32>,
    ) -> Option<Self> {
        let states = *partitions.get(&kind.topic())?;
        let input = kind.topic().input();
        let records = input.and_then(|input| partitions.get(&input));
        let is_keyed_by_id =
            kind != Kind::Command || settings.topics.command_status.key == CommandKey::RequestId;
        let own = is_keyed_by_id
            .then(|| partition_of_key(id.as_bytes(), *records.unwrap_or(&states)))
            .filter(|own| *own < states);
        let others = (0..states).filter(|it| Some(*it) != own).collect();
        Some(Self { own, others })
    }

    fn latest(
        &self,
        reader: &LogReader,
        topic: &str,
        key: &[u8],
    ) -> Result<Option<LatestRecord>, ReadError> {
        if let Some(own) = self.own
            && let found @ Some(_) = reader.latest(topic, &[own], key)?
        {
            return Ok(found);
        }
        reader.latest(topic, &self.others, key)
    }
}

impl Kind {
    fn topic(self) -> Topic {
        match self {
            Self::Command => Topic::CommandState,
            Self::Device => Topic::DeviceSoftware,
            Self::Operation => Topic::UpgradeOperation,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "command",
            Self::Device => "device",
            Self::Operation => "operation",
        })
    }
}
