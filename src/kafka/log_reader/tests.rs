//! Readings of a mock cluster, in which everything written is visible at once.

use rdkafka::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

use super::*;

const TOPIC: &str = "log";
const TIMEOUT: Duration = Duration::from_secs(30);

struct Log {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    settings: Settings,
    producer: BaseProducer,
}

impl Log {
    /// A topic of two partitions with this many records each.
    fn with_records(records: usize) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 2, 1).unwrap();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = cluster.bootstrap_servers();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        let log = Self {
            _cluster: cluster,
            settings,
            producer: config.create().unwrap(),
        };
        log.write(records);
        log
    }

    fn write(&self, records: usize) {
        for partition in [0, 1].repeat(records) {
            let record = BaseRecord::<str, str>::to(TOPIC).partition(partition);
            self.producer.send(record.payload("value")).unwrap();
        }
        self.producer.flush(TIMEOUT).unwrap();
    }

    fn reader(&self, stall_timeout: Duration) -> LogReader {
        let config = LogReaderConfig::new(&self.settings, &Failures::of_command(&self.settings))
            .stall_timeout(stall_timeout);
        config.create().unwrap()
    }
}

/// The offsets read from each partition, in order.
fn read(reader: &LogReader, ranges: &[(i32, Range<i64>)]) -> Result<Vec<(i32, i64)>, ReadError> {
    let mut read = Vec::new();
    let each = |record: &BorrowedMessage<'_>| read.push((record.partition(), record.offset()));
    let ranges = ranges.iter().cloned().collect();
    reader.read_all(TOPIC, ranges, Isolation::Committed, each)?;
    read.sort_unstable();
    Ok(read)
}

#[test]
fn a_reading_passes_the_records_of_its_ranges_and_no_others() {
    let log = Log::with_records(5);
    let reader = log.reader(TIMEOUT);
    let bounds = reader.bounds(TOPIC, Isolation::Uncommitted).unwrap();
    assert_eq!(bounds, Ranges::from([(0, 0..5), (1, 0..5)]));
    let both = [(0, 1..3), (1, 4..5)];
    assert_eq!(read(&reader, &both).unwrap(), [(0, 1), (0, 2), (1, 4)]);
    assert_eq!(read(&reader, &[(0, 5..5)]).unwrap(), []);
}

#[test]
fn an_end_of_partition_before_the_end_of_the_range_is_not_trusted() {
    let log = Log::with_records(2);
    let reader = log.reader(Duration::from_millis(200));
    let error = read(&reader, &[(0, 0..9)]).unwrap_err();
    assert!(
        matches!(error, ReadError::OpenTransaction { partition: 0, .. }),
        "{error}"
    );
    assert_eq!(read(&reader, &[(0, 0..2)]).unwrap(), [(0, 0), (0, 1)]);
}

#[test]
fn the_first_error_of_a_callback_ends_the_reading() {
    let log = Log::with_records(3);
    let reader = log.reader(TIMEOUT);
    let bounds = reader.bounds(TOPIC, Isolation::Committed).unwrap();
    let mut records = 0;
    let result = reader.read(
        TOPIC,
        bounds,
        Isolation::Committed,
        |_| {
            records += 1;
            Err(ReadError::Kafka(KafkaError::Canceled))
        },
        |_| Ok(()),
    );
    assert!(result.is_err());
    assert_eq!(records, 1);
}

#[test]
fn reading_since_an_offset_moves_it_to_the_end_and_includes_new_partitions() {
    let log = Log::with_records(3);
    let reader = log.reader(TIMEOUT);
    let mut next = Offsets::from([(0, 2)]);
    let mut read_since = || {
        let mut records = 0;
        let count = |_: &BorrowedMessage<'_>| records += 1;
        reader
            .read_since(TOPIC, &mut next, Isolation::Uncommitted, count)
            .unwrap();
        records
    };
    assert_eq!(read_since(), 4);
    assert_eq!(read_since(), 0);
    log.write(1);
    assert_eq!(read_since(), 2);
    assert_eq!(next, Offsets::from([(0, 4), (1, 4)]));
}
