//! The floor of a stream: the simplest program that consumes the same records,
//! produces the same bytes to the same partitions, and commits transactions of
//! the same size.
//!
//! It decodes no record, keeps no state, reports no metric and handles no
//! failure: all of that is the product's share of the cost. What it writes, it
//! has read from the topics that the product wrote before.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// The product's default `streams.max_batch_records`.
const BATCH_RECORDS: usize = 10_000;
/// The product's default `streams.max_batch_wait_ms`.
const BATCH_WAIT: Duration = Duration::from_millis(5);
/// The limit of every call; one that takes longer fails the run.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One consume-transform-produce loop.
pub(crate) struct Stage {
    /// The topic to consume.
    pub(crate) input: String,
    /// The number of records to consume.
    pub(crate) records: usize,
    pub(crate) outputs: Vec<Output>,
}

/// What a stage writes to one topic.
pub(crate) struct Output {
    pub(crate) topic: String,
    /// The records of the whole run. Each transaction writes its share of them,
    /// in proportion to the input records that it consumes.
    pub(crate) records: Vec<Record>,
}

/// A record as the product wrote it.
pub(crate) struct Record {
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Runs a stage to the end of its input, and calls `committed` with the number
/// of records consumed so far after each transaction. Returns the number of
/// transactions.
pub(crate) fn run(
    bootstrap_servers: &str,
    stage: &Stage,
    mut committed: impl FnMut(usize),
) -> usize {
    let consumer = group_consumer(bootstrap_servers, &stage.input);
    let producer = transactional_producer(bootstrap_servers, &stage.input);
    let (mut done, mut transactions) = (0, 0);
    while done < stage.records {
        let (count, next_offsets) = poll_batch(&consumer);
        if count == 0 {
            continue;
        }
        producer.begin_transaction().expect("a transaction");
        for output in &stage.outputs {
            let share = |done: usize| done * output.records.len() / stage.records;
            for record in &output.records[share(done)..share(done + count)] {
                produce(&producer, &output.topic, record);
            }
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next_offsets {
            let offset = Offset::Offset(offset);
            let added = offsets.add_partition_offset(&stage.input, partition, offset);
            added.expect("an offset");
        }
        let group = consumer.group_metadata().expect("group metadata");
        let sent = producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT);
        sent.expect("offsets in the transaction");
        await_records(&producer);
        producer.commit_transaction(TIMEOUT).expect("a commit");
        done += count;
        transactions += 1;
        committed(done);
    }
    transactions
}

/// Waits as the product does: rdkafka's commit looks only every 100 ms.
fn await_records(producer: &BaseProducer) {
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads all committed records of a topic. Returns their number.
pub(crate) fn read(bootstrap_servers: &str, topic: &str, mut each: impl FnMut(Record)) -> usize {
    let consumer: BaseConsumer = client(bootstrap_servers)
        .set("group.id", "floor-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT);
    let partitions = metadata.expect("metadata").topics()[0].partitions().len();
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).expect("a number of partitions") {
        let added = all.add_partition_offset(topic, partition, Offset::Beginning);
        added.expect("an offset");
    }
    consumer.assign(&all).expect("an assignment");
    let (mut ended, mut count) = (0, 0);
    while ended < partitions {
        match consumer.poll(TIMEOUT).expect("records in time") {
            Ok(message) => {
                count += 1;
                each(Record {
                    partition: message.partition(),
                    key: message.key().unwrap_or_default().to_vec(),
                    value: message.payload().unwrap_or_default().to_vec(),
                });
            }
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    count
}

fn poll_batch(consumer: &BaseConsumer) -> (usize, BTreeMap<i32, i64>) {
    let (mut count, mut next_offsets) = (0, BTreeMap::new());
    let deadline = Instant::now() + BATCH_WAIT;
    while count < BATCH_RECORDS {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            break;
        }
        if let Some(message) = consumer.poll(remaining) {
            let message = message.expect("a record");
            count += 1;
            next_offsets.insert(message.partition(), message.offset() + 1);
        }
    }
    (count, next_offsets)
}

fn produce(producer: &BaseProducer, topic: &str, record: &Record) {
    let mut record = BaseRecord::to(topic)
        .partition(record.partition)
        .key(&record.key)
        .payload(&record.value);
    while let Err((_, returned)) = producer.send(record) {
        record = returned;
        producer.poll(Duration::from_millis(10));
    }
}

/// A consumer with the product's settings, as far as they affect a run without
/// failures.
fn group_consumer(bootstrap_servers: &str, input: &str) -> BaseConsumer {
    let consumer: BaseConsumer = client(bootstrap_servers)
        .set("group.id", format!("floor.{input}"))
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("statistics.interval.ms", "5000")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[input]).expect("a subscription");
    consumer
}

fn transactional_producer(bootstrap_servers: &str, input: &str) -> BaseProducer {
    let producer: BaseProducer = client(bootstrap_servers)
        .set("transactional.id", format!("floor.{input}"))
        .set("linger.ms", "10")
        .set("retry.backoff.ms", "10")
        .set("delivery.report.only.error", "true")
        .create()
        .expect("a producer");
    producer.init_transactions(TIMEOUT).expect("transactions");
    producer
}

fn client(bootstrap_servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap_servers)
        .set("socket.nagle.disable", "true");
    config
}
