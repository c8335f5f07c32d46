//! Transactions of other writers to the topics of the streams.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::input::Input;
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::PATIENCE;
use crate::support::kafka_cluster::{shared, unique_prefix};
use crate::support::records::{NewRecord, headers_of};

const COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

#[test]
fn what_another_writer_aborted_is_no_input() {
    let topics = Topics::create(shared().bootstrap(), "foreign", &[]);
    let mut input = Input::random(60);
    let write = |input: &mut Input| {
        let transaction = Foreign::begin(&topics);
        transaction.write("command-status", &input.commands(60));
        transaction.write("upgrade-result", &input.upgrades(60));
        transaction
    };
    write(&mut input).commit();
    write(&mut input).abort();
    write(&mut input).commit();
    let _processes = COMMANDS.map(|command| topics.start(command, &[]));
    assert_equal_to_model(&topics);
}

/// A transaction of another writer.
pub(super) struct Foreign<'a> {
    topics: &'a Topics,
    producer: BaseProducer,
}

impl<'a> Foreign<'a> {
    pub(super) fn begin(topics: &'a Topics) -> Self {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &topics.bootstrap)
            .set("transactional.id", unique_prefix("foreign"))
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        Self { topics, producer }
    }

    /// The records are in the topic when it returns, whatever becomes of them.
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
        self.producer.flush(PATIENCE).unwrap();
    }

    pub(super) fn commit(self) {
        self.producer.commit_transaction(PATIENCE).unwrap();
    }

    pub(super) fn abort(self) {
        self.producer.abort_transaction(PATIENCE).unwrap();
    }
}
