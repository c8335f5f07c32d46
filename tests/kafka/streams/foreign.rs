//! Transactions that are not the streams' own: those of other writers to their
//! topics, and those that the brokers refuse.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::input::{Input, POISON};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::kafka_cluster::{shared, unique_prefix};
use crate::support::records::{NewRecord, headers_of, set_topic, settings_of_topic};
use crate::support::supervised::Supervised;
use crate::support::{PATIENCE, eventually};

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

#[test]
fn what_the_brokers_refuse_is_tried_again_until_they_take_it() {
    let timeout = ("streams.transaction_timeout_ms", "10000");
    let topics = Topics::create(shared().bootstrap(), "refused", &[timeout]);
    let mut input = Input::random(60);
    let mut write = || {
        let poison = NewRecord::keyed("poison", "{").with_header(POISON, "not-json-object");
        topics.write("command-status", &input.commands(60));
        topics.write("upgrade-result", &input.upgrades(60));
        for topic in COMMANDS {
            topics.write(topic, std::slice::from_ref(&poison));
        }
    };
    // librdkafka counts what was refused among the sequence numbers of its
    // records. Brokers that have others of the partition may miss it from then
    // on, and the process ends once its transaction is over for them.
    let processes = COMMANDS.map(|command| topics.supervise(command));
    for process in &processes {
        process.process().ready();
    }

    let dead_letters = topics.name("dead-letter");
    let fit = settings_of_topic(&topics.bootstrap, &dead_letters);
    let mut refusing = fit.clone();
    // Room for the marker that ends a transaction, and for no dead letter.
    refusing.insert("max.message.bytes".to_owned(), "150".to_owned());
    set_topic(&topics.bootstrap, &dead_letters, &refusing);
    write();
    processes.iter().for_each(await_aborted);
    // As it was made: the next life of a process goes to work on no other.
    set_topic(&topics.bootstrap, &dead_letters, &fit);
    assert_equal_to_model(&topics);
}

/// Waits until one life has tried in vain more than once.
fn await_aborted(process: &Supervised) {
    eventually("transactions are aborted", || {
        let aborted = process.process().metric(
            "northbridge_stream_transactions_total",
            &["result=\"aborted\""],
        );
        (aborted > 1.0).then_some(())
    });
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
