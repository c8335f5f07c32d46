//! Topics made, records written, and a topic read to its end: what a test knows
//! about Kafka without the program under test.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{PATIENCE, eventually};

/// One stored record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition it is in.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl Record {
    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The key as text; empty where there is none.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as text; empty for a tombstone.
    pub fn value_text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// One record to be written; where nothing is said, the producer chooses.
#[derive(Debug, Clone, Default)]
pub struct NewRecord {
    /// The partition, instead of the one that the key's hash gives.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970, instead of now.
    pub timestamp_ms: Option<i64>,
}

impl NewRecord {
    /// A key and a value, nothing else.
    pub fn keyed(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// The same record with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Which records of transactions a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All that were written, of aborted and open transactions as well.
    Uncommitted,
    /// Those of no transaction or of a committed one.
    Committed,
}

/// Creates a topic, replicated on up to three brokers, and waits until each
/// partition has a leader. `settings` are topic configurations.
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let brokers = admin
        .inner()
        .fetch_metadata(None, PATIENCE)
        .unwrap()
        .brokers()
        .len();
    let replicas = i32::try_from(brokers.min(3)).unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = block_on(admin.create_topics([&topic], &options)).unwrap();
    for result in created {
        assert!(result.is_ok(), "{result:?}");
    }
    eventually("the topic has its leaders", || {
        leads_everywhere(&admin, name, partitions)
    });
}

/// Writes all records with acks=all and returns partition and offset of each.
///
/// Panics when one is not acknowledged within [`PATIENCE`].
pub fn produce(bootstrap: &str, topic: &str, records: &[NewRecord]) -> Vec<(i32, i64)> {
    let producer: FutureProducer = client(bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", PATIENCE.as_millis().to_string())
        // A frozen broker keeps what is in flight to it for so long.
        .set("socket.timeout.ms", "5000")
        .create()
        .unwrap();
    let sent: Vec<_> = records
        .iter()
        .map(|record| send(&producer, topic, record))
        .collect();
    let delivered = sent
        .into_iter()
        .map(|delivery| block_on(delivery).unwrap().unwrap());
    delivered
        .map(|delivery| (delivery.partition, delivery.offset))
        .collect()
}

/// All records of a topic up to its end at the time of the call, as any plain
/// reader finds them: ordered by partition and offset.
pub fn read_topic(bootstrap: &str, topic: &str) -> Vec<Record> {
    read_topic_as(bootstrap, topic, Isolation::Uncommitted)
}

/// As [`read_topic`], with the choice of what is seen of transactions.
///
/// For [`Isolation::Committed`] a partition ends before its first open
/// transaction.
pub fn read_topic_as(bootstrap: &str, topic: &str, isolation: Isolation) -> Vec<Record> {
    let consumer = reader(bootstrap, isolation);
    let mut ends = ends_of(&consumer, topic);
    assign_from_beginning(&consumer, topic, &ends);
    let mut records = read_until(&consumer, &mut ends);
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// The configurations that a topic has of its own, so not from its broker.
pub fn settings_of_topic(bootstrap: &str, name: &str) -> BTreeMap<String, String> {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let topic = [ResourceSpecifier::Topic(name)];
    let found = block_on(admin.describe_configs(&topic, &AdminOptions::new())).unwrap();
    let entries = found.into_iter().flat_map(|found| found.unwrap().entries);
    entries
        .filter(|entry| entry.source == ConfigSource::DynamicTopic)
        .map(|entry| (entry.name, entry.value.unwrap()))
        .collect()
}

/// Gives a topic these configurations of its own, and no others.
pub fn set_topic(bootstrap: &str, name: &str, settings: &BTreeMap<String, String>) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let mut topic = AlterConfig::new(ResourceSpecifier::Topic(name));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let set = block_on(admin.alter_configs([&topic], &AdminOptions::new())).unwrap();
    for result in set {
        assert!(result.is_ok(), "{result:?}");
    }
}

/// Runs a future to its end on a thread of its own, so that tests may be
/// asynchronous themselves.
fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join().unwrap())
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config.set("reconnect.backoff.max.ms", "500");
    config
}

fn leads_everywhere(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    partitions: i32,
) -> Option<()> {
    let metadata = admin.inner().fetch_metadata(Some(name), PATIENCE).ok()?;
    let found = metadata.topics().first()?.partitions();
    let led = found
        .iter()
        .filter(|partition| partition.leader() >= 0)
        .count();
    (i32::try_from(led) == Ok(partitions)).then_some(())
}

fn send(producer: &FutureProducer, topic: &str, record: &NewRecord) -> DeliveryFuture {
    let mut outgoing: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic);
    outgoing.partition = record.partition;
    outgoing.key = record.key.as_deref();
    outgoing.payload = record.value.as_deref();
    outgoing.timestamp = record.timestamp_ms;
    outgoing.headers = Some(headers_of(record));
    producer
        .send_result(outgoing)
        .map_err(|(error, _)| error)
        .unwrap()
}

/// The headers of a record, as a producer takes them.
pub fn headers_of(record: &NewRecord) -> OwnedHeaders {
    let insert = |headers: OwnedHeaders, (key, value): &(String, Vec<u8>)| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    };
    record.headers.iter().fold(OwnedHeaders::new(), insert)
}

fn reader(bootstrap: &str, isolation: Isolation) -> BaseConsumer {
    client(bootstrap)
        // librdkafka wants a group even of a consumer that never joins one.
        .set("group.id", "test-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set(
            "isolation.level",
            match isolation {
                Isolation::Uncommitted => "read_uncommitted",
                Isolation::Committed => "read_committed",
            },
        )
        .create()
        .unwrap()
}

/// The end of each partition that is not empty.
///
/// For a `read_committed` client the broker answers with the last stable
/// offset (KIP-98).
fn ends_of(consumer: &BaseConsumer, topic: &str) -> HashMap<i32, i64> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let partitions = metadata.topics().first().unwrap().partitions();
    assert!(!partitions.is_empty(), "there is no topic {topic}");
    let bounds = partitions.iter().map(|partition| {
        let bounds = eventually("the partition tells its end", || {
            // A new leader does not know it before its followers asked it.
            consumer
                .fetch_watermarks(topic, partition.id(), PATIENCE)
                .ok()
        });
        (partition.id(), bounds)
    });
    let filled = bounds.filter(|(_, (first, end))| first < end);
    filled
        .map(|(partition, (_, end))| (partition, end))
        .collect()
}

fn assign_from_beginning(consumer: &BaseConsumer, topic: &str, ends: &HashMap<i32, i64>) {
    let mut assignment = TopicPartitionList::new();
    for partition in ends.keys() {
        assignment
            .add_partition_offset(topic, *partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
}

/// A partition is done at its last record or, where the end is a marker of a
/// transaction that no consumer sees, at librdkafka's report of its end.
fn read_until(consumer: &BaseConsumer, ends: &mut HashMap<i32, i64>) -> Vec<Record> {
    let give_up = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while !ends.is_empty() {
        assert!(Instant::now() < give_up, "not read to the end: {ends:?}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => take(&message, ends, &mut records),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
            // Brokers come and go in these tests, and librdkafka tries again.
            Some(Err(_)) | None => {}
        }
    }
    records
}

fn take(message: &BorrowedMessage<'_>, ends: &mut HashMap<i32, i64>, records: &mut Vec<Record>) {
    let Some(&end) = ends.get(&message.partition()) else {
        return;
    };
    if message.offset() < end {
        records.push(record(message));
    }
    if message.offset() + 1 >= end {
        ends.remove(&message.partition());
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| {
                (
                    header.key.to_owned(),
                    header.value.unwrap_or_default().to_vec(),
                )
            })
            .collect(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
    }
}
