//! The floor of a stream: the least that consumes the same records, produces
//! the same bytes to the same partitions, and commits transactions of the same
//! size.
//!
//! It understands no record, keeps no state, counts nothing and survives
//! nothing: what the product adds is missing here. What it writes is read from
//! the topics that the product wrote in its turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// The product's defaults.
const BATCH_RECORDS: usize = 2_000;
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// Longer than anything waits here; a call that takes longer fails the run.
const PATIENCE: Duration = Duration::from_secs(60);

/// One loop: what it consumes, and what it writes for it.
pub(crate) struct Stage {
    /// The topic that is consumed.
    pub(crate) input: String,
    /// Records in it, at the end of the run.
    pub(crate) records: usize,
    /// Where it writes, and what.
    pub(crate) outputs: Vec<Output>,
}

/// What is written to one topic.
pub(crate) struct Output {
    /// The topic.
    pub(crate) topic: String,
    /// Everything that is written in the whole run, in its order.
    pub(crate) records: Vec<Written>,
}

/// One record as the product wrote it.
pub(crate) struct Written {
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Runs one loop to the end of its input. The transactions it took.
pub(crate) fn run(
    bootstrap_servers: &str,
    stage: &Stage,
    mut committed: impl FnMut(usize),
) -> usize {
    let consumer = member(bootstrap_servers, &stage.input);
    let producer = transactional(bootstrap_servers, &stage.input);
    let (mut done, mut transactions) = (0, 0);
    while done < stage.records {
        let (count, next) = gather(&consumer);
        if count == 0 {
            continue;
        }
        producer.begin_transaction().expect("a transaction");
        for output in &stage.outputs {
            let share = |done: usize| done * output.records.len() / stage.records;
            for written in &output.records[share(done)..share(done + count)] {
                produce(&producer, &output.topic, written);
            }
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            let offset = Offset::Offset(offset);
            let added = offsets.add_partition_offset(&stage.input, partition, offset);
            added.expect("an offset");
        }
        let group = consumer.group_metadata().expect("a membership");
        let sent = producer.send_offsets_to_transaction(&offsets, &group, PATIENCE);
        sent.expect("offsets in the transaction");
        producer.commit_transaction(PATIENCE).expect("a commit");
        done += count;
        transactions += 1;
        committed(done);
    }
    transactions
}

/// Reads committed records from start to end. How many there are.
pub(crate) fn read(bootstrap_servers: &str, topic: &str, mut each: impl FnMut(Written)) -> usize {
    let consumer: BaseConsumer = client(bootstrap_servers)
        .set("group.id", "floor-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE);
    let partitions = metadata.expect("metadata").topics()[0].partitions().len();
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).expect("a number of partitions") {
        let added = all.add_partition_offset(topic, partition, Offset::Beginning);
        added.expect("an offset");
    }
    consumer.assign(&all).expect("an assignment");
    let (mut ended, mut count) = (0, 0);
    while ended < partitions {
        match consumer.poll(PATIENCE).expect("records in time") {
            Ok(message) => {
                count += 1;
                each(Written {
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

fn gather(consumer: &BaseConsumer) -> (usize, BTreeMap<i32, i64>) {
    let (mut count, mut next) = (0, BTreeMap::new());
    let until = Instant::now() + BATCH_WAIT;
    while count < BATCH_RECORDS {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if let Some(message) = consumer.poll(left) {
            let message = message.expect("a record");
            count += 1;
            next.insert(message.partition(), message.offset() + 1);
        }
    }
    (count, next)
}

fn produce(producer: &BaseProducer, topic: &str, written: &Written) {
    let mut record = BaseRecord::to(topic)
        .partition(written.partition)
        .key(&written.key)
        .payload(&written.value);
    while let Err((_, full)) = producer.send(record) {
        record = full;
        producer.poll(Duration::from_millis(10));
    }
}

/// With the product's settings in all that matters while all is well.
fn member(bootstrap_servers: &str, input: &str) -> BaseConsumer {
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

fn transactional(bootstrap_servers: &str, input: &str) -> BaseProducer {
    let producer: BaseProducer = client(bootstrap_servers)
        .set("transactional.id", format!("floor.{input}"))
        .set("linger.ms", "1000")
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("transactions");
    producer
}

fn client(bootstrap_servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap_servers)
        .set("socket.nagle.disable", "true");
    config
}
