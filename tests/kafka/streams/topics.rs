//! A set of topics of one test's own, the processes on them, and how far those are.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::support::PATIENCE;
use crate::support::kafka_cluster::unique_prefix;
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{Isolation, NewRecord, Record, produce, read_topic_as};
use crate::support::supervised::Supervised;

/// The groups, and the topic that each of them consumes.
const GROUPS: [(&str, &str); 3] = [
    ("command-status", "command-status"),
    ("upgrade-result", "upgrade-result"),
    ("upgrade-operation", "upgrade-delta"),
];

/// What the streams write to.
const OUTPUTS: [&str; 5] = [
    "command-state",
    "device-software",
    "upgrade-delta",
    "upgrade-operation",
    "dead-letter",
];

/// The topics of one test.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    pub(super) bootstrap: String,
    pub(super) prefix: String,
    settings: Vec<(String, String)>,
}

impl Topics {
    /// Creates all topics under a prefix of their own. The settings go to every process.
    pub(super) fn create(bootstrap: &str, test: &str, settings: &[(&str, &str)]) -> Self {
        let topics = Self::named(bootstrap, test, settings);
        topics.create_missing();
        topics
    }

    /// A prefix without topics.
    pub(super) fn named(bootstrap: &str, test: &str, settings: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: unique_prefix(test),
            settings: settings.iter().map(owned).collect(),
        }
    }

    pub(super) fn create_missing(&self) {
        let created = run(&["topics", "create"], &self.settings(&[]));
        assert!(created.status.success(), "{created:?}");
    }

    /// A topic's name on the cluster.
    pub(super) fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    pub(super) fn start(&self, command: &str, settings: &[(&str, &str)]) -> Northbridge {
        Northbridge::start(&[command], &self.settings(settings))
    }

    /// As [`Topics::start`], and started again by a supervisor.
    pub(super) fn supervise(&self, command: &'static str) -> Supervised {
        let topics = self.clone();
        Supervised::start(move || topics.start(command, &[]))
    }

    pub(super) fn start_failing(
        &self,
        command: &str,
        settings: &[(&str, &str)],
        at: &str,
    ) -> Northbridge {
        Northbridge::start_failing(&[command], &self.settings(settings), at)
    }

    pub(super) fn write(&self, topic: &str, records: &[NewRecord]) {
        produce(&self.bootstrap, &self.name(topic), records);
    }

    /// As [`Topics::write`], for hundreds of thousands of records.
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
        producer.flush(PATIENCE).unwrap();
    }

    /// All records of no transaction or of a committed one.
    pub(super) fn read(&self, topic: &str) -> Vec<Record> {
        read_topic_as(&self.bootstrap, &self.name(topic), Isolation::Committed)
    }

    /// Waits until every record of the inputs is behind the committed offset of
    /// its group. Until then what stands in the outputs proves nothing.
    pub(super) fn await_caught_up(&self) {
        // In this order: once the first stage is through, no deltas follow.
        for (group, topic) in GROUPS {
            self.await_no_open_transaction(topic);
            let mut next = BTreeMap::new();
            for record in self.read(topic) {
                next.insert(record.partition, record.offset + 1);
            }
            await_progress(group, || {
                let committed = self.committed(group, next.keys().copied());
                let through = committed == next;
                (through, format!("{committed:?} of {next:?}"))
            });
        }
        for topic in OUTPUTS {
            self.await_no_open_transaction(topic);
        }
    }

    /// A transaction is committed before its markers are in every partition.
    fn await_no_open_transaction(&self, topic: &str) {
        let ends = |isolation: &str| -> Vec<i64> {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &self.bootstrap)
                .set("isolation.level", isolation)
                .create()
                .unwrap();
            let end = |partition| consumer.fetch_watermarks(&self.name(topic), partition, PATIENCE);
            (0..6).map(|partition| end(partition).unwrap().1).collect()
        };
        await_progress(topic, || {
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
            .set("group.id", self.name(group))
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.name(topic), partition);
        }
        // It fails while a transaction on the offsets is open.
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

    fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("kafka.bootstrap_servers", self.bootstrap.as_str()),
            ("topics.prefix", &self.prefix),
            ("streams.group_prefix", &self.prefix),
        ];
        let set = self.settings.iter();
        let set = set.map(|(key, value)| (key.as_str(), value.as_str()));
        own.into_iter()
            .chain(set)
            .chain(more.iter().copied())
            .collect()
    }
}

/// Waits until `look` says that it is over, however long that takes, as long as
/// what else it says keeps changing; panics when that has stood still for
/// [`PATIENCE`].
pub(super) fn await_progress(what: &str, mut look: impl FnMut() -> (bool, String)) {
    let (mut since, mut last) = (Instant::now(), String::new());
    loop {
        let (over, now) = look();
        if over {
            return;
        }
        if now != last {
            (since, last) = (Instant::now(), now);
        }
        assert!(since.elapsed() < PATIENCE, "{what} does not go on: {last}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// The value of a series, as `/metrics` writes it.
pub(super) fn gauge(process: &Northbridge, name: &str) -> String {
    process.metrics()[name].to_string()
}
