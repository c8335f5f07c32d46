//! Creates topics, writes records and reads topics to their ends, independently
//! of the program under test.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{TIMEOUT, eventually};

/// One stored record; a value of `None` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp_ms: i64,
}

impl Record {
    /// The first header of this name; `None` if it is missing or is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The key as text; empty if there is none.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as text; empty for a tombstone.
    pub fn value_text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// One record to be written; a value of `None` is a tombstone.
#[derive(Debug, Clone, Default)]
pub struct NewRecord {
    /// `None` leaves the choice to the partitioner.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// `None` means now.
    pub timestamp_ms: Option<i64>,
}

impl NewRecord {
    /// A record with only a key and a value.
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

/// `isolation.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Includes records of aborted and open transactions.
    Uncommitted,
    /// Only non-transactional records and those of committed transactions.
    Committed,
}

/// Creates a topic with up to three replicas and waits until each partition has
/// a leader. `settings` are topic configurations.
pub fn create_topic(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let brokers = admin
        .inner()
        .fetch_metadata(None, TIMEOUT)
        .unwrap()
        .brokers()
        .len();
    let replicas = i32::try_from(brokers.min(3)).unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let created = block_on(admin.create_topics([&topic], &options)).unwrap();
    for result in created {
        assert!(result.is_ok(), "{result:?}");
    }
    eventually("every partition has a leader", || {
        all_have_leaders(&admin, name, partitions)
    });
}

/// Deletes a topic and returns when no broker shows it any more. From then on no
/// broker acknowledges a record for it.
pub fn delete_topic(bootstrap: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let deleted = block_on(admin.delete_topics(&[name], &options)).unwrap();
    for result in deleted {
        assert!(result.is_ok(), "{result:?}");
    }
    wait_until_every_broker_shows(bootstrap, name, 0);
}

/// Adds partitions up to `partitions` and waits until every broker shows a leader
/// of each.
pub fn add_partitions(bootstrap: &str, name: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let more = [NewPartitions::new(name, partitions)];
    let added = block_on(admin.create_partitions(&more, &options)).unwrap();
    for result in added {
        assert!(result.is_ok(), "{result:?}");
    }
    wait_until_every_broker_shows(bootstrap, name, i32::try_from(partitions).unwrap());
}

/// Waits until every broker shows a topic with this many partitions, each with a
/// leader; with none, a topic that does not exist. One broker may know later than
/// the others.
pub fn wait_until_every_broker_shows(bootstrap: &str, name: &str, partitions: i32) {
    let any: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    eventually("every broker shows the topic as it is", || {
        let metadata = any.inner().fetch_metadata(Some(name), TIMEOUT).ok()?;
        let mut brokers = metadata.brokers().iter();
        brokers.try_for_each(|broker| {
            let address = format!("{}:{}", broker.host(), broker.port());
            all_have_leaders(&client(&address).create().ok()?, name, partitions)
        })
    });
}

/// Writes all records with `acks=all` and returns the partition and offset of
/// each.
///
/// # Panics
///
/// Panics if one is not acknowledged within [`TIMEOUT`].
pub fn produce(bootstrap: &str, topic: &str, records: &[NewRecord]) -> Vec<(i32, i64)> {
    let producer: FutureProducer = client(bootstrap)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
        // Bounds how long a request to a frozen broker stays in flight.
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

/// All records of a topic up to its end at the time of the call, including those
/// of aborted transactions, by partition and offset.
pub fn read_topic(bootstrap: &str, topic: &str) -> Vec<Record> {
    read_topic_as(bootstrap, topic, Isolation::Uncommitted)
}

/// Like [`read_topic`], with a choice of isolation level.
///
/// With [`Isolation::Committed`] a partition ends at its last stable offset.
pub fn read_topic_as(bootstrap: &str, topic: &str, isolation: Isolation) -> Vec<Record> {
    let consumer = reader(bootstrap, isolation);
    let mut ends = ends_of(&consumer, topic);
    assign_from_beginning(&consumer, topic, &ends);
    let mut records = read_until(&consumer, &mut ends);
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// The configurations that are set on the topic itself, without the broker's
/// defaults.
pub fn topic_settings(bootstrap: &str, name: &str) -> BTreeMap<String, String> {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let topic = [ResourceSpecifier::Topic(name)];
    let found = block_on(admin.describe_configs(&topic, &AdminOptions::new())).unwrap();
    let entries = found.into_iter().flat_map(|found| found.unwrap().entries);
    entries
        .filter(|entry| entry.source == ConfigSource::DynamicTopic)
        .map(|entry| (entry.name, entry.value.unwrap()))
        .collect()
}

/// Replaces the configurations that are set on a topic.
pub fn set_topic_settings(bootstrap: &str, name: &str, settings: &BTreeMap<String, String>) {
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

/// Runs a future to completion on a thread of its own, so that async tests may
/// call these functions.
pub fn block_on<F>(future: F) -> F::Output
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

fn all_have_leaders(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    partitions: i32,
) -> Option<()> {
    let metadata = admin.inner().fetch_metadata(Some(name), TIMEOUT).ok()?;
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

/// The headers of a record in librdkafka's format.
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
        // librdkafka requires a group ID even if the consumer never joins.
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

/// The end offset of each partition that is not empty.
///
/// For a `read_committed` consumer this is the last stable offset (KIP-98).
fn ends_of(consumer: &BaseConsumer, topic: &str) -> HashMap<i32, i64> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let partitions = metadata.topics().first().unwrap().partitions();
    assert!(!partitions.is_empty(), "there is no topic {topic}");
    let bounds = partitions.iter().map(|partition| {
        let bounds = eventually("the partition's end offset is known", || {
            // A new leader knows its high watermark only once followers fetch.
            consumer
                .fetch_watermarks(topic, partition.id(), TIMEOUT)
                .ok()
        });
        (partition.id(), bounds)
    });
    let not_empty = bounds.filter(|(_, (first, end))| first < end);
    not_empty
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

/// A partition is complete at its last record or, if that offset holds a
/// transaction marker, which consumers never see, at `PartitionEOF`.
fn read_until(consumer: &BaseConsumer, ends: &mut HashMap<i32, i64>) -> Vec<Record> {
    let deadline = Instant::now() + TIMEOUT;
    let mut records = Vec::new();
    while !ends.is_empty() {
        assert!(
            Instant::now() < deadline,
            "timed out reading up to {ends:?}"
        );
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => take(&message, ends, &mut records),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
            // Brokers fail in these tests; librdkafka retries.
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
