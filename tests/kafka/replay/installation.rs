//! The topics and dead letters of one replay test, and what was replayed.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use crate::support::bodies;
use crate::support::eventually;
use crate::support::kafka_cluster::{shared, unique_prefix};
use crate::support::northbridge::{create_topics, run};
use crate::support::records::{Isolation, NewRecord, Record, produce, read_topic_as};

pub(super) const PARTITIONS: usize = 3;
/// The topics and settings of one test.
pub(super) struct Installation {
    bootstrap: String,
    pub(super) prefix: String,
    partitions: String,
    /// `streams.max_batch_records`.
    pub(super) batch: String,
}

impl Installation {
    pub(super) fn new(test: &str) -> Self {
        Self::on(shared().bootstrap(), test)
    }

    pub(super) fn on(bootstrap: &str, test: &str) -> Self {
        let installation = Self {
            bootstrap: bootstrap.to_owned(),
            prefix: unique_prefix(test),
            partitions: PARTITIONS.to_string(),
            batch: "2000".to_owned(),
        };
        create_topics(&installation.settings());
        installation
    }

    pub(super) fn settings(&self) -> Vec<(&str, &str)> {
        vec![
            ("kafka.bootstrap_servers", &self.bootstrap),
            ("topics.prefix", &self.prefix),
            ("topics.partitions", &self.partitions),
            ("streams.max_batch_records", &self.batch),
            ("shutdown.announce_ms", "0"),
            ("shutdown.idle_ms", "0"),
        ]
    }

    pub(super) fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Writes dead letters and returns the position of each as `partition/offset`.
    pub(super) fn write_dead_letters(&self, letters: &[NewRecord]) -> Vec<String> {
        let positions = produce(&self.bootstrap, &self.topic("dead-letter"), letters);
        let position = |(partition, offset)| format!("{partition}/{offset}");
        positions.into_iter().map(position).collect()
    }

    pub(super) fn replay(&self, flags: &[&str]) -> Output {
        let arguments: Vec<&str> = ["replay"].iter().chain(flags).copied().collect();
        run(&arguments, &self.settings())
    }

    /// Runs a replay that must exit with 0, and returns its standard output.
    pub(super) fn replay_successfully(&self, flags: &[&str]) -> String {
        let output = self.replay(flags);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A replay that kills or stops itself at a fail point.
    pub(super) fn with_fail_point(&self, point: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_northbridge"));
        program.arg("replay");
        for (key, value) in self.settings() {
            program.args(["--set", &format!("{key}={value}")]);
        }
        program.env("NORTHBRIDGE_FAIL_POINT", point);
        program
    }

    pub(super) fn committed(&self, topic: &str) -> Vec<Record> {
        let topic = self.topic(topic);
        read_topic_as(&self.bootstrap, &topic, Isolation::Committed)
    }

    /// How often each dead letter was replayed, over all topics.
    pub(super) fn replayed_counts(&self) -> BTreeMap<String, u32> {
        let mut sent = BTreeMap::new();
        for topic in [
            "command-status",
            "upgrade-result",
            "notifications",
            "upgrade-delta",
        ] {
            for record in self.committed(topic) {
                let from = record.header("northbridge-replayed-from");
                *sent.entry(from.unwrap().to_owned()).or_default() += 1;
            }
        }
        sent
    }

    pub(super) fn assert_each_replayed_once(&self, positions: &[&String]) {
        let expected: BTreeMap<String, u32> = positions
            .iter()
            .map(|position| ((*position).clone(), 1))
            .collect();
        // Brokers answer the end of a transaction before all its records are visible.
        eventually("all that was committed is visible", || {
            let counts = [self.replayed_counts(), self.marked()];
            let mut complete = counts.iter().map(|counts| counts.len() >= expected.len());
            complete.all(|is_complete| is_complete).then_some(())
        });
        assert_eq!(self.replayed_counts(), expected);
        assert_eq!(self.marked(), expected);
    }

    fn marked(&self) -> BTreeMap<String, u32> {
        let letters = self.committed("dead-letter");
        let marked = letters.iter().filter_map(|record| {
            let position = record.header("northbridge-replayed")?;
            Some((position.to_owned(), 1))
        });
        marked.collect()
    }
}

pub(super) fn dead_letter(reason: &str, key: &str, body: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord::keyed(key, body)
        .with_header("ce_source", "/notifications")
        .with_header("ce_time", "2026-01-01T00:00:00.125Z")
        .with_header("northbridge-reason", reason)
        .with_header("northbridge-detail", "detail")
}

/// A dead letter that can be read, and so replayed, with the current rules.
pub(super) fn readable(number: usize) -> NewRecord {
    let id = format!("r-{number}");
    let body = bodies::message_confirm(&id, "d-1", "sent");
    let mut letter = dead_letter("not-gzip", &id, body);
    letter.partition = Some(i32::try_from(number % PARTITIONS).unwrap());
    letter
}

pub(super) fn stream_dead_letter(
    topic: &str,
    reason: &str,
    key: &str,
    body: impl Into<Vec<u8>>,
) -> NewRecord {
    NewRecord::keyed(key, body)
        .with_header("own-header", "kept")
        .with_header("northbridge-reason", reason)
        .with_header("northbridge-topic", topic)
        .with_header("northbridge-partition", "0")
        .with_header("northbridge-offset", "7")
}
