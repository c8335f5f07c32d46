//! Transactions of other producers on the input topics, and transactions that the
//! brokers reject.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::input::{Input, POISON};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::kafka_cluster::{shared, unique_prefix};
use crate::support::records::{NewRecord, headers_of, set_topic_settings, topic_settings};
use crate::support::supervised::Supervised;
use crate::support::{TIMEOUT, eventually};

const STREAM_COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

#[test]
fn records_of_aborted_transactions_are_not_input() {
    let topics = Topics::create(shared().bootstrap(), "external", &[]);
    let mut input = Input::random(60);
    let write = |input: &mut Input| {
        let transaction = ExternalTransaction::begin(&topics);
        transaction.write("command-status", &input.commands(60));
        transaction.write("upgrade-result", &input.upgrades(60));
        transaction
    };
    write(&mut input).commit();
    write(&mut input).abort();
    write(&mut input).commit();
    let _processes = STREAM_COMMANDS.map(|command| topics.start(command, &[]));
    assert_equal_to_model(&topics);
}

#[test]
fn a_transaction_that_the_brokers_reject_is_retried_until_it_commits() {
    let timeout = ("streams.transaction_timeout_ms", "10000");
    let topics = Topics::create(shared().bootstrap(), "rejected", &[timeout]);
    let mut input = Input::random(60);
    let mut write = || {
        let poison = NewRecord::keyed("poison", "{").with_header(POISON, "not-json-object");
        topics.write("command-status", &input.commands(60));
        topics.write("upgrade-result", &input.upgrades(60));
        for topic in STREAM_COMMANDS {
            topics.write(topic, std::slice::from_ref(&poison));
        }
    };
    // librdkafka consumes a sequence number for each rejected record. The broker
    // may then find a gap in the partition's sequence numbers, and the process
    // exits once the broker has timed its transaction out.
    let processes = STREAM_COMMANDS.map(|command| topics.supervise(command));
    for process in &processes {
        process.process().wait_until_ready();
    }

    let dead_letters = topics.name("dead-letter");
    let original = topic_settings(&topics.bootstrap, &dead_letters);
    let mut too_small = original.clone();
    // Large enough for a transaction marker, too small for any dead letter.
    too_small.insert("max.message.bytes".to_owned(), "150".to_owned());
    set_topic_settings(&topics.bootstrap, &dead_letters, &too_small);
    write();
    processes.iter().for_each(wait_for_aborted_transactions);
    // Restored exactly, because a restarted process verifies the topic's settings.
    set_topic_settings(&topics.bootstrap, &dead_letters, &original);
    assert_equal_to_model(&topics);
}

/// Waits until the current process has aborted more than one transaction.
fn wait_for_aborted_transactions(process: &Supervised) {
    eventually("transactions are aborted", || {
        let aborted = process.process().metric(
            "northbridge_stream_transactions_total",
            &["result=\"aborted\""],
        );
        (aborted > 1.0).then_some(())
    });
}

/// A transaction of a producer that is not a stream.
pub(super) struct ExternalTransaction<'a> {
    topics: &'a Topics,
    producer: BaseProducer,
}

impl<'a> ExternalTransaction<'a> {
    pub(super) fn begin(topics: &'a Topics) -> Self {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &topics.bootstrap)
            .set("transactional.id", unique_prefix("external"))
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        Self { topics, producer }
    }

    /// Flushes, so the records are in the log before the commit or abort.
    pub(super) fn write(&self, topic: &str, records: &[NewRecord]) {
        let name = self.topics.name(topic);
        for record in records {
            let mut outgoing: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&name);
            outgoing.key = record.key.as_deref();
            outgoing.payload = record.value.as_deref();
            outgoing.headers = Some(headers_of(record));
            self.producer
                .send(outgoing)
                .map_err(|(error, _)| error)
                .unwrap();
        }
        self.producer.flush(TIMEOUT).unwrap();
    }

    pub(super) fn commit(self) {
        self.producer.commit_transaction(TIMEOUT).unwrap();
    }

    pub(super) fn abort(self) {
        self.producer.abort_transaction(TIMEOUT).unwrap();
    }
}
