//! The topics of one test, the stream processes on them, and their progress.

use std::collections::BTreeMap;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::TIMEOUT;
use crate::support::kafka_cluster::unique_prefix;
use crate::support::northbridge::{Northbridge, create_topics, run};
use crate::support::records::{Isolation, NewRecord, Record, produce, read_topic_as};
use crate::support::supervised::Supervised;

/// The consumer groups, each with the topic that it consumes.
pub(super) const GROUPS: [(&str, &str); 3] = [
    ("command-status", "command-status"),
    ("upgrade-result", "upgrade-result"),
    ("upgrade-operation", "upgrade-delta"),
];

/// The topics that the streams write to.
const OUTPUTS: [&str; 5] = [
    "command-state",
    "device-software",
    "upgrade-delta",
    "upgrade-operation",
    "dead-letter",
];

/// The topics of one test, and the settings of its processes.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    pub(super) bootstrap: String,
    pub(super) prefix: String,
    /// The value of `streams.group_prefix`.
    pub(super) group_prefix: String,
    settings: Vec<(String, String)>,
}

impl Topics {
    /// Creates all topics under a unique prefix. The settings apply to every process.
    pub(super) fn create(bootstrap: &str, test: &str, settings: &[(&str, &str)]) -> Self {
        let topics = Self::named(bootstrap, test, settings);
        topics.create_missing();
        topics
    }

    /// Chooses a unique prefix without creating any topics.
    pub(super) fn named(bootstrap: &str, test: &str, settings: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: unique_prefix(test),
            group_prefix: "northbridge.".to_owned(),
            settings: settings.iter().map(owned).collect(),
        }
    }

    /// The same topics, consumed by groups with this `streams.group_prefix`.
    pub(super) fn with_group_prefix(&self, group_prefix: &str) -> Self {
        Self {
            group_prefix: group_prefix.to_owned(),
            ..self.clone()
        }
    }

    pub(super) fn create_missing(&self) {
        create_topics(&self.settings(&[]));
    }

    /// Runs `topics verify`.
    pub(super) fn verify(&self) -> Output {
        run(&["topics", "verify"], &self.settings(&[]))
    }

    /// A topic's name on the cluster.
    pub(super) fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// A stage's consumer group.
    pub(super) fn group(&self, stage: &str) -> String {
        format!("{}{}{stage}", self.group_prefix, self.prefix)
    }

    pub(super) fn start(&self, command: &str, settings: &[(&str, &str)]) -> Northbridge {
        Northbridge::start(&[command], &self.settings(settings))
    }

    /// Like [`Topics::start`], with restarts after exit code 75.
    pub(super) fn supervise(&self, command: &'static str) -> Supervised {
        let topics = self.clone();
        Supervised::start(move || topics.start(command, &[]))
    }

    pub(super) fn start_with_fail_point(
        &self,
        command: &str,
        settings: &[(&str, &str)],
        at: &str,
    ) -> Northbridge {
        Northbridge::start_with_fail_point(&[command], &self.settings(settings), at)
    }

    pub(super) fn write(&self, topic: &str, records: &[NewRecord]) {
        produce(&self.bootstrap, &self.name(topic), records);
    }

    /// Like [`Topics::write`], for hundreds of thousands of records.
    pub(super) fn write_many(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (String, String)>,
    ) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "50")
            .create()
            .unwrap();
        let name = self.name(topic);
        for (key, value) in records {
            let mut record = BaseRecord::to(&name).key(&key).payload(&value);
            while let Err((_, back)) = producer.send(record) {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(TIMEOUT).unwrap();
    }

    /// All records that `read_committed` consumers see.
    pub(super) fn read(&self, topic: &str) -> Vec<Record> {
        read_topic_as(&self.bootstrap, &self.name(topic), Isolation::Committed)
    }

    /// Waits until each group has committed past every record of its input. Before
    /// that the outputs prove nothing.
    pub(super) fn wait_until_caught_up(&self) {
        // The order matters: once the first stage is done, no more deltas follow.
        for (group, topic) in GROUPS {
            self.wait_for_open_transactions(topic);
            let mut next = BTreeMap::new();
            for record in self.read(topic) {
                next.insert(record.partition, record.offset + 1);
            }
            wait_while_progressing(group, || {
                let committed = self.committed(group, next.keys().copied());
                let done = committed == next;
                (done, format!("{committed:?} of {next:?}"))
            });
        }
        for topic in OUTPUTS {
            self.wait_for_open_transactions(topic);
        }
    }

    /// Waits until no partition has an open transaction. A commit returns before
    /// its markers are in every partition.
    fn wait_for_open_transactions(&self, topic: &str) {
        let ends = |isolation: &str| -> Vec<i64> {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &self.bootstrap)
                .set("isolation.level", isolation)
                .create()
                .unwrap();
            let end = |partition| consumer.fetch_watermarks(&self.name(topic), partition, TIMEOUT);
            (0..6).map(|partition| end(partition).unwrap().1).collect()
        };
        wait_while_progressing(topic, || {
            let (stable, all) = (ends("read_committed"), ends("read_uncommitted"));
            (
                stable == all,
                format!("open transactions: {stable:?} of {all:?}"),
            )
        });
    }

    /// The committed offsets of a group; a partition without one is absent.
    pub(super) fn committed(
        &self,
        group: &str,
        partitions: impl Iterator<Item = i32>,
    ) -> BTreeMap<i32, i64> {
        let (_, topic) = GROUPS.iter().find(|(name, _)| *name == group).unwrap();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", self.group(group))
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.name(topic), partition);
        }
        // This fails while a transaction has pending offsets for the group.
        let found = consumer.committed_offsets(list, Duration::from_secs(5));
        let found = found.unwrap_or_default();
        let offsets = found.elements();
        let offsets = offsets.iter().filter_map(|element| match element.offset() {
            Offset::Offset(next) => Some((element.partition(), next)),
            Offset::Beginning
            | Offset::End
            | Offset::Stored
            | Offset::Invalid
            | Offset::OffsetTail(_) => None,
        });
        offsets.collect()
    }

    pub(super) fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("kafka.bootstrap_servers", self.bootstrap.as_str()),
            ("topics.prefix", &self.prefix),
            ("streams.group_prefix", &self.group_prefix),
        ];
        let set = self.settings.iter();
        let set = set.map(|(key, value)| (key.as_str(), value.as_str()));
        own.into_iter()
            .chain(set)
            .chain(more.iter().copied())
            .collect()
    }
}

/// Polls until `poll` returns true, for as long as the progress text that it also
/// returns keeps changing.
///
/// # Panics
///
/// Panics if the text has not changed for [`TIMEOUT`].
pub(super) fn wait_while_progressing(what: &str, mut poll: impl FnMut() -> (bool, String)) {
    let (mut since, mut last) = (Instant::now(), String::new());
    loop {
        let (done, now) = poll();
        if done {
            return;
        }
        if now != last {
            (since, last) = (Instant::now(), now);
        }
        assert!(since.elapsed() < TIMEOUT, "{what} is stuck at {last}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The value of a series as text.
pub(super) fn gauge(process: &Northbridge, name: &str) -> String {
    process.metrics()[name].to_string()
}
